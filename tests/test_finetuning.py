import pytest
import torch
from torch import nn

from audioml.config import FinetuneConfig
from audioml.finetuning import n_frozen, parameter_groups, set_learning
from audioml.models import Network


class Three(nn.Sequential, Network):
    def __init__(self):
        super().__init__(
            nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)),
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)),
            nn.Linear(4, 2),
        )

    def stages(self):
        return list(self)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [0, 0, 0, 0, 0, 0, 0]),
        ({"head_epochs": -1}, [4, 4, 4, 4, 4, 4, 4]),
        ({"head_epochs": 2}, [4, 4, 0, 0, 0, 0, 0]),
        ({"head_epochs": 1, "unfreeze_every": 1}, [4, 3, 2, 1, 0, 0, 0]),
        ({"head_epochs": 1, "unfreeze_every": 2}, [4, 3, 3, 2, 2, 1, 1]),
    ],
)
def test_stages_are_freed_from_the_head_down(config, expected):
    finetune = FinetuneConfig(**config)
    assert [n_frozen(epoch, 5, finetune) for epoch in range(7)] == expected


def test_what_is_frozen_neither_learns_nor_counts():
    model = Three()
    set_learning(model, 0, FinetuneConfig(head_epochs=1, unfreeze_every=1))
    before = [buffer.clone() for buffer in model.buffers()]
    loss = model[2](model[1](model[0](torch.randn(2, 1, 8, 8))).mean(dim=(2, 3))).sum()
    loss.backward()
    assert [p.grad is not None for p in model.parameters()] == [False] * 7 + [True] * 2
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert not model[1][2].training  # no dropout in front of a head that learns alone
    set_learning(model, 1, FinetuneConfig(head_epochs=1, unfreeze_every=1))
    assert [p.requires_grad for p in model[0].parameters()] == [False] * 3
    assert all(p.requires_grad for p in model[1].parameters())
    assert model[1][2].training


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_weights():
    model = Three()
    set_learning(model, 0, FinetuneConfig(batch_norm="frozen"))
    assert not model[0][1].training
    assert model[0][1].weight.requires_grad
    assert model[1][2].training


def test_groups_hold_every_parameter_once_at_its_rate():
    model = Three()
    groups = parameter_groups(model, weight_decay=0.1, lr_decay=0.5)
    grouped = [p for group in groups for p in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, model.parameters()))
    shares = {id(p): group["lr_share"] for group in groups for p in group["params"]}
    assert [
        shares[id(stage_first)] for stage_first in (model[0][0].weight, model[1][0].weight)
    ] == [
        0.25,
        0.5,
    ]
    assert shares[id(model[2].bias)] == 1
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}

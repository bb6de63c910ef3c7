from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from audioml.audit import LeakError
from audioml.datasets.manifest import Clip, Manifest
from audioml.evaluation import Evaluation, evaluate, refuse_seen
from audioml.loader import Batch


class Toy:
    """A loader of two uneven batches whose first mel row says the class."""

    device = torch.device("cpu")
    n_crops = 1

    def __len__(self):
        return 2

    def epoch(self, epoch):
        for clips in (torch.arange(5), torch.arange(5, 7)):
            target = torch.eye(3)[clips % 3] / (1 + epoch)
            yield Batch(target[:, None, :, None].repeat(1, 1, 1, 4), target, clips)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.9)

    def forward(self, log_mel):
        return self.dropout(4 * log_mel.mean(dim=(1, 3)))


def make_manifest(**options):
    clips = tuple(
        Clip(path=Path(f"{i}.wav"), label="abc"[i % 3], target=i % 3, source=str(i // 2))
        for i in range(7)
    )
    return Manifest(name="toy", root=Path("data"), labels=("a", "b", "c"), clips=clips, **options)


def test_every_clip_is_evaluated_without_dropout():
    model = Model().train()
    evaluation = evaluate(model, Toy())
    assert evaluation.clip_index.tolist() == list(range(7))
    assert evaluation.target.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert evaluation.accuracy == 1
    own = np.exp(4) / (np.exp(4) + 2)
    assert evaluation.loss == pytest.approx(-np.log(own), rel=1e-6)
    assert model.training


def test_probabilities_are_the_mean_over_crops():
    toy = Toy()
    toy.n_crops = 2
    evaluation = evaluate(Model(), toy)
    own = [np.exp(4 / k) / (np.exp(4 / k) + 2) for k in (1, 2)]
    assert evaluation.probability[0, 0] == pytest.approx(np.mean(own))
    assert len(evaluation.clip_index) == 7


def test_loss_stays_finite_for_certain_mistakes():
    evaluation = Evaluation(
        clip_index=np.array([0]), target=np.array([0]), probability=np.array([[0.0, 1.0]])
    )
    assert np.isfinite(evaluation.loss)
    assert evaluation.figures()["accuracy"] == 0


def test_weights_are_not_evaluated_on_recordings_they_saw():
    manifest = make_manifest(known_crossing_sources=frozenset({"3"}))
    refuse_seen(manifest, np.array([2, 3]), ["0", "2"])
    refuse_seen(manifest, np.array([6]), ["3"])
    with pytest.raises(LeakError, match=r"2 of 3 clips .* row 3 \(2\.wav\), row 4 \(3\.wav\)"):
        refuse_seen(manifest, np.array([0, 2, 3]), ["1"])

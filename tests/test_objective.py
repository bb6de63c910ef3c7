import math

import pytest
import torch
import torch.nn.functional as F

from audioml.objective import mean_loss, probabilities

LOGITS = torch.tensor([[0.0, math.log(3), -math.log(3)], [2.0, -1.0, 0.5]])
TARGET = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])


def loss(logits, target, *, is_multi_label=True, weights=None, label_smoothing=0.0):
    return mean_loss(
        logits,
        target,
        is_multi_label=is_multi_label,
        weights=weights,
        label_smoothing=label_smoothing,
    )


def test_each_class_has_a_probability_of_its_own():
    several = probabilities(LOGITS, is_multi_label=True)
    torch.testing.assert_close(several[0], torch.tensor([0.5, 0.75, 0.25]))
    one = probabilities(LOGITS, is_multi_label=False)
    torch.testing.assert_close(one.sum(dim=1), torch.ones(2))


def test_binary_cross_entropy_worked_by_hand():
    expected = -(math.log(0.5) + math.log(0.75) + math.log(0.75)) / 3
    assert loss(LOGITS[:1], TARGET[:1]).item() == pytest.approx(expected, rel=1e-6)


def test_smoothing_moves_yes_and_no_towards_each_other():
    smooth = torch.tensor([[0.9, 0.9, 0.1], [0.1, 0.1, 0.1]])
    assert loss(LOGITS, TARGET, label_smoothing=0.2) == pytest.approx(loss(LOGITS, smooth))


def test_weights_count_positives():
    weights = torch.tensor([3.0, 1.0, 9.0])
    extra = -2 * math.log(0.5) / 6  # of the one positive of class 0
    assert loss(LOGITS, TARGET, weights=weights).item() == pytest.approx(
        loss(LOGITS, TARGET).item() + extra, rel=1e-6
    )


def test_the_loss_of_a_mixture_is_the_mixture_of_losses():
    mixed = loss(LOGITS[:1], 0.3 * TARGET[:1] + 0.7 * TARGET[1:])
    parts = 0.3 * loss(LOGITS[:1], TARGET[:1]) + 0.7 * loss(LOGITS[:1], TARGET[1:])
    assert mixed.item() == pytest.approx(parts.item(), rel=1e-6)


def test_one_class_a_clip_has_torchs_cross_entropy():
    target, weights = torch.eye(3)[[1, 0]], torch.tensor([1.0, 2.0, 3.0])
    expected = F.cross_entropy(LOGITS, target, weight=weights, label_smoothing=0.1)
    got = loss(LOGITS, target, is_multi_label=False, weights=weights, label_smoothing=0.1)
    assert torch.equal(got, expected)

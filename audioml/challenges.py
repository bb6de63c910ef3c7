"""The figures that challenges define for their data sets."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audioml.datasets.manifest import Manifest

NAMES: Final = ("sensitivity", "specificity", "icbhi_score", "modified_accuracy")

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def icbhi_score(target: Ints, predicted: Ints) -> dict[str, float]:
    """Score respiratory cycles as the ICBHI 2017 challenge does.

    Args:
        target: Classes [clip]; 0 is normal, all others are abnormal.
        predicted: Predicted classes [clip].

    Returns:
        ``sensitivity``, the share of abnormal cycles whose class is right (a wheeze taken for a
        crackle is wrong); ``specificity``, the share of normal ones taken for normal; and
        ``icbhi_score``, their mean. NaN where there are no such cycles.

    Source: Rocha et al. 2019, section 4.
    """
    is_right, is_normal = target == predicted, target == 0
    sensitivity, specificity = _share(is_right[~is_normal]), _share(is_right[is_normal])
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "icbhi_score": (sensitivity + specificity) / 2,
    }


def modified_accuracy(answer: Ints, is_abnormal: Bools, is_good: Bools) -> dict[str, float]:
    """Score heart sounds as the PhysioNet/CinC Challenge 2016 does.

    "Unsure" is wrong for recordings of good quality, and right for those of poor quality. Each
    kind of quality weighs as much as it is frequent.

    Args:
        answer: 1 for abnormal, -1 for normal, 0 for unsure [recording].
        is_abnormal: Whether a recording is [recording].
        is_good: Whether its quality is good [recording].

    Returns:
        ``sensitivity``, ``specificity`` and ``modified_accuracy``, their mean; NaN where there are
        no such recordings.

    Source: the challenge's score2016Challenge.m of August 2016. The classifiers here are never
        unsure; sensitivity and specificity are then the usual ones.
    """

    def weigh(is_kind: Bools, right: int) -> float:
        is_right = (answer == right) | ((answer == 0) & ~is_good)
        return _share(is_right[is_kind])

    sensitivity, specificity = weigh(is_abnormal, 1), weigh(~is_abnormal, -1)
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "modified_accuracy": (sensitivity + specificity) / 2,
    }


def challenge_figures(
    manifest: Manifest, clip_index: Ints, probability: NDArray[np.float64]
) -> dict[str, float]:
    """Compute the figures of the challenge that a data set belongs to; none for others.

    Args:
        manifest: The data set.
        clip_index: Clips that were evaluated [clip].
        probability: What the model gives each class [clip, class].
    """
    figures = _FIGURES.get(manifest.name)
    return {} if figures is None else figures(manifest, clip_index, probability.argmax(axis=1))


# With w_q the share of quality q among the n recordings of a kind, and r_q of its n_q right, the
# challenge's sum_q w_q r_q / n_q is sum_q r_q / n: quality enters by what counts as right alone.
def _share(is_right: Bools) -> float:
    return float(is_right.mean()) if len(is_right) else float("nan")


def _icbhi(manifest: Manifest, clip_index: Ints, predicted: Ints) -> dict[str, float]:
    return icbhi_score(manifest.targets[clip_index], predicted)


def _physionet2016(manifest: Manifest, clip_index: Ints, predicted: Ints) -> dict[str, float]:
    is_good = np.array([manifest.clips[i].is_good is not False for i in clip_index])
    return modified_accuracy(2 * predicted - 1, manifest.targets[clip_index].astype(bool), is_good)


_FIGURES: Final[Mapping[str, Callable[[Manifest, Ints, Ints], dict[str, float]]]] = {
    "icbhi": _icbhi,
    "physionet2016": _physionet2016,
}

"""Figures of a classifier from its probabilities; pure functions over arrays, by scikit-learn.

A target is a class a clip [clip] or, of multi-label data, whether each clip has each class
[clip, class]; there figures that need one predicted class have no meaning, and are not computed.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Target = NDArray[Any]  # of either kind

NAMES: Final = {
    "accuracy": "accuracy",
    "mean_average_precision": "mAP",
    "macro_auc": "macro AUC",
    "macro_f1": "macro F1",
    "loss": "loss",
}
"""What figures are called in words."""


def main_figure(*, is_multi_label: bool) -> str:
    """Name the figure that chooses the epoch and that results are compared by."""
    return "mean_average_precision" if is_multi_label else "accuracy"


def write_figure(name: str, value: float) -> str:
    """Write a figure's value for people: shares in percent, others with four digits."""
    return f"{value:.1%}" if name == "accuracy" else f"{value:.4f}"


def figures(target: Target, probability: Floats) -> dict[str, float]:
    """Summarise: accuracy, macro_auc, macro_f1, loss; or mean_average_precision, macro_auc, loss.

    Args:
        target: Classes [clip], or whether each clip has each class [clip, class].
        probability: [clip, class].
    """
    if target.ndim == 2:
        return {
            "mean_average_precision": mean_average_precision(target, probability),
            "macro_auc": macro_auc(target, probability),
            "loss": loss(target, probability),
        }
    return {
        "accuracy": accuracy(target, probability),
        "macro_auc": macro_auc(target, probability),
        "macro_f1": macro_f1(target, probability),
        "loss": loss(target, probability),
    }


def loss(target: Target, probability: Floats) -> float:
    """Mean cross-entropy over clips [nat]; of multi-label data binary, over clips and classes."""
    if target.ndim == 2:
        own = np.where(target, probability, 1 - probability)
    else:
        own = probability[np.arange(len(target)), target]
    return float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean())


def average_precision(target: Bools, probability: Floats) -> Floats:
    """Average the precision over the recall, class by class.

    Args:
        target: Whether each clip has each class [clip, class].
        probability: [clip, class].

    Returns:
        0 to 1 [class], of a classifier that knows nothing on average the share of the clips that
        have the class; NaN for a class that no clip has.

    Source: ``sklearn.metrics.average_precision_score``: the sum over thresholds of precision times
        the step of the recall, without interpolation; AudioSet's figure.
    """
    pairs = zip(target.T, probability.T, strict=True)
    return np.array([_class_precision(own, column) for own, column in pairs])


def mean_average_precision(target: Bools, probability: Floats) -> float:
    """Unweighted mean of the average precisions of the classes that any clip has (mAP)."""
    values = average_precision(target, probability)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def accuracy(target: Ints, probability: Floats) -> float:
    """Share of clips [clip] whose most probable class [clip, class] is theirs."""
    return float((probability.argmax(axis=1) == target).mean())


def macro_auc(target: Target, probability: Floats) -> float:
    """Mean area under the one-against-the-rest ROC curves.

    Args:
        target: Classes [clip], or whether each clip has each class [clip, class].
        probability: [clip, class].

    Returns:
        0 to 1; classes that no clip or every clip belongs to have no curve and are left out; NaN
        if none is left.
    """
    areas = _class_areas(target, probability)
    return float(np.nanmean(areas)) if np.isfinite(areas).any() else float("nan")


def macro_f1(target: Ints, probability: Floats) -> float:
    """Unweighted mean of the classes' F1 scores; a class never predicted scores 0."""
    labels = np.arange(probability.shape[1])
    predicted = probability.argmax(axis=1)
    return float(
        metrics.f1_score(target, predicted, labels=labels, average="macro", zero_division=0)
    )


def confusion_matrix(target: Ints, probability: Floats) -> Ints:
    """Count clips by class (row) and most probable class (column): [class, class]."""
    labels = np.arange(probability.shape[1])
    counts: Ints = metrics.confusion_matrix(target, probability.argmax(axis=1), labels=labels)
    return counts


def per_class(target: Target, probability: Floats, labels: Sequence[str]) -> pd.DataFrame:
    """Tabulate each class.

    Args:
        target: Classes [clip], or whether each clip has each class [clip, class].
        probability: [clip, class].
        labels: Names of the classes.

    Returns:
        Columns label, n_clips, precision, recall, f1 and auc (NaN for a class without a curve); of
        multi-label data label, n_clips, share (of all clips), average_precision and auc.
    """
    auc = _class_areas(target, probability)
    if target.ndim == 2:
        return pd.DataFrame(
            {
                "label": list(labels),
                "n_clips": target.sum(axis=0),
                "share": target.mean(axis=0),
                "average_precision": average_precision(target, probability),
                "auc": auc,
            }
        )
    numbers = np.arange(len(labels))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        target, probability.argmax(axis=1), labels=numbers, zero_division=0
    )
    return pd.DataFrame(
        {
            "label": list(labels),
            "n_clips": support,
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "auc": auc,
        }
    )


def _class_areas(target: Target, probability: Floats) -> list[float]:
    """Areas under the classes' ROC curves, one against the rest; NaN for a class without one."""
    own = target if target.ndim == 2 else target[:, None] == np.arange(probability.shape[1])
    return [_class_auc(*columns) for columns in zip(own.T, probability.T, strict=True)]


def _class_precision(is_of_class: Bools, probability: Floats) -> float:
    """Average precision of one class; NaN if no clip is of it."""
    if not is_of_class.any():
        return float("nan")
    return float(metrics.average_precision_score(is_of_class, probability))


def _class_auc(is_of_class: NDArray[np.bool_], probability: Floats) -> float:
    """Area under one class's ROC curve; NaN if every clip is of the class, or none."""
    if is_of_class.all() or not is_of_class.any():
        return float("nan")
    return float(metrics.roc_auc_score(is_of_class, probability))

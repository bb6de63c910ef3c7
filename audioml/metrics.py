"""Figures of a classifier from its probabilities; pure functions over arrays, by scikit-learn."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def accuracy(target: Ints, probability: Floats) -> float:
    """Share of clips [clip] whose most probable class [clip, class] is theirs."""
    return float((probability.argmax(axis=1) == target).mean())


def macro_auc(target: Ints, probability: Floats) -> float:
    """Mean area under the one-against-the-rest ROC curves.

    Args:
        target: Classes [clip].
        probability: [clip, class].

    Returns:
        0 to 1; classes that no clip or every clip belongs to have no curve and are left out; NaN
        if none is left.
    """
    areas = [_class_auc(target == n, column) for n, column in enumerate(probability.T)]
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


def per_class(target: Ints, probability: Floats, labels: Sequence[str]) -> pd.DataFrame:
    """Tabulate each class.

    Args:
        target: Classes [clip].
        probability: [clip, class].
        labels: Names of the classes.

    Returns:
        Columns label, n_clips, precision, recall, f1 and auc (NaN for a class without a curve).
    """
    numbers = np.arange(len(labels))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        target, probability.argmax(axis=1), labels=numbers, zero_division=0
    )
    auc = [_class_auc(target == label, probability[:, label]) for label in numbers]
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


def _class_auc(is_of_class: NDArray[np.bool_], probability: Floats) -> float:
    """Area under one class's ROC curve; NaN if every clip is of the class, or none."""
    if is_of_class.all() or not is_of_class.any():
        return float("nan")
    return float(metrics.roc_auc_score(is_of_class, probability))

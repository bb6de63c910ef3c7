import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from audioml import metrics

# Six clips of three classes, worked by hand: clips 3 and 5 are wrong.
TARGET = np.array([0, 0, 1, 1, 2, 2])
PROBABILITY = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.6, 0.3, 0.1],
        [0.2, 0.7, 0.1],
        [0.5, 0.4, 0.1],
        [0.1, 0.1, 0.8],
        [0.3, 0.4, 0.3],
    ]
)


def test_figures_worked_by_hand():
    assert metrics.accuracy(TARGET, PROBABILITY) == pytest.approx(4 / 6)
    assert metrics.confusion_matrix(TARGET, PROBABILITY).tolist() == [
        [2, 0, 0],
        [1, 1, 0],
        [0, 1, 1],
    ]
    # F1: 2 * 2 / (2 * 2 + 1), 2 * 1 / (2 * 1 + 1 + 1), 2 * 1 / (2 * 1 + 1)
    assert metrics.macro_f1(TARGET, PROBABILITY) == pytest.approx((4 / 5 + 2 / 4 + 2 / 3) / 3)
    # Class 0 ranks all 8 pairs right, class 1 loses half a pair to a tie, class 2 none.
    assert metrics.macro_auc(TARGET, PROBABILITY) == pytest.approx((1 + 7.5 / 8 + 1) / 3)


def test_auc_equals_scikit_learns_one_vs_rest():
    g = np.random.default_rng(0)
    probability = g.dirichlet(np.ones(5), 200)
    target = g.integers(0, 5, 200)
    expected = roc_auc_score(target, probability, multi_class="ovr", average="macro")
    assert metrics.macro_auc(target, probability) == pytest.approx(expected)


def test_a_class_without_clips_has_no_curve_and_scores_no_f1():
    target = np.array([0, 0, 1, 1])
    probability = np.array([[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.1, 0.9, 0.0], [0.2, 0.8, 0.0]])
    assert metrics.macro_auc(target, probability) == 1
    assert metrics.macro_f1(target, probability) == pytest.approx(2 / 3)
    table = metrics.per_class(target, probability, ["a", "b", "c"])
    assert np.isnan(table["auc"][2])
    assert table["n_clips"].tolist() == [2, 2, 0]
    assert np.isnan(metrics.macro_auc(np.zeros(2, dtype=int), np.ones((2, 1))))


def test_per_class_table_worked_by_hand():
    table = metrics.per_class(TARGET, PROBABILITY, ["a", "b", "c"])
    assert table["label"].tolist() == ["a", "b", "c"]
    assert table["precision"].tolist() == pytest.approx([2 / 3, 1 / 2, 1])
    assert table["recall"].tolist() == pytest.approx([1, 1 / 2, 1 / 2])
    assert table["auc"].tolist() == pytest.approx([1, 7.5 / 8, 1])


# Four clips of three classes, any number of them each; no clip has the last one.
SEVERAL = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=bool)
SCORES = np.array([[0.9, 0.1, 0.3], [0.8, 0.4, 0.2], [0.7, 0.5, 0.1], [0.6, 0.2, 0.4]])


def test_average_precision_worked_by_hand():
    # Class 0 finds its two at ranks 1 and 3, class 1 its one at rank 2.
    expected = [(1 / 1 + 2 / 3) / 2, 1 / 2, np.nan]
    assert metrics.average_precision(SEVERAL, SCORES) == pytest.approx(expected, nan_ok=True)
    figures = metrics.figures(SEVERAL, SCORES)
    assert list(figures) == ["mean_average_precision", "macro_auc", "loss"]
    assert figures["mean_average_precision"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    # Class 0 ranks 3 of 4 pairs right, class 1 2 of 3.
    assert figures["macro_auc"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    own = np.where(SEVERAL, SCORES, 1 - SCORES)
    assert figures["loss"] == pytest.approx(-np.log(own).mean())


def test_mean_average_precision_equals_scikit_learns():
    g = np.random.default_rng(0)
    target = g.random((300, 7)) < g.uniform(0.05, 0.6, size=7)
    probability = (0.3 * target + g.random((300, 7))).round(2) / 1.3  # with ties
    expected = average_precision_score(target, probability, average="macro")
    assert metrics.mean_average_precision(target, probability) == pytest.approx(expected)
    expected = roc_auc_score(target, probability, average="macro")
    assert metrics.macro_auc(target, probability) == pytest.approx(expected)


def test_classes_of_multi_label_data_have_no_recall():
    table = metrics.per_class(SEVERAL, SCORES, ["a", "b", "c"])
    assert list(table) == ["label", "n_clips", "share", "average_precision", "auc"]
    assert table["n_clips"].tolist() == [2, 1, 0]
    assert table["share"].tolist() == [0.5, 0.25, 0.0]
    assert np.isnan(table["average_precision"][2])


def test_without_any_positive_there_is_no_mean():
    assert np.isnan(metrics.mean_average_precision(np.zeros((2, 2), bool), np.ones((2, 2))))

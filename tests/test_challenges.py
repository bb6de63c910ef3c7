"""Figures of challenges against cases worked by hand."""

import json
import math

import numpy as np
import pytest
from test_icbhi import make as make_icbhi
from test_icbhi import take
from test_physionet import make as make_physionet
from tiny import SETTINGS

from audioml.challenges import icbhi_score, modified_accuracy
from audioml.cli import main

SMALL = [
    *SETTINGS[1:],
    "audio.sample_rate=2000",
    "frontend.n_fft=128",
    "frontend.win_length=128",
    "frontend.hop_length=64",
    "frontend.n_mels=16",
    "train.epochs=1",
    "train.class_weights=balanced",
]


def test_icbhi_score():
    # 4 normal, 3 right; 5 abnormal: one crackle and the both right, a wheeze taken for a crackle.
    target = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3])
    predicted = np.array([0, 0, 0, 1, 1, 0, 1, 0, 3])
    figures = icbhi_score(target, predicted)
    assert figures == pytest.approx(
        {"sensitivity": 2 / 5, "specificity": 3 / 4, "icbhi_score": (2 / 5 + 3 / 4) / 2}
    )


def test_icbhi_score_is_no_mean_over_classes():
    target, predicted = np.array([0, 1, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
    assert icbhi_score(target, predicted)["sensitivity"] == 3 / 4  # not (1 + 0) / 2


def test_without_normal_cycles_there_is_no_score():
    assert math.isnan(icbhi_score(np.array([1, 2]), np.array([1, 2]))["icbhi_score"])


def official(answer, is_abnormal, is_good):
    """Score as score2016Challenge.m does, term by term."""

    def weigh(is_kind, right):
        total = 0.0
        for quality in (True, False):
            of_quality = is_kind & (is_good == quality)
            if of_quality.any():
                is_right = answer == right
                if not quality:
                    is_right = is_right | (answer == 0)
                total += of_quality.sum() / is_kind.sum() * is_right[of_quality].mean()
        return total

    return (weigh(is_abnormal, 1) + weigh(~is_abnormal, -1)) / 2


def test_modified_accuracy_by_hand():
    # Abnormal: good quality right, good unsure (wrong), poor unsure (right), poor wrong: 2 of 4.
    # Normal: good right, good right, poor unsure (right): 3 of 3.
    answer = np.array([1, 0, 0, -1, -1, -1, 0])
    is_abnormal = np.array([True] * 4 + [False] * 3)
    is_good = np.array([True, True, False, False, True, True, False])
    figures = modified_accuracy(answer, is_abnormal, is_good)
    assert figures == {"sensitivity": 0.5, "specificity": 1.0, "modified_accuracy": 0.75}


@pytest.mark.parametrize("seed", range(20))
def test_modified_accuracy_is_the_challenges(seed):
    g = np.random.default_rng(seed)
    n = 50
    answer = g.integers(-1, 2, n)
    is_abnormal, is_good = g.random(n) < 0.3, g.random(n) < 0.8
    ours = modified_accuracy(answer, is_abnormal, is_good)["modified_accuracy"]
    assert ours == pytest.approx(official(answer, is_abnormal, is_good), abs=1e-12)


def test_lung_sounds_through_a_run(tmp_path):
    parts = {take(100 + n): ("train", "test")[n % 2] for n in range(6)}
    root = make_icbhi(tmp_path / "data", parts)
    words = ["data.name=icbhi", f"data.root={root}", "splits.protocol=given", *SMALL]
    assert main(["train", *words, f"run.dir={tmp_path / 'run'}", "run.report=true"]) == 0
    assert "<dt>Icbhi score</dt>" in (tmp_path / "run" / "report.html").read_text()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["n_train"], summary["n_test"]) == (12, 12)
    mean = (summary["sensitivity"] + summary["specificity"]) / 2
    assert summary["icbhi_score"] == pytest.approx(mean)
    assert main(["verify", *words[:2]]) == 0


def test_leaving_each_database_out(tmp_path):
    root = make_physionet(tmp_path / "data", "abc")
    words = ["data.name=physionet2016", f"data.root={root}", "splits.protocol=fixed", *SMALL]
    assert main(["crossval", *words, f"run.dir={tmp_path / 'run'}"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    folds = [fold["modified_accuracy"] for fold in summary["folds"]]
    assert summary["modified_accuracy"] == pytest.approx(np.mean(folds))
    assert [fold["fold"] for fold in summary["folds"]] == [1, 2, 3]

"""Several ranks train what one process trains, and end together."""

import pandas as pd
import pytest
from jobs import EQUAL, train
from tiny import make_tiny

FIGURES = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the runs are that tests have in common."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def alone(tiny, place):
    """The folder of a run by one process."""
    return run(place, 1, [*EQUAL, f"data.root={tiny}", "run.dir=alone"])


@pytest.fixture(scope="module")
def by_two(tiny, place):
    """The folder of the same run by two ranks."""
    return run(place, 2, [*EQUAL, f"data.root={tiny}", "run.dir=two"])


def run(place, n_ranks, settings):
    """Run to the end; returns the run folder."""
    codes, said = train(place, n_ranks, settings)
    assert codes == [0] * n_ranks, said
    name = next(word.partition("=")[2] for word in settings if word.startswith(("run.dir", "res")))
    return place / name


def read_figures(folder):
    return pd.read_csv(folder / "metrics.csv")[FIGURES]


def test_two_ranks_have_the_loss_curve_of_one_process(alone, by_two):
    ours, theirs = read_figures(by_two), read_figures(alone)
    pd.testing.assert_frame_equal(ours, theirs, rtol=0, atol=1e-4)
    probabilities = [pd.read_csv(folder / "predictions.csv") for folder in (by_two, alone)]
    pd.testing.assert_frame_equal(*probabilities, rtol=0, atol=1e-4)


def test_three_ranks_too_where_batches_are_uneven(tiny, place, alone):
    """27 clips: batches of 8, 8, 8 and 3; with 5 a batch the last one has 2, less than ranks."""
    ours = run(place, 3, [*EQUAL, f"data.root={tiny}", "run.dir=three"])
    pd.testing.assert_frame_equal(read_figures(ours), read_figures(alone), rtol=0, atol=1e-4)
    small = [*EQUAL, f"data.root={tiny}", "train.batch_size=5", "train.epochs=1"]
    few, one = (run(place, n, [*small, f"run.dir=small-{n}"]) for n in (3, 1))
    pd.testing.assert_frame_equal(read_figures(few), read_figures(one), rtol=0, atol=1e-4)

from contextlib import ExitStack

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from audioml.runs import RunError
from audioml.study import Study

SPACE = {"a": CategoricalDistribution(["1", "2"]), "b": CategoricalDistribution(["x", "y"])}
GRID = [{"a": a, "b": b} for a in "12" for b in "xy"]
RANGE = {"lr": FloatDistribution(1e-5, 1e-2, log=True)}


def open_study(path, *, space=SPACE, grid=GRID, n_trials=4, settings=None, seed=0):
    return Study(
        path,
        settings or {"epochs": "5"},
        space=space,
        grid=grid,
        n_trials=n_trials,
        seed=seed,
        pruner=optuna.pruners.NopPruner(),
    )


def run_all(study):
    """Run the trials that are left; returns their values."""
    values = []
    while True:
        with study.take() as trial:
            if trial is None:
                return values
            values.append(trial.params)
            study.tell(trial, TrialState.COMPLETE, 0.5)


def test_a_grid_is_run_in_its_order_and_once(tmp_path):
    assert run_all(open_study(tmp_path / "sweep")) == GRID
    assert run_all(open_study(tmp_path / "sweep")) == []


def test_a_trial_that_is_running_is_not_given_to_another_process(tmp_path):
    with ExitStack() as held:
        taken = [held.enter_context(open_study(tmp_path).take()) for _ in range(5)]
    assert [trial.params for trial in taken[:4]] == GRID
    assert taken[4] is None


def test_a_trial_that_was_cut_off_is_taken_up_first(tmp_path):
    study = open_study(tmp_path)
    with study.take() as trial:
        trial.report(0.25, 1)
    with open_study(tmp_path).take() as again:
        assert (again.number, again.params) == (trial.number, trial.params)
        assert open_study(tmp_path).trials()[0].intermediate_values == {1: 0.25}
    assert run_all(open_study(tmp_path)) == GRID


def test_an_interrupted_sweep_draws_the_same(tmp_path):
    drawn = {"space": RANGE, "grid": []}
    whole = run_all(open_study(tmp_path / "whole", n_trials=4, **drawn))
    first = run_all(open_study(tmp_path / "parts", n_trials=2, **drawn))
    rest = run_all(open_study(tmp_path / "parts", n_trials=4, **drawn))
    assert first + rest == whole
    assert len({values["lr"] for values in whole}) == 4
    assert run_all(open_study(tmp_path / "other", n_trials=1, seed=1, **drawn)) != whole[:1]


def test_another_sweep_is_refused_and_named(tmp_path):
    open_study(tmp_path)
    with pytest.raises(RunError) as error:
        open_study(tmp_path, settings={"epochs": "6"})
    assert "holds a sweep with epochs 5, not 6; give the same settings" in str(error.value)
    assert "another --dir" in str(error.value)


@pytest.mark.parametrize("name", ["notes.txt", "study.db"])
def test_a_folder_that_is_not_a_sweep_is_refused(tmp_path, name):
    (tmp_path / name).write_text("something else")
    with pytest.raises(RunError, match="not the folder of a sweep; set another --dir"):
        open_study(tmp_path)
    with pytest.raises(RunError, match="not the folder of a sweep"):
        open_study(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]

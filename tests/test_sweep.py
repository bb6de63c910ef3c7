"""Sweeps through the command line: with real trials, and with trials that only pretend to train."""

import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest
from tiny import SETTINGS, make_tiny

import audioml.sweep
from audioml.cli import main
from audioml.config import load_config
from audioml.training import TrainingError, evaluate

OVER = ["--over", "optim.lr=1e-3,1e-2", "--over", "train.batch_size=4,8"]
VALUES = [("1e-3", "4"), ("1e-3", "8"), ("1e-2", "4"), ("1e-2", "8")]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture
def sweep(tiny, tmp_path):
    def run(*words):
        settings = [*SETTINGS, f"data.root={tiny}"]
        place = [] if "--dir" in words else ["--dir", str(tmp_path / "sweep")]
        return main(["sweep", *settings, *words, *place])

    return run


@pytest.fixture
def pretend(monkeypatch):
    """Let trials only report accuracies: a number for each, or a function of their settings."""

    def use(score, n_epochs=2):
        begun = []

        def run(config, *, evaluate_test, on_epoch):
            assert not evaluate_test
            begun.append((config.optim.lr, config.train.batch_size))
            accuracy, loss = score(config)
            for epoch in range(1, n_epochs + 1):
                on_epoch({"epoch": epoch, "val_accuracy": accuracy, "val_loss": loss})
            figures = {"accuracy": accuracy, "loss": loss, "best_epoch": 1}
            return figures | {"train_time_s": 1.0}

        monkeypatch.setattr(audioml.sweep, "run_experiment", run)
        return begun

    return use


def read_trials(folder):
    return pd.read_csv(folder / "sweep" / "trials.csv", dtype={"optim.lr": str}).set_index("trial")


def read_summary(folder):
    return json.loads((folder / "sweep" / "summary.json").read_text())


def test_trials_are_runs_that_never_meet_a_test_clip(sweep, tmp_path, monkeypatch, capsys):
    evaluated = set()

    def watch(model, loader, **options):
        evaluated.update(loader.clip_index.tolist())
        return evaluate(model, loader, **options)

    monkeypatch.setattr("audioml.training.evaluate", watch)
    assert sweep("--over", "optim.lr=1e-3,1e-2") == 0
    for number in (0, 1):
        folder = tmp_path / "sweep" / "trials" / f"{number:04d}"
        files = {file.name for file in folder.rglob("*")}
        assert {"config.yaml", "metrics.csv", "best.pt", "curves.png"} <= files
        assert not {"predictions.csv", "per_class.csv", "confusion_matrix.png"} & files
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["evaluated_on"] == "val"
        validated = pd.read_csv(folder / "metrics.csv").set_index("epoch")
        best = validated.loc[summary["best_epoch"]]
        assert summary["accuracy"] == summary["best"]["accuracy"] == best["val_accuracy"]
        assert read_trials(tmp_path).loc[number, "accuracy"] == summary["accuracy"]
        assert load_config([folder / "config.yaml"]).optim.lr == (1e-3, 1e-2)[number]
        split = pd.read_csv(folder / "split.csv")
    tested = split.index[split["part"] == "test"]
    assert evaluated
    assert not evaluated & set(tested)
    assert "test      " not in capsys.readouterr().out  # as the line of the test clips begins


def test_ctrl_c_saves_the_trial_and_the_same_command_goes_on(sweep, tmp_path, monkeypatch, capsys):
    report = audioml.sweep._report

    def stop(trial, figure, row):
        report(trial, figure, row)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(audioml.sweep, "_report", stop)
    assert sweep("--over", "optim.lr=1e-2") == 130
    assert "stopped in trial 0; the same command goes on with it" in capsys.readouterr().err
    assert read_trials(tmp_path)["state"].tolist() == ["interrupted"]
    monkeypatch.undo()
    assert sweep("--over", "optim.lr=1e-2") == 0
    assert "resume    after epoch 1" in capsys.readouterr().out
    assert read_trials(tmp_path)["state"].tolist() == ["finished"]
    assert len(pd.read_csv(tmp_path / "sweep" / "trials" / "0000" / "metrics.csv")) == 2


def test_everything_is_written(sweep, pretend, tmp_path, capsys):
    begun = pretend(lambda c: (0.5 + 10 * c.optim.lr, 1.0 + c.train.batch_size))
    assert sweep(*OVER) == 0
    assert begun == [(float(rate), int(size)) for rate, size in VALUES]
    trials = read_trials(tmp_path)
    tried = zip(trials["optim.lr"], trials["train.batch_size"].astype(str), strict=True)
    assert list(tried) == VALUES
    assert trials["accuracy"].tolist() == pytest.approx([0.51, 0.51, 0.6, 0.6])
    summary = read_summary(tmp_path)
    assert summary["best"]["values"] == {"optim.lr": "1e-2", "train.batch_size": "4"}
    assert summary["evaluated_on"] == "val"
    assert (summary["protocol"], summary["n_val"], summary["states"]) == (
        "nested",
        9,
        {"finished": 4},
    )
    assert "ties go to the lower loss" in summary["objective"]
    assert (tmp_path / "sweep" / "plots" / "heat_map.png").stat().st_size > 5000
    best = load_config([tmp_path / "sweep" / "best.yaml"])
    assert (best.optim.lr, best.train.batch_size, best.run.dir) == (0.01, 4, None)
    assert best.splits.protocol == "nested"
    out = capsys.readouterr().out
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert len(table) == 6
    assert table[2].startswith("| **2** | **1e-2** | **4** | **60.0%** | **5.000** |")
    assert f"python train.py {tmp_path / 'sweep' / 'best.yaml'}" in out


def test_a_finished_sweep_is_not_run_again(sweep, pretend, tmp_path):
    begun = pretend(lambda c: (0.5, 1.0))
    assert [sweep(*OVER), sweep(*OVER)] == [0, 0]
    assert len(begun) == 4
    assert read_summary(tmp_path)["best"]["trial"] == 0


class Killed(BaseException):
    """What ends a process before it can write anything down."""


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_killed_sweep_loses_no_trial_and_runs_none_twice(sweep, pretend, tmp_path, has_begun):
    def die(config):
        if config.optim.lr == 0.01:
            if has_begun:  # and was killed before its first checkpoint
                (tmp_path / "sweep" / "trials" / "0002").mkdir(parents=True)
                (tmp_path / "sweep" / "trials" / "0002" / "config.yaml").touch()
            raise Killed
        return 0.5, 1.0

    first = pretend(die)
    with pytest.raises(Killed):
        sweep(*OVER)
    second = pretend(lambda c: (0.5, 1.0))
    assert sweep(*OVER) == 0
    assert first == [(0.001, 4), (0.001, 8), (0.01, 4)]
    assert second == [(0.01, 4), (0.01, 8)]
    assert read_trials(tmp_path)["state"].tolist() == ["finished"] * 4


def test_a_trial_that_fails_is_kept_with_its_reason(sweep, pretend, tmp_path, capsys):
    def fail(config):
        if config.optim.lr == 0.01:
            raise TrainingError("the loss became nan")
        return 0.5, 1.0

    begun = pretend(fail)
    assert [sweep(*OVER), sweep(*OVER)] == [0, 0]
    assert len(begun) == 4
    trials = read_trials(tmp_path)
    assert trials["state"].tolist() == ["finished", "finished", "failed", "failed"]
    assert trials["error"].tolist()[2:] == ["the loss became nan"] * 2
    assert sweep("--over", "optim.lr=1e-2", "--dir", str(tmp_path / "other")) == 2
    assert "no trial was finished; trials.csv says why" in capsys.readouterr().err


def test_pruning_ends_what_is_below_the_median(sweep, pretend, tmp_path):
    pretend(lambda c: (0.9 - 10 * c.optim.lr, 1.0), n_epochs=3)
    assert sweep("--over", "optim.lr=1e-3,2e-3,3e-3,4e-3,1e-4", "--prune") == 0
    trials = read_trials(tmp_path)
    assert trials["state"].tolist() == ["finished"] * 3 + ["pruned", "finished"]
    assert trials.loc[3, "accuracy"] == pytest.approx(0.86)
    assert pd.isna(trials.loc[3, "train_time_s"])


def test_tpe_learns_from_what_it_tried_and_may_be_extended(sweep, pretend, tmp_path):
    words = ["--method", "tpe", "--over", "train.batch_size=2..400", "--over", "optim.lr=1e-4..1"]
    near = pretend(lambda c: (1 - abs(c.train.batch_size - 40) / 400, 1.0))
    assert [sweep(*words, "--trials", n) for n in ("3", "12")] == [0, 0]
    far = pretend(lambda c: (1 - abs(c.train.batch_size - 390) / 400, 1.0))
    assert sweep(*words, "--trials", "12", "--dir", str(tmp_path / "other")) == 0
    assert len(set(near)) == 12
    assert near[:10] == far[:10]  # drawn at random
    assert near[10:] != far[10:]
    assert (tmp_path / "sweep" / "plots" / "accuracy.png").is_file()
    assert load_config([tmp_path / "sweep" / "best.yaml"]).train.batch_size in (
        size for _, size in near
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["splits.protocol=fixed"], "which splits.protocol=fixed has not here; set splits.protoc"),
        (["splits.protocol=holdout", "splits.val_share=0"], "set splits.protocol=nested"),
        (["run.dir=here"], "run.dir=here: every trial has a folder of its own; leave it out"),
        (["resume=here"], "resume=here: every trial has a folder of its own"),
        (["train.device=tpu"], "train.device must be auto"),
        (["--over", "optim.lrr=1"], "did you mean optim.lr?"),
        (["--over", "optim.lr=1e-4..1"], "a grid needs values"),
        (["--trials", "3"], "--trials 3: a grid tries every combination; leave it out"),
        (["--method", "tpe"], "--trials must be at least 1 for --method tpe, got None"),
        (["--method", "tpe", "--trials", "0"], "--trials must be at least 1"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(sweep, tmp_path, capsys, words, message):
    assert sweep(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (["--over", "optim.lr=1e-3,1e-1", *OVER[2:]], "--over optim.lr 1e-3,1e-2, not 1e-3,1e-1"),
        (OVER[:2], "--over train.batch_size 4,8, not None"),
        ([*OVER, "train.epochs=3"], "train.epochs 2, not 3"),
    ],
)
def test_another_sweep_in_the_folder_is_refused(sweep, pretend, capsys, words, change):
    pretend(lambda c: (0.5, 1.0))
    assert sweep(*OVER) == 0
    assert sweep(*words) == 2
    assert f"holds a sweep with {change}; give the same settings" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_share_a_sweep(tiny, tmp_path):
    settings = [*SETTINGS, f"data.root={tiny}", *OVER, "--dir", str(tmp_path / "sweep")]
    program = "import sys; from audioml.cli import main; sys.exit(main())"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, "sweep", *settings],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    begun = [line for out in outputs for line in out.splitlines() if line.startswith("trial ")]
    assert len(begun) == len(set(begun)) == 4
    assert all("trial " in out for out in outputs)
    assert read_trials(tmp_path)["state"].tolist() == ["finished"] * 4

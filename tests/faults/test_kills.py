"""Runs that are killed, stopped or starved, and end as those that were not.

All 50 kills: ``python -m pytest -m "slow or not slow" tests/faults/test_kills.py -k killed``.
"""

import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny import SETTINGS, make_tiny

from audioml.checkpoints import Checkpoints
from audioml.cli import main
from audioml.config import load_config
from audioml.experiment import run_experiment
from audioml.runs import RunFolder

REPOSITORY = Path(__file__).parent.parent.parent
PROGRAM = "import sys; from audioml.cli import main; sys.exit(main())"
N_KILLS = 5
N_SAVES = 60  # of a whole run: 12 epochs of 5 steps each but the last saved, and their ends
CHANGES = ("noise", "pitch", "stretch", "shift", "gain", "filter", "mask", "mixup")
WHOLE = [
    *SETTINGS,
    "train.epochs=12",
    "train.batch_size=6",
    "optim.ema_decay=0.9",
    "optim.lr=0.01",
    "run.save_every_steps=1",
    "run.dir=run",
    *(f"augment.{name}.probability=1" for name in CHANGES),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """The folder of a run that nothing happened to."""
    place = tmp_path_factory.mktemp("whole")
    finish(start(place, tiny))
    return place / "run"


def start(place, tiny, **options):
    """Start the run in ``place``, or go on with what is in it; ``run.dir`` is relative to it."""
    place.mkdir(exist_ok=True)
    go_on = RunFolder.is_begun(place / "run")
    settings = ["resume=run"] if go_on else [*WHOLE, f"data.root={tiny}"]
    return subprocess.Popen(
        [sys.executable, REPOSITORY / "train.py", *settings],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        **options,
    )


def finish(process):
    """Wait for the end of a process that is to succeed, and return what it printed."""
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


def wait_for_saves(process, folder, n_saves):
    """Wait until a running process has saved so often; False if it ended before."""
    manifest, seen = folder / "checkpoints" / "manifest.json", None
    while process.poll() is None:
        at = manifest.stat().st_mtime_ns if manifest.exists() else None
        if at != seen:
            n_saves, seen = n_saves - (seen is not None), at
        if n_saves <= 0:
            return True
        time.sleep(0.001)
    return False


def assert_equal_ends(folder, whole):
    """The weights in every byte, and all figures but those of time."""
    digests = [
        hashlib.sha256((f / "model.safetensors").read_bytes()).hexdigest() for f in (folder, whole)
    ]
    assert digests[0] == digests[1]
    ours, theirs = (
        torch.load(f / "checkpoints" / "last.pt", weights_only=True) for f in (folder, whole)
    )
    for part in ("model", "ema"):
        for key, value in theirs[part].items():
            assert torch.equal(ours[part][key], value), (part, key)
    for number, values in theirs["optimizer"]["state"].items():
        for key, value in values.items():
            assert torch.equal(ours["optimizer"]["state"][number][key], value), (number, key)
    columns = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"]
    tables = [pd.read_csv(f / "metrics.csv")[columns] for f in (folder, whole)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))]
)
def test_a_run_killed_five_times_ends_in_the_same_bytes(seed, tiny, whole, tmp_path):
    """At random moments: before the first checkpoint, in a step, in a save."""
    g = random.Random(seed)
    place, n_kills = tmp_path / "killed", 0
    while n_kills < N_KILLS:
        process = start(place, tiny)
        if n_kills == 0:  # in the first moments of the folder
            while not (place / "run" / "config.yaml").exists():
                time.sleep(0.001)
            time.sleep(g.uniform(0, 0.2))
        else:
            n_saves = g.randint(0, N_SAVES // (N_KILLS + 1))
            assert wait_for_saves(process, place / "run", n_saves)
            time.sleep(g.uniform(0, 0.03))
        process.kill()
        process.communicate()
        n_kills += 1
    finish(start(place, tiny))
    assert_equal_ends(place / "run", whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_finishes_the_step_saves_and_says_how_to_go_on(
    number, tiny, whole, tmp_path
):
    process = start(tmp_path, tiny)
    assert wait_for_saves(process, tmp_path / "run", 7)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "everything is saved. Continue with: python train.py resume=run" in error
    finish(start(tmp_path, tiny))
    assert_equal_ends(tmp_path / "run", whole)


def test_a_run_that_sleeps_wakes_up_and_no_other_takes_its_place(tiny, whole, tmp_path):
    process = start(tmp_path, tiny)
    assert wait_for_saves(process, tmp_path / "run", 3)
    process.send_signal(signal.SIGSTOP)
    second = start(tmp_path, tiny)
    _, error = second.communicate(timeout=120)
    assert second.returncode == 2
    assert error.startswith("error: run: another process is at work in it")
    assert process.poll() is None
    process.send_signal(signal.SIGCONT)
    finish(process)
    assert_equal_ends(tmp_path / "run", whole)


def test_a_killed_sweep_ends_in_the_same_bytes(tiny, tmp_path):
    def start_sweep(place):
        place.mkdir(exist_ok=True)
        words = [word for word in WHOLE if not word.startswith("run.dir")]
        words += [f"data.root={tiny}", "train.epochs=4", "--dir", "sweep"]
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "sweep", *words, "--over", "optim.lr=0.01,0.003"],
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    for kills in ((), (0, 1)):
        for trial in kills:
            process = start_sweep(tmp_path / "killed")
            folder = tmp_path / "killed" / "sweep" / "trials" / f"{trial:04d}"
            assert wait_for_saves(process, folder, 6)
            process.kill()
            process.communicate()
        finish(start_sweep(tmp_path / ("killed" if kills else "whole")))
    for trial in ("0000", "0001"):
        whole, killed = (
            (tmp_path / name / "sweep" / "trials" / trial / "model.safetensors").read_bytes()
            for name in ("whole", "killed")
        )
        assert whole == killed


def test_a_folder_that_is_tidied_away_is_made_anew(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(overrides=[*WHOLE, f"data.root={tiny}", "train.epochs=3"])

    def tidy(row):
        if row["epoch"] == 2:
            shutil.rmtree("run")

    run_experiment(config, on_epoch=tidy)
    there = {str(f.relative_to("run")) for f in Path("run").rglob("*") if f.is_file()}
    assert {"metrics.csv", "summary.json", "checkpoints/last.pt", "model.safetensors"} <= there
    assert len(pd.read_csv("run/metrics.csv")) == 3


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place to write nothing to")
def test_a_place_where_nothing_can_be_written_is_named(tiny, capsys):
    words = [*SETTINGS, f"data.root={tiny}", "run.dir=/proc/self/run"]
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert "/proc/self/run" in error


def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(tiny, whole, tmp_path):
    place = tmp_path / "full"
    process = start(place, tiny)
    assert wait_for_saves(process, place / "run", 4)
    process.kill()
    process.communicate()
    size = (place / "run" / "checkpoints" / "last.pt").stat().st_size

    def bound_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    process = start(place, tiny, preexec_fn=bound_files)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2, error
    last_line = error.strip().splitlines()[-1]
    assert re.match(r"error: .*File too large: 'run/checkpoints/(last|best)\.pt'", last_line)
    finish(start(place, tiny))
    assert_equal_ends(place / "run", whole)


def test_half_a_line_of_metrics_and_a_damaged_checkpoint_lose_nothing(tiny, whole, tmp_path):
    process = start(tmp_path, tiny)
    assert wait_for_saves(process, tmp_path / "run", 12)
    process.kill()
    process.communicate()
    metrics = tmp_path / "run" / "metrics.csv"
    metrics.write_text(metrics.read_text()[:-7])
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:5000])
    out = finish(start(tmp_path, tiny))
    assert "last.pt: its SHA-256 is not in manifest.json; going on from previous.pt" in out
    assert_equal_ends(tmp_path / "run", whole)


@pytest.mark.parametrize("is_lost", [True, False])
def test_the_best_epoch_may_be_newer_than_the_last_checkpoint_or_lost(
    whole, tmp_path, monkeypatch, capsys, is_lost
):
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(whole, "run"))
    newest = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    newest["progress"] |= {"best_epoch": 1, "best_score": (0.0, -9.0)}
    Checkpoints(folder / "checkpoints").save_last(newest)
    if is_lost:
        best = folder / "checkpoints" / "best.pt"
        best.write_bytes(b"PK")
        assert main(["train", "resume=run"]) == 2
        assert "best.pt: its SHA-256 is not in manifest.json; delete" in capsys.readouterr().err
        best.unlink()
    assert main(["train", "resume=run"]) == 0
    ours, theirs = (json.loads((f / "summary.json").read_text()) for f in (folder, whole))
    assert ("lost      the best epoch so far, 1: " in capsys.readouterr().out) == is_lost
    assert ours["weights"] == ("last" if is_lost else "best")
    assert ours["best_epoch"] == (None if is_lost else theirs["best_epoch"])
    assert is_lost or ours["best"] == pytest.approx(theirs["best"])  # threads differ


@pytest.fixture
def _little_memory(monkeypatch):
    """Memory for batches of 3 clips at most, while training."""
    from audioml.models.cnn import Cnn

    forward = Cnn.forward

    def bounded(self, log_mel):
        if self.training and len(log_mel) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, log_mel)

    monkeypatch.setattr(Cnn, "forward", bounded)


@pytest.mark.usefixtures("_little_memory")
def test_out_of_memory_says_what_to_change(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *WHOLE, f"data.root={tiny}"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: out of memory with train.batch_size=6")
    assert "the store: 45 clips" in error
    assert "train.auto_batch=true" in error


@pytest.mark.usefixtures("_little_memory")
def test_smaller_batches_go_on_where_the_larger_ones_ended(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = [*WHOLE, f"data.root={tiny}", "train.epochs=2"]
    assert main(["train", *short, "train.auto_batch=true"]) == 0
    assert "going on with train.batch_size=3" in capsys.readouterr().out
    assert "batch_size: 3" in (tmp_path / "run" / "config.yaml").read_text()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main(["train", *short, "train.batch_size=3", "run.dir=small"]) == 0
    losses = [pd.read_csv(tmp_path / d / "metrics.csv")["train_loss"] for d in ("run", "small")]
    assert losses[0].tolist() == losses[1].tolist()


def test_memory_that_runs_out_within_an_epoch_costs_no_clip(tiny, tmp_path, monkeypatch, capsys):
    """After 2 batches of 6 clips come those that 4 of 3 clips leave."""
    from audioml.models.cnn import Cnn

    forward, n_clips = Cnn.forward, []

    def bounded(self, log_mel):
        if self.training and len(log_mel) > 3 and len(n_clips) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self.training:
            n_clips.append(len(log_mel))
        return forward(self, log_mel)

    monkeypatch.setattr(Cnn, "forward", bounded)
    monkeypatch.chdir(tmp_path)
    settings = [*WHOLE, f"data.root={tiny}", "train.epochs=1", "train.auto_batch=true"]
    assert main(["train", *settings]) == 0
    assert "resume    after epoch 0, step 4" in capsys.readouterr().out
    assert n_clips == [6, 6, 3, 3, 3, 3, 3]


@pytest.mark.parametrize(
    "place",
    ["audioml.preparation.training_statistics", "audioml.experiment._Run._evaluate"],
)
def test_memory_that_runs_out_elsewhere_is_no_traceback(tiny, tmp_path, monkeypatch, capsys, place):
    def fail(*_, **__):
        raise RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR")

    monkeypatch.setattr(place, fail)
    monkeypatch.chdir(tmp_path)
    assert main(["train", *SETTINGS, f"data.root={tiny}", "run.dir=run"]) == 2
    assert "error: out of memory " in capsys.readouterr().err


def test_a_summary_counts_skipped_steps(whole):
    assert json.loads((whole / "summary.json").read_text())["n_bad_steps"] == 0

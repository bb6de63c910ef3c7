"""Whole runs through the command line, on a data set of a few short tones."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import LABELS, SETTINGS, make_tiny

from audioml.cli import main
from audioml.config import load_config

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("data") / "tiny")


def train(tiny, folder, *settings):
    return main(["train", *SETTINGS, f"data.root={tiny}", f"run.dir={folder}", *settings])


@pytest.fixture(scope="session")
def finished(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert train(tiny, folder, "train.epochs=12", "optim.lr=0.01", "optim.ema_decay=0.5") == 0
    return folder


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text())


def losses(folder):
    return pd.read_csv(folder / "metrics.csv")["train_loss"].tolist()


def test_the_run_folder_is_complete(finished):
    files = {str(f.relative_to(finished)) for f in finished.rglob("*") if f.is_file()}
    events = {f for f in files if f.startswith("events.out.tfevents")}
    assert len(events) == 1
    assert files - events == {
        "config.yaml",
        "env.json",
        "split.csv",
        "metrics.csv",
        "log.txt",
        "checkpoints/last.pt",
        "checkpoints/previous.pt",
        "checkpoints/best.pt",
        "checkpoints/manifest.json",
        "model.safetensors",
        ".lock",
        "plots/curves.png",
        "plots/confusion_matrix.png",
        "plots/train_batch.png",
        "predictions.csv",
        "per_class.csv",
        "summary.json",
    }


def test_the_summary_says_what_was_measured(finished):
    summary = read_summary(finished)
    assert summary["accuracy"] > 0.5
    assert summary["macro_auc"] > 0.9
    assert summary["protocol"] == "nested"
    assert (summary["fold"], summary["seed"], summary["epochs"]) == (1, 0, 12)
    assert (summary["n_train"], summary["n_val"], summary["n_test"]) == (27, 9, 9)
    assert summary["weights"] == "best"
    assert summary["best"]["accuracy"] == summary["accuracy"]
    assert {"macro_auc", "macro_f1", "commit", "peak_memory_gib"} <= set(summary)
    assert 0 < summary["data_wait"] < 1
    assert summary["clips_per_s"] == pytest.approx(12 * 27 / summary["train_time_s"])
    assert summary["device"].startswith("cpu")


def test_the_tables_agree_with_the_summary(finished):
    predictions = pd.read_csv(finished / "predictions.csv")
    assert predictions["is_right"].mean() == pytest.approx(read_summary(finished)["accuracy"])
    assert (predictions["label"] == predictions["predicted"]).equals(predictions["is_right"])
    shares = predictions[[f"p_{label}" for label in LABELS]]
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    split = pd.read_csv(finished / "split.csv")
    assert split["part"].value_counts().to_dict() == {"train": 27, "val": 9, "test": 9}
    tested = split[split["part"] == "test"]
    assert set(tested["source"]) == set(predictions["source"])
    assert pd.read_csv(finished / "per_class.csv")["n_clips"].sum() == 9


def test_tensorboard_has_figures_pictures_and_sounds(finished):
    events = EventAccumulator(str(finished)).Reload()
    tags = events.Tags()
    assert {"loss/train", "loss/val", "accuracy/val", "auc/val", "optim/lr"} <= set(tags["scalars"])
    assert set(tags["images"]) == {"train_batch", "confusion_matrix/test"}
    (picture,) = events.Images("train_batch")
    assert picture.encoded_image_string == (finished / "plots" / "train_batch.png").read_bytes()
    with Image.open(finished / "plots" / "train_batch.png") as image:
        assert (picture.width, picture.height) == image.size
    assert len(tags["audio"]) == 4
    assert [event.step for event in events.Scalars("loss/train")] == list(range(1, 13))
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_the_saved_configuration_repeats_the_run(finished, tmp_path):
    again = tmp_path / "again"
    assert main(["train", str(finished / "config.yaml"), f"run.dir={again}"]) == 0
    assert losses(again) == losses(finished)
    assert read_summary(again)["loss"] == read_summary(finished)["loss"]


def test_checkpoints_hold_what_a_stranger_needs(finished):
    checkpoint = torch.load(finished / "checkpoints" / "best.pt", weights_only=True)
    assert checkpoint["labels"] == LABELS
    split = pd.read_csv(finished / "split.csv", dtype=str)
    trained = split[split["part"] == "train"]["source"]
    assert checkpoint["train_sources"] == sorted(set(trained))
    saved = load_config([finished / "config.yaml"])
    assert checkpoint["config"] == (finished / "config.yaml").read_text()
    assert saved.frontend.n_mels == checkpoint["frontend"]["mean_db"].shape[0]


def test_statistics_come_from_training_clips_only(tiny, finished, tmp_path):
    """Doubling the level of every clip that is not trained on changes nothing."""
    loud = make_tiny(tmp_path / "loud")
    split = pd.read_csv(finished / "split.csv")
    for name in split[split["part"] != "train"]["path"]:
        file = loud / "audio" / Path(name).name
        samples, rate = soundfile.read(file)
        soundfile.write(file, np.clip(2 * samples, -1, 1), rate)
    folder = tmp_path / "run"
    assert train(loud, folder, "train.epochs=1") == 0
    ours, theirs = (
        torch.load(f / "checkpoints" / "last.pt", weights_only=True)["frontend"]
        for f in (folder, finished)
    )
    assert torch.equal(ours["mean_db"], theirs["mean_db"])
    assert torch.equal(ours["std_db"], theirs["std_db"])


def test_under_fixed_nothing_is_selected(tiny, tmp_path):
    folder = tmp_path / "run"
    assert train(tiny, folder, "splits.protocol=fixed", "splits.fold=3") == 0
    summary = read_summary(folder)
    assert summary["weights"] == "last"
    assert "best" not in summary
    assert not (folder / "checkpoints" / "best.pt").exists()
    assert (summary["n_train"], summary["n_val"], summary["n_test"]) == (36, 0, 9)
    assert "val_loss" not in pd.read_csv(folder / "metrics.csv")


def test_early_stopping_needs_a_validation_split(tiny, tmp_path, capsys):
    code = train(tiny, tmp_path / "run", "splits.protocol=fixed", "train.patience=3")
    assert code == 2
    assert "train.patience needs a validation split" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def start(tiny, folder, *settings):
    command = [sys.executable, "train.py", *SETTINGS, f"data.root={tiny}", f"run.dir={folder}"]
    return subprocess.Popen(
        [*command, *settings],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def resume(folder):
    return subprocess.run(
        [sys.executable, "train.py", f"resume={folder}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_an_interrupted_run_is_resumed_to_the_same_end(tiny, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped run"
    settings = ["train.epochs=25", "optim.ema_decay=0.9", "optim.lr=0.01"]
    process = start(tiny, stopped, *settings)
    deadline = time.monotonic() + 120
    while not (stopped / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "everything is saved" in error
    assert f"python train.py 'resume={stopped}'" in error
    n_done = len(losses(stopped))
    assert 1 <= n_done < 25
    assert not (stopped / "summary.json").exists()
    assert f"resume    after epoch {n_done}" in resume(stopped).stdout
    start(tiny, whole, *settings).communicate(timeout=200)
    assert losses(stopped) == losses(whole)
    for figure in ("last", "best", "best_epoch", "accuracy"):
        assert read_summary(stopped)[figure] == read_summary(whole)[figure]
    for name in ("last.pt", "best.pt"):
        ours, theirs = (
            torch.load(f / "checkpoints" / name, weights_only=True) for f in (stopped, whole)
        )
        for part in ("model", "ema"):
            for key, value in ours[part].items():
                assert torch.equal(value, theirs[part][key]), (name, part, key)


def test_ctrl_c_outside_training_tells_how_to_resume(tiny, tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("audioml.experiment.write_evaluation", interrupt)
    folder = tmp_path / "run"
    assert train(tiny, folder) == 130
    assert f"Continue with: python train.py resume={folder}" in capsys.readouterr().err
    monkeypatch.undo()
    # The statistics are in the checkpoint.
    monkeypatch.setattr("audioml.preparation.training_statistics", pytest.fail)
    assert main(["train", f"resume={folder}"]) == 0
    assert read_summary(folder)["epochs"] == 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bfloat16_trains(tiny, tmp_path, dtype):
    assert train(tiny, tmp_path / "run", "train.amp=bf16", f"frontend.dtype={dtype}") == 0
    assert np.isfinite(losses(tmp_path / "run")).all()


def test_half_precision_needs_a_model_for_it(tiny, tmp_path, capsys):
    assert train(tiny, tmp_path / "run", "frontend.dtype=float16") == 2
    assert "set train.amp=bf16 or frontend.dtype=float32" in capsys.readouterr().err


def test_effects_need_streaming(tiny, tmp_path, capsys):
    gain = "augment.extra=[{name: Gain, p: 1.0}]"
    assert train(tiny, tmp_path / "resident", gain) == 2
    assert "set audio.store=stream" in capsys.readouterr().err
    assert train(tiny, tmp_path / "streamed", gain, "audio.store=stream") == 0
    log = (tmp_path / "streamed" / "log.txt").read_text()
    assert re.search(r"extra     Gain: [0-9.]+ ms a clip on the CPU", log)
    assert "clips decoded as they are needed" in log


def test_a_streamed_run_equals_a_resident_one(tiny, tmp_path):
    assert train(tiny, tmp_path / "resident") == 0
    assert train(tiny, tmp_path / "streamed", "audio.store=stream") == 0
    assert losses(tmp_path / "streamed") == losses(tmp_path / "resident")


def test_triton_needs_cuda(tiny, tmp_path, capsys):
    assert train(tiny, tmp_path / "run", "frontend.kind=triton") == 2
    assert "frontend.kind=triton needs a CUDA device, got cpu" in capsys.readouterr().err


@pytest.mark.slow
def test_a_compiled_model_trains_alike(tiny, tmp_path):
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    assert train(tiny, plain, "model.dropout=0") == 0  # compiled dropout draws otherwise
    assert train(tiny, compiled, "model.dropout=0", "train.compile=true") == 0
    # Adam magnifies rounding: its first steps are as long for tiny gradients as for large ones.
    assert losses(compiled) == pytest.approx(losses(plain), rel=0.02)


@pytest.mark.gpu
def test_a_run_on_cuda_stops_resumes_and_equals_the_cpus_split(tiny, finished, tmp_path):
    folder = tmp_path / "run"
    assert train(tiny, folder, "train.device=cuda", "train.epochs=12", "optim.lr=0.01") == 0
    summary = read_summary(folder)
    assert summary["store"] == "device"
    assert summary["macro_auc"] > 0.9
    assert (folder / "split.csv").read_text() == (finished / "split.csv").read_text()
    assert main(["train", f"resume={folder}"]) == 0


def test_resuming_with_changed_data_is_refused(finished, tiny, tmp_path, capsys):
    copy = make_tiny(tmp_path / "copy")
    folder = tmp_path / "run"
    assert train(copy, folder) == 0
    table = copy / "meta" / "esc50.csv"
    table.write_text(re.sub(r"\n1-10-A-0.*", "", table.read_text(), count=1))
    table.write_text(re.sub(r"\n3-30-A-0.*", "", table.read_text(), count=1))
    for name in ("1-10-A-0.wav", "3-30-A-0.wav"):
        (copy / "audio" / name).unlink()
    assert main(["train", f"resume={folder}"]) == 2
    assert "not the data the run began with (train" in capsys.readouterr().err


def test_resume_takes_no_other_settings(finished, capsys):
    assert main(["train", f"resume={finished}", "optim.lr=1"]) == 2
    assert "leave out the others" in capsys.readouterr().err


def test_a_folder_without_checkpoint_is_refused(tmp_path, capsys):
    assert main(["train", f"resume={tmp_path}"]) == 2
    assert "nothing to resume" in capsys.readouterr().err


def test_a_leaking_split_stops_the_run_and_names_the_clips(tmp_path, capsys):
    leaky = make_tiny(tmp_path / "leaky")
    table = leaky / "meta" / "esc50.csv"
    # The recording 10 of fold 1 gets a second clip in fold 4: the official folds now cross.
    (leaky / "audio" / "4-40-A-0.wav").rename(leaky / "audio" / "4-10-B-0.wav")
    text = table.read_text().replace(
        "4-40-A-0.wav,4,0,low,True,40,A", "4-10-B-0.wav,4,0,low,True,10,B"
    )
    table.write_text(text)
    assert train(leaky, tmp_path / "run") != 0
    error = capsys.readouterr().err
    assert "1-10-A-0.wav" in error
    assert "4-10-B-0.wav" in error
    assert not (tmp_path / "run").exists()
    assert train(leaky, tmp_path / "run", "splits.strict_sources=true", "train.epochs=1") == 0
    assert read_summary(tmp_path / "run")["n_dropped"] == 1


def test_equal_samples_under_two_names_stop_the_run(tmp_path, capsys):
    leaky = make_tiny(tmp_path / "leaky")
    copy = (leaky / "audio" / "1-10-A-0.wav").read_bytes()
    (leaky / "audio" / "4-40-A-0.wav").write_bytes(copy)
    assert train(leaky, tmp_path / "run") != 0
    assert "same content" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "nan"])
def test_a_bad_file_stops_the_run_and_is_named(tmp_path, capsys, damage):
    bad = make_tiny(tmp_path / "bad")
    file = bad / "audio" / "2-1020-A-1.wav"
    if damage == "nan":
        soundfile.write(file, np.full(4000, np.nan), 8000, subtype="FLOAT")
    else:
        content = {"empty": b"", "text": b"no sound", "truncated": file.read_bytes()[:1000]}
        file.write_bytes(content[damage])
    assert train(bad, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "2-1020-A-1.wav" in error
    assert re.search(r"row \d+", error)
    assert main(["verify", "data.name=esc10", f"data.root={bad}"]) == 1


@pytest.mark.parametrize("samples", [np.zeros(4000), np.array([0.5])], ids=["zeros", "one-sample"])
def test_silence_and_a_single_sample_are_trained_on(tmp_path, samples):
    quiet = make_tiny(tmp_path / "quiet")
    for name in ("2-1020-A-1.wav", "3-30-A-0.wav", "1-10-A-0.wav"):
        soundfile.write(quiet / "audio" / name, samples, 8000)
    if len(samples) == 1:  # equal samples in two parts would rightly be called a leak
        for n, name in enumerate(("2-1020-A-1.wav", "3-30-A-0.wav")):
            soundfile.write(quiet / "audio" / name, samples / (n + 2), 8000)
    assert train(quiet, tmp_path / "run") == 0
    assert np.isfinite(losses(tmp_path / "run")).all()


@pytest.mark.parametrize("preset", ["four_variants", "none"])
@pytest.mark.parametrize("schedule", ["one_cycle", "constant"])
def test_presets_and_schedules_train(tiny, tmp_path, preset, schedule):
    settings = [f"augment.preset={preset}", f"optim.schedule={schedule}", "audio.pad=wrap"]
    assert train(tiny, tmp_path / "run", *settings, "splits.protocol=holdout") == 0
    summary = read_summary(tmp_path / "run")
    assert summary["protocol"] == "holdout"
    assert summary["fold"] is None


def test_the_first_lines_say_device_and_data(tiny, tmp_path, capsys):
    assert train(tiny, tmp_path / "run", "train.epochs=1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("device    cpu")
    assert lines[1].startswith("data      esc10")
    assert any(line.startswith("store     45 clips in host memory") for line in lines)
    assert "no leak" in "\n".join(lines)
    assert "no leak" in (tmp_path / "run" / "log.txt").read_text()

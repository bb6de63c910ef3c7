"""``audioml predict``: files of every kind, against the run's own evaluation and against a loop."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
import torch
from tiny import LABELS, RATE, SETTINGS, train_tiny

from audioml.classifier import Classifier
from audioml.cli import main
from audioml.config import AudioConfig, load_config
from audioml.datasets.files import list_sounds
from audioml.decode import FULL_SCALE, decode_clip
from audioml.experiment import run_experiment
from audioml.predict import predict
from audioml.windowing import plan_windows, read_windows

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run's folder, its data beside it."""
    root = tmp_path_factory.mktemp("run")
    return train_tiny(root, "train.epochs=3", "splits.protocol=fixed")


@pytest.fixture(scope="module")
def classifier(run):
    return Classifier.load(run, "cpu")


def write(file: Path, length_s: float, rate: int = RATE, n_channels: int = 1, **kind) -> Path:
    g = np.random.default_rng(round(1000 * length_s))
    soundfile.write(
        file, 0.2 * g.standard_normal((round(length_s * rate), n_channels)), rate, **kind
    )
    return file


def test_a_clip_gets_what_the_evaluation_gave_it(run, classifier):
    table = pd.read_csv(run / "predictions.csv")
    files = [run.parent / "data" / path for path in table["path"]]
    found = list(predict(classifier, files, batch_size=5, n_threads=2))
    assert [p.path for p in found] == files
    expected = table[[f"p_{label}" for label in LABELS]].to_numpy()
    np.testing.assert_allclose([p.mean_probability for p in found], expected, atol=1e-5)
    predicted = [LABELS[p.mean_probability.argmax()] for p in found]
    assert predicted == table["predicted"].tolist()


@pytest.mark.parametrize("setting", ["audio.eval_crops=3", "audio.pad=wrap", "audio.crop=start"])
def test_a_clip_is_cut_as_its_run_says(run, setting, tmp_path):
    words = [*SETTINGS, setting, f"data.root={run.parent / 'data'}", f"run.dir={tmp_path / 'run'}"]
    run_experiment(load_config(overrides=[*words, "train.epochs=1"]))
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    files = [run.parent / "data" / path for path in table["path"]]
    found = predict(Classifier.load(tmp_path / "run", "cpu"), files)
    expected = table[[f"p_{label}" for label in LABELS]].to_numpy()
    np.testing.assert_allclose([p.mean_probability for p in found], expected, atol=1e-5)


def accuracy_by_command(model, folder, truth, out):
    """Share of files that ``audioml predict`` gets right, and the table it writes."""
    words = ["predict", str(model), str(folder), "--format", "csv", "--out", str(out)]
    assert main([*words, "--device", "cpu"]) == 0
    table = pd.read_csv(out)
    names = [Path(path).stem for path in table["path"]]
    return np.mean([truth[n] == p for n, p in zip(names, table["predicted"], strict=True)]), table


def test_a_test_fold_has_the_accuracy_of_the_run(run, tmp_path):
    """Exactly, from its files; within two clips from the same at 48 kHz and in stereo."""
    told = pd.read_csv(run / "predictions.csv")
    truth = {
        Path(path).stem: label for path, label in zip(told["path"], told["label"], strict=True)
    }
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
    for path in told["path"]:
        file = run.parent / "data" / path
        shutil.copy(file, tmp_path / "own")
        sound, rate = soundfile.read(file)
        stereo = np.tile(soxr.resample(sound, rate, 48_000)[:, None], 2)
        soundfile.write(tmp_path / "other" / f"{file.stem}.wav", stereo, 48_000, subtype="PCM_16")
    own, table = accuracy_by_command(run, tmp_path / "own", truth, tmp_path / "own.csv")
    assert own == json.loads((run / "summary.json").read_text())["accuracy"]
    _, other = accuracy_by_command(run, tmp_path / "other", truth, tmp_path / "other.csv")
    assert (other["predicted"] != table["predicted"]).sum() <= 2
    columns = [f"p_{label}" for label in LABELS]
    np.testing.assert_allclose(other[columns], table[columns], atol=0.1)


@pytest.mark.parametrize(("crop", "n_crops"), [("random", 1), ("random", 3), ("start", 1)])
def test_a_little_longer_is_cut_as_evaluation_cuts(crop, n_crops, tmp_path):
    audio = AudioConfig(sample_rate=RATE, clip_s=0.5, crop=crop, eval_crops=n_crops)
    plan = plan_windows(write(tmp_path / "a.wav", 0.7), audio)
    room = round(0.2 * RATE)
    centres = [(room + 1) * (k + 0.5) / n_crops for k in range(n_crops)]
    assert plan.begin == tuple(0 if crop == "start" else int(centre) for centre in centres)


@pytest.mark.parametrize("pad", ["zero", "wrap"])
def test_short_files_are_filled_up(pad, tmp_path):
    audio = AudioConfig(sample_rate=RATE, clip_s=0.5, pad=pad)
    file = write(tmp_path / "a.wav", 0.2)
    (window,) = read_windows(plan_windows(file, audio), audio)
    sound = decode_clip(file, RATE) / np.float32(FULL_SCALE)
    rest = np.zeros(2400) if pad == "zero" else np.tile(sound, 3)[1600:4000]
    np.testing.assert_array_equal(window, np.concatenate([sound, rest]))


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("rate", [RATE, 11_025])
def test_windows_cover_a_long_file(overlap, rate, tmp_path):
    audio = AudioConfig(sample_rate=RATE, clip_s=0.5)
    file = write(tmp_path / "a.wav", 21.37, rate, 2, subtype="PCM_16")
    plan = plan_windows(file, audio, overlap)
    begin = np.array(plan.begin)
    assert (begin[0], begin[-1]) == (0, plan.length - audio.n_time)
    assert np.diff(begin).max() <= round((1 - overlap) * audio.n_time) + 1
    whole = decode_clip(file, RATE) / np.float32(FULL_SCALE)
    parts = [read_windows(part, audio) for part in plan.parts()]
    expected = np.stack([whole[b : b + audio.n_time] for b in begin])
    assert len(parts) > 1
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=2 / FULL_SCALE)


def test_a_long_file_equals_its_windows_one_by_one(classifier, tmp_path):
    file = write(tmp_path / "a.flac", 20.2, 16_000)
    (found,) = predict(classifier, [file], batch_size=7)
    audio = classifier.config.audio
    windows = np.concatenate([read_windows(p, audio) for p in plan_windows(file, audio).parts()])
    expected = torch.cat([classifier(torch.from_numpy(w)[None]) for w in windows]).numpy()
    np.testing.assert_allclose(found.probability, expected, atol=1e-5)
    np.testing.assert_allclose(found.mean_probability, expected.mean(axis=0), atol=1e-5)
    assert found.duration_s == pytest.approx(20.2)
    assert found.times_s[-1][1] == pytest.approx(20.2)


def test_bad_files_stand_between_good_ones(classifier, tmp_path):
    good = write(tmp_path / "good.wav", 0.5)
    (tmp_path / "bad.wav").write_text("no sound")
    files = [tmp_path / "bad.wav", good, tmp_path / "none.wav", good, tmp_path / "bad.wav"]
    found = list(predict(classifier, files, batch_size=2))
    assert [bool(p.error) for p in found] == [True, False, True, False, True]
    assert "bad.wav: not readable as audio" in found[0].error
    assert found[1].probability.shape == (1, 3)


class Bar:
    """Takes a bar's place and keeps its steps."""

    def __init__(self, *, total, **_):
        self.total, self.n, self.steps = total, 0, []

    def update(self, n):
        self.n += n
        self.steps.append(n)


def test_the_bar_fills_as_files_are_read(classifier, tmp_path, monkeypatch):
    """It counts bytes, also of files that can't be used; a long file moves it more than once."""
    (tmp_path / "bad.wav").write_text("no sound")
    files = [write(tmp_path / "long.wav", 40), tmp_path / "none.wav", tmp_path / "bad.wav"]
    files.append(write(tmp_path / "short.wav", 0.3))
    bars = []

    def make(**options):
        bars.append(Bar(**options))
        return nullcontext(bars[-1])

    monkeypatch.setattr("audioml.predict.progress_bar", make)
    list(predict(classifier, files, overlap=0))
    (bar,) = bars
    assert bar.n == bar.total == sum(file.stat().st_size for file in files if file.exists())
    assert min(bar.steps) >= 0
    assert len(bar.steps) == 6  # 80 windows, 32 at a time, and three files


def test_no_files(classifier):
    assert list(predict(classifier, [])) == []


def test_folders_are_searched_by_name(tmp_path, caplog):
    caplog.set_level("INFO", "audioml")
    (tmp_path / "b").mkdir()
    for name in ("b/2.WAV", "1.flac", "notes.txt"):
        (tmp_path / name).touch()
    assert list_sounds(tmp_path) == [tmp_path / "1.flac", tmp_path / "b" / "2.WAV"]
    assert f"left out  1 files that are no sounds by name: {tmp_path / 'notes.txt'}" in caplog.text


def test_json(run, tmp_path, capsys):
    file = write(tmp_path / "a.wav", 2.0, 22_050, 2)
    (tmp_path / "bad.wav").touch()
    words = ["predict", str(run), str(file), str(tmp_path / "bad.wav")]
    assert main([*words, "--json", "--timeline", "--top", "2", "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    first, second = json.loads(printed.out)["predictions"]
    assert first["duration_s"] == pytest.approx(2.0)
    assert len(first["top"]) == 2
    assert len(first["timeline"]) == first["n_windows"] == 7
    assert first["timeline"][1]["begin_s"] == pytest.approx(0.25)
    assert set(second) == {"path", "error"}
    assert "bad.wav: the file is empty" in printed.err
    assert "1 of 2 files could not be used" in printed.err


def test_csv_and_out(run, tmp_path, capsys):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for n in range(3):
        write(folder / f"{n}.wav", 0.4 + 0.1 * n)
    out = tmp_path / "table.csv"
    words = ["predict", str(run), str(folder), "--format", "csv", "--out", str(out)]
    assert main([*words, "--device", "cpu"]) == 0
    assert capsys.readouterr().out == ""
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["path"] for row in rows] == [str(folder / f"{n}.wav") for n in range(3)]
    for row in rows:
        probability = [float(row[f"p_{label}"]) for label in LABELS]
        assert sum(probability) == pytest.approx(1, abs=1e-6)
        assert row["predicted"] == LABELS[int(np.argmax(probability))]


def test_table(run, tmp_path, capsys):
    file = write(tmp_path / "a.wav", 0.5)
    assert main(["predict", str(run), str(file), "--device", "cpu"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{file}  0.00-0.50 s")
    assert all(label in line for label in LABELS)


def test_one_form_at_a_time(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "run", "a.wav", "--json", "--format", "csv"])
    assert "--format: not allowed with argument --json" in capsys.readouterr().err


def test_names_can_not_steer_the_terminal(run, tmp_path, capsys):
    file = write(tmp_path / "a\x1b[31m.wav", 0.5)
    assert main(["predict", str(run), str(file), "--device", "cpu"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_names_need_not_be_text(run, tmp_path, capsys):
    folder = tmp_path / "sounds"
    folder.mkdir()
    write(tmp_path / "a.wav", 0.5).rename(folder / os.fsdecode(b"\xff.wav"))
    words = ["predict", str(run), str(folder), "--device", "cpu"]
    assert main([*words, "--json"]) == 0
    (prediction,) = json.loads(capsys.readouterr().out)["predictions"]
    assert Path(prediction["path"]).exists()
    assert main([*words, "--format", "csv", "--out", str(tmp_path / "a.csv")]) == 0
    assert r"\udcff.wav" in (tmp_path / "a.csv").read_text()


@pytest.mark.parametrize("style", ["json", "csv"])
def test_nothing_but_the_result_on_standard_output(style, run, tmp_path, capsys):
    write(tmp_path / "a.wav", 0.5)
    (tmp_path / "notes.txt").touch()
    assert main(["predict", str(run), str(tmp_path), "--format", style, "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("{" if style == "json" else "path,")
    assert "left out  1 files" in printed.err


def test_standard_input(run, tmp_path):
    command = [sys.executable, "-m", "audioml", "predict", str(run), "-", "--json"]
    done = subprocess.run(
        [*command, "--device", "cpu"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        input=write(tmp_path / "a.flac", 0.5).read_bytes(),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    (prediction,) = json.loads(done.stdout)["predictions"]
    assert (prediction["path"], prediction["n_windows"]) == ("-", 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "-: standard input is empty"), (b"no sound", "-: not readable as audio")],
)
def test_standard_input_that_is_no_sound(run, monkeypatch, capsys, content, message):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert main(["predict", str(run), "-", "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_closed_standard_input(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["predict", str(run), "-", "--device", "cpu"]) == 2
    assert "-: nothing on standard input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.wav", None, "none.wav: No such file or directory"),
        ("empty.wav", b"", "the file is empty"),
        ("film.mp4", b"\x00\x00\x00\x18ftypmp42" + bytes(5000), "not readable as audio"),
        ("page.wav", b"<html><body>not found</body></html>", "not readable as audio"),
    ],
)
def test_a_file_that_is_no_sound(run, tmp_path, capsys, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["predict", str(run), str(tmp_path / name), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_folders_with_nothing_to_hear(run, tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert main(["predict", str(run), str(tmp_path), "--device", "cpu"]) == 2
    assert "no sound files in it, 1 other files" in capsys.readouterr().err
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    assert main(["predict", str(run), str(tmp_path), "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert "nothing audible, every sample is 0" in printed.err
    assert printed.out == ""
    (tmp_path / "bad.wav").touch()
    assert main(["predict", str(run), str(tmp_path), "--device", "cpu"]) == 2
    assert f"error: {tmp_path / 'bad.wav'}: the file is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--top 0", "--top: must be a whole number of at least 1, got 0"),
        ("--batch-size x", "--batch-size: must be a whole number of at least 1, got x"),
        ("--overlap 1", "--overlap: must be in 0..0.95, got 1"),
        ("--overlap x", "--overlap: must be in 0..0.95, got x"),
        ("--format xml", "--format: invalid choice: 'xml'"),
    ],
)
def test_options_out_of_range(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["predict", "run", "a.wav", *words.split()])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_ten_hours_take_little_memory(run, tmp_path):
    """Peak memory of an hour and of ten hours is the same within 100 MB."""
    program = (
        "import resource, sys; from audioml.cli import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10); sys.exit(code)"
    )

    def peak_mb(hours: int) -> int:
        file = tmp_path / f"{hours}.wav"
        with soundfile.SoundFile(file, "w", RATE, 1, "PCM_16") as sound:
            for _ in range(60 * hours):
                sound.write(0.1 * np.random.default_rng(0).standard_normal(60 * RATE))
        words = ["predict", str(run), str(file), "--device", "cpu", "--overlap", "0"]
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
        )
        return int(done.stdout.splitlines()[-1])

    assert abs(peak_mb(10) - peak_mb(1)) < 100

"""Own data through whole runs: lists of clips with their own split, stretches of long files."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny import RATE, SETTINGS

from audioml.cli import main
from audioml.cli.verbs import EXIT_USAGE

SMALL = [*SETTINGS[1:], "train.epochs=1", "splits.protocol=given"]  # on any data
PARTS = ("train", "val", "test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One file of 2 s a recording: low noise, then high; two stretches each."""
    g = np.random.default_rng(0)
    for n in range(6):
        soundfile.write(tmp_path / f"rec{n}.wav", 0.1 * g.standard_normal(2 * RATE), RATE)
    return tmp_path


def train(root: Path, rows: list[str], *settings: str) -> int:
    text = "path,label,source,start_s,end_s,split\n" + "\n".join(rows) + "\n"
    (root / "clips.csv").write_text(text)
    data = ["data.name=csv", f"data.manifest={root / 'clips.csv'}", f"run.dir={root / 'run'}"]
    return main(["train", *data, *SMALL, *settings])


def rows() -> list[str]:
    return [
        f"rec{n}.wav,{label},patient{n},{start},{end},{PARTS[n // 2]}"
        for n in range(6)
        for label, start, end in (("low", 0, 1), ("high", 1, 2))
    ]


def test_a_list_with_its_own_split(root):
    assert train(root, rows(), "run.report=true") == 0
    assert (root / "run" / "report.html").is_file()
    summary = json.loads((root / "run" / "summary.json").read_text())
    assert (summary["n_train"], summary["n_val"], summary["n_test"]) == (4, 4, 4)
    assert (summary["data"], summary["protocol"], summary["fold"]) == ("clips.csv", "given", None)


def test_a_recording_on_both_sides_does_not_start(root, capsys):
    crossing = [row.replace("patient4", "patient0") for row in rows()]
    assert train(root, crossing) == EXIT_USAGE
    assert "same source: 1 in both train and test" in capsys.readouterr().err
    assert not (root / "run").exists()


def test_one_class_is_none_to_tell(root, capsys):
    assert train(root, [row.replace("high", "low") for row in rows()]) == EXIT_USAGE
    assert "one class, 'low', and nothing to tell it from" in capsys.readouterr().err
    assert not (root / "run").exists()


def test_stretches_that_overlap_across_parts_do_not_start(root, capsys):
    overlapping = [*rows(), "rec0.wav,low,patient9,0.5,1.5,test"]
    assert train(root, overlapping) == EXIT_USAGE
    assert "same clip" in capsys.readouterr().err


def test_times_outside_the_file(root, capsys):
    assert train(root, [*rows()[:-1], "rec5.wav,high,patient5,1,2.5,test"]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert "row 12" in error
    assert "rec5.wav: no samples from 1 s to 2.5 s; the file has 16000 samples" in error


def test_without_sources_the_run_says_what_it_can_not_see(root, caplog):
    lines = [f"rec{n}.wav,{'ab'[n % 2]},{PARTS[n // 2]}" for n in range(6)]
    (root / "clips.csv").write_text("path,label,split\n" + "\n".join(lines) + "\n")
    caplog.set_level("WARNING", "audioml")
    data = ["data.name=csv", f"data.manifest={root / 'clips.csv'}", f"run.dir={root / 'run'}"]
    assert main(["train", *data, *SMALL]) == 0
    assert "clips.csv does not say which recording a clip is from" in caplog.text


@pytest.mark.parametrize(
    ("wanted", "store", "code", "told"),
    [
        ("auto", "host", 0, True),
        ("warn", "stream", 0, True),
        ("ignore", "host", 0, False),
        ("stop", "stream", EXIT_USAGE, True),
    ],
)
def test_one_sound_in_two_parts(root, capsys, caplog, wanted, store, code, told):
    """Without a column of sources; the copy is softer and comes 0.2 s later."""
    sound, _ = soundfile.read(root / "rec0.wav")
    copy = np.concatenate((np.zeros(RATE // 5), 0.5 * sound[: -RATE // 5]))
    soundfile.write(root / "rec5.wav", copy, RATE)
    lines = [f"rec{n}.wav,{'ab'[n % 2]},{PARTS[n // 2]}" for n in range(6)]
    (root / "clips.csv").write_text("path,label,split\n" + "\n".join(lines) + "\n")
    data = ["data.name=csv", f"data.manifest={root / 'clips.csv'}", f"run.dir={root / 'run'}"]
    settings = [*SMALL, f"data.near_duplicates={wanted}", f"audio.store={store}"]
    caplog.set_level("WARNING", "audioml")
    assert main(["train", *data, *settings]) == code
    said = caplog.text + capsys.readouterr().err
    assert ("near-duplicate sound: 1 in both train and test" in said) is told
    assert ("lag +0.200 s: train row 1 (rec0.wav) | test row 6 (rec5.wav)" in said) is told
    assert (root / "run" / "summary.json").exists() is (code == 0)


def test_data_that_say_their_recordings_are_not_searched_unless_asked(root, capsys, caplog):
    soundfile.write(root / "rec5.wav", soundfile.read(root / "rec0.wav")[0] * 0.5, RATE)
    caplog.set_level("WARNING", "audioml")
    assert train(root, rows()) == 0
    assert "near-duplicate" not in caplog.text
    assert train(root, rows(), "data.near_duplicates=stop", "run.dir=none") == EXIT_USAGE
    assert "near-duplicate sound: 2 in both train and test" in capsys.readouterr().err

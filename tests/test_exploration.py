"""What ``audioml explore`` finds and writes; its page in a browser is in tests/browser/."""

import json
import shutil
import weakref

import numpy as np
import pandas as pd
import pytest
from sound_folders import HOSTILE, SMALL, make_hostile, tone, write
from tiny import RATE, SETTINGS, make_tiny

from audioml.cli import main
from audioml.config import ConfigError
from audioml.explore import survey
from audioml.explore.exploration import look
from audioml.explore.inputs import BESIDE, read_input
from audioml.explore.page import _duration

PICTURES = {
    "augmentation.png",
    "balance.png",
    "lengths_levels.png",
    "log_mels.png",
    "mel_and_log_mel.png",
    "spectra.png",
    "waveforms.png",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny") / "data", clips_a_fold=1)


@pytest.fixture
def folder(tmp_path):
    """Sounds of two classes, and one beside them."""
    root = tmp_path / "sounds"
    for number, name in enumerate(("cat/a.wav", "cat/deep/b.wav", "dog/a.flac", "loose.wav")):
        write(root / name, tone(300 + 100 * number))
    (root / "notes.txt").write_text("no sound")
    return root


def explore(capsys, out, *words):
    """Run the verb; returns its exit code, its JSON and its table."""
    code = main(["explore", *map(str, words), "--out", str(out), "--json"])
    summary = json.loads(capsys.readouterr().out)
    return code, summary, pd.read_csv(out / "clips.csv", keep_default_na=False)


def titles(summary):
    return [finding["title"] for finding in summary["findings"]]


def findings(*words):
    """Look, and draw nothing; returns the titles of the findings and their clips."""
    summary = look(read_input([*map(str, words)]), n_examples=0).summary()
    return {finding["title"]: finding["clips"] for finding in summary["findings"]}


def test_a_data_set_gives_a_page_a_table_and_pictures(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    code, summary, table = explore(capsys, out, f"data.root={tiny}", *SETTINGS)
    assert code == 0
    assert {file.name for file in (out / "plots").iterdir()} == PICTURES
    assert (summary["clips"], summary["usable"], summary["bad"]) == (15, 15, {})
    assert summary["classes"] == {"high": 5, "low": 5, "middle": 5}
    assert list(table["path"]) == [f"audio/{name}" for name in table["path"].str[6:]]
    assert set(table["fold"]) == {1, 2, 3, 4, 5}
    assert set(table["sample_rate"]) == {RATE}
    assert table["length_s"].between(0.3, 0.7).all()
    assert table["rms_dbfs"].between(-12, -10).all()
    assert (table["reason"] == "").all()
    assert summary["length_s"]["median"] == pytest.approx(table["length_s"].median())


def test_a_folder_of_sounds_needs_no_layout(folder, tmp_path, capsys, caplog):
    caplog.set_level("INFO", "audioml")
    code, summary, table = explore(capsys, tmp_path / "out", folder, *SMALL, "--examples=0")
    assert code == 0
    assert list(table["path"]) == ["cat/a.wav", "cat/deep/b.wav", "dog/a.flac", "loose.wav"]
    assert list(table["label"]) == ["cat", "cat", "dog", BESIDE]
    assert "left out  1 files that are no sounds by name" in caplog.text
    assert "Nothing says which recording a clip is from" in titles(summary)


def test_a_folder_without_folders_is_one_class(folder):
    manifest = read_input([str(folder / "cat" / "deep")]).manifest
    assert manifest.labels == ("deep",)


def test_one_file(folder, tmp_path, capsys):
    out = tmp_path / "out"
    code, summary, table = explore(capsys, out, folder / "loose.wav", *SMALL)
    assert code == 0
    assert len(table) == summary["clips"] == 1
    assert summary["findings"] == []
    assert {file.name for file in (out / "plots").iterdir()} == PICTURES - {
        "balance.png",
        "lengths_levels.png",
    }


def test_a_list_of_clips(folder):
    file = folder / "clips.csv"
    file.write_text("path,label,source,start_s,end_s\ncat/a.wav,x,s,0,0.2\ncat/a.wav,y,s,0.2,\n")
    found = look(read_input([str(file), *SMALL]), n_examples=0)
    assert list(found.survey.clips["length_s"]) == [0.2, 0.3]
    assert "1 recording in several classes" in [finding.title for finding in found.findings]


def test_the_layout_of_esc50_is_recognised(tiny):
    assert read_input([str(tiny)]).manifest.name == "esc10"  # all its rows are ESC-10's
    with pytest.raises(ConfigError, match="give one of them"):
        read_input([str(tiny), "data.root=elsewhere"])


def test_data_of_a_settings_file_give_way_to_a_folder(folder, tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("data: {name: esc10, root: elsewhere}\naudio: {sample_rate: 4000}\n")
    found = read_input([str(settings), str(folder), "audio.clip_s=1"])
    assert (found.config.audio.sample_rate, found.config.audio.clip_s) == (4000, 1)
    assert (found.config.data.name, found.config.data.root) == ("folder", str(folder))
    assert len(found.manifest) == 4


def test_a_pattern_finds_the_recordings(folder):
    found = read_input([str(folder), r"data.source_pattern='([a-z]+)\.'"])
    assert [clip.source for clip in found.manifest.clips] == ["a", "b", "a", "loose"]
    assert found.manifest.has_sources


def test_two_folders_are_refused(folder):
    with pytest.raises(ConfigError, match="2 folders or files"):
        read_input([str(folder), str(folder / "cat")])


def test_fewer_than_no_examples_are_refused(folder, capsys):
    assert main(["explore", str(folder), "--examples=-1"]) == 2
    assert "--examples must be 0 or more, got -1" in capsys.readouterr().err


def test_what_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["explore", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert "no such file or folder" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("others", [[], ["notes.txt", "picture.png"]])
def test_a_folder_without_sounds_is_one_line(others, tmp_path, capsys):
    root = tmp_path / "empty"
    root.mkdir()
    for name in others:
        (root / name).write_bytes(b"x")
    assert main(["explore", str(root), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "no sound files" in error
    assert ("2 other files" in error) == bool(others)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_anything_is_not_written_to(folder, tmp_path, capsys):
    out = tmp_path / "out"
    write(out / "mine.wav")
    assert main(["explore", str(folder), "--out", str(out)]) == 2
    assert "already there; choose another --out" in capsys.readouterr().err


def test_the_default_folder_is_named_after_time_and_data(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["explore", str(folder / "loose.wav"), *SMALL, "--examples=0"]) == 0
    (made,) = (tmp_path / "runs").iterdir()
    assert made.name.endswith("_explore_loose.wav")
    assert str(made.relative_to(tmp_path)) in capsys.readouterr().out


def test_bad_files_are_listed_with_the_reason_and_exit_1(folder, tmp_path, capsys):
    (folder / "cat" / "nothing.wav").write_bytes(b"")
    (folder / "cat" / "text.wav").write_text("this is no sound\n" * 99)
    code, summary, table = explore(capsys, tmp_path / "out", folder, *SMALL, "--examples=0")
    assert code == 1
    reasons = dict(zip(table["path"], table["reason"], strict=True))
    assert "empty" in reasons["cat/nothing.wav"]
    assert "not readable as audio" in reasons["cat/text.wav"]
    assert reasons["cat/a.wav"] == ""
    assert set(summary["bad"]) == {"cat/nothing.wav", "cat/text.wav"}
    assert (summary["clips"], summary["usable"]) == (6, 4)
    assert titles(summary)[0] == "2 files that can't be read"


def test_one_bad_file_is_one_line(tmp_path, capsys):
    file = tmp_path / "text.wav"
    file.write_text("this is no sound")
    assert main(["explore", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "text.wav: not readable as audio" in capsys.readouterr().err


def test_a_missing_file_of_a_data_set_is_listed(tiny, tmp_path):
    root = shutil.copytree(tiny, tmp_path / "data")
    gone = min((root / "audio").iterdir())
    gone.unlink()
    found = findings(f"data.root={root}", *SETTINGS)
    assert found == {"1 file that can't be read": [f"audio/{gone.name}"]}


@pytest.mark.parametrize("broken", [True, False])
def test_nothing_audible_exits_1(broken, tmp_path, capsys):
    root, out = tmp_path / "sounds", tmp_path / "out"
    for name in ("a/1.wav", "b/2.wav"):
        write(root / name, np.zeros(RATE))
        if broken:
            (root / name).write_bytes(b"")
    code, summary, table = explore(capsys, out, root, *SMALL)
    assert code == 1
    assert len(table) == 2
    expected = "2 files that can't be read" if broken else "2 clips of nothing but zeros"
    assert titles(summary)[0] == expected
    assert "waveforms.png" not in {file.name for file in (out / "plots").iterdir()}


def test_hostile_names_reach_the_table_whole(tmp_path, capsys):
    code, summary, table = explore(
        capsys, tmp_path / "out", make_hostile(tmp_path / "s"), *SMALL, "--examples=0"
    )
    assert code == 1
    names = {path.partition("/")[2] for path in table["path"]}
    assert {name for name in HOSTILE if "\udcff" not in name} < names
    assert "\ufffd\ufffd.wav" in names  # bytes that are no text
    assert summary["usable"] == len(HOSTILE)


def test_equal_sounds_are_found_in_any_format(folder):
    samples = np.random.default_rng(0).integers(-9999, 9999, RATE // 2, dtype=np.int16)
    write(folder / "cat" / "one.wav", samples)
    write(folder / "dog" / "same.flac", samples)
    title = "1 sound that is there twice (1 with different labels)"
    assert findings(folder, *SMALL)[title] == ["cat/one.wav", "dog/same.flac"]


@pytest.mark.parametrize(
    ("waveform", "title"),
    [
        (np.clip(tone(amplitude=3), -1, 1), "1 clip clipped"),
        (tone(amplitude=0.001), "1 clip below -50 dBFS"),
        (np.r_[tone(seconds=0.1), np.zeros(RATE // 2)], "1 clip more than half silent"),
        (tone() + 0.05, "1 clip with an offset"),
        (tone(seconds=2), "1 clip longer than 1.5 times 0.5 s"),
        (tone(seconds=0.1), "1 clip shorter than half of 0.5 s"),
    ],
)
def test_what_should_be_looked_at(waveform, title, folder):
    assert title not in findings(folder, *SMALL)
    write(folder / "cat" / "odd.wav", waveform)
    assert findings(folder, *SMALL)[title] == ["cat/odd.wav"]


def test_shared_recordings_are_found(tiny, tmp_path):
    root = shutil.copytree(tiny, tmp_path / "data")
    rows = pd.read_csv(root / "meta" / "esc50.csv")
    rows.loc[[0, 1], "src_file"] = 77
    rows.to_csv(root / "meta" / "esc50.csv", index=False)
    assert list(findings(f"data.root={root}", *SETTINGS)) == [
        "2 clips share their recording with another",
        "1 recording in several folds",
    ]


def test_memory_does_not_grow_with_the_data(folder, monkeypatch):
    """No more than a file a thread is in memory."""
    alive, most = [], []
    read = survey.read_samples

    def counted(*args):
        payload = read(*args)
        alive.append(weakref.ref(payload.data))
        most.append(sum(ref() is not None for ref in alive))
        return payload

    monkeypatch.setattr(survey, "read_samples", counted)
    for number in range(40):
        write(folder / "cat" / f"{number}.wav")
    findings(folder, *SMALL, "audio.decode_threads=2")
    assert len(alive) == 44
    assert max(most) <= 4


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1.5, "1.50 s"), (59.7, "1 min 0 s"), (119.7, "2 min 0 s"), (3599.9, "1 h 0 min")],
)
def test_lengths_in_words(seconds, words):
    assert _duration(seconds) == words

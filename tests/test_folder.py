from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioml.datasets.folder import read_folder
from audioml.datasets.manifest import DataError


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, np.zeros(100), 8000, format="WAV")
    return root


def test_a_folder_is_a_class(tmp_path, caplog):
    caplog.set_level("INFO", "audioml")
    root = make(tmp_path / "own", "dog/b.wav", "dog/a/1.FLAC", "cat/x.opus")
    (root / "dog" / "c.wav").mkdir()
    (root / "dog" / "notes.txt").write_text("not a sound")
    manifest = read_folder(root)
    assert (manifest.name, manifest.labels) == ("own/", ("cat", "dog"))
    assert [(c.path, c.label, c.target, c.source, c.row) for c in manifest.clips] == [
        (root / "cat" / "x.opus", "cat", 0, "cat/x.opus", 1),
        (root / "dog" / "a" / "1.FLAC", "dog", 1, "dog/a/1.FLAC", 2),
        (root / "dog" / "b.wav", "dog", 1, "dog/b.wav", 3),
    ]
    assert not manifest.has_sources
    assert f"left out  1 files that are no sounds by name: {root}/dog/notes.txt" in caplog.text


@pytest.mark.parametrize("pattern", [r"([a-z]+)\d+_", r"[a-z]+(?=\d+_)"])
def test_recordings_by_pattern(tmp_path, pattern):
    root = make(tmp_path, "a/yard1_1.wav", "a/yard2_7.wav", "b/lab3_1.wav")
    manifest = read_folder(root, pattern)
    assert manifest.sources.tolist() == ["yard", "yard", "lab"]
    assert manifest.has_sources


@pytest.mark.parametrize(
    ("names", "pattern", "message"),
    [
        (["a/x.wav"], None, "at least two folders, one a class, found only of 'a'"),
        ([], None, r"no sound files in it, nothing; expected names ending in \.wav"),
        (["a/x.wav", "b/y.wav", "z.wav"], None, "1 sound files beside the classes' folders: z.wav"),
        (["a/x1.wav", "b/y.wav"], r"\d+", "finds no recording in 1 of 2 names: b/y.wav"),
        (["a/x1.wav", "b/y.wav"], "(", "no regular expression"),
        (["a/x\n.wav", "b/y.wav"], None, "control characters"),
    ],
)
def test_refusals(tmp_path, names, pattern, message):
    with pytest.raises(DataError, match=message) as refusal:
        read_folder(make(tmp_path, *names), pattern)
    assert "\n" not in str(refusal.value)


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match=r"none: no such folder.*set data.root"):
        read_folder(tmp_path / "none")


def test_a_link_out_of_the_folder(tmp_path):
    root = make(tmp_path / "own", "a/x.wav", "b/y.wav")
    make(tmp_path, "outside.wav")
    (root / "a" / "z.wav").symlink_to(tmp_path / "outside.wav")
    with pytest.raises(DataError, match=r"z\.wav is a link out of the data root"):
        read_folder(root)

from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioml.datasets.manifest import DataError
from audioml.datasets.physionet import read_physionet2016
from audioml.splits import make_split

RATE = 2000


def make(root: Path, letters: str = "ab", n: int = 4) -> Path:
    """Write databases of ``n`` recordings, normal and abnormal in turn."""
    g = np.random.default_rng(0)
    for letter in letters:
        folder = root / f"training-{letter}"
        folder.mkdir(parents=True)
        for i in range(n):
            name = folder / f"{letter}{i:04}.wav"
            soundfile.write(name, 0.1 * g.standard_normal(RATE), RATE)
        lines = [f"{letter}{i:04},{(-1, 1)[i % 2]}\n" for i in range(n)]
        (folder / "REFERENCE.csv").write_text("".join(lines))
    return root


def test_databases_are_folds(tmp_path):
    manifest = read_physionet2016(make(tmp_path, "abf"))
    assert manifest.labels == ("normal", "abnormal")
    assert [c.fold for c in manifest.clips] == 4 * [1] + 4 * [2] + 4 * [6]
    assert [c.target for c in manifest.clips[:4]] == [0, 1, 0, 1]
    assert {c.is_good for c in manifest.clips} == {None}
    assert not manifest.has_sources
    split = make_split(
        manifest,
        protocol="fixed",
        fold=6,
        test_share=0.2,
        val_share=0.2,
        seed=0,
        strict_sources=False,
    )
    assert {manifest.clips[i].path.parent.name for i in split.test} == {"training-f"}


@pytest.mark.parametrize("place", ["annotations/updated/training-a/REFERENCE_withSQI.csv", None])
def test_later_annotations_count(tmp_path, place):
    root = make(tmp_path, "a")
    file = root / (place or "training-a/REFERENCE-SQI.csv")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("a0000,1,1\na0001,1,0\na0002,-1,1\n")
    clips = read_physionet2016(root).clips
    assert [(c.label, c.is_good) for c in clips] == [
        ("abnormal", True),
        ("abnormal", False),
        ("normal", True),
        ("abnormal", None),
    ]


def test_the_copies_in_validation_are_not_read(tmp_path):
    root = make(tmp_path)
    (root / "training-a").rename(root / "validation")
    assert {c.path.parent.name for c in read_physionet2016(root).clips} == {"training-b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a0000,2\n", r"line 1: expected a0001,1 \(1 abnormal, -1 normal\), got 'a0000,2'"),
        ("a0000,1,1\n", "line 1: expected a0001,1"),
        ("../x,1\n", "line 1: expected a0001,1"),
        ("a0000,1\na0000,-1\n", "line 2: a0000 is already line 1"),
        ("a0000,1\na0009,-1\n", "1 of 2 recordings are not there: a0009"),
        ("\n", "no recordings in it"),
    ],
)
def test_malformed_references(tmp_path, text, message):
    root = make(tmp_path, "a")
    (root / "training-a" / "REFERENCE.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_physionet2016(root)


def test_no_database(tmp_path):
    with pytest.raises(DataError, match=r"no training-a to training-f.*physionet.org"):
        read_physionet2016(tmp_path)
    (tmp_path / "training-a").mkdir()
    with pytest.raises(DataError, match=r"REFERENCE.csv.*get the whole database"):
        read_physionet2016(tmp_path)


def test_an_annotation_of_an_unknown_recording(tmp_path):
    root = make(tmp_path, "a")
    (root / "training-a" / "REFERENCE-SQI.csv").write_text("a0077,1,1\n")
    with pytest.raises(DataError, match="a0077 has later annotations but is not in REFERENCE"):
        read_physionet2016(root)

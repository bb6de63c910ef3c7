from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioml.audit import audit_split
from audioml.datasets.icbhi import SPLIT_FILE, read_icbhi
from audioml.datasets.manifest import DataError
from audioml.splits import make_split

RATE = 4000
CYCLES = "0.0\t0.5\t0\t0\n0.5\t1.0\t1\t0\n1.0\t1.5\t0\t1\n1.5\t2.03\t1\t1\n"
SPLIT = {"protocol": "given", "fold": 1, "test_share": 0.2, "val_share": 0.2, "seed": 0}


def make(root: Path, parts: dict[str, str], cycles: str = CYCLES) -> Path:
    """Write recordings of 2 s, by name with their part in the official split."""
    folder = root / "ICBHI_final_database"
    folder.mkdir(parents=True)
    g = np.random.default_rng(0)
    for name in parts:
        soundfile.write(folder / f"{name}.wav", 0.1 * g.standard_normal(2 * RATE), RATE)
        (folder / f"{name}.txt").write_text(cycles)
    lines = [f"{name}\t{part}\n" for name, part in parts.items()]
    (root / SPLIT_FILE).write_text("".join(lines))
    return root


def take(patient: int, n: int = 1) -> str:
    return f"{patient}_{n}b1_Al_sc_Meditron"


def test_a_clip_a_cycle(tmp_path):
    manifest = read_icbhi(make(tmp_path, {take(101): "train", take(102): "test"}))
    assert manifest.labels == ("normal", "crackle", "wheeze", "both")
    assert [c.label for c in manifest.clips[:4]] == list(manifest.labels)
    assert [c.source for c in manifest.clips] == 4 * ["101"] + 4 * ["102"]
    assert [c.part for c in manifest.clips] == 4 * ["train"] + 4 * ["test"]
    assert [(c.start_s, c.end_s) for c in manifest.clips[:2]] == [(0.0, 0.5), (0.5, 1.0)]
    assert manifest.clips[3].end_s == 2.0  # an annotation rounds beyond the recording's end


def test_the_folder_itself_and_no_list(tmp_path):
    root = make(tmp_path, {take(101): "train"})
    (root / SPLIT_FILE).unlink()
    manifest = read_icbhi(root / "ICBHI_final_database")
    assert {c.part for c in manifest.clips} == {None}
    assert not manifest.known_crossing_sources


def test_the_recording_whose_device_the_list_misnames(tmp_path):
    root = make(tmp_path, {"226_1b1_Pl_sc_Meditron": "test", take(101): "train"})
    for file in (root / "ICBHI_final_database").glob("226*"):
        file.rename(file.with_name(file.name.replace("Meditron", "LittC2SE")))
    assert [c.part for c in read_icbhi(root).clips if c.source == "226"] == 4 * ["test"]


def test_the_official_splits_two_patients_are_named_exceptions(tmp_path):
    parts = {take(101): "train", take(102): "test"}
    parts |= {take(156): "train", take(156, 2): "test"}
    manifest = read_icbhi(make(tmp_path, parts))
    split = make_split(manifest, strict_sources=False, **SPLIT)
    report = audit_split(manifest, split)
    assert report.is_clean
    assert [(o.kind, o.shared) for o in report.overlaps] == [("same source", "156")]
    strict = make_split(manifest, strict_sources=True, **SPLIT)
    assert [manifest.clips[i].source for i in strict.dropped] == 4 * ["156"]
    assert not audit_split(manifest, strict).overlaps


def test_another_patient_on_both_sides_is_a_leak(tmp_path):
    parts = {take(101): "train", take(101, 2): "test", take(102): "test"}
    manifest = read_icbhi(make(tmp_path, parts))
    split = make_split(manifest, strict_sources=False, **SPLIT)
    assert not audit_split(manifest, split).is_clean


def test_patients_are_held_out_whole(tmp_path):
    parts = {take(100 + n, m): "train" for n in range(10) for m in (1, 2)}
    manifest = read_icbhi(make(tmp_path, parts))
    split = make_split(manifest, strict_sources=False, **SPLIT | {"protocol": "holdout"})
    sides = [set(manifest.sources[part]) for part in split.parts.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 10


@pytest.mark.parametrize(
    ("cycles", "message"),
    [
        ("", "no cycle in it"),
        ("0.0 0.5 0\n", "line 1: expected four numbers"),
        ("0.0 0.5 0 0\n0.5 x 0 0\n", "line 2: expected four numbers"),
        ("0.0 nan 0 0\n", "line 1: expected four numbers"),
        ("0.0 0.5 0 2\n", r"line 1: crackles and wheezes must be 0 or 1, got \['0', '2'\]"),
        ("0.5 0.5 0 0\n", "line 1: a cycle from 0.5 to 0.5 s in a recording of 2.000 s"),
        ("0.5 2.2 0 0\n", "line 1: a cycle from 0.5 to 2.2 s in a recording of 2.000 s"),
        ("2.0 2.05 0 0\n", "line 1: a cycle from 2 to 2.05 s"),
    ],
)
def test_malformed_annotations(tmp_path, cycles, message):
    with pytest.raises(DataError, match=message) as refusal:
        read_icbhi(make(tmp_path, {take(101): "train"}, cycles))
    assert f"{take(101)}.txt" in str(refusal.value)


def test_missing_annotation(tmp_path):
    root = make(tmp_path, {take(101): "train"})
    (root / "ICBHI_final_database" / f"{take(101)}.txt").unlink()
    with pytest.raises(DataError, match=r"Meditron.txt: No such file.*annotation"):
        read_icbhi(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{take(101)} train\n{take(102)} dev\n", "line 2: expected a recording's name and train"),
        (f"{take(102)} train\n", "1 of 1 recordings are not in it: 101_1b1"),
    ],
)
def test_a_bad_list(tmp_path, text, message):
    root = make(tmp_path, {take(101): "train"})
    (root / SPLIT_FILE).write_text(text)
    with pytest.raises(DataError, match=message):
        read_icbhi(root)


def test_other_recordings_and_none(tmp_path):
    with pytest.raises(DataError, match=r"no recordings.*set data.root"):
        read_icbhi(tmp_path)
    with pytest.raises(DataError, match="begins with the patient's number"):
        read_icbhi(make(tmp_path, {"lung": "train"}))

from pathlib import Path

import pytest
import soundfile
from sounds import partials

from audioml.config import ConfigError, DataConfig
from audioml.datasets import load_manifest
from audioml.datasets.csv import read_csv
from audioml.datasets.manifest import DataError, Manifest

RATE = 8000
HEADER = "path,label,source,fold,start_s,end_s,split\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a b").mkdir()
    for name in ("one.wav", "two.wav", "a b/three.flac"):
        soundfile.write(tmp_path / name, 0.3 * partials(0)[: 2 * RATE], RATE)
    return tmp_path


def read(root: Path, text: str) -> Manifest:
    (root / "clips.csv").write_text(text, encoding="utf-8")
    return read_csv(root / "clips.csv", root)


def test_all_columns(root):
    manifest = read(
        root,
        HEADER
        + "one.wav,dog,yard,1,0,0.5,train\n"
        + "one.wav,cat,yard,1,0.5,,train\n"
        + "a b/three.flac,cat,7,02,0,1.25,test\n",
    )
    assert (manifest.name, manifest.root, manifest.labels) == ("clips.csv", root, ("cat", "dog"))
    assert manifest.has_sources
    rows = [
        (c.path, c.label, c.target, c.source, c.fold, c.start_s, c.end_s, c.part, c.row)
        for c in manifest.clips
    ]
    assert rows == [
        (root / "one.wav", "dog", 1, "yard", 1, 0.0, 0.5, "train", 1),
        (root / "one.wav", "cat", 0, "yard", 1, 0.5, None, "train", 2),
        (root / "a b" / "three.flac", "cat", 0, "7", 2, 0.0, 1.25, "test", 3),
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_least_columns_in_any_order(root, separator):
    lines = ("label", "path"), ("x", "one.wav"), ("y", "two.wav")
    manifest = read(root, "".join(separator.join(line) + "\n" for line in lines))
    assert [(c.label, c.path.name) for c in manifest.clips] == [("x", "one.wav"), ("y", "two.wav")]
    assert not manifest.has_sources


def test_without_sources_a_file_is_a_recording(root):
    text = "path,label,start_s,end_s\none.wav,x,0,1\n./one.wav,y,1,2\ntwo.wav,y,0,1\n"
    assert read(root, text).sources.tolist() == ["one.wav", "one.wav", "two.wav"]


def test_other_columns_are_named(root, caplog):
    caplog.set_level("INFO", "audioml")
    read(root, "path,label,weather\none.wav,x,rain\n")
    assert "not used: 'weather'" in caplog.text


def test_several_labels_a_row(root):
    manifest = read(root, "path,label\none.wav,rain; dog \ntwo.wav,\na b/three.flac,big cat\n")
    assert manifest.is_multi_label
    assert manifest.labels == ("big cat", "dog", "rain")
    assert [clip.label for clip in manifest.clips] == ["dog;rain", "", "big cat"]
    assert manifest.has_class.astype(int).tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert [manifest.class_names(c) for c in manifest.clips] == [["dog", "rain"], [], ["big cat"]]


def test_one_label_in_every_row_is_single_label(root):
    manifest = read(root, "path,label\none.wav,x\ntwo.wav,y\na b/three.flac,x\n")
    assert not manifest.is_multi_label
    assert manifest.has_class.astype(int).tolist() == [[1, 0], [0, 1], [1, 0]]


def test_several_labels_are_quoted_where_semicolons_part_fields(root):
    manifest = read(root, 'path;label\none.wav;"b;a"\ntwo.wav;a\n')
    assert [clip.label for clip in manifest.clips] == ["a;b", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,category\none.wav,x\n", "no column label; found 'path', 'category'"),
        ("path,label,sorce\none.wav,x,1\n", "unknown column 'sorce'; did you mean source"),
        ("path,label,start\none.wav,x,1\n", "unknown column 'start'; did you mean start_s"),
        ("path,label,label\none.wav,x,y\n", "column label is there twice"),
        ("path,label,fold,fold\none.wav,x,1,2\n", "column fold is there twice"),
        ("path,label;source\none.wav,x\n", "comma and semicolon both part fields of the header"),
        ("path,label\none.wav,x\ntwo.wav;y\n", "row 2: fields are not parted as in the header"),
        ("path,label\none.wav,x,7\n", "more fields than the header|not readable as CSV"),
        (
            "path,label\none.wav,\n",
            r"row 1: label must be a label, or several parted by semicolons, got ''",
        ),
        ("path,label\none.wav,a;\n", "row 1: label must be labels parted by semicolons, or empty"),
        ("path,label\none.wav,a; ;b\n", "row 1: label must be labels parted by semicolons, or"),
        ("path,label\none.wav,b;a; b\n", "row 1: a label is there twice, got 'b;a; b'; remove one"),
        ("path,label,source\none.wav,x,\n", "row 1: source must be the recording"),
        ("path,label,fold\none.wav,x,1.5\n", "row 1: fold must be an integer"),
        ("path,label,split\none.wav,x,dev\n", "row 1: split must be one of train, val, test"),
        ("path,label,start_s\none.wav,x,-1\n", "row 1: start_s must be a time"),
        ("path,label,end_s\none.wav,x,inf\n", "row 1: end_s must be a time"),
        ("path,label,start_s,end_s\none.wav,x,2,2\n", r"row 1: end_s must be above start_s \(2\)"),
        ("path,label\none.wav,x\none.wav,y\n", "row 2: 'one.wav' is already row 1"),
        (
            "path,label,end_s\none.wav,x,1\ntwo.wav,x,1\none.wav,x,1\n",
            "row 3: 'one.wav' is already row 1",
        ),
        (
            "path,label,start_s,end_s\none.wav,x,0,\none.wav,x,0,1\none.wav,y,0.0,1.0\n",
            "row 3: 'one.wav' is already row 2",
        ),
        (
            "path,label,start_s,end_s\none.wav,x,0,\none.wav,y,0.0,\n",
            "row 2: 'one.wav' is already row 1",
        ),
        ("path,label\n../one.wav,x\n", "row 1: '../one.wav' leaves the data root"),
        ("path,label\n/etc/passwd,x\n", "row 1: '/etc/passwd' leaves the data root"),
        ("path,label\nnone.wav,x\n", r"1 of 1 rows name files that are not in .*none.wav \(row 1"),
        ("path,label\n", "no rows"),
        ("", "not readable as CSV"),
    ],
)
def test_refusals(root, text, message):
    with pytest.raises(DataError, match=message) as refusal:
        read(root, text)
    assert "clips.csv" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_link_out_of_the_root(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "x.wav"
    outside.write_bytes((root / "one.wav").read_bytes())
    (root / "link.wav").symlink_to(outside)
    with pytest.raises(DataError, match=r"row 1: .*link.wav is a link out of the data root"):
        read(root, "path,label\nlink.wav,x\n")


def test_no_list(tmp_path):
    with pytest.raises(DataError, match=r"none.csv: No such file.*set data.manifest"):
        read_csv(tmp_path / "none.csv", tmp_path)


def test_by_settings(root):
    (root / "clips.csv").write_text("path,label\none.wav,x\ntwo.wav,y\n")
    manifest = load_manifest(DataConfig(name="csv", manifest=str(root / "clips.csv")))
    assert manifest.root == root
    moved = load_manifest(
        DataConfig(name="csv", manifest=str(root / "clips.csv"), root=str(root / "a b")),
        check_files=False,
    )
    assert moved.clips[0].path == root / "a b" / "one.wav"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "csv"}, "set data.manifest=FILE"),
        ({"name": "folder"}, "set data.root=FOLDER"),
        ({"name": "esc50", "manifest": "x.csv"}, "data.manifest is for data.name=csv"),
        (
            {"name": "csv", "manifest": "x", "source_pattern": "x"},
            "data.source_pattern is for data.name=folder",
        ),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**settings)

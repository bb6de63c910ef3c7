from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from esc50_like import CROSSING_FOLDS, VARIANTS, split_images

from audioml.audit import AuditReport, LeakError, audit_files, audit_split
from audioml.datasets.manifest import Clip, Manifest
from audioml.similarity import NearDuplicate
from audioml.split_files import AuditError
from audioml.splits import Split, make_split


def esc50_split(manifest: Manifest, protocol: str, fold: int, strict: bool = False) -> Split:
    return make_split(
        manifest,
        protocol=protocol,
        fold=fold,
        test_share=0.2,
        val_share=0.2,
        seed=fold,
        strict_sources=strict,
    )


def found(report: AuditReport) -> set[tuple[str, str]]:
    """Pairs of (kind, parts) that leak."""
    return {(leak.kind, "/".join(leak.parts)) for leak in report.leaks}


class TestOwnSplits:
    @pytest.mark.parametrize("fold", [1, 2, 3, 4, 5])
    @pytest.mark.parametrize("protocol", ["nested", "fixed", "holdout"])
    def test_esc50_has_no_leak_but_the_named_sources(
        self, esc50_manifest: Manifest, protocol: str, fold: int
    ) -> None:
        report = audit_split(esc50_manifest, esc50_split(esc50_manifest, protocol, fold))
        part_of = dict.fromkeys(range(1, 6), "train") | {fold: "test"}
        if protocol == "nested":
            part_of[fold % 5 + 1] = "val"
        expected = {
            source
            for source, (a, b) in CROSSING_FOLDS.items()
            if part_of[a] != part_of[b] and protocol != "holdout"
        }
        assert {overlap.shared for overlap in report.overlaps} == expected
        assert all(o.kind == "same source" and o.is_known for o in report.overlaps)
        assert report.is_clean
        report.raise_on_leak()
        assert report.text().endswith("no leak")
        assert all(source in report.text() for source in expected)

    @pytest.mark.parametrize("protocol", ["nested", "fixed"])
    def test_strict_sources_leave_nothing_to_report(
        self, esc50_manifest: Manifest, protocol: str
    ) -> None:
        for fold in range(1, 6):
            split = esc50_split(esc50_manifest, protocol, fold, strict=True)
            assert audit_split(esc50_manifest, split).overlaps == ()

    def test_unnamed_crossing_sources_are_leaks(self, esc50_manifest: Manifest) -> None:
        manifest = replace(esc50_manifest, known_crossing_sources=frozenset({"131943"}))
        report = audit_split(manifest, esc50_split(manifest, "fixed", 2))
        assert [leak.shared for leak in report.leaks] == ["134049"]
        assert len(report.overlaps) == 2

    def test_random_split_leaks_sources(self, esc50_manifest: Manifest) -> None:
        parts = np.split(np.random.default_rng(0).permutation(2000), [1200, 1600])
        report = audit_split(esc50_manifest, raw_split(*parts))
        assert found(report) == {
            ("same source", "/".join(sides))
            for sides in (("train", "val"), ("train", "test"), ("val", "test"))
        }


def raw_split(train: Sequence[int], val: Sequence[int], test: Sequence[int]) -> Split:
    train, val, test, none = (np.array(part, dtype=np.int64) for part in (train, val, test, []))
    return Split(protocol="holdout", fold=None, train=train, val=val, test=test, dropped=none)


def pair(first: dict[str, Any], second: dict[str, Any], known: str = "") -> Manifest:
    """A manifest of two clips, by default of one class and different in everything else."""
    defaults: list[dict[str, Any]] = [
        {"path": Path("audio/one.wav"), "source": "1", "fold": 1},
        {"path": Path("audio/two.wav"), "source": "2", "fold": 2},
    ]
    clips = tuple(
        Clip(**({"label": "dog", "target": 0} | default | change))
        for default, change in zip(defaults, (first, second), strict=True)
    )
    return Manifest(
        name="pair",
        root=Path("audio"),
        labels=("dog", "cat"),
        clips=clips,
        known_crossing_sources=frozenset({known}),
    )


def named(first: str, second: str, **options: Any) -> Manifest:
    return pair({"path": Path(first)}, {"path": Path(second)} | options)


PARTS = {
    "train/val": raw_split([0], [1], []),
    "train/test": raw_split([0], [], [1]),
    "val/test": raw_split([], [0], [1]),
}


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize(
    ("manifest", "kinds"),
    [
        (pair({}, {}), set()),
        (named("x.wav", "x.wav"), {"same clip"}),
        (
            pair({"path": Path("x.wav"), "end_s": 2.0}, {"path": Path("x.wav"), "start_s": 1.9}),
            {"same clip"},
        ),
        (
            pair({"path": Path("x.wav"), "end_s": 2.0}, {"path": Path("x.wav"), "start_s": 2.0}),
            set(),
        ),
        (named("x_orig.wav", "x_pitchUp2.wav"), {"variants of one clip"}),
        (named("x.wav", "more/x_noisy.flac"), {"variants of one clip"}),
        (named("x.wav", "x_noisy.wav", label="cat", target=1), set()),
        (named("patient1/cycle1.wav", "patient2/cycle1.wav"), set()),
        (pair({"source": "2"}, {}), {"same source"}),
        (pair({"source": "2", "fold": 2}, {}, known="2"), {"same source"}),
        (pair({"source": "2"}, {}, known="2"), set()),
        (pair({"fold": None, "source": "2"}, {"fold": None}, known="2"), {"same source"}),
        (
            pair({"path": Path("x.wav"), "source": "2"}, {"path": Path("x_noisy.wav")}, known="2"),
            {"variants of one clip"},
        ),
    ],
)
def test_kinds_of_leak(manifest: Manifest, kinds: set[str], parts: str) -> None:
    report = audit_split(manifest, PARTS[parts])
    assert found(report) == {(kind, parts) for kind in kinds}


def test_equal_content_is_a_leak_even_within_a_named_source() -> None:
    manifest = pair({"source": "2"}, {}, known="2")
    split = raw_split([0], [], [1])
    assert audit_split(manifest, split, content=["f00d", "cafe"]).is_clean
    report = audit_split(manifest, split, content=["2", "2"])
    assert found(report) == {("same content", "train/test")}
    assert report.notes == ()
    assert "equal content not checked" in audit_split(manifest, split).text()
    with pytest.raises(AuditError, match=r"one hash a clip \(2\), got 1"):
        audit_split(manifest, split, content=["f00d"])


ALIKE = NearDuplicate(0, 1, 0.93, -0.25)


@pytest.mark.parametrize("parts", PARTS)
def test_near_duplicates_in_two_parts_are_leaks(parts: str) -> None:
    report = audit_split(pair({}, {}), PARTS[parts], near_duplicates=[ALIKE])
    assert found(report) == {("near-duplicate sound", parts)}
    with pytest.raises(LeakError, match=r"score 0\.93, lag -0\.250 s: .*one\.wav.*two\.wav"):
        report.raise_on_leak()


def test_near_duplicates_may_be_warnings() -> None:
    report = audit_split(
        pair({}, {}),
        PARTS["train/test"],
        near_duplicates=[ALIKE],
        warns_of=("near-duplicate sound",),
    )
    report.raise_on_leak()
    assert report.is_clean
    assert len(report.warnings) == 1
    assert "WARNING, near-duplicate sound: 1 in both train and test" in report.text()
    assert report.content()["overlaps"][0]["kind"] == "near-duplicate sound"


def test_near_duplicates_that_are_told_of_otherwise_or_in_one_part() -> None:
    split = PARTS["train/test"]
    one_source = audit_split(pair({"source": "2"}, {}), split, near_duplicates=[ALIKE])
    assert found(one_source) == {("same source", "train/test")}
    equal = audit_split(pair({}, {}), split, content=["2", "2"], near_duplicates=[ALIKE])
    assert found(equal) == {("same content", "train/test")}
    for parts in (raw_split([0, 1], [], []), raw_split([0], [], [])):  # the other one was dropped
        assert found(audit_split(pair({}, {}), parts, near_duplicates=[ALIKE])) == set()


def test_near_duplicates_are_named_in_the_order_of_the_parts() -> None:
    (overlap,) = audit_split(
        pair({}, {}), raw_split([1], [], [0]), near_duplicates=[ALIKE]
    ).overlaps
    assert "two.wav" in overlap.left[0]
    assert "one.wav" in overlap.right[0]


def test_a_leak_names_counts_and_clips() -> None:
    clip = Clip(path=Path("x.wav"), label="dog", target=0, source="7")
    clips = tuple(replace(clip, path=Path(f"take{row}.wav")) for row in range(10))
    manifest = Manifest(name="takes", root=Path(), labels=("dog",), clips=clips)
    report = audit_split(manifest, raw_split(range(7), [], [7, 8, 9]))
    message = (
        r"takes, holdout: train 7, val 0, test 3, dropped 0: same source: 1 in both train and "
        r"test, with 7 of 7 train clips \(100\.0%\) and 3 of 3 test clips \(100\.0%\), such as "
        r"7: train row 1 \(take0\.wav\), .*row 4 \(take3\.wav\) and 3 more \| "
        r"test row 8 \(take7\.wav\)"
    )
    with pytest.raises(LeakError, match=message):
        report.raise_on_leak()
    assert report.text().endswith("the split leaks")


def test_users_may_add_patterns_to_own_splits() -> None:
    manifest = named("x_v1.wav", "x_v2.wav")
    assert audit_split(manifest, PARTS["train/test"]).is_clean
    assert not audit_split(manifest, PARTS["train/test"], patterns=[r"_v\d"]).is_clean


class TestForeignFiles:
    def test_the_leak_of_a_split_by_image(self, esc50_table: pd.DataFrame, tmp_path: Path) -> None:
        train, val = split_images(esc50_table, val_share=0.2, seed=0)
        report = audit_files(write(tmp_path / "train.csv", train), write(tmp_path / "val.csv", val))
        ids = [{name.rsplit("_", 1)[0] for name in side["image"]} for side in (train, val)]
        variants = [leak for leak in report.leaks if leak.kind == "variants of one clip"]
        assert {leak.shared for leak in variants} == ids[0] & ids[1]
        assert len(variants) > 0.99 * len(ids[1])
        sources = [{clip_id.split("-")[1] for clip_id in side} for side in ids]
        assert {o.shared for o in report.overlaps if o.kind == "same source"} == (
            sources[0] & sources[1]
        )
        assert not report.is_clean
        text = report.text()
        assert f"train: 6400 rows, {len(ids[0])} clip ids, {len(sources[0])} sources" in text
        assert f"LEAK, variants of one clip: {len(variants)} in both train and val" in text
        assert variants[0].text() in text

    def test_splitting_by_clip_leaks_sources_only(
        self, esc50_table: pd.DataFrame, tmp_path: Path
    ) -> None:
        shuffled = esc50_table.sample(frac=1, random_state=0)
        files = [
            write(tmp_path / f"{name}.csv", with_variants(rows))
            for name, rows in (("train", shuffled[400:]), ("val", shuffled[:400]))
        ]
        assert {leak.kind for leak in audit_files(*files).leaks} == {"same source"}

    @pytest.mark.parametrize("fold", [1, 2, 3, 4, 5])
    def test_official_folds_report_the_named_sources(
        self, esc50_table: pd.DataFrame, tmp_path: Path, fold: int
    ) -> None:
        is_val = esc50_table["fold"] == fold
        train = write(tmp_path / "train.csv", with_variants(esc50_table[~is_val]))
        val = write(tmp_path / "val.csv", with_variants(esc50_table[is_val]))
        report = audit_files(train, val)
        assert report.is_clean
        assert {overlap.shared for overlap in report.overlaps} == {
            source for source, folds in CROSSING_FOLDS.items() if fold in folds
        }
        assert "named exceptions: 131943, 134049, 209698, 234879, which cross" in report.text()

    def test_a_named_source_split_within_its_fold_is_a_leak(self, tmp_path: Path) -> None:
        train = write(tmp_path / "train.csv", ["5-234879-A-1.wav", "4-234879-A-6.wav"])
        val = write(tmp_path / "val.csv", ["5-234879-B-1.wav"])
        assert found(audit_files(train, val)) == {("same source", "train/val")}

    def test_named_sources_are_those_of_esc50_only(self, tmp_path: Path) -> None:
        train = write(tmp_path / "train.csv", "file,source\n2-131943-A-38.wav,131943\nb.wav,2\n")
        val = write(tmp_path / "val.csv", "file,source\n3-131943-A-37.wav,131943\n")
        assert found(audit_files(train, val)) == {("same source", "train/val")}


def write(file: Path, content: pd.DataFrame | Sequence[str] | str) -> Path:
    if isinstance(content, pd.DataFrame):
        content.to_csv(file, index=False)
    else:
        file.write_text(content if isinstance(content, str) else "\n".join(content))
    return file


def with_variants(table: pd.DataFrame) -> pd.DataFrame:
    stems = table["filename"].str.removesuffix(".wav")
    return pd.DataFrame({"path": [f"{s}_{v}.png" for s in stems for v in VARIANTS]})


@pytest.mark.parametrize(
    "suffix",
    "_orig _original _noise _noisy -noisy _white_noise _noise_snr10db"  # noqa: SIM905
    " _noisy0.005 _pitchUp2 _pitchDown2 _pitch_up_2 _pitch-2 _pitch+1.5st _pitch_shift_2"
    " _PITCHSHIFTED _stretch0.9 _time_stretch-1.1 _timestretched _speed1.25x _shift _gain-6dB"
    " _reverb _aug _aug3 _aug_12 _augmented _copy _specaug _time_mask .noisy"
    " _noisy_pitchUp2_stretch0.9".split(),
)
def test_endings_that_mark_variants(tmp_path: Path, suffix: str) -> None:
    train = write(tmp_path / "train.csv", [f"a/rec 01{suffix}.png", "other1.png"])
    val = write(tmp_path / "val.csv", ["b\\rec 01.wav.png", "other2.png"])
    report = audit_files(train, val)
    assert [leak.shared for leak in report.leaks] == ["rec 01"]
    assert report.leaks[0].left == (f"row 1 (a/rec 01{suffix}.png)",)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1-100032-A-0.wav", "1-100032-B-0.wav"),
        ("226_1b1_Pl_sc_LittC2SE.wav", "226_1b1_Pl_sc_Meditron.wav"),
        ("dog_1.wav", "dog_2.wav"),
        ("noisy.wav", "orig.wav"),
        ("_noisy.wav", "_orig.wav"),
        ("rec0.8.wav", "rec0.9.wav"),
        ("x_noisyroom.wav", "x_pitcher.wav"),
        ("x_noise" + "1" * 200 + "z.wav", "x.wav"),
    ],
)
def test_endings_that_mark_none(tmp_path: Path, first: str, second: str) -> None:
    files = write(tmp_path / "train.csv", [first]), write(tmp_path / "val.csv", [second])
    assert not [leak for leak in audit_files(*files).leaks if "variants" in leak.kind]


def test_users_may_add_patterns(tmp_path: Path) -> None:
    files = write(tmp_path / "a.csv", ["x_roomA_v1.png"]), write(tmp_path / "b.csv", ["x_v2.png"])
    assert audit_files(*files).is_clean
    assert not audit_files(*files, patterns=[r"_v\d", "_rooma"]).is_clean


@pytest.mark.parametrize(
    "text",
    [
        "path,label\nsub/x1_noisy.png,dog\n",
        "label,File Name\ndog,x1_noisy.png\n",
        "\ufefffilename;target\nx1_noisy.wav;0\n",
        "index\tIMAGE_PATH\n0\tC:\\data\\x1_noisy.png\n",
        ",melspec,label\n0,x1_noisy.png,dog\n",
        "id,label2\nx1_noisy,dog\n",
        "x1_noisy.png\nx2_orig.png\n",
        "x1_noisy\n",
        "\ufeffx1_noisy\n",
        "dog,x1_noisy.png\n",
        '"x1_noisy.png","a, b"\n\n\n',
    ],
)
def test_columns_of_files_are_found(tmp_path: Path, text: str) -> None:
    train, val = tmp_path / "train.csv", write(tmp_path / "val.csv", "file\nx1_orig.wav\n")
    train.write_text(text, encoding="utf-8")
    report = audit_files(train, val)
    assert [leak.shared for leak in report.leaks] == ["x1"]
    assert report.leaks[0].left[0].startswith("row 1 (")
    assert "sources are not checked" in report.text()


@pytest.mark.parametrize("column", ["source", "src_file", "Patient ID", "speaker"])
def test_columns_of_sources_are_found(tmp_path: Path, column: str) -> None:
    train = write(tmp_path / "train.csv", f"file,{column}\na.wav,7\nb.wav,8\n")
    val = write(tmp_path / "val.csv", f"{column},file\n8,c.wav\n9,d.wav\n")
    report = audit_files(train, val)
    assert [(leak.kind, leak.shared) for leak in report.leaks] == [("same source", "8")]
    assert (report.leaks[0].left, report.leaks[0].right) == (("row 2 (b.wav)",), ("row 1 (c.wav)",))


def test_a_source_column_of_one_file_is_not_compared(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "file,source\na.wav,7\n")
    report = audit_files(train, write(tmp_path / "val.csv", "file\nb.wav\n"))
    assert report.is_clean
    assert "not checked: no column of them in both files" in report.text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "not readable as CSV"),
        (b"\n\n", "not readable as CSV"),
        (b"file,label\n", "no rows"),
        (b"file,label\na.wav,dog\n ,cat\n", r"bad\.csv, row 2: .*got \{'file': ''\}"),
        (b"file\nfolder/\n", r"bad\.csv, row 1: .*'folder/'"),
        (b"file,source\na.wav,1\nb.wav,\n", r"bad\.csv, row 2: .*'source': ''"),
        (b"file,source\na.wav,1\nb.wav\n", r"bad\.csv, row 2: .*'source': ''"),
        (b"file\na.wav\nb.wav,dog\n", r"not readable as CSV .*line 3"),
        (b'file\n"a.wav\n', "not readable as CSV"),
        (b"file\n\xff\xfe.wav\n", "not readable as CSV .*utf-8"),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_bad_files(tmp_path: Path, content: bytes | None, message: str, side: int) -> None:
    files = [write(tmp_path / "good.csv", "file\nz.wav\n")]
    files.insert(side, tmp_path / "bad.csv")
    if content is not None:
        files[side].write_bytes(content)
    with pytest.raises(AuditError, match=message) as caught:
        audit_files(*files)
    assert str(files[side]) in str(caught.value)


def test_a_folder_is_no_csv(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="expected a CSV file"):
        audit_files(tmp_path, tmp_path)


@pytest.mark.parametrize("pattern", ["(", "*", "[a-"])
def test_bad_patterns(tmp_path: Path, pattern: str) -> None:
    file = write(tmp_path / "files.csv", ["a.wav"])
    with pytest.raises(AuditError, match="is no regular expression"):
        audit_files(file, file, patterns=[pattern])

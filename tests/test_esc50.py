from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioml import datasets
from audioml.config import DataConfig
from audioml.datasets import load_manifest
from audioml.datasets.esc50 import find_unlisted_files, read_esc50
from audioml.datasets.manifest import DataError

HEADER = "filename,fold,target,category,esc10,src_file,take"
ROWS = (
    "1-100-A-0.wav,1,0,dog,True,100,A",
    "1-100-B-0.wav,1,0,dog,True,100,B",
    "2-200-A-1.wav,2,1,rooster,False,200,A",
    "2-300-A-2.wav,2,2,rain,True,300,A",
)


def write_metadata(root: Path, rows: Sequence[str] = ROWS, header: str = HEADER) -> Path:
    file = root / "meta" / "esc50.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    (root / "audio").mkdir(exist_ok=True)
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def write_sounds(root: Path, names: Sequence[str]) -> None:
    for name in names:
        soundfile.write(root / "audio" / name, np.full(800, 0.1), 8_000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "ESC-50"
    write_metadata(folder)
    write_sounds(folder, [row.split(",")[0] for row in ROWS])
    return folder


def with_row(number: int, row: str) -> list[str]:
    rows = list(ROWS)
    rows[number - 1] = row
    return rows


def test_rows_become_clips(root: Path) -> None:
    manifest = read_esc50(root)
    assert manifest.labels == ("dog", "rooster", "rain")
    assert [clip.target for clip in manifest.clips] == [0, 0, 1, 2]
    assert [clip.label for clip in manifest.clips] == ["dog", "dog", "rooster", "rain"]
    assert [clip.source for clip in manifest.clips] == ["100", "100", "200", "300"]
    assert [clip.fold for clip in manifest.clips] == [1, 1, 2, 2]
    assert manifest.clips[2].path == root / "audio" / "2-200-A-1.wav"


def test_esc10_keeps_its_rows_and_renumbers_targets(root: Path) -> None:
    manifest = read_esc50(root, name="esc10", esc10=True)
    assert manifest.name == "esc10"
    assert manifest.labels == ("dog", "rain")
    assert [clip.target for clip in manifest.clips] == [0, 0, 1]


@pytest.mark.parametrize("suffix", [".ogg", ".flac"])
def test_the_same_stem_under_another_suffix_is_found(root: Path, suffix: str) -> None:
    (root / "audio" / "2-300-A-2.wav").unlink()
    write_sounds(root, [f"2-300-A-2{suffix}"])
    assert read_esc50(root).clips[3].path.name == f"2-300-A-2{suffix}"
    assert find_unlisted_files(root) == []


def test_the_named_file_wins_over_its_stem_mates(root: Path) -> None:
    write_sounds(root, ["2-300-A-2.flac"])
    assert read_esc50(root).clips[3].path.name == "2-300-A-2.wav"
    assert [path.name for path in find_unlisted_files(root)] == ["2-300-A-2.flac"]


def test_byte_order_mark_crlf_and_spaces_are_fine(root: Path) -> None:
    plain = read_esc50(root)
    file = root / "meta" / "esc50.csv"
    lines = file.read_text().replace(",dog,", ", dog ,")
    file.write_bytes(b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode())
    assert read_esc50(root) == plain


def test_a_label_named_na_is_a_label(root: Path) -> None:
    write_metadata(root, with_row(4, "2-300-A-2.wav,2,2,NA,True,300,A"))
    assert read_esc50(root).labels == ("dog", "rooster", "NA")


def test_no_metadata(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"esc50\.csv: No such file.*set data\.root"):
        read_esc50(tmp_path)


@pytest.mark.parametrize("column", ["filename", "fold", "target", "category", "src_file"])
def test_missing_column_is_named(root: Path, column: str) -> None:
    write_metadata(root, header=HEADER.replace(column, "other"))
    with pytest.raises(DataError, match=rf"esc50\.csv: no column {column}; found .*other"):
        read_esc50(root)


def test_esc10_needs_its_column(root: Path) -> None:
    write_metadata(root, header=HEADER.replace("esc10", "other"))
    assert len(read_esc50(root)) == 4
    with pytest.raises(DataError, match="no column esc10"):
        read_esc50(root, esc10=True)


def test_esc10_without_a_row(root: Path) -> None:
    write_metadata(root, [row.replace("True", "False") for row in ROWS])
    with pytest.raises(DataError, match="no row with esc10 True"):
        read_esc50(root, esc10=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2-200-A-1.wav,one,1,rooster,True,200,A", "row 3: fold must be an integer.*'one'"),
        ("2-200-A-1.wav,1.5,1,rooster,True,200,A", "row 3: fold must be an integer.*'1.5'"),
        ("2-200-A-1.wav,0,1,rooster,True,200,A", "row 3: fold must be .* at least 1, got '0'"),
        ("2-200-A-1.wav,-1,1,rooster,True,200,A", "row 3: fold must be .* at least 1, got '-1'"),
        ("2-200-A-1.wav,,1,rooster,True,200,A", "row 3: fold must be .* got ''"),
        ("2-200-A-1.wav,2,x,rooster,True,200,A", "row 3: target must be an integer.*'x'"),
        ("2-200-A-1.wav,2,1, ,True,200,A", "row 3: category must be a label, got ''"),
        ("2-200-A-1.wav,2,1,rooster,True,,A", "row 3: src_file must be the recording"),
        ("2-200-A-1.wav,2,1", "row 3: category must be a label, got ''"),
        (",2,1,rooster,True,200,A", "row 3: filename must be the name"),
        ("2-200-A-1.wav,2,1,rooster,maybe,200,A", "row 3: esc10 must be True or False.*'maybe'"),
        ("2-200-A-1.wav,2,1,dog,True,200,A", "row 3: .*'dog' with target 1 contradicts row 1"),
        ("2-200-A-1.wav,2,0,rooster,True,200,A", "row 3: .*'rooster' with target 0 contradicts"),
        ("1-100-B-0.wav,2,1,rooster,True,200,A", "row 3: 1-100-B-0.wav is already row 2"),
        ("./1-100-B-0.wav,2,1,rooster,True,200,A", "row 3: 1-100-B-0.wav is already row 2"),
        ("1-100-B-0.ogg,2,1,rooster,True,200,A", "row 3: 1-100-B-0.wav is already row 2"),
        ("../x.wav,2,1,rooster,True,200,A", r"row 3: '\.\./x\.wav' leaves the data root"),
        ("a/../../x.wav,2,1,rooster,True,200,A", "row 3: .* leaves the data root"),
        ("..\\x.wav,2,1,rooster,True,200,A", "row 3: .* leaves the data root"),
        ("/etc/passwd,2,1,rooster,True,200,A", "row 3: '/etc/passwd' leaves the data root"),
        ("a\0b.wav,2,1,rooster,True,200,A", "line 4: a NUL character; mend the line"),
        (
            "a\x1b[2Jb.wav,2,1,rooster,True,200,A",
            "row 3: filename must be the name of an audio file",
        ),
        ("C:\\x.wav,2,1,rooster,True,200,A", "row 3: .* leaves the data root"),
        ("2-200-A-1.wav,2,1,rooster,True,200,A,1,2", r"not readable as CSV.*line 4"),
    ],
)
def test_bad_rows_are_named(root: Path, row: str, message: str) -> None:
    write_metadata(root, with_row(3, row))
    with pytest.raises(DataError, match=message) as error:
        read_esc50(root, esc10=True)
    assert "esc50.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_longer_than_the_header(root: Path) -> None:
    write_metadata(root, [f"{row},more" for row in ROWS])
    with pytest.raises(DataError, match="more fields than the header"):
        read_esc50(root)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\xd8", HEADER.encode()])
def test_metadata_without_rows(root: Path, content: bytes) -> None:
    (root / "meta" / "esc50.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"esc50\.csv: (not readable as CSV|no rows)"):
        read_esc50(root)


@pytest.mark.parametrize("is_folder", [False, True])
def test_links_out_of_the_root_are_refused(root: Path, tmp_path: Path, is_folder: bool) -> None:
    outside = tmp_path / "outside"
    (root / "audio").rename(outside)
    if is_folder:
        (root / "audio").symlink_to(outside)
    else:
        (root / "audio").mkdir()
        (root / "audio" / "1-100-A-0.wav").symlink_to(outside / "1-100-A-0.wav")
    with pytest.raises(DataError, match=r"row 1: .*1-100-A-0\.wav is a link out of the data root"):
        read_esc50(root)


def test_a_linked_root_is_fine(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert len(read_esc50(tmp_path / "link")) == 4


def test_missing_files_are_counted_and_named(root: Path) -> None:
    for name in ("1-100-B-0.wav", "2-300-A-2.wav"):
        (root / "audio" / name).unlink()
    expected = r"2 of 4 files.*1-100-B-0.wav \(row 2\), 2-300-A-2.wav \(row 4\)"
    with pytest.raises(DataError, match=expected):
        read_esc50(root)
    assert len(read_esc50(root, check_files=False)) == 4


def test_a_target_without_a_row_points_to_esc10(root: Path) -> None:
    write_metadata(root, [ROWS[0], ROWS[1], ROWS[3]])
    with pytest.raises(DataError, match=r"2 targets must be 0\.\.1, but 1 has no row.*=esc10"):
        read_esc50(root)
    assert read_esc50(root, esc10=True).labels == ("dog", "rain")


def test_files_of_rows_outside_esc10_are_listed(root: Path) -> None:
    write_sounds(root, ["stranger.wav"])
    (root / "audio" / "README.txt").touch()
    assert find_unlisted_files(root) == [root / "audio" / "stranger.wav"]


def test_names_choose_the_reader(root: Path) -> None:
    esc50 = load_manifest(DataConfig(name="esc50", root=str(root)))
    esc10 = load_manifest(DataConfig(name="esc10", root=str(root)))
    assert (len(esc50), len(esc10)) == (4, 3)
    assert esc50.known_crossing_sources == {"131943", "134049", "209698", "234879"}
    assert not esc10.known_crossing_sources
    assert not esc50.is_synthetic
    with pytest.raises(DataError, match=r"data\.name must be one of .*'esc51'"):
        load_manifest(DataConfig(name="esc51", root=str(root)))


def test_the_synthetic_set_is_prepared_where_its_seed_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(folder: Path, *, seed: int) -> None:
        write_metadata(folder)
        write_sounds(folder, [row.split(",")[0] for row in ROWS])

    monkeypatch.setattr(datasets, "prepare_synthetic", prepare)
    monkeypatch.chdir(tmp_path)
    manifest = load_manifest(DataConfig(name="synthetic", seed=7))
    assert manifest.root == Path("data", "synthetic-7")
    assert manifest.is_synthetic
    assert len(manifest) == 4

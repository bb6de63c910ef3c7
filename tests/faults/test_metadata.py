"""Metadata and configurations that lie, climb, contradict themselves or try to run something."""

import itertools
import os
import resource

import numpy as np
import pytest
import soundfile

from audioml.audit import LeakError, audit_split
from audioml.clips import decode_all, scan_headers
from audioml.config import ConfigError, DataConfig, load_config
from audioml.datasets import load_manifest
from audioml.datasets.esc50 import read_esc50
from audioml.datasets.manifest import DataError
from audioml.splits import make_split

HEADER = "filename,fold,target,category,esc10,src_file,take"
ROWS = [f"{n}.wav,{n % 3 + 1},{n % 2},class_{n % 2},True,{n},A" for n in range(12)]
MARKER = "it_ran"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    (folder / "meta").mkdir(parents=True)
    (folder / "audio").mkdir()
    for n in range(12):
        samples = np.random.default_rng(n).uniform(-0.5, 0.5, 800)
        soundfile.write(folder / "audio" / f"{n}.wav", samples, 8000)
    write(folder)
    return folder


def write(root, rows=ROWS, header=HEADER, end="\n", encoding="utf-8"):
    text = "".join(f"{line}{end}" for line in (header, *rows))
    (root / "meta" / "esc50.csv").write_bytes(text.encode(encoding))


def with_file(name, row=4):
    """The rows, one of them with another file."""
    return [*ROWS[: row - 1], f"{name}{ROWS[row - 1].removeprefix(f'{row - 1}.wav')}", *ROWS[row:]]


@pytest.mark.parametrize(
    "name",
    [
        "../audio/3.wav",
        "../../etc/passwd",
        "sub/../../audio/3.wav",
        "..",
        ".",
        "a/..",
        "/etc/passwd",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/mem",
        "//server/share/3.wav",
        "\\\\server\\share\\3.wav",
        "..\\3.wav",
        "C:\\3.wav",
        "C:3.wav",
        "\\\\.\\COM1",
    ],
)
@pytest.mark.parametrize("check_files", [True, False])
def test_files_outside_are_refused(root, name, check_files):
    write(root, with_file(name))
    with pytest.raises(DataError, match=r"^[^\n]*esc50\.csv, row 4: [^\n]* leaves the data root"):
        read_esc50(root, check_files=check_files)


@pytest.mark.parametrize("target", ["/dev/zero", "/etc/passwd", "../../outside.wav"])
def test_links_outside_are_no_files_of_the_data_set(root, target):
    (root.parent / "outside.wav").write_bytes((root / "audio" / "3.wav").read_bytes())
    (root / "audio" / "3.wav").unlink()
    (root / "audio" / "3.wav").symlink_to(target)
    with pytest.raises(DataError, match=r"row 4: .* is a link out of|1 of 12 files are not in"):
        read_esc50(root)


@pytest.mark.parametrize(
    "name", ["http://example.com/3.wav", "|touch it_ran", "$(touch it_ran)", "a" * 5000]
)
def test_names_are_nothing_but_names(root, name, monkeypatch):
    monkeypatch.chdir(root)
    write(root, with_file(name))
    with pytest.raises(DataError, match=r"1 of 12 files are not in|leaves the data root"):
        read_esc50(root)
    assert not (root / MARKER).exists()


def loop(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, loop], ids=["pipe", "folder", "loop"])
def test_what_is_no_file_is_missing(root, make):
    (root / "audio" / "3.wav").unlink()
    make(root / "audio" / "3.wav")
    with pytest.raises(DataError, match=r"1 of 12 files are not in .*: 3\.wav \(row 4\)"):
        read_esc50(root)
    assert len(read_esc50(root, check_files=False)) == 12


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_metadata_must_be_a_file(root, make):
    (root / "meta" / "esc50.csv").unlink()
    make(root / "meta" / "esc50.csv")
    with pytest.raises(DataError, match=r"esc50\.csv: a folder, pipe or device, not a file"):
        read_esc50(root)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_line_ends_and_byte_order_marks_make_no_difference(root, end, encoding):
    plain = read_esc50(root)
    write(root, end=end, encoding=encoding)
    assert read_esc50(root) == plain


@pytest.mark.parametrize(
    "rows",
    [
        ["", *ROWS, "", ""],
        [row.replace(",", " , ") for row in ROWS],
        [",".join(f'"{cell}"' for cell in row.split(",")) for row in ROWS],
    ],
    ids=["blank lines", "spaces", "quotes"],
)
def test_harmless_habits_make_no_difference(root, rows):
    plain = read_esc50(root)
    write(root, rows)
    assert read_esc50(root) == plain


def test_unknown_columns_and_another_order_make_no_difference(root):
    plain = read_esc50(root)
    swapped = [",".join((*reversed(row.split(",")), "new", "")) for row in ROWS]
    write(root, swapped, ",".join((*reversed(HEADER.split(",")), "licence", "licence")))
    assert read_esc50(root) == plain


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings_are_refused(root, encoding):
    write(root, [row.replace("class_0", "Vögel") for row in ROWS], encoding=encoding)
    with pytest.raises(DataError, match=r"^[^\n]*esc50\.csv: not readable as CSV \([^\n]*codec"):
        read_esc50(root)


def replaced(row, old, new):
    return [*ROWS[: row - 1], ROWS[row - 1].replace(old, new), *ROWS[row:]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS + ROWS[:1], "row 13: 0.wav is already row 1"),
        ([*ROWS, ROWS[0].replace(",1,", ",2,")], "row 13: 0.wav is already row 1"),
        ([*ROWS, ROWS[0].replace("0.wav", "./0.wav")], "row 13: 0.wav is already row 1"),
        ([*ROWS, ROWS[0].replace("0.wav", "0.ogg")], "row 13: 0.wav is already row 1"),
        ([*ROWS, "12.wav,1,0,class_0,True,12,A"], r"1 of 13 files are not in .*12.wav \(row 13\)"),
        (replaced(2, ",2,", ",two,"), "row 2: fold must be an integer of at least 1, got 'two'"),
        (replaced(2, ",2,", ",2.0,"), "row 2: fold must be an integer"),
        (replaced(2, ",2,", ",-2,"), "row 2: fold must be an integer"),
        (replaced(2, ",2,", ",0,"), "row 2: fold must be an integer"),
        (replaced(2, ",2,", ",1e3,"), "row 2: fold must be an integer"),
        (replaced(2, ",2,", ",٢,"), "row 2: fold must be an integer"),
        (replaced(2, ",2,", ",99999999999999999999,"), "row 2: fold must be an integer"),
        (replaced(2, ",2,", ",NaN,"), "row 2: fold must be an integer"),
        (replaced(2, ",2,", ",,"), "row 2: fold must be an integer"),
        (replaced(2, ",1,class", ",999999999999,class"), "row 2: target must be an integer"),
        (replaced(2, "class_1", "class_0"), "'class_0' with target 1 contradicts row 1"),
        (
            replaced(2, "class_1", "a\x1b[2Jb"),
            r"row 2: category must be a label, got 'a\\x1b\[2Jb'",
        ),
        (replaced(2, "class_1", '"two\nlines"'), "row 2: category must be a label"),
        (replaced(2, ",1,A", ",\x00,A"), "line 3: a NUL character; mend the line"),
        ([row.replace(",", ";") for row in ROWS], "row 1: category must be a label, got ''"),
        (replaced(2, ",", ";"), "row 2: category must be a label, got ''"),
        (replaced(2, ",A", ',"A'), "not readable as CSV"),
        ([f"{row},more" for row in ROWS], "more fields than the header"),
        (replaced(2, ",A", ",A,more"), "not readable as CSV .*line 3"),
        ([], "no rows"),
    ],
)
def test_rows_that_can_not_be_are_named(root, rows, message):
    write(root, rows)
    with pytest.raises(DataError, match=rf"^[^\n]*esc50\.csv[,:] [^\n]*{message}[^\n]*$"):
        read_esc50(root)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (HEADER.replace(",", ";"), "no column filename, fold, target, category, src_file; found"),
        (HEADER.replace(",", "\t"), "no column filename, fold"),
        (HEADER.replace("esc10", "fold"), "column fold is there twice; remove one"),
        (HEADER.upper(), "no column filename"),
        (ROWS[0], "no column filename"),
        ("", "no column filename|not readable"),
    ],
)
def test_headers_that_can_not_be_are_named(root, header, message):
    write(root, header=header)
    with pytest.raises(DataError, match=rf"^[^\n]*esc50\.csv: [^\n]*({message})[^\n]*$"):
        read_esc50(root)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_one_file_under_two_names_in_two_folds_is_a_leak(root, link):
    """The names differ, so that the audit of contents has to find it."""
    audio = root / "audio"
    (audio / "1.wav").unlink()
    link(audio / "3.wav", audio / "1.wav")
    manifest = read_esc50(root)
    split = make_split(
        manifest,
        protocol="fixed",
        fold=1,
        test_share=0.2,
        val_share=0.2,
        seed=0,
        strict_sources=False,
    )
    clips = decode_all(manifest, scan_headers(manifest, 8000), 8000)
    with pytest.raises(LeakError, match=r"same content: .*1\.wav.*3\.wav|same content: .*3\.wav"):
        audit_split(manifest, split, clips.digests).raise_on_leak()


@pytest.mark.slow
def test_a_million_rows_take_memory_in_proportion(tmp_path):
    """About 1 KiB a row; the time is linear, some 25 s on one core of 2026."""
    (tmp_path / "meta").mkdir()
    rows = (f"{n}.wav,{n % 5 + 1},{n % 50},class_{n % 50},False,{n},A" for n in range(10**6))
    with (tmp_path / "meta" / "esc50.csv").open("w") as file:
        file.writelines(f"{row}\n" for row in itertools.chain([HEADER], rows))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(read_esc50(tmp_path, check_files=False)) == 10**6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 << 20  # KiB


UNSAFE = [
    "!!python/object/apply:os.system ['touch it_ran']",
    "!!python/object/apply:subprocess.check_call [[touch, it_ran]]",
    "!!python/object/new:os.system ['touch it_ran']",
    '!!python/object/apply:builtins.eval [\'open("it_ran", "w")\']',
    "!!python/name:os.system",
    "!!python/module:os",
    "!unknown x",
]


@pytest.mark.parametrize("value", UNSAFE)
def test_unsafe_tags_run_nothing(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text(f"data:\n  root: {value}\n")
    for files, overrides in (([file], []), ([], [f"data.root={value}"])):
        with pytest.raises(ConfigError, match=r"^[^\n]*(config\.yaml|override)[^\n]*tag[^\n]*$"):
            load_config(files, overrides)
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"data: {root: \xff\xfe}", "can't decode byte"),
        ("data: {seed: 3}".encode("utf-16"), "can't decode byte"),
        (b"data: \0", "control characters"),
        (b"data: {seed: 1, seed: 2}", "duplicate key seed"),
        (b"data: {}\n---\ndata: {}\n", "single document"),
        (b"data: &a {root: *a}", "recursive aliases"),
        (b"data:\n\tseed: 1", "cannot start any token"),
        (b"data: {seed: %s}" % (b"9" * 5000), "integer string conversion"),
        (b"data: " + b"{a: " * 5000 + b"}" * 5000, "(recursion|maximum nesting)"),
        (b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1) if c > 97 else b"x"] * 9))
                  for c in range(97, 107)), "limit"),
        (b"- data", "expected a mapping of sections"),
        (b"data: {root: '${nowhere:x}'}", "interpolation"),
    ],
)  # fmt: skip
def test_configurations_that_can_not_be_are_one_line(tmp_path, content, message):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^[^\n]*{message}[^\n]*$"):
        load_config([file])


def test_names_of_data_sets_are_no_paths(tmp_path):
    with pytest.raises(DataError, match=r"data\.name must be one of .*'\.\./esc50'"):
        load_manifest(DataConfig(name="../esc50", root=str(tmp_path)))

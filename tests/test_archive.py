import stat
import zipfile
from pathlib import Path

import pytest
from esc50_archive import MEMBERS, TOP, make_wav, make_zip, names_in, pack_to

from audioml.datasets.archive import unpack
from audioml.datasets.manifest import DataError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ESC-50.zip"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ESC-50"


def test_unpack_strips_the_top_folder(file: Path, root: Path) -> None:
    unpack(pack_to(file, *MEMBERS), root)
    assert names_in(root) == ["README.md", "audio", "meta"]
    assert (root / "audio" / "1-100-A-0.wav").read_bytes() == make_wav()
    assert names_in(file.parent) == ["ESC-50", "ESC-50.zip"]


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def lzma(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_LZMA
    return info


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil.wav", "leaves the folder"),
        (f"{TOP}audio/../../../evil.wav", "leaves the folder"),
        ("/evil.wav", "leaves the folder"),
        (f"{TOP}audio\\..\\evil.wav", "leaves the folder"),
        ("C:/evil.wav", "leaves the folder"),
        (f"{TOP}./evil.wav", "leaves the folder"),
        (link(f"{TOP}evil.wav"), "is a link"),
        (f"{TOP}readme.MD", "is there twice"),
        (lzma(f"{TOP}evil.wav"), "neither stored nor deflated"),
        ("evil.wav", "one top folder"),
        ("other/evil.wav", "one top folder"),
    ],
)
def test_unsafe_members_are_refused_before_anything_is_written(
    file: Path, root: Path, name: str | zipfile.ZipInfo, message: str
) -> None:
    pack_to(file, *MEMBERS, (name, b"/etc/passwd"))
    with pytest.raises(
        DataError, match=rf"ESC-50\.zip: refused, nothing was unpacked: .*{message}"
    ):
        unpack(file, root)
    assert names_in(file.parent) == ["ESC-50.zip"]
    assert not list(file.parent.parent.rglob("evil*"))


def test_encrypted_members_are_refused(file: Path, root: Path) -> None:
    content = bytearray(pack_to(file, *MEMBERS).read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 0x1
    file.write_bytes(content)
    with pytest.raises(DataError, match="is encrypted"):
        unpack(file, root)


def test_a_bomb_is_refused(file: Path, root: Path) -> None:
    pack_to(file, *MEMBERS, (f"{TOP}zeros", bytes(1_000_000)))
    assert file.stat().st_size < 20_000
    with pytest.raises(DataError, match=r"at most 1,000,000 are expected"):
        unpack(file, root, max_bytes=1_000_000)
    assert names_in(file.parent) == ["ESC-50.zip"]


def test_a_bomb_that_lies_about_its_size_is_stopped(file: Path, root: Path) -> None:
    content = bytearray(pack_to(file, *MEMBERS, (f"{TOP}zeros", bytes(1_000_000))).read_bytes())
    for header, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        size_at = content.rindex(header) + offset
        assert content[size_at : size_at + 4] == (1_000_000).to_bytes(4, "little")
        content[size_at : size_at + 4] = (10).to_bytes(4, "little")
    file.write_bytes(content)
    with pytest.raises(DataError, match="damaged or not a zip archive"):
        unpack(file, root, max_bytes=100_000)
    assert names_in(file.parent) == ["ESC-50.zip"]


@pytest.mark.parametrize("left_out", ["meta/esc50.csv", "audio/2-200-A-1.wav"])
def test_an_incomplete_archive_is_refused(file: Path, root: Path, left_out: str) -> None:
    pack_to(file, *(member for member in MEMBERS if member[0] != TOP + left_out))
    with pytest.raises(DataError, match=rf"not a complete ESC-50 archive: .*{Path(left_out).name}"):
        unpack(file, root)
    assert names_in(file.parent) == ["ESC-50.zip"]


def test_a_damaged_archive_is_refused(file: Path, root: Path) -> None:
    content = bytearray(pack_to(file, *MEMBERS).read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"ESC-50\.zip: damaged.*delete it and run again"):
        unpack(file, root)
    assert names_in(file.parent) == ["ESC-50.zip"]


@pytest.mark.parametrize("content", [b"", b"<html></html>", make_zip()[:2_000]])
def test_what_is_no_zip_is_refused(file: Path, root: Path, content: bytes) -> None:
    pack_to(file).write_bytes(content)
    with pytest.raises(DataError, match="damaged or not a zip archive"):
        unpack(file, root)
    assert not root.exists()


def test_an_empty_zip_is_refused(file: Path, root: Path) -> None:
    with pytest.raises(DataError, match="one top folder"):
        unpack(pack_to(file), root)


def test_unpack_does_not_touch_a_folder_with_files(file: Path, root: Path) -> None:
    root.mkdir(parents=True)
    (root / "mine.txt").touch()
    with pytest.raises(DataError, match="can't be unpacked"):
        unpack(pack_to(file, *MEMBERS), root)
    assert names_in(root) == ["mine.txt"]
    assert names_in(file.parent) == ["ESC-50", "ESC-50.zip"]

import io
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import soundfile

from audioml.datasets import load_manifest
from audioml.datasets.download import fetch, unpack
from audioml.datasets.manifest import DataError

TOP = "ESC-50-master/"
METADATA = """filename,fold,target,category,esc10,src_file,take
1-100-A-0.wav,1,0,dog,True,100,A
2-200-A-1.wav,2,1,rooster,True,200,A
"""
Member = tuple[str | zipfile.ZipInfo, bytes]


def make_wav() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4_000)
    soundfile.write(buffer, noise, 8_000, format="WAV")
    return buffer.getvalue()


MEMBERS: tuple[Member, ...] = (
    (TOP, b""),
    (f"{TOP}README.md", b"ESC-50"),
    (f"{TOP}meta/esc50.csv", METADATA.encode()),
    (f"{TOP}audio/1-100-A-0.wav", make_wav()),
    (f"{TOP}audio/2-200-A-1.wav", make_wav()),
)


def make_zip(members: tuple[Member, ...] = MEMBERS) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in members:
            pack.writestr(name, content)
    return buffer.getvalue()


@dataclass
class Site:
    """What the server on 127.0.0.1 answers, and what it was asked."""

    body: bytes
    url: str = ""
    status: int = 200
    content_type: str = "application/zip"
    ranges_work: bool = True
    range_shift: int = 0
    announces_length: bool = True
    cut_after: int | None = None
    asked_ranges: list[str | None] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        self.asked_ranges.append(asked)
        start = int(asked[len("bytes=") : -1]) if asked and self.ranges_work else 0
        body = self.body[start:]
        if start >= len(self.body):
            handler.send_error(416)
            return
        handler.send_response(206 if start else self.status)
        handler.send_header("Content-Type", self.content_type)
        if self.announces_length:
            handler.send_header("Content-Length", str(len(body)))
        if start:
            first = start + self.range_shift
            handler.send_header("Content-Range", f"bytes {first}-{len(self.body) - 1}/*")
        handler.end_headers()
        handler.wfile.write(body[: self.cut_after])


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site(body=make_zip())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}/master.zip"
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ESC-50.zip"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ESC-50"


def pack_to(file: Path, *members: Member) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(make_zip(members))
    return file


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_fetch_brings_the_file(site: Site, file: Path) -> None:
    fetch(site.url, file)
    assert file.read_bytes() == site.body
    assert names_in(file.parent) == [file.name]


def test_fetch_leaves_a_present_file_alone(site: Site, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"put here by hand")
    fetch(site.url, file)
    assert file.read_bytes() == b"put here by hand"
    assert site.asked_ranges == []


def test_fetch_resumes_after_a_cut_connection(site: Site, file: Path) -> None:
    site.cut_after = 1_000
    with pytest.raises(
        DataError, match=rf"1000 of {len(site.body)} bytes arrived.*again to resume"
    ):
        fetch(site.url, file)
    assert names_in(file.parent) == ["ESC-50.zip.part"]
    site.cut_after = None
    fetch(site.url, file)
    assert file.read_bytes() == site.body
    assert site.asked_ranges == [None, "bytes=1000-"]


def test_fetch_starts_again_where_ranges_are_ignored(site: Site, file: Path) -> None:
    site.ranges_work = False
    site.cut_after = 1_000
    with pytest.raises(DataError):
        fetch(site.url, file)
    site.cut_after = None
    fetch(site.url, file)
    assert file.read_bytes() == site.body


@pytest.mark.parametrize("surplus", [0, 10])
def test_fetch_starts_again_from_a_part_without_a_rest(
    site: Site, file: Path, surplus: int
) -> None:
    file.parent.mkdir()
    file.with_name("ESC-50.zip.part").write_bytes(bytes(len(site.body) + surplus))
    fetch(site.url, file)
    assert file.read_bytes() == site.body


def test_fetch_refuses_another_range_than_asked(site: Site, file: Path) -> None:
    site.range_shift = 5
    file.parent.mkdir()
    file.with_name("ESC-50.zip.part").write_bytes(site.body[:100])
    with pytest.raises(DataError, match=r"wrong bytes; delete .*\.part"):
        fetch(site.url, file)


def test_fetch_works_without_a_length(site: Site, file: Path) -> None:
    site.announces_length = False
    fetch(site.url, file)
    assert file.read_bytes() == site.body


def test_fetch_reports_404(site: Site, file: Path) -> None:
    site.status = 404
    with pytest.raises(
        DataError, match=r"master\.zip: download failed \(HTTP Error 404.*data\.url"
    ):
        fetch(site.url, file)
    assert names_in(file.parent) == []


def test_fetch_refuses_a_web_page(site: Site, file: Path) -> None:
    site.content_type = "text/html; charset=utf-8"
    with pytest.raises(DataError, match="a web page, not an archive"):
        fetch(site.url, file)
    assert names_in(file.parent) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x.zip", "x.zip", ""])
def test_fetch_takes_only_http(url: str, file: Path) -> None:
    with pytest.raises(DataError, match=r"not an http or https address; set data\.url"):
        fetch(url, file)


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


@pytest.mark.parametrize("name", ["esc50", "esc10"])
def test_a_missing_root_is_downloaded(site: Site, root: Path, name: str) -> None:
    manifest = load_manifest(name=name, root=str(root), url=site.url, seed=0)
    assert manifest.root == root
    assert manifest.labels == ("dog", "rooster")
    assert len(load_manifest(name=name, root=str(root), url=site.url, seed=0)) == 2
    assert len(site.asked_ranges) == 1


def test_without_a_network_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        url = f"http://127.0.0.1:{closed.server_port}/master.zip"
    with pytest.raises(DataError) as error:
        load_manifest(name="esc10", root=None, url=url, seed=0)
    message = str(error.value)
    for part in (
        str(Path("data", "ESC-50", "meta", "esc50.csv")),
        str(Path("data", "ESC-50", "audio")),
        str(Path("data", "ESC-50.zip")),
        url,
        "data.root",
        "data.name=synthetic",
    ):
        assert part in message
    assert "\n" not in message
    assert names_in(tmp_path) == []

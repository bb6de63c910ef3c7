"""The download of ESC-50: hostile archives and servers, full disks, killed and rival processes."""

import resource
import signal
import stat
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from esc50_archive import MEMBERS, TOP, make_zip, names_in, pack_to
from web import serve

from audioml.cli import main
from audioml.cli.verbs import EXIT_USAGE
from audioml.config import DataConfig
from audioml.datasets import load_manifest
from audioml.datasets.archive import unpack
from audioml.datasets.manifest import DataError
from audioml.download import DownloadError, fetch

WAIT_S = 100  # for another process, on the slowest machine


@pytest.fixture
def file(tmp_path):
    return tmp_path / "data" / "ESC-50.zip"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data" / "ESC-50"


@pytest.fixture
def site():
    with serve(make_zip()) as site:
        yield site


def refusal(file, root, **bounds):
    """Unpack an archive, which must end in one line of error and leave nothing; return it."""
    with pytest.raises(DataError, match=r"\A[^\n]+\Z") as error:
        unpack(file, root, **bounds)
    assert str(error.value).startswith(f"{file}: ")
    assert names_in(file.parent) == [file.name]
    assert sorted(path.name for path in file.parent.parent.iterdir()) == ["data"]
    return str(error.value)


def entry(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize("kind", ["IFLNK", "IFCHR", "IFBLK", "IFIFO", "IFSOCK"])
@pytest.mark.parametrize("name", ["evil", "audio/evil.wav", "audio", "meta"])
def test_links_and_devices(file, root, kind, name):
    special = entry(f"{TOP}{name}", getattr(stat, f"S_{kind}") | 0o777)
    pack_to(file, *MEMBERS[:1], (special, b"/etc"), *MEMBERS[2:])
    assert "is a link or a special file" in refusal(file, root)


UNSAFE = (
    "../evil",
    f"{TOP}../../evil",
    f"{TOP}audio/../../evil",
    "/evil",
    "//evil",
    f"/{TOP}evil",
    "..",
    f"{TOP}..",
    "..\\evil",
    f"{TOP}..\\..\\evil",
    "\\evil",
    "\\\\server\\share\\evil",
    "C:evil",
    "C:\\evil",
    f"{TOP}C:/evil",
    f"{TOP}evil:stream",
)


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_leave_the_folder(file, root, name):
    pack_to(file, *MEMBERS, (name, b"evil"))
    assert "leaves the folder or has an unsafe name" in refusal(file, root)


def test_a_name_that_is_a_file_and_a_folder(file, root):
    pack_to(file, *MEMBERS, (f"{TOP}README.md/evil", b"evil"))
    assert "can't be unpacked" in refusal(file, root)


def test_too_many_members(file, root):
    pack_to(file, *MEMBERS, *((f"{TOP}{number}", b"") for number in range(10_000)))
    assert "10,005 members, at most 10,000 are expected" in refusal(file, root)


def test_a_list_of_members_that_would_take_all_memory(file, root):
    """A million entries in 50 MB, of which zipfile would make 500 MB of objects."""
    head = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *(0,) * 9, 1, *(0,) * 6) + b"a"
    directory = head * 1_000_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(directory), 0, 0)
    file.parent.mkdir()
    file.write_bytes(directory + end)
    tracemalloc.start()
    try:
        said = refusal(file, root)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert f"lists its members in {len(directory):,} bytes" in said
    assert peak_bytes < 1_000_000


def test_a_ratio_that_no_sound_has(file, root):
    pack_to(file, *MEMBERS, (f"{TOP}zeros", bytes(20_000_000)))
    assert f"at most {100 * file.stat().st_size:,} are expected" in refusal(file, root)


def claim(file, name, *, size):
    """Let a member's entry in the list of members claim a size."""
    content = bytearray(file.read_bytes())
    entries = [i for i in range(len(content)) if content[i : i + 4] == b"PK\x01\x02"]
    at = next(i for i in entries if content[i + 46 :].startswith(f"{TOP}{name}".encode()))
    content[at + 24 : at + 28] = struct.pack("<I", size)
    file.write_bytes(content)


def test_a_size_that_no_member_has(file, root):
    pack_to(file, *MEMBERS)
    claim(file, "README.md", size=2**32 - 2)
    assert "has 4,294,967,294 bytes, at most 67,108,864 are expected" in refusal(file, root)


def test_members_that_lie_over_each_other(file, root):
    """All entries point to one member's bytes, so that a small file unpacks to many large ones."""
    pack_to(file, *MEMBERS, *((f"{TOP}{n}", b"") for n in range(50)))
    content = bytearray(file.read_bytes())
    entries = [i for i in range(len(content)) if content[i : i + 4] == b"PK\x01\x02"]
    wav = next(i for i in entries if content[i + 46 :].startswith(f"{TOP}audio/".encode()))
    for at in entries[-50:]:
        content[at + 16 : at + 28] = content[wav + 16 : wav + 28]  # checksum and sizes
        content[at + 42 : at + 46] = content[wav + 42 : wav + 46]  # place
    file.write_bytes(content)
    assert "members lie over each other" in refusal(file, root)


def test_an_archive_cut_at_each_sixteenth(file, root):
    content = make_zip()
    file.parent.mkdir()
    for sixteenth in range(16):
        file.write_bytes(content[: len(content) * sixteenth // 16])
        assert "delete it and run again" in refusal(file, root)


@contextmanager
def small_disk(n_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_while_unpacking(file, root):
    pack_to(file, *MEMBERS)
    with small_disk(2_000):
        assert "can't be unpacked" in refusal(file, root)
    unpack(file, root)
    assert names_in(file.parent) == ["ESC-50", "ESC-50.zip"]


def test_a_disk_that_fills_while_downloading(site, root):
    with small_disk(5_000), pytest.raises(DataError, match=r"\A[^\n]+ the room in [^\n]+\Z"):
        load_manifest(DataConfig(name="esc50", root=str(root), url=site.url))
    assert names_in(root.parent) == ["ESC-50.zip.part"]
    assert len(load_manifest(DataConfig(name="esc50", root=str(root), url=site.url))) == 2
    assert site.asked_ranges == [None, "bytes=5000-"]


def test_a_folder_that_may_not_be_written(site, tmp_path, capsys):
    (tmp_path / "file").touch()  # a folder in its place can't be made, not even by root
    words = ["data.name=esc50", f"data.root={tmp_path / 'file' / 'ESC-50'}", f"data.url={site.url}"]
    assert main(["train", *words]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'file' / 'ESC-50'}: no data here, and ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("announced", ["", "1000"])
def test_a_server_that_sends_too_much(site, file, announced):
    site.announced = announced
    with pytest.raises(DownloadError, match=r"sends (more|1,000) bytes, at most 900 are expected"):
        fetch(site.url, file, setting="data.url", max_bytes=900)
    assert names_in(file.parent) == []


def test_a_server_that_announces_nonsense(site, file):
    site.announced = "many"
    fetch(site.url, file, setting="data.url")
    assert file.read_bytes() == site.body


@pytest.mark.parametrize("location", ["file:///etc/passwd", "data:,evil"])
def test_a_server_that_sends_one_elsewhere(site, file, location):
    site.status, site.location = 302, location
    with pytest.raises(DownloadError, match=r"\A[^\n]+not allowed[^\n]+\Z"):
        fetch(site.url, file, setting="data.url")
    assert names_in(file.parent) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://[",
        "http://a:b/",
        "http://a b/",
        "http://\n/",
        f"http://{'a' * 70}.b",
        "http://ä/ö",
    ],
)
def test_an_address_that_is_none(file, url, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DownloadError, match="download failed"):
        fetch(url, file, setting="data.url")
    assert names_in(file.parent) == []


@pytest.mark.parametrize(
    "body", [b"", b"no zip", np.random.default_rng(0).bytes(5_000), make_zip(MEMBERS[:2])]
)
def test_wrong_content(site, root, body):
    """What arrives is kept, so that one can look at it, and named; without it all is well again."""
    good, site.body = site.body, body or b"\0"
    with pytest.raises(DataError, match=r"ESC-50\.zip: (damaged|not a complete)[^\n]+\Z"):
        load_manifest(DataConfig(name="esc50", root=str(root), url=site.url))
    root.with_name("ESC-50.zip").unlink()
    site.body = good
    assert len(load_manifest(DataConfig(name="esc50", root=str(root), url=site.url))) == 2


LOAD = """
import logging, os, signal, sys
from audioml import datasets
from audioml.datasets import archive
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
if sys.argv[3] == "dies":
    archive._check_layout = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
data = datasets.DataConfig(name="esc50", root=sys.argv[1], url=sys.argv[2])
print(len(datasets.load_manifest(data)))
"""


def start(root, site, *, dies=False):
    """Load ESC-50 in a process of its own."""
    words = [sys.executable, "-u", "-c", LOAD, str(root), site.url, "dies" if dies else ""]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def wait_until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_processes_at_once(site, root):
    """The second waits for the first, which the server holds up, and uses what it made."""
    site.pause_after = len(site.body) // 2
    first = start(root, site)
    wait_until(lambda: site.asked_ranges)
    second = start(root, site)
    assert second.stdout.readline() == f"waiting   for another process, which gets {root}\n"
    site.go_on.set()
    assert first.communicate(timeout=WAIT_S)[0] == "2\n"
    assert second.communicate(timeout=WAIT_S)[0] == "2\n"
    assert (first.returncode, second.returncode) == (0, 0)
    assert site.asked_ranges == [None]
    assert names_in(root.parent) == ["ESC-50", "ESC-50.zip"]


def test_killed_at_half_of_the_download(site, root):
    site.body = make_zip((*MEMBERS, (f"{TOP}more", np.random.default_rng(0).bytes(4 << 20))))
    site.pause_after = (2 << 20) + 1000
    part = root.with_name("ESC-50.zip.part")
    process = start(root, site)
    wait_until(lambda: part.exists() and part.stat().st_size == 2 << 20)
    process.kill()
    assert process.communicate(timeout=WAIT_S)[0] == ""
    assert process.returncode == -signal.SIGKILL
    site.go_on.set()
    site.pause_after = None
    assert len(load_manifest(DataConfig(name="esc50", root=str(root), url=site.url))) == 2
    assert site.asked_ranges == [None, f"bytes={2 << 20}-"]
    assert names_in(root.parent) == ["ESC-50", "ESC-50.zip"]


def test_killed_while_unpacking(site, root):
    process = start(root, site, dies=True)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == -signal.SIGKILL
    assert names_in(root.parent) == [".ESC-50.part", "ESC-50.zip"]
    assert len(load_manifest(DataConfig(name="esc50", root=str(root), url=site.url))) == 2
    assert site.asked_ranges == [None]
    assert names_in(root.parent) == ["ESC-50", "ESC-50.zip"]

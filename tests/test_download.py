from collections.abc import Iterator
from pathlib import Path

import pytest
from esc50_archive import make_zip, names_in
from web import Site, closed_url, serve

from audioml import download
from audioml.config import DataConfig
from audioml.datasets import load_manifest
from audioml.datasets.manifest import DataError
from audioml.download import DownloadError


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(make_zip()) as site:
        yield site


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ESC-50.zip"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ESC-50"


def fetch(url: str, file: Path, **options: object) -> None:
    download.fetch(url, file, setting="data.url", **options)


def test_fetch_brings_the_file(site: Site, file: Path) -> None:
    fetch(f"{site.url}/master.zip", file)
    assert file.read_bytes() == site.body
    assert names_in(file.parent) == [file.name]


def test_fetch_leaves_a_present_file_alone(site: Site, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"put here by hand")
    fetch(f"{site.url}/master.zip", file)
    assert file.read_bytes() == b"put here by hand"
    assert site.asked_ranges == []


def test_fetch_resumes_after_a_cut_connection(site: Site, file: Path) -> None:
    site.cut_after = 1_000
    with pytest.raises(
        DownloadError, match=rf"1000 of {len(site.body)} bytes arrived.*again to resume"
    ):
        fetch(f"{site.url}/master.zip", file)
    assert names_in(file.parent) == ["ESC-50.zip.part"]
    site.cut_after = None
    fetch(f"{site.url}/master.zip", file)
    assert file.read_bytes() == site.body
    assert site.asked_ranges == [None, "bytes=1000-"]


def test_fetch_starts_again_where_ranges_are_ignored(site: Site, file: Path) -> None:
    site.ranges_work = False
    site.cut_after = 1_000
    with pytest.raises(DownloadError):
        fetch(f"{site.url}/master.zip", file)
    site.cut_after = None
    fetch(f"{site.url}/master.zip", file)
    assert file.read_bytes() == site.body


@pytest.mark.parametrize("surplus", [0, 10])
def test_fetch_starts_again_from_a_part_without_a_rest(
    site: Site, file: Path, surplus: int
) -> None:
    file.parent.mkdir()
    file.with_name("ESC-50.zip.part").write_bytes(bytes(len(site.body) + surplus))
    fetch(f"{site.url}/master.zip", file)
    assert file.read_bytes() == site.body


def test_fetch_refuses_another_range_than_asked(site: Site, file: Path) -> None:
    site.range_shift = 5
    file.parent.mkdir()
    file.with_name("ESC-50.zip.part").write_bytes(site.body[:100])
    with pytest.raises(DownloadError, match=r"wrong bytes; delete .*\.part, run again"):
        fetch(f"{site.url}/master.zip", file)


def test_fetch_works_without_a_length(site: Site, file: Path) -> None:
    site.announced = ""
    fetch(f"{site.url}/master.zip", file)
    assert file.read_bytes() == site.body


def test_fetch_reports_404(site: Site, file: Path) -> None:
    site.status = 404
    with pytest.raises(
        DownloadError, match=r"master\.zip: download failed \(HTTP Error 404.*data\.url"
    ):
        fetch(f"{site.url}/master.zip", file)
    assert names_in(file.parent) == []


def test_fetch_refuses_a_web_page(site: Site, file: Path) -> None:
    site.content_type = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="a web page, not a file"):
        fetch(f"{site.url}/master.zip", file)
    assert names_in(file.parent) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x.zip", "x.zip", ""])
def test_fetch_takes_only_http(url: str, file: Path) -> None:
    with pytest.raises(DownloadError, match=r"not an http or https address; set data\.url"):
        fetch(url, file)


@pytest.mark.parametrize("name", ["esc50", "esc10"])
def test_a_missing_root_is_downloaded(site: Site, root: Path, name: str) -> None:
    data = DataConfig(name=name, root=str(root), url=f"{site.url}/master.zip")
    manifest = load_manifest(data)
    assert manifest.root == root
    assert manifest.labels == ("dog", "rooster")
    assert len(load_manifest(data)) == 2
    assert len(site.asked_ranges) == 1


def test_without_a_network_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = f"{closed_url()}/master.zip"
    with pytest.raises(DataError) as error:
        load_manifest(DataConfig(name="esc10", url=url))
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
    assert names_in(tmp_path / "data") == []

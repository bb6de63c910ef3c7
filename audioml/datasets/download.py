"""Get the ESC-50 archive and unpack it, so that an interruption never leaves half a data set."""

import shutil
import stat
import zipfile
import zlib
from collections import Counter
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from audioml.datasets.esc50 import read_esc50
from audioml.datasets.manifest import DataError

MAX_UNPACKED_BYTES: Final = 4 << 30  # ESC-50 unpacks to less than 1 GiB
_CHUNK_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 30


def fetch(url: str, file: Path) -> None:
    """Download a file; a later call resumes an interrupted one.

    The bytes are collected in ``file`` + ".part" and renamed at the end. A file that is already
    there is left as it is.

    Args:
        url: An http or https address.
        file: Where to put it.

    Raises:
        DataError: If the address is of another kind, does not answer, answers with a web page, or
            sends less than it announced.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise DataError(f"{url}: not an http or https address; set data.url")
    if file.exists():
        return
    part = file.with_name(f"{file.name}.part")
    try:
        _download(url, part)
        part.rename(file)
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{url}: download failed ({error}); check the network and data.url, "
            "and run again to resume"
        ) from error


def unpack(archive: Path, root: Path, *, max_bytes: int = MAX_UNPACKED_BYTES) -> None:
    """Unpack a zip archive of ESC-50 to ``root``.

    Every member is checked before anything is written. The archive's single top folder is stripped,
    the files are written to a temporary folder beside ``root``, checked against the metadata and
    renamed to ``root`` at the end.

    Args:
        archive: The zip file.
        root: The folder to make; must not hold files yet.
        max_bytes: Bound on the unpacked size, against archives made to fill the disk.

    Raises:
        DataError: If the archive is damaged, unsafe, larger than ``max_bytes`` or incomplete.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with (
            zipfile.ZipFile(archive) as pack,
            TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as folder,
        ):
            members = _check_members(archive, pack.infolist(), max_bytes)
            staging = Path(folder, root.name)
            _extract(pack, members, staging)
            _check_layout(archive, staging)
            staging.rename(root)
    except OSError as error:
        raise DataError(f"{archive}: can't be unpacked to {root} ({error})") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(
            f"{archive}: damaged or not a zip archive ({error}); "
            "delete it and run again to download it anew"
        ) from error


def _download(url: str, part: Path) -> None:
    """Bring ``part`` to its full size, from where it ends if the server can do that."""
    with _open(url, part) as response:
        if response.headers.get_content_type() == "text/html":
            raise DataError(
                f"{url}: answered with a web page, not an archive; check data.url and whether "
                "the network asks for a login"
            )
        n_present = part.stat().st_size if response.status == 206 else 0
        content_range = response.headers["Content-Range"] or ""
        if n_present and not content_range.startswith(f"bytes {n_present}-"):
            raise DataError(f"{url}: answered with the wrong bytes; delete {part} and run again")
        length = response.headers["Content-Length"]
        total = None if length is None else n_present + int(length)
        part.parent.mkdir(parents=True, exist_ok=True)
        with (
            part.open("ab" if n_present else "wb") as sink,
            tqdm(desc=part.stem, total=total, initial=n_present, unit="B", unit_scale=True) as bar,
        ):
            while chunk := response.read(_CHUNK_BYTES):
                sink.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise DataError(f"{url}: {size} of {total} bytes arrived; run again to resume")


def _open(url: str, part: Path) -> HTTPResponse:
    """Ask for what is missing from ``part``; for everything if it is not a beginning of the file.

    The answer has status 206 if it continues ``part``; 416 says that ``part`` is no beginning.
    """
    n_present = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={n_present}-"} if n_present else {}
    try:
        return cast(HTTPResponse, urlopen(Request(url, headers=headers), timeout=_TIMEOUT_S))
    except HTTPError as error:
        if error.code != 416:
            raise
        part.unlink()
        return _open(url, part)


def _check_members(
    archive: Path, infos: list[zipfile.ZipInfo], max_bytes: int
) -> dict[str, zipfile.ZipInfo]:
    """Map the files of an archive to their paths without its top folder.

    Raises:
        DataError: If a member must not be unpacked, or there is no single top folder.
    """
    refused = f"{archive}: refused, nothing was unpacked: "
    names = [info.filename.rstrip("/").casefold() for info in infos]
    counts = Counter(names)
    for info, name in zip(infos, names, strict=True):
        fault = "is there twice" if counts[name] > 1 else _find_fault(info)
        if fault:
            raise DataError(f"{refused}member {info.filename!r} {fault}; check data.url")
    n_bytes = sum(info.file_size for info in infos)
    if n_bytes > max_bytes:
        raise DataError(
            f"{refused}{n_bytes:,} bytes when unpacked, at most {max_bytes:,} are expected; "
            "check data.url"
        )
    files = [info for info in infos if not info.is_dir()]
    tops = {info.filename.partition("/")[0] for info in files}
    if len(tops) != 1 or not all("/" in info.filename for info in files):
        raise DataError(f"{refused}expected one top folder such as ESC-50-master/; check data.url")
    return {info.filename.partition("/")[2]: info for info in files}


def _find_fault(info: zipfile.ZipInfo) -> str | None:
    """Say why a member must not be unpacked, or None."""
    name = info.filename
    if "\\" in name or ":" in name or {"", ".", ".."} & set(name.removesuffix("/").split("/")):
        return "leaves the folder or has an unsafe name"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    # zipfile stops at the announced size only for these two.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is neither stored nor deflated"
    return None


def _extract(pack: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    """Write members to a folder; zipfile checks each CRC."""
    for name, info in tqdm(members.items(), desc="unpack", unit="file"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with pack.open(info) as source, path.open("xb") as sink:
            shutil.copyfileobj(source, sink, _CHUNK_BYTES)


def _check_layout(archive: Path, folder: Path) -> None:
    """Refuse a folder that does not hold every file its metadata names."""
    try:
        read_esc50(folder)
    except DataError as error:
        reason = str(error).replace(f"{folder}/", "")
        raise DataError(f"{archive}: not a complete ESC-50 archive: {reason}") from error

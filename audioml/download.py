"""Files from the network: bounded, checked, resumed, and brought by one process at a time."""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Final, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout

from audioml.progress import progress_bar

log = logging.getLogger("audioml")

MAX_BYTES: Final = 4 << 30  # ESC-50's archive and most weights have less than 1 GiB
_CHUNK_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 30


class DownloadError(ValueError):
    """A file that can't be had; the message names the address, the setting and the remedy."""


def fetch(
    url: str, file: Path, *, setting: str, sha256: str = "", max_bytes: int = MAX_BYTES
) -> None:
    """Download a file; a later call resumes an interrupted one.

    The bytes are collected in ``file`` + ".part" and renamed at the end. A file that is already
    there is left as it is; one that another process is downloading is waited for.

    Args:
        url: An http or https address.
        file: Where to put it.
        setting: Which setting says so.
        sha256: Beginning of the content's SHA-256, in hex; "" for any content.
        max_bytes: Bound on its size, against servers made to fill the disk.

    Raises:
        DownloadError: If the address is of another kind, does not answer, answers with a web page
            or other content, or sends less than it announced or more than ``max_bytes``.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise DownloadError(f"{url}: not an http or https address; set {setting}")
    part = file.with_name(f"{file.name}.part")
    try:
        with one_at_a_time(file):
            if file.exists():
                return
            _download(url, part, setting, max_bytes)
            if not has_hash(part, sha256):
                part.unlink()
                raise DownloadError(
                    f"{url}: what arrived is not what the name says; run again, or set {setting}"
                )
            part.rename(file)
    except DownloadError:
        raise
    except (OSError, HTTPException, ValueError) as error:  # the last of a host or port that is none
        raise DownloadError(
            f"{url}: download failed ({error}); check the network, {setting} and the room in "
            f"{file.parent}, and run again to resume"
        ) from error


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the lock on a file or folder that is to be made; another process's is waited for.

    The system frees the lock however a process ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.info("waiting   for another process, which gets %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def has_hash(file: Path, sha256: str) -> bool:
    """Say whether the SHA-256 of a file's content, in hex, begins so."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest().startswith(sha256)


def _download(url: str, part: Path, setting: str, max_bytes: int) -> None:
    """Bring ``part`` to its full size, from where it ends if the server can do that."""
    with _open(url, part) as response:
        if response.headers.get_content_type() == "text/html":
            raise DownloadError(
                f"{url}: answered with a web page, not a file; check {setting} and whether the "
                "network asks for a login"
            )
        n_present = part.stat().st_size if response.status == 206 else 0
        content_range = response.headers["Content-Range"] or ""
        if n_present and not content_range.startswith(f"bytes {n_present}-"):
            raise DownloadError(f"{url}: answered with the wrong bytes; delete {part}, run again")
        total = None if response.length is None else n_present + response.length
        if total is not None and total > max_bytes:
            raise _too_large(url, f"{total:,}", max_bytes, setting)
        with (
            part.open("ab" if n_present else "wb") as sink,
            progress_bar(task=part.stem, total=total, n_done=n_present, unit="B") as bar,
        ):
            while sink.tell() <= max_bytes and (chunk := response.read(_CHUNK_BYTES)):
                sink.write(chunk)
                bar.update(len(chunk))
            sink.flush()
            os.fsync(sink.fileno())
    size = part.stat().st_size
    if size > max_bytes:
        part.unlink()
        raise _too_large(url, "more", max_bytes, setting)
    if total is not None and size != total:
        raise DownloadError(f"{url}: {size} of {total} bytes arrived; run again to resume")


def _too_large(url: str, size: str, max_bytes: int, setting: str) -> DownloadError:
    return DownloadError(
        f"{url}: sends {size} bytes, at most {max_bytes:,} are expected; check {setting}"
    )


def _open(url: str, part: Path) -> HTTPResponse:
    """Ask for what is missing from ``part``; for everything if it is not a beginning of the file.

    The answer has status 206 if it continues ``part``; 416 says that ``part`` is no beginning.
    """
    n_present = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={n_present}-"} if n_present else {}
    # Only http and https come here, and urllib follows a redirection to no local file.
    request = Request(url, headers=headers)  # noqa: S310
    try:
        return cast(HTTPResponse, urlopen(request, timeout=_TIMEOUT_S))  # noqa: S310
    except HTTPError as error:
        if error.code != 416:
            raise
        part.unlink()
        return _open(url, part)

"""Unpack the ESC-50 archive, so that neither a hostile one nor an interruption does harm."""

import io
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

from audioml.datasets.esc50 import read_esc50
from audioml.datasets.manifest import DataError
from audioml.progress import track

MAX_UNPACKED_BYTES: Final = 4 << 30  # ESC-50 unpacks to less than 1 GiB
_MAX_RATIO: Final = 100  # of that to the archive; ESC-50's is below 2
_MAX_MEMBERS: Final = 10_000  # ESC-50's archive has about 2,000
_MAX_MEMBER_BYTES: Final = 64 << 20  # a clip has 0.5 MiB
_MAX_DIRECTORY_BYTES: Final = 4 << 20  # what lists them has about 0.2 MiB
_HEADER_BYTES: Final = 30  # at least, before each member's content
_CHUNK_BYTES: Final = 1 << 20


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
            _Bounded(io.FileIO(archive)) as content,
            zipfile.ZipFile(content) as pack,
            _staging_folder(root) as staging,
        ):
            members = _check_members(archive, pack.infolist(), max_bytes)
            _extract(pack, members, staging)
            _check_layout(archive, staging)
            staging.rename(root)
    except OSError as error:
        raise DataError(f"{archive}: can't be unpacked to {root} ({error})") from error
    # The last is what zipfile raises of patched data and of later versions of the format.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(
            f"{archive}: damaged or not a zip archive ({error}); "
            "delete it and run again to download it anew"
        ) from error


class _Bounded(io.BufferedReader):
    """A file that is not read in one large piece, as zipfile reads the list of all members."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes, a number that zipfile may have from the file itself."""
        if size is not None and size > _MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"it lists its members in {size:,} bytes")
        return super().read(size)


@contextmanager
def _staging_folder(root: Path) -> Iterator[Path]:
    """Name the folder that becomes ``root``; whatever is left of it in the end goes away."""
    folder = root.with_name(f".{root.name}.part")
    if folder.exists():  # the process that made it was killed
        shutil.rmtree(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_members(
    archive: Path, infos: Sequence[zipfile.ZipInfo], max_bytes: int
) -> dict[str, zipfile.ZipInfo]:
    """Map the files of an archive to their paths without its top folder.

    Raises:
        DataError: If a member must not be unpacked, or there is no single top folder.
    """
    refused = f"{archive}: refused, nothing was unpacked: "
    if len(infos) > _MAX_MEMBERS:
        raise DataError(
            f"{refused}{len(infos):,} members, at most {_MAX_MEMBERS:,} are expected; check "
            "data.url"
        )
    names = [info.filename.rstrip("/").casefold() for info in infos]
    counts = Counter(names)
    for info, name in zip(infos, names, strict=True):
        fault = "is there twice" if counts[name] > 1 else _find_fault(info)
        if fault:
            raise DataError(f"{refused}member {info.filename!r} {fault}; check data.url")
    if _overlap(infos):
        raise DataError(f"{refused}members lie over each other; check data.url")
    n_bytes = sum(info.file_size for info in infos)
    max_bytes = min(max_bytes, _MAX_RATIO * archive.stat().st_size)
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
    if info.file_size > _MAX_MEMBER_BYTES:
        return f"has {info.file_size:,} bytes, at most {_MAX_MEMBER_BYTES:,} are expected"
    return None


def _overlap(infos: Sequence[zipfile.ZipInfo]) -> bool:
    """Say whether members share bytes, as in bombs whose members all unpack the same ones."""
    spans = sorted(
        (info.header_offset, info.header_offset + _HEADER_BYTES + info.compress_size)
        for info in infos
    )
    return any(end > begin for (_, end), (begin, _) in pairwise(spans))


def _extract(pack: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    """Write members to a folder; zipfile checks each CRC."""
    bar = track(members.items(), task="unpack", total=len(members), unit="file")
    for name, info in bar:
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

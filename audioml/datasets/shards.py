"""Data in shards: files as they are, many in a tar archive, and an index that says where each is.

Shards are archives in WebDataset's format, which other programs read too. With the index every file
can be read alone, wherever the shards lie: so clips are shuffled over all of the data, ranks read
what they train on and no more, and a resumed run goes on at its clip; a buffer of clips that are
read in order can do none of these.
"""

import functools
import hashlib
import importlib.util
import io
import json
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import fsspec
import numpy as np
import pandas as pd
from fsspec.implementations.local import LocalFileSystem

from audioml.datasets.manifest import Clip, DataError, Manifest, Measured, describe_examples
from audioml.errors import UserError

FORMAT: Final = 1
INDEX: Final = "index.parquet"
SUMMARY: Final = "index.json"
"""Written last: shards without it are not finished."""
_N_TRIES: Final = 3
_PAUSE_S: Final = 1.0
_LASTING: Final = (NotADirectoryError, IsADirectoryError, PermissionError, NotImplementedError)
_N_REQUESTS: Final = 16  # at a time, where sizes are asked for

CLIP_COLUMNS: Final = (
    "label",
    "target",
    "targets",
    "source",
    "fold",
    "start_s",
    "end_s",
    "part",
    "is_good",
    "row",
)
_PLACE: Final = ("offset", "size", "checksum")
_MEASURED: Final = ("sample_format", "n_channels", "rate", "n_frames", "rms", "digest")
_KEYS: Final = {
    "name",
    "labels",
    "is_synthetic",
    "has_sources",
    "known_crossing_sources",
    "sample_rate",
    "index_sha256",
    "shards",
}

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of a file system that fsspec knows.

    Args:
        address: What it is called: a path or URL.
        system: The file system.
        path: Where in it.
    """

    address: str
    system: Any
    path: str

    def locate(self, name: str) -> str:
        """Name a file in it, as its file system does."""
        return f"{self.path.rstrip('/')}/{name}"

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Read a file, or bytes of it; what fails for the moment is tried again.

        Raises:
            DataError: If it can't be read.
        """
        return self._try(name, functools.partial(self._read, self.locate(name), start, stop))

    def _read(self, path: str, start: int | None, stop: int | None) -> bytes:
        if not isinstance(self.system, LocalFileSystem):
            return cast(bytes, self.system.cat_file(path, start=start, end=stop))
        with Path(path).open("rb") as file:  # in half of the time
            file.seek(start or 0)
            return file.read(-1 if stop is None else stop - (start or 0))

    def measure(self, name: str) -> int | None:
        """Say how many bytes a file has; None if it is not there."""
        try:
            return int(self._try(name, lambda: self.system.size(self.locate(name))))
        except FileNotFoundError:
            return None

    def _try(self, name: str, ask: Callable[[], Result]) -> Result:
        for n_left in reversed(range(_N_TRIES)):
            try:
                return ask()
            except FileNotFoundError:
                raise
            except Exception as error:  # each store has errors of its own
                if n_left and not isinstance(error, _LASTING):
                    time.sleep(_PAUSE_S)
                    continue
                raise DataError(
                    f"{self.address}/{name}: can't be read ({error}); mend the connection or the "
                    "store, and try again"
                ) from error
        raise AssertionError

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Put in words what a store says to being written to.

        Raises:
            DataError: In its place.
        """
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # each store has errors of its own
            raise DataError(
                f"{self.address}: can't be written ({error}); mend the store"
            ) from error


@dataclass(frozen=True, slots=True)
class Packed:
    """A file in a shard.

    Args:
        folder: Where the shards are.
        shard: The shard's name.
        offset: First byte of the file in it.
        size: How many bytes there are.
        checksum: Their CRC-32.
    """

    folder: Folder
    shard: str
    offset: int
    size: int
    checksum: int

    def read(self) -> bytes:
        """Read the file.

        Raises:
            DataError: If that fails, or it is not the file that was packed.
        """
        try:
            contents = self.folder.read(self.shard, self.offset, self.offset + self.size)
        except FileNotFoundError as error:
            raise DataError(f"{self.folder.address}/{self.shard}: not there; restore it") from error
        if zlib.crc32(contents) != self.checksum:
            raise DataError(
                f"{self.folder.address}/{self.shard}: at byte {self.offset} is another file than "
                f"{INDEX} says: changed, cut short, or another shard under this name; restore it"
            )
        return contents


def open_folder(address: str) -> Folder:
    """Find a folder on a file system that fsspec knows.

    Args:
        address: A path, or a URL such as ``s3://BUCKET/FOLDER``.

    Raises:
        DataError: If nobody knows such an address.
    """
    try:
        system, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise DataError(f"{address}: {error}") from error
    return Folder(address.rstrip("/"), system, path)


def has_shards(address: str) -> bool:
    """Say whether there are shards in a folder.

    Raises:
        DataError: If nobody can say.
    """
    return open_folder(address).measure(SUMMARY) is not None


def read_shards(address: str) -> Manifest:
    """Read the index of a folder of shards.

    Args:
        address: The folder: a path, or a URL that fsspec knows.

    Returns:
        The manifest that was put in shards, clip for clip; its clips are read from them.

    Raises:
        DataError: If there is no index, one of a newer version, or one of other shards; or if a
            shard is missing or has another size than it had.
    """
    folder = open_folder(address)
    summary = _read_summary(folder)
    frame = _read_index(folder, summary)
    _check_shards(folder, summary["shards"])
    return make_manifest(folder, summary, frame)


def make_manifest(folder: Folder, summary: dict[str, Any], frame: pd.DataFrame) -> Manifest:
    """Make a manifest of an index.

    Args:
        folder: Where the shards are.
        summary: What ``index.json`` says.
        frame: What ``index.parquet`` says.
    """
    names = [shard["name"] for shard in summary["shards"]]
    places = zip(*(frame[column].tolist() for column in ("shard", *_PLACE)), strict=True)
    columns = [_with_none(frame[column]) for column in CLIP_COLUMNS]
    clips = tuple(
        Clip(
            path=Path(path),
            packed=Packed(folder, names[shard], *place),
            **dict(zip(CLIP_COLUMNS, values, strict=True)),
        )
        for path, (shard, *place), values in zip(
            frame["path"].tolist(), places, zip(*columns, strict=True), strict=True
        )
    )
    facts = {name: summary[name] for name in ("name", "is_synthetic", "has_sources")}
    layouts = (frame[name].tolist() for name in ("sample_format", "n_channels", "rate"))
    return Manifest(
        **facts,
        root=folder.address,
        labels=tuple(summary["labels"]),
        clips=clips,
        in_esc50_layout=False,
        known_crossing_sources=frozenset(summary["known_crossing_sources"]),
        measured=Measured(
            sample_rate=summary["sample_rate"],
            layouts=list(zip(*layouts, strict=True)),
            n_frames=frame["n_frames"].to_numpy(),
            rms=frame["rms"].to_numpy(np.float32),
            digests=tuple(frame["digest"]),
        ),
    )


def _with_none(column: pd.Series) -> list[Any]:
    """List a column as Python's own values, with None where there is none."""
    values = column.astype(object).where(column.notna(), None).tolist()
    return [tuple(value.tolist()) if isinstance(value, np.ndarray) else value for value in values]


def _read_summary(folder: Folder) -> dict[str, Any]:
    """Read what the writer wrote last."""
    where = f"{folder.address}/{SUMMARY}"
    try:
        summary: dict[str, Any] = json.loads(folder.read(SUMMARY))
        version = summary["format"]
        is_whole = version != FORMAT or summary.keys() >= _KEYS
    except FileNotFoundError as error:
        raise DataError(
            f"{where}: not there; write shards with audioml shard CONFIG --out {folder.address} "
            "(until it is through there is none)"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise DataError(f"{where}: not what audioml shard writes; write the shards anew")
    if version != FORMAT:
        raise DataError(
            f"{where}: shards of format {version}, and this program reads {FORMAT}; write them "
            "anew, or use the audioml they were written with"
        )
    return summary


def _read_index(folder: Folder, summary: dict[str, Any]) -> pd.DataFrame:
    """Read the table of clips that belongs to a summary."""
    where = f"{folder.address}/{INDEX}"
    try:
        contents = folder.read(INDEX)
    except FileNotFoundError as error:
        raise DataError(f"{where}: not there; restore it, or write the shards anew") from error
    if hashlib.sha256(contents).hexdigest() != summary["index_sha256"]:
        raise DataError(
            f"{where}: not the index that {SUMMARY} was written with; restore both, or write the "
            "shards anew"
        )
    check_parquet()
    frame = pd.read_parquet(io.BytesIO(contents))
    is_whole = set(frame) >= {"path", "shard", *_PLACE, *CLIP_COLUMNS, *_MEASURED}
    if is_whole:
        targets = frame["targets"].where(frame["targets"].notna(), frame["target"]).explode()
        pairs = ((frame["shard"], summary["shards"]), (targets.dropna(), summary["labels"]))
        is_whole = all(numbers.between(0, len(known) - 1).all() for numbers, known in pairs)
    if not is_whole:
        raise DataError(f"{where}: not what audioml shard writes; write the shards anew")
    return frame


def check_parquet() -> None:
    """Refuse to go on without the library that an index needs.

    Raises:
        DataError: With what to install.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError("shards need pyarrow: python -m pip install 'audioml[stream]'")


def _check_shards(folder: Folder, shards: list[dict[str, Any]]) -> None:
    """Refuse shards that are not there, or not as long as they were."""
    names = [shard["name"] for shard in shards]
    with ThreadPoolExecutor(_N_REQUESTS) as pool:
        sizes = list(pool.map(folder.measure, names))
    missing = [name for name, size in zip(names, sizes, strict=True) if size is None]
    if missing:
        raise DataError(
            f"{folder.address}: {len(missing)} of {len(names)} shards are missing: "
            f"{describe_examples(missing)}; restore them"
        )
    for shard, size in zip(shards, sizes, strict=True):
        if size != shard["size"]:
            raise DataError(
                f"{folder.address}/{shard['name']}: {size} bytes, and {SUMMARY} says "
                f"{shard['size']}: cut short, or another file; restore it"
            )

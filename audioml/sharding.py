"""Writes a data set in shards; ``datasets/shards.py`` says what these are, and reads them."""

import hashlib
import io
import json
import logging
import tarfile
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from audioml.bad_files import check_bad_files
from audioml.clips import ClipFacts, ClipHeader, measure_all, scan_headers
from audioml.datasets.manifest import DataError, Manifest
from audioml.datasets.shards import (
    CLIP_COLUMNS,
    FORMAT,
    INDEX,
    SUMMARY,
    Folder,
    check_parquet,
    open_folder,
)
from audioml.progress import track

log = logging.getLogger("audioml")

MIB: Final = 1 << 20
_DTYPES: Final = {"fold": "Int64", "end_s": "Float64", "is_good": "boolean", "part": "object"}
_TAR_BLOCK: Final = 512  # bytes; a header takes one
_LARGE_BYTES: Final = 64 * MIB


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file is: the shard's number, its first byte there, its size and CRC-32."""

    shard: int
    offset: int
    size: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Args:
        address: The folder.
        n_clips: Clips in the shards.
        n_files: Files they are stretches of.
        n_shards: Shards.
        n_bytes: Their size together.
        bad: The clips left out because their files are bad, and why.
    """

    address: str
    n_clips: int
    n_files: int
    n_shards: int
    n_bytes: int
    bad: dict[str, str]


def write_shards(
    manifest: Manifest,
    address: str,
    *,
    sample_rate: int,
    n_threads: int = 0,
    shard_mib: int = 256,
    skip_bad: bool = False,
    max_bad_share: float = 0.01,
) -> Written:
    """Write a data set's files, as they are, in shards with an index.

    Every clip is decoded once, to be known when training begins: its length, RMS and digest.

    Args:
        manifest: The data set.
        address: A folder without shards: a path, or a URL that fsspec can write to.
        sample_rate: The rate that training wants [Hz]; with another one every clip is decoded once
            more when training begins.
        n_threads: Decoding threads, 0 for Python's choice.
        shard_mib: Size at which a new shard is begun [MiB].
        skip_bad: Whether clips that can't be decoded are left out, and no error.
        max_bad_share: Most of these, as a share of all.

    Raises:
        DataError: If there are shards already, nothing can be written there, or clips can't be
            decoded.
    """
    check_parquet()
    folder = open_folder(address)
    _make_room(folder)
    headers = scan_headers(manifest, sample_rate, n_threads)
    facts = measure_all(manifest, headers, sample_rate, n_threads, skip_bad=skip_bad)
    check_bad_files(manifest, facts.bad, max_bad_share)
    kept = [clip for clip in range(len(manifest)) if clip not in facts.bad]
    places, shards = _pack(manifest, kept, folder, shard_mib * MIB)
    frame = _tabulate(manifest, kept, headers, facts, places)
    with folder.writing():
        _write_index(folder, manifest, frame, shards, sample_rate)
    return Written(
        address=folder.address,
        n_clips=len(kept),
        n_files=len(set(places)),
        n_shards=len(shards),
        n_bytes=sum(shard["size"] for shard in shards),
        bad={manifest.describe(clip): reason for clip, reason in facts.bad.items()},
    )


def _make_room(folder: Folder) -> None:
    """Make the folder, unless there is something in it that shards would stand beside."""
    if folder.measure(SUMMARY) is not None:
        raise DataError(
            f"{folder.address}: holds shards already; give another --out, or remove them"
        )
    with folder.writing():
        folder.system.makedirs(folder.path, exist_ok=True)
        if folder.system.glob(folder.locate("*.tar")):
            raise DataError(
                f"{folder.address}: holds archives, of an interrupted writing or another program; "
                "remove them, or give another --out"
            )


def _pack(
    manifest: Manifest, kept: list[int], folder: Folder, shard_bytes: int
) -> tuple[list[_Place], list[dict[str, Any]]]:
    """Write the shards; returns where each clip's file is, and each shard's name and size."""
    clips_of: dict[Path, list[int]] = {}
    for clip in kept:
        clips_of.setdefault(manifest.clips[clip].path, []).append(clip)
    packer, place_of = _Packer(folder, shard_bytes), {}
    for path, clips in track(clips_of.items(), task="pack", total=len(clips_of), unit="file"):
        with manifest.clips[clips[0]].open() as file:
            contents = file.read()
        if len(contents) > _LARGE_BYTES and len(clips) > 1:
            log.warning("large     %s: read whole for each of its %d clips", path, len(clips))
        # For programs that read shards without the index.
        notes = {"clips": [_describe(manifest, clip) for clip in clips]}
        with folder.writing():
            place_of[path] = packer.add(contents, path.suffix.lower(), json.dumps(notes).encode())
    with folder.writing():
        packer.finish()
    return [place_of[manifest.clips[clip].path] for clip in kept], packer.shards


class _Packer:
    """Writes files into one shard after another.

    Args:
        folder: Where the shards are written.
        shard_bytes: Size at which a new one is begun.
    """

    def __init__(self, folder: Folder, shard_bytes: int) -> None:
        self.shards: list[dict[str, Any]] = []
        self._folder, self._shard_bytes = folder, shard_bytes
        self._n_files = self._offset = 0
        self._open: ExitStack | None = None
        self._tar: tarfile.TarFile

    def add(self, contents: bytes, suffix: str, notes: bytes) -> _Place:
        """Write a file and what there is to say of it; returns where the file is."""
        if self._open is None:
            self._begin()
        place = _Place(
            len(self.shards), self._offset + _TAR_BLOCK, len(contents), zlib.crc32(contents)
        )
        self._write(f"{self._n_files:09d}{suffix}", contents)
        self._write(f"{self._n_files:09d}.json", notes)
        self._n_files += 1
        if self._offset >= self._shard_bytes:
            self.finish()
        return place

    def _begin(self) -> None:
        self._open, self._offset = ExitStack(), 0
        file = self._folder.system.open(self._folder.locate(self._name), "wb")
        self._open.enter_context(file)
        # Of this format a header always takes one block.
        self._tar = self._open.enter_context(
            tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)
        )

    @property
    def _name(self) -> str:
        return f"shard-{len(self.shards):06d}.tar"

    def _write(self, name: str, contents: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(contents)
        self._tar.addfile(info, io.BytesIO(contents))
        self._offset += _TAR_BLOCK * (1 + -(-len(contents) // _TAR_BLOCK))

    def finish(self) -> None:
        """Finish the shard that is being written, if there is one."""
        if self._open is not None:
            self._open.close()
            size = self._folder.measure(self._name)
            self.shards.append({"name": self._name, "size": size})
            self._open = None


def _describe(manifest: Manifest, clip: int) -> dict[str, Any]:
    facts = {name: getattr(manifest.clips[clip], name) for name in CLIP_COLUMNS}
    return {"path": manifest.relative_path(clip), **facts}


def _tabulate(
    manifest: Manifest,
    kept: list[int],
    headers: Sequence[ClipHeader],
    facts: ClipFacts,
    places: list[_Place],
) -> pd.DataFrame:
    """Make the index: what is known of each clip, and where its file is."""
    rows = []
    for clip, place in zip(kept, places, strict=True):
        header = headers[clip]
        rows.append(
            _describe(manifest, clip)
            | asdict(place)
            | {
                "sample_format": header.layout.sample_format,
                "n_channels": header.layout.n_channels,
                "rate": header.layout.sample_rate,
                "n_frames": header.n_frames,
                "rms": float(facts.rms[clip]),
                "digest": facts.digests[clip],
            }
        )
    return pd.DataFrame(rows).astype(_DTYPES)


def _write_index(
    folder: Folder,
    manifest: Manifest,
    frame: pd.DataFrame,
    shards: list[dict[str, Any]],
    sample_rate: int,
) -> None:
    """Write the index and, when all else is there, the summary."""
    index = frame.to_parquet(index=False)
    summary = {
        "format": FORMAT,
        "name": manifest.name,
        "labels": manifest.labels,
        "is_synthetic": manifest.is_synthetic,
        "has_sources": manifest.has_sources,
        "known_crossing_sources": sorted(manifest.known_crossing_sources),
        "sample_rate": sample_rate,
        "index_sha256": hashlib.sha256(index).hexdigest(),
        "shards": shards,
    }
    for name, contents in ((INDEX, index), (SUMMARY, json.dumps(summary, indent=1).encode())):
        folder.system.pipe_file(folder.locate(name), contents)

"""Every clip decoded once a machine, by the ranks on it together, and kept there once."""

import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from audioml.clips import (
    ClipFacts,
    ClipHeader,
    DecodedClips,
    check_decoded,
    decode_all,
    decode_some,
    known_facts,
    measure_all,
)
from audioml.datasets.manifest import Manifest
from audioml.distributed import any_rank, gather, together
from audioml.ranks import ALONE, Ranks

log = logging.getLogger("audioml")

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what is made there has a name of its own


def decode_together(
    manifest: Manifest,
    headers: Sequence[ClipHeader],
    sample_rate: int,
    n_threads: int,
    device: torch.device,
    *,
    keeps: bool,
    skip_bad: bool,
    ranks: Ranks = ALONE,
) -> ClipFacts:
    """Decode a data set; see ``decode_all``, and ``measure_all`` where nothing is kept.

    Ranks of one machine that read the same files share the work, and what is kept: one copy in
    shared memory. Where that has no room, or files differ, each rank decodes all for itself.

    Args:
        manifest: The clips.
        headers: What ``scan_headers`` told of them.
        sample_rate: The wanted rate [Hz].
        n_threads: Threads, 0 for Python's choice.
        device: Where samples are converted, mixed and resampled.
        keeps: Whether the samples are kept.
        skip_bad: Whether clips that can't be decoded are listed in the result, and no error.
        ranks: Which of the processes this is; all of them call this.

    Raises:
        DataError: If any clip can't be decoded, on all ranks of the machine.
    """
    length = [header.length(sample_rate) for header in headers]
    known = None if keeps else known_facts(manifest, headers, sample_rate)
    mates, samples = _share(manifest, sum(length), keeps, known is None, ranks)
    if known is not None:
        return known
    if len(mates) == 1:
        decode = decode_all if keeps else measure_all
        return decode(manifest, headers, sample_rate, n_threads, device, skip_bad=skip_bad)
    places: Sequence[Tensor | None] = [None] * len(headers)
    if samples is not None:
        places = samples.split(length)
    own = Ranks(ranks.rank - mates.start, len(mates)).share(len(manifest))
    with together(ranks):
        part = decode_some(manifest, headers, sample_rate, n_threads, device, places, own)
    told = gather(ranks, (part.rms, part.digests, dict(part.bad)))[mates.start : mates.stop]
    facts = ClipFacts(
        length=torch.tensor(length),
        rms=torch.cat([rms for rms, _, _ in told]),
        digests=tuple(chain.from_iterable(digests for _, digests, _ in told)),
        bad={clip: reason for _, _, bad in told for clip, reason in bad.items()},
    )
    check_decoded(manifest, facts, skip_bad)
    return facts if samples is None else DecodedClips(samples=samples, **vars(facts))


def _share(
    manifest: Manifest, n_samples: int, keeps: bool, decodes: bool, ranks: Ranks
) -> tuple[range, Tensor | None]:
    """Say which ranks share this one's work, and map what they write to, if that is kept.

    Ranks share on every machine or on none: so all exchange the same things from here on.

    Returns:
        The ranks, this one among them; and the samples [n_samples], int16, or None.
    """
    alone = range(ranks.rank, ranks.rank + 1)
    if not ranks.are_several:
        return alone, None
    first = ranks.rank - ranks.local_rank
    mates = range(first, first + ranks.local_size)
    with together(ranks):  # meets as well those that failed before they came here
        makes = keeps and ranks.rank == first and len(mates) > 1
        file = _make_file(2 * n_samples) if makes else ""
    offers = gather(ranks, (_name_files(manifest), file))[mates.start : mates.stop]
    name = offers[0][1]
    samples = None
    try:
        has_same = len(mates) > 1 and len({files for files, _ in offers}) == 1
        can_share = has_same and decodes and bool(name or not keeps)
        is_shared = not any_rank(ranks, not can_share)[0]
        with together(ranks):
            if is_shared and keeps:
                samples = torch.from_file(name, shared=True, size=n_samples, dtype=torch.int16)
    finally:
        if file:  # all have mapped it, or none will; memory stays until the last one ends
            Path(file).unlink()
    return (mates, samples) if is_shared else (alone, None)


def _name_files(manifest: Manifest) -> str:
    """Name the machine and the files: ranks may be given different ones."""
    root = Path(manifest.root)
    place = str(root.resolve()) if root.exists() else str(manifest.root)  # shards in a store
    return f"{platform.node()} {place}"


def _make_file(n_bytes: int) -> str:
    """Make a file of so many bytes in shared memory; "" where there is no room for it."""
    if not _SHARED_MEMORY.is_dir() or shutil.disk_usage(_SHARED_MEMORY).free < n_bytes:
        log.warning(
            "store     %s has no room for %.2f GiB: every rank decodes and keeps all clips itself",
            _SHARED_MEMORY,
            n_bytes / 2**30,
        )
        return ""
    handle, name = tempfile.mkstemp(prefix="audioml-", dir=_SHARED_MEMORY)
    with os.fdopen(handle, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, n_bytes)  # else a write without room ends the process
    return name

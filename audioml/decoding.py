"""Every clip decoded once a machine, by the ranks on it together, and kept there once."""

import logging
import os
import platform
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

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
    shared memory. Where that can't be had, or files differ, each rank decodes all for itself.

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
    n_kept = sum(length) if keeps else 0
    mates, samples = _share(manifest, n_kept, known is None and sum(length) > 0, ranks)
    if known is not None:
        return known
    if len(mates) == 1:
        decode = decode_all if keeps else measure_all
        return decode(manifest, headers, sample_rate, n_threads, device, skip_bad=skip_bad)
    places: Sequence[Tensor | None] = [None] * len(headers)
    if samples is not None:
        places = samples.split(length)
    own = Ranks(mates.index(ranks.rank), len(mates)).share(len(manifest))
    with together(ranks):
        part = decode_some(manifest, headers, sample_rate, n_threads, device, places, own)
    facts = _gather_facts(part, mates, ranks)
    check_decoded(manifest, facts, skip_bad)
    return facts if samples is None else DecodedClips(samples=samples, **vars(facts))


def _gather_facts(part: ClipFacts, mates: list[int], ranks: Ranks) -> ClipFacts:
    """Put together what these ranks were told, each of a share of the clips."""
    everywhere = gather(ranks, (part.length, part.rms, part.digests, dict(part.bad)))
    lengths, rms, digests, bad = zip(*(everywhere[mate] for mate in mates), strict=True)
    return ClipFacts(
        length=torch.cat(lengths),
        rms=torch.cat(rms),
        digests=tuple(chain.from_iterable(digests)),
        bad={clip: reason for some in bad for clip, reason in some.items()},
    )


def _share(
    manifest: Manifest, n_kept: int, decodes: bool, ranks: Ranks
) -> tuple[list[int], Tensor | None]:
    """Say which ranks share this one's work, and map the memory that they keep it in.

    Ranks share on every machine or on none: so all exchange the same things from here on. The
    memory has no name that could outlive the processes.

    Args:
        manifest: The clips.
        n_kept: Samples that are kept; 0 for none.
        decodes: Whether there is anything to decode.
        ranks: Which of the processes this is.

    Returns:
        The ranks, this one among them; and the samples [n_kept], int16, or None.
    """
    if not ranks.are_several:
        return [ranks.rank], None
    with together(ranks):  # meets as well those that failed before they came here
        place = _name_place(manifest)
    places = gather(ranks, place)
    mates = [rank for rank, place in enumerate(places) if place == places[ranks.rank]]
    handle, samples = None, None
    try:
        if n_kept and ranks.rank == mates[0] and len(mates) > 1:
            handle = _reserve(2 * n_kept)
        files = gather(ranks, "" if handle is None else f"/proc/{os.getpid()}/fd/{handle}")
        if files[mates[0]]:
            samples = _map(files[mates[0]], n_kept)
        can_share = len(mates) > 1 and decodes and (samples is not None or not n_kept)
        (fails,) = any_rank(ranks, not can_share)
    finally:
        if handle is not None:
            os.close(handle)
    return ([ranks.rank], None) if fails else (mates, samples)


def _name_place(manifest: Manifest) -> str:
    """Name machine, container and folder: ranks may see different ones."""
    root, namespace = Path(manifest.root), Path("/proc/self/ns/pid")
    container = str(namespace.readlink()) if namespace.exists() else ""
    folder = str(root.resolve()) if root.exists() else str(manifest.root)  # shards in a store
    return f"{platform.node()} {container} {folder}"


def _reserve(n_bytes: int) -> int | None:
    """Make memory that other processes can map; None where that can't be had."""
    if not hasattr(os, "memfd_create"):
        return None
    handle = os.memfd_create("audioml")
    try:
        os.posix_fallocate(handle, 0, n_bytes)  # else a write without room would end the process
    except OSError as error:
        os.close(handle)
        log.warning("store     no shared memory (%s): every rank keeps all clips itself", error)
        return None
    return handle


def _map(file: str, n_samples: int) -> Tensor | None:
    """Map what another process has reserved; None if the system does not let us."""
    try:
        if Path(file).stat().st_size != 2 * n_samples:
            raise OSError(f"{file} is another file here")
        return torch.from_file(file, shared=True, size=n_samples, dtype=torch.int16)
    except (OSError, RuntimeError) as error:  # the latter is torch's
        log.warning("store     memory can't be shared (%s): every rank keeps all clips", error)
        return None

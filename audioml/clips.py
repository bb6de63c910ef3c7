"""Every clip of a manifest: what its file's header says, what decoding it tells, its samples."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audioml.datasets.manifest import Clip, DataError, Manifest, Measured
from audioml.decode import (
    FULL_SCALE,
    DecodeError,
    Payload,
    PcmLayout,
    allocate_array,
    check_conversion,
    make_layout,
    read_payload,
    resampled_length,
    scan_length,
    thread_pool,
    to_int16,
)
from audioml.progress import track

CPU: Final = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class ClipHeader:
    """What the header of a clip's file says.

    Args:
        layout: How its samples are laid out when they are read.
        n_frames: How many there are; 0 if the file can't be read: decoding it will say why.
    """

    layout: PcmLayout
    n_frames: int

    @property
    def n_bytes(self) -> int:
        """Size of the samples when they are read."""
        return self.n_frames * self.layout.frame_bytes

    def length(self, sample_rate: int) -> int:
        """Say how many samples the clip has at a rate [Hz]."""
        return resampled_length(self.n_frames, self.layout.sample_rate, sample_rate)


_NO_HEADER: Final = ClipHeader(PcmLayout("s16", 1, 1), 0)


@dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """What decoding tells of every clip.

    Args:
        length: Samples of each clip [clip], int64, at least 1 unless it is bad.
        rms: Root mean square of each clip [clip], float32, full scale at 1.
        digests: A hash of each clip's samples, for the audit; "" for digital silence, which says
            nothing about where a clip came from.
        bad: Why a clip can't be used, by its number; its length, RMS and samples say nothing.
    """

    length: Tensor
    rms: Tensor
    digests: tuple[str, ...]
    bad: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DecodedClips(ClipFacts):
    """Every clip as samples.

    Args:
        samples: The clips one after another [sample], int16, full scale at 32,768.
    """

    samples: Tensor


def read_samples(
    clip: Clip, allocate: Callable[[int], NDArray[np.uint8]] = allocate_array
) -> Payload:
    """Read a clip's samples as they are stored, from its file or shard; see ``read_payload``.

    Raises:
        DecodeError: If they can't be decoded.
        DataError: If its shard can't be read.
    """
    return read_payload(clip.path, clip.start_s, clip.end_s, allocate, clip.contents())


def scan_headers(manifest: Manifest, sample_rate: int, n_threads: int = 0) -> list[ClipHeader]:
    """Read the headers of all files, with a progress bar; of shards their index tells as much.

    Args:
        manifest: The clips.
        sample_rate: The rate they are wanted at [Hz].
        n_threads: Threads, 0 for Python's choice.

    Returns:
        The headers in the manifest's order.
    """
    if manifest.measured is not None:
        return list(_known_headers(manifest, manifest.measured, sample_rate))
    with thread_pool(n_threads) as pool:
        headers = pool.map(partial(_scan, sample_rate), manifest.clips)
        return list(track(headers, task="scan", total=len(manifest), unit="clip"))


def _known_headers(
    manifest: Manifest, measured: Measured, sample_rate: int
) -> Iterator[ClipHeader]:
    """Give the headers that an index tells of, with as much distrust as those of files."""
    layouts: dict[tuple[str, int, int], PcmLayout] = {}
    known = zip(manifest.clips, measured.layouts, measured.n_frames.tolist(), strict=True)
    for clip, key, n_frames in known:
        try:
            if key not in layouts:
                layouts[key] = make_layout(clip.path, *key)
            check_conversion(clip.path, layouts[key], n_frames, sample_rate)
        except DecodeError as error:
            if measured.sample_rate == sample_rate:
                raise DataError(f"{manifest.root}: {error}") from error
            yield _NO_HEADER
        else:
            yield ClipHeader(layouts[key], n_frames)


def decode_all(
    manifest: Manifest,
    headers: Sequence[ClipHeader],
    sample_rate: int,
    n_threads: int = 0,
    device: torch.device = CPU,
    *,
    skip_bad: bool = False,
) -> DecodedClips:
    """Decode a data set in a thread pool, with a progress bar.

    Beside the result there is one file a thread in memory. On CUDA each thread that resamples also
    makes cuBLAS keep a workspace on the GPU to the end of the program: 8 MiB, 32 MiB on an H100.

    Args:
        manifest: The clips.
        headers: What ``scan_headers`` told of them.
        sample_rate: The wanted rate [Hz].
        n_threads: Threads, 0 for Python's choice.
        device: Where samples are converted, mixed and resampled.
        skip_bad: Whether clips that can't be decoded are listed in the result, and no error.

    Returns:
        The clips in the manifest's order, in host memory.

    Raises:
        DataError: If any clip can't be decoded; names the files, their rows and the reasons.
    """
    length = [header.length(sample_rate) for header in headers]
    samples = torch.empty(sum(length), dtype=torch.int16)
    places = samples.split(length)
    facts = decode_some(manifest, headers, sample_rate, n_threads, device, places)
    return DecodedClips(samples=samples, **vars(check_decoded(manifest, facts, skip_bad)))


def measure_all(
    manifest: Manifest,
    headers: Sequence[ClipHeader],
    sample_rate: int,
    n_threads: int = 0,
    device: torch.device = CPU,
    *,
    skip_bad: bool = False,
) -> ClipFacts:
    """Decode a data set without keeping it; otherwise as ``decode_all``.

    Of shards that were measured at this rate the index tells as much.
    """
    known = known_facts(manifest, headers, sample_rate)
    if known is not None:
        return known
    places = [None] * len(headers)
    facts = decode_some(manifest, headers, sample_rate, n_threads, device, places)
    return check_decoded(manifest, facts, skip_bad)


def known_facts(
    manifest: Manifest, headers: Sequence[ClipHeader], sample_rate: int
) -> ClipFacts | None:
    """Give what decoding would tell, if the data set's index says as much; else None."""
    known = manifest.measured
    if known is None or known.sample_rate != sample_rate:
        return None
    return ClipFacts(
        length=torch.tensor([header.length(sample_rate) for header in headers]),
        rms=torch.from_numpy(known.rms),
        digests=known.digests,
    )


def collect(clips: Sequence[NDArray[np.int16]]) -> DecodedClips:
    """Lay decoded clips one after another and measure them."""
    facts = _facts([len(clip) for clip in clips], [_measure(clip) for clip in clips])
    return DecodedClips(samples=torch.from_numpy(np.concatenate(clips)), **vars(facts))


def clip_reader(
    manifest: Manifest,
    headers: Sequence[ClipHeader],
    sample_rate: int,
    clips: ClipFacts | None = None,
    device: torch.device = CPU,
) -> Callable[[int], Tensor]:
    """Make a function that gives a clip's samples [time], int16, on the device, by its number.

    Clips that were not kept are decoded again; it raises a DataError if that fails.
    """
    if isinstance(clips, DecodedClips):
        places = clips.samples.split(clips.length.tolist())
        return lambda clip: places[clip].to(device)

    def read(clip: int) -> Tensor:
        try:
            return _decode(manifest.clips[clip], headers[clip], sample_rate, device)
        except DecodeError as error:
            raise DataError(f"{manifest.describe(clip)}: {error}") from error

    return read


def _scan(sample_rate: int, clip: Clip) -> ClipHeader:
    try:
        layout, n_frames = scan_length(clip.path, clip.start_s, clip.end_s)
        check_conversion(clip.path, layout, n_frames, sample_rate)
    except DecodeError:
        return _NO_HEADER
    return ClipHeader(layout, n_frames)


def decode_some(
    manifest: Manifest,
    headers: Sequence[ClipHeader],
    sample_rate: int,
    n_threads: int,
    device: torch.device,
    places: Sequence[Tensor | None],
    wanted: range | None = None,
) -> ClipFacts:
    """Decode clips, into their places where they have one, and measure them.

    Args:
        manifest: The clips.
        headers: As in ``decode_all``, which the other arguments are as well.
        sample_rate: The wanted rate [Hz].
        n_threads: Threads, 0 for Python's choice.
        device: Where samples are converted, mixed and resampled.
        places: Where each clip's samples are kept [clip]; None for nowhere.
        wanted: Which clips are decoded; None for all.

    Returns:
        What decoding told of these clips, in order; bad ones by their number in the manifest.
    """
    wanted = range(len(manifest)) if wanted is None else wanted

    def decode(clip: int) -> tuple[float, str] | str:
        try:
            samples = _decode(manifest.clips[clip], headers[clip], sample_rate, device)
        except DecodeError as error:
            return str(error)
        out = places[clip]
        return _measure((samples.cpu() if out is None else out.copy_(samples)).numpy())

    with thread_pool(n_threads) as pool:
        decoded = pool.map(decode, wanted)
        results = list(track(decoded, task="decode", total=len(wanted), unit="clip"))
    bad = {
        clip: result
        for clip, result in zip(wanted, results, strict=True)
        if isinstance(result, str)
    }
    length = [headers[clip].length(sample_rate) for clip in wanted]
    measured = [(0.0, "") if isinstance(result, str) else result for result in results]
    return replace(_facts(length, measured), bad=bad)


def check_decoded(manifest: Manifest, facts: ClipFacts, skip_bad: bool) -> ClipFacts:
    """Return what decoding told, if no clip is bad or bad ones may be skipped.

    Raises:
        DataError: Else; names the files, their rows and the reasons.
    """
    if facts.bad and not skip_bad:
        faults = [f"{manifest.describe(clip)}: {reason}" for clip, reason in facts.bad.items()]
        more = f"\n  and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise DataError(
            f"{len(faults)} of {len(manifest)} clips can't be decoded; mend them, or leave them "
            "out with data.on_bad_file=skip:\n  " + "\n  ".join(faults[:10]) + more
        )
    return facts


def _decode(clip: Clip, header: ClipHeader, sample_rate: int, device: torch.device) -> Tensor:
    """Decode a clip on the device [time]."""

    def allocate(n_bytes: int) -> NDArray[np.uint8]:
        # torch keeps freed pinned memory for the next file, once the upload is through.
        data = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        return data.numpy()

    payload = read_samples(clip, allocate)
    check_conversion(clip.path, payload.layout, payload.n_frames, sample_rate)
    check_unchanged(clip, header, payload.layout, len(payload.data))
    data = torch.from_numpy(payload.data).to(device, non_blocking=True)
    return to_int16(data, payload.layout, sample_rate)


def check_unchanged(clip: Clip, header: ClipHeader, layout: PcmLayout, n_bytes: int) -> None:
    """Compare what is read now with what the header said before.

    Raises:
        DecodeError: If it is something else; names the file.
    """
    if (layout, n_bytes) != (header.layout, header.n_bytes):
        raise DecodeError(
            f"{clip.path}: changed while the program ran, from {header.n_bytes} bytes of "
            f"{header.layout} to {n_bytes} of {layout}; restore the file, or start again"
        )


def _measure(clip: NDArray[np.int16]) -> tuple[float, str]:
    """Return a clip's RMS and digest, as ``ClipFacts`` keeps them."""
    rms = math.sqrt(np.square(clip, dtype=np.float64).mean()) / FULL_SCALE
    return rms, hashlib.blake2b(clip.data, digest_size=16).hexdigest() if rms else ""


def _facts(length: Sequence[int], measured: Sequence[tuple[float, str]]) -> ClipFacts:
    return ClipFacts(
        length=torch.tensor(length),
        rms=torch.tensor([rms for rms, _ in measured]),
        digests=tuple(digest for _, digest in measured),
    )

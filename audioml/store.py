"""All clips in memory as int16: one flat tensor, read by clip number."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from audioml.datasets.manifest import Clip, DataError, Manifest
from audioml.decode import (
    FULL_SCALE,
    DecodeError,
    read_payload,
    resampled_length,
    scan_length,
    thread_pool,
    to_int16,
)

CPU: Final = torch.device("cpu")
GIB = 1 << 30
Place = Literal["device", "pinned", "host"]
Pad = Literal["zero", "wrap"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedClips:
    """Every clip of a manifest as samples.

    Args:
        samples: The clips one after another [sample], int16, full scale at 32,768.
        length: Samples of each clip [clip], int64, at least 1.
        rms: Root mean square of each clip [clip], float32, full scale at 1.
        digests: A hash of each clip's samples, for the audit; "" for digital silence, which says
            nothing about where a clip came from.
    """

    samples: Tensor
    length: Tensor
    rms: Tensor
    digests: tuple[str, ...]


def decode_all(
    manifest: Manifest, sample_rate: int, n_threads: int = 0, device: torch.device = CPU
) -> DecodedClips:
    """Decode a data set in a thread pool.

    The headers tell how much memory the clips take, then they are decoded into it; beside it there
    is one file a thread in memory. Each of the two passes shows a progress bar.

    Args:
        manifest: The clips.
        sample_rate: The wanted rate [Hz].
        n_threads: Threads, 0 for Python's choice.
        device: Where samples are converted, mixed and resampled.

    Returns:
        The clips in the manifest's order, in host memory.

    Raises:
        DataError: If any clip can't be decoded; names the files, their rows and the reasons.
    """
    scan = partial(_scan, sample_rate=sample_rate)
    decode = partial(_decode, sample_rate=sample_rate, device=device)
    clips = manifest.clips
    with thread_pool(n_threads) as pool:
        length = list(tqdm(pool.map(scan, clips), "scan", len(clips), unit="clip"))
        samples = torch.empty(sum(length), dtype=torch.int16)
        decoded = pool.map(decode, clips, samples.split(length))
        results = list(tqdm(decoded, "decode", len(clips), unit="clip"))
    bad = [
        f"{manifest.describe(index)}: {result}"
        for index, result in enumerate(results)
        if isinstance(result, DecodeError)
    ]
    if bad:
        shown = "\n  ".join(bad[:10]) + (f"\n  and {len(bad) - 10} more" if len(bad) > 10 else "")
        raise DataError(f"{len(bad)} of {len(manifest)} clips can't be decoded:\n  {shown}")
    measured = [result for result in results if not isinstance(result, DecodeError)]
    return _lay_out(samples, length, measured)


def _scan(clip: Clip, sample_rate: int) -> int:
    """Say how many samples a clip will have; 0 if it can't be decoded, which will say why."""
    try:
        layout, n_frames = scan_length(clip.path, clip.start_s, clip.end_s)
    except DecodeError:
        return 0
    return resampled_length(n_frames, layout.sample_rate, sample_rate)


def _decode(
    clip: Clip, out: Tensor, sample_rate: int, device: torch.device
) -> tuple[float, str] | DecodeError:
    """Decode a clip into its place and measure it."""

    def allocate(n_bytes: int) -> NDArray[np.uint8]:
        # torch keeps freed pinned memory for the next file, once the upload is through.
        data = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        return data.numpy()

    try:
        payload = read_payload(clip.path, clip.start_s, clip.end_s, allocate)
    except DecodeError as error:
        return error
    data = torch.from_numpy(payload.data).to(device, non_blocking=True)
    samples = to_int16(data, payload.layout, sample_rate)
    if len(samples) != len(out):
        return DecodeError(f"{clip.path}: changed while it was decoded; start again")
    return _measure(out.copy_(samples).numpy())


def collect(clips: Sequence[NDArray[np.int16]]) -> DecodedClips:
    """Lay decoded clips one after another and measure them."""
    samples = torch.from_numpy(np.concatenate(clips))
    return _lay_out(samples, [len(clip) for clip in clips], [_measure(clip) for clip in clips])


def _measure(clip: NDArray[np.int16]) -> tuple[float, str]:
    """Return a clip's RMS and digest, as ``DecodedClips`` keeps them."""
    rms = math.sqrt(np.square(clip, dtype=np.float64).mean()) / FULL_SCALE
    return rms, hashlib.blake2b(clip.data, digest_size=16).hexdigest() if rms else ""


def _lay_out(
    samples: Tensor, length: Sequence[int], measured: Sequence[tuple[float, str]]
) -> DecodedClips:
    return DecodedClips(
        samples=samples,
        length=torch.tensor(length),
        rms=torch.tensor([rms for rms, _ in measured]),
        digests=tuple(digest for _, digest in measured),
    )


def choose_place(
    n_bytes: int,
    device: torch.device,
    *,
    wanted: Place | Literal["auto"] = "auto",
    device_budget_gib: float,
    host_budget_gib: float,
) -> Place:
    """Decide where the clips are kept: on the device if they fit its budget, else in host memory.

    Args:
        n_bytes: Size of all clips.
        device: Where the model runs.
        wanted: A place, or "auto".
        device_budget_gib: Most that clips may take of the device [GiB].
        host_budget_gib: Most that they may take of host memory [GiB].

    Returns:
        "device", "pinned" (host memory the GPU fetches clips from) or "host" (on a CPU).

    Raises:
        DataError: If they fit nowhere, or not where they are wanted.
    """
    is_cuda = device.type == "cuda"
    if wanted == "auto":
        fits_device = is_cuda and n_bytes <= device_budget_gib * GIB
        wanted = "device" if fits_device else "pinned" if is_cuda else "host"
    if wanted != "host" and not is_cuda:
        raise DataError(
            f"audio.store={wanted} needs a CUDA device, got {device}; set audio.store=auto"
        )
    key = "device_budget_gib" if wanted == "device" else "host_budget_gib"
    budget_gib = device_budget_gib if wanted == "device" else host_budget_gib
    if n_bytes > budget_gib * GIB:
        raise DataError(
            f"the decoded clips take {n_bytes / GIB:.2f} GiB, more than audio.{key}="
            f"{budget_gib:g}; raise it, or lower audio.sample_rate"
        )
    return wanted


class WaveformStore:
    """Clips by number, cut or padded to one length, on the device.

    A clip is read as a circle, so that a time shift is no more than another place to start: after
    its last sample comes the silence that fills it up to ``n_time`` (``pad="zero"``), if any is
    needed, and then its first sample again.

    Args:
        clips: The decoded clips.
        n_time: Samples a waveform.
        pad: "zero" fills short clips with silence, "wrap" repeats them.
        place: Where the samples are kept.
        device: Where the waveforms are wanted.
    """

    def __init__(
        self, clips: DecodedClips, *, n_time: int, pad: Pad, place: Place, device: torch.device
    ) -> None:
        self.n_time, self.place, self.device = n_time, place, device
        samples, start = clips.samples, clips.length.cumsum(0) - clips.length
        period = clips.length if pad == "wrap" else clips.length.clamp(min=n_time)
        if place == "pinned":
            samples = samples.pin_memory()
        if place == "device":
            samples, start, period = samples.to(device), start.to(device), period.to(device)
        self._samples, self._start, self._period = samples, start, period
        self._length = clips.length.to(samples.device)
        self._excess = (clips.length - n_time).clamp(min=0)
        self.rms = clips.rms.to(device)

    def describe(self, device_budget_gib: float, host_budget_gib: float) -> str:
        """Say where the clips are, how much they take and of which budget."""
        place, budget_gib = {
            "device": (f"on {self.device}", device_budget_gib),
            "pinned": ("in pinned host memory", host_budget_gib),
            "host": ("in host memory", host_budget_gib),
        }[self.place]
        size_gib = self._samples.nbytes / GIB
        return f"{len(self._length)} clips {place}, {size_gib:.3f} of {budget_gib:g} GiB, int16"

    @property
    def index_device(self) -> torch.device:
        """Where ``gather`` wants its arguments: with the samples."""
        return self._samples.device

    def crop_start(self, clip_index: Tensor, place: Tensor | float) -> Tensor:
        """Say where to cut clips longer than ``n_time``.

        Args:
            clip_index: Clips [batch], int64, on the CPU.
            place: Where in the room there is, 0 (start) to 1 (end, exclusive) [batch].

        Returns:
            First sample [batch], int64; 0 for clips that are not longer.
        """
        return torch.floor((self._excess[clip_index] + 1) * torch.as_tensor(place).double()).long()

    def gather(self, clip_index: Tensor, start: Tensor) -> Tensor:
        """Read clips.

        Args:
            clip_index: Clips [batch], int64, on ``index_device``.
            start: First sample of each on its circle [batch], int64, of any sign, likewise.

        Returns:
            Waveforms [batch, n_time], float32, full scale at 1, on the device.
        """
        if self.place == "device":
            samples = self._gather_on_device(clip_index, start)
        else:
            samples = self._gather_from_host(clip_index, start)
        return samples.float().mul_(1.0 / FULL_SCALE)

    def _gather_on_device(self, clip_index: Tensor, start: Tensor) -> Tensor:
        step = torch.arange(self.n_time, device=self.device)
        length = self._length[clip_index, None]
        position = (step + start[:, None]) % self._period[clip_index, None]
        index = self._start[clip_index, None] + position.minimum(length - 1)
        return self._samples[index].masked_fill_(position >= length, 0)

    def _gather_from_host(self, clip_index: Tensor, start: Tensor) -> Tensor:
        """Copy the pieces of each circle; from pinned memory the GPU fetches them by itself."""
        shape = (len(clip_index), self.n_time)
        batch = torch.zeros(shape, dtype=torch.int16, device=self.device)
        for row, clip, position in zip(batch, clip_index.tolist(), start.tolist(), strict=True):
            begin, length = int(self._start[clip]), int(self._length[clip])
            period = int(self._period[clip])
            done, position = 0, position % period
            while done < self.n_time:
                n_silent = min(max(period - max(position, length), 0), self.n_time - done)
                n_heard = min(max(length - position, 0), self.n_time - done)
                piece = self._samples[begin + position :][:n_heard]
                row[done : done + n_heard].copy_(piece, non_blocking=True)
                done += n_heard + min(n_silent, self.n_time - done - n_heard)
                position = 0
        return batch

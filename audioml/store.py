"""All clips in memory as int16: one flat tensor, read by clip number."""

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from audioml.datasets.manifest import Clip, DataError, Manifest
from audioml.decode import FULL_SCALE, DecodeError, decode_clip, thread_pool
from audioml.frontend.functional import read_waveforms
from audioml.frontend.recipe import Reading, Recipe, circle_pieces

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


def decode_all(manifest: Manifest, sample_rate: int, n_threads: int = 0) -> DecodedClips:
    """Decode a data set in a thread pool, with a progress bar.

    Args:
        manifest: The clips.
        sample_rate: The wanted rate [Hz].
        n_threads: Threads, 0 for Python's choice.

    Returns:
        The clips in the manifest's order.

    Raises:
        DataError: If any clip can't be decoded; names the files, their rows and the reasons.
    """

    def decode(clip: Clip) -> NDArray[np.int16] | DecodeError:
        try:
            return decode_clip(clip.path, sample_rate, clip.start_s, clip.end_s)
        except DecodeError as error:
            return error

    with thread_pool(n_threads) as pool:
        bar = tqdm(pool.map(decode, manifest.clips), "decode", len(manifest), unit="clip")
        results = list(bar)
    bad = [
        f"{manifest.describe(index)}: {result}"
        for index, result in enumerate(results)
        if isinstance(result, DecodeError)
    ]
    if bad:
        shown = "\n  ".join(bad[:10]) + (f"\n  and {len(bad) - 10} more" if len(bad) > 10 else "")
        raise DataError(f"{len(bad)} of {len(manifest)} clips can't be decoded:\n  {shown}")
    return collect([result for result in results if not isinstance(result, DecodeError)])


def collect(clips: Sequence[NDArray[np.int16]]) -> DecodedClips:
    """Lay decoded clips one after another and measure them."""
    length = np.array([len(clip) for clip in clips], dtype=np.int64)
    energy = [np.square(clip, dtype=np.float64).mean() for clip in clips]
    rms = np.sqrt(energy).astype(np.float32) / np.float32(FULL_SCALE)
    return DecodedClips(
        samples=torch.from_numpy(np.concatenate(clips)),
        length=torch.from_numpy(length),
        rms=torch.from_numpy(rms),
        digests=tuple(
            hashlib.blake2b(clip.tobytes(), digest_size=16).hexdigest() if clip.any() else ""
            for clip in clips
        ),
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
        samples = clips.samples
        self._samples = samples.pin_memory() if place == "pinned" else samples.to(device)
        self._length, self.rms = clips.length, clips.rms
        self._begin = clips.length.cumsum(0) - clips.length
        self._period = clips.length if pad == "wrap" else clips.length.clamp(min=n_time)
        self._excess = (clips.length - n_time).clamp(min=0)

    def describe(self, device_budget_gib: float, host_budget_gib: float) -> str:
        """Say where the clips are, how much they take and of which budget."""
        place, budget_gib = {
            "device": (f"on {self.device}", device_budget_gib),
            "pinned": ("in pinned host memory", host_budget_gib),
            "host": ("in host memory", host_budget_gib),
        }[self.place]
        size_gib = self._samples.nbytes / GIB
        return f"{len(self._length)} clips {place}, {size_gib:.3f} of {budget_gib:g} GiB, int16"

    def crop_start(self, clip_index: Tensor, place: Tensor | float) -> Tensor:
        """Say where to cut clips longer than ``n_time``.

        Args:
            clip_index: Clips [batch], int64, on the CPU.
            place: Where in the room there is, 0 (start) to 1 (end, exclusive) [batch].

        Returns:
            First sample [batch], int64; 0 for clips that are not longer.
        """
        return torch.floor((self._excess[clip_index] + 1) * torch.as_tensor(place).double()).long()

    def read(
        self, clip_index: Tensor, start: Tensor, batches: Sequence[slice]
    ) -> Generator[Reading]:
        """Read batches of clips.

        Args:
            clip_index: Clips [voice, n], int64, on the CPU.
            start: First sample of each on its circle [voice, n], int64, of any sign, likewise.
            batches: Which of the n make a batch.

        Yields:
            Where each batch's samples are, on the device.
        """
        begin, length, period = (n[clip_index] for n in (self._begin, self._length, self._period))
        place = torch.device("cpu") if self.place == "pinned" else self.device
        where = (numbers.to(place) for numbers in (begin, length, period, start % period))
        reading = Reading(self._samples, *where)
        for batch in batches:
            part = reading.part(batch)
            yield self._fetch(part) if self.place == "pinned" else part

    def gather(self, clip_index: Tensor, start: Tensor) -> Tensor:
        """Read clips as waveforms.

        Args:
            clip_index: Clips [batch], int64, on the CPU.
            start: First sample of each on its circle [batch], int64, of any sign, likewise.

        Returns:
            Waveforms [batch, n_time], float32, full scale at 1, on the device.
        """
        (reading,) = self.read(clip_index[None], start[None], [slice(None)])
        gain = torch.full(reading.begin.shape, 1.0 / FULL_SCALE, device=self.device)
        return read_waveforms(reading, Recipe(gain=gain), self.n_time)

    def _fetch(self, reading: Reading) -> Reading:
        """Copy the pieces of each circle to the device, one after another as they are read."""
        shape = (*reading.begin.shape, self.n_time)
        samples = torch.zeros(shape, dtype=torch.int16, device=self.device)
        where = torch.stack((reading.begin, reading.length, reading.period, reading.start), dim=2)
        rows = zip(samples.flatten(0, 1), where.flatten(0, 1).tolist(), strict=True)
        for row, (begin, length, period, start) in rows:
            for piece, heard in circle_pieces(self.n_time, length, period, start):
                sound = reading.samples[begin + heard.start : begin + heard.stop]
                row[piece].copy_(sound, non_blocking=True)
        begin = torch.arange(0, samples.numel(), self.n_time, device=self.device).view(shape[:2])
        length = torch.full_like(begin, self.n_time)
        start = torch.zeros_like(begin)
        return Reading(samples.flatten(), begin, length, length, start)

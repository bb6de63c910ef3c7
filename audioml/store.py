"""Clips by number: what hands them to the loader, and where they are kept."""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Literal

import torch
from torch import Tensor

from audioml.clips import ClipFacts, DecodedClips
from audioml.datasets.manifest import DataError
from audioml.decode import FULL_SCALE
from audioml.frontend.functional import read_waveforms
from audioml.frontend.recipe import Reading, Recipe, circle_pieces

GIB = 1 << 30
_PORTABLE = 1  # page-locked memory that every CUDA context knows of
Place = Literal["device", "pinned", "host", "stream"]
Pad = Literal["zero", "wrap"]


def choose_place(
    n_bytes: int,
    device: torch.device,
    *,
    wanted: Place | Literal["auto"] = "auto",
    device_budget_gib: float,
    host_budget_gib: float,
) -> Place:
    """Decide where the clips are kept: in the fastest place whose budget they fit.

    Args:
        n_bytes: Size of all clips.
        device: Where the model runs.
        wanted: A place, or "auto".
        device_budget_gib: Most that clips may take of the device [GiB].
        host_budget_gib: Most that they may take of host memory [GiB].

    Returns:
        "device", "pinned" (host memory the GPU fetches clips from), "host" (on a CPU) or "stream"
        (decoded as they are needed).

    Raises:
        DataError: If they do not fit where they are wanted.
    """
    is_cuda = device.type == "cuda"
    if wanted == "auto":
        if is_cuda and n_bytes <= device_budget_gib * GIB:
            return "device"
        if n_bytes > host_budget_gib * GIB:
            return "stream"
        return "pinned" if is_cuda else "host"
    if wanted == "stream":
        return wanted
    if wanted != "host" and not is_cuda:
        raise DataError(
            f"audio.store={wanted} needs a CUDA device, got {device}; set audio.store=auto"
        )
    if wanted == "host" and is_cuda:
        raise DataError(
            f"audio.store=host is for training on a CPU, got {device}; set audio.store=pinned"
        )
    key = "device_budget_gib" if wanted == "device" else "host_budget_gib"
    budget_gib = device_budget_gib if wanted == "device" else host_budget_gib
    if n_bytes > budget_gib * GIB:
        raise DataError(
            f"the decoded clips take {n_bytes / GIB:.2f} GiB, more than audio.{key}="
            f"{budget_gib:g}; raise it, or set audio.store=auto"
        )
    return wanted


@dataclass(frozen=True, slots=True)
class Request:
    """Clips that are wanted, batch by batch.

    Args:
        clip_index: Clips [voice, n], int64, on the CPU.
        start: First sample of each on its circle [voice, n], int64, of any sign, likewise.
        batches: Which of the n make a batch.
    """

    clip_index: Tensor
    start: Tensor
    batches: Sequence[slice]


class ClipStore(ABC):
    """Clips by number, cut or padded to one length, on the device.

    A clip is read as a circle, so that a time shift is no more than another place to start: after
    its last sample comes the silence that fills it up to ``n_time`` (``pad="zero"``), if any is
    needed, and then its first sample again.

    Args:
        clips: What is known of the clips.
        n_time: Samples a waveform.
        pad: "zero" fills short clips with silence, "wrap" repeats them.
        place: Where the samples are kept.
        device: Where they are wanted.
    """

    def __init__(
        self, clips: ClipFacts, *, n_time: int, pad: Pad, place: Place, device: torch.device
    ) -> None:
        self.n_time, self.place, self.device = n_time, place, device
        self.length, self.rms = clips.length, clips.rms
        self.period = clips.length if pad == "wrap" else clips.length.clamp(min=n_time)

    @abstractmethod
    def read(self, requests: Iterable[Request], epoch: int | None = None) -> Generator[Reading]:
        """Read batches of clips.

        Args:
            requests: What is wanted; the next one is asked for once it is needed.
            epoch: Epoch of the training that they are read for; None to have them as they are.

        Yields:
            Where each batch's samples are, on the device.
        """

    @abstractmethod
    def describe(self) -> str:
        """Say where the clips are and how much they take."""

    def crop_start(self, clip_index: Tensor, place: Tensor | float) -> Tensor:
        """Say where to cut clips longer than ``n_time``.

        Args:
            clip_index: Clips [batch], int64, on the CPU.
            place: Where in the room there is, 0 (start) to 1 (end, exclusive) [batch].

        Returns:
            First sample [batch], int64; 0 for clips that are not longer.
        """
        excess = (self.length[clip_index] - self.n_time).clamp(min=0)
        return torch.floor((excess + 1) * torch.as_tensor(place).double()).long()

    def gather(self, clip_index: Tensor, start: Tensor) -> Tensor:
        """Read clips as waveforms.

        Args:
            clip_index: Clips [batch], int64, on the CPU.
            start: First sample of each on its circle [batch], int64, of any sign, likewise.

        Returns:
            Waveforms [batch, n_time], float32, full scale at 1, on the device.
        """
        (reading,) = self.read([Request(clip_index[None], start[None], [slice(None)])])
        gain = torch.full(reading.begin.shape, 1.0 / FULL_SCALE, device=self.device)
        return read_waveforms(reading, Recipe(gain=gain), self.n_time)


class WaveformStore(ClipStore):
    """Clips that stay in memory.

    Args:
        clips: The decoded clips.
        n_time: Samples a waveform.
        pad: "zero" fills short clips with silence, "wrap" repeats them.
        place: Where the samples are kept.
        device: Where they are wanted.
    """

    def __init__(
        self, clips: DecodedClips, *, n_time: int, pad: Pad, place: Place, device: torch.device
    ) -> None:
        super().__init__(clips, n_time=n_time, pad=pad, place=place, device=device)
        self._samples = clips.samples if place == "pinned" else clips.samples.to(device)
        if place == "pinned":
            _pin_in_place(self._samples)
        self._begin = clips.length.cumsum(0) - clips.length

    def describe(self) -> str:
        """Say where the clips are and how much they take."""
        places = {
            "device": f"on {self.device}",
            "pinned": "in pinned host memory",
            "host": "in host memory",
        }
        size_gib = self._samples.nbytes / GIB
        return f"{len(self.length)} clips {places[self.place]}, {size_gib:.3f} GiB, int16"

    def read(self, requests: Iterable[Request], epoch: int | None = None) -> Generator[Reading]:
        """Read batches of clips; see ``ClipStore``. ``epoch`` makes no difference."""
        place = torch.device("cpu") if self.place == "pinned" else self.device
        for request in requests:
            index = request.clip_index
            begin, length, period = self._begin[index], self.length[index], self.period[index]
            where = (begin, length, period, request.start % period)
            reading = Reading(self._samples, *(numbers.to(place) for numbers in where))
            if self.place == "pinned":
                yield from self._fetch(reading, request.batches)
            else:
                yield from map(reading.part, request.batches)

    def _fetch(self, reading: Reading, batches: Sequence[slice]) -> Iterator[Reading]:
        """Copy batches to the device; a voice that reads what the first one reads is not copied."""
        is_other = (reading.begin != reading.begin[0]) | (reading.start != reading.start[0])
        is_other[0] = True
        is_other_there = is_other.to(self.device)
        for batch in batches:
            samples = self._copy(reading.part(batch), is_other[:, batch])
            copied = Reading.of_waveforms(samples)
            begin = torch.where(is_other_there[:, batch], copied.begin, copied.begin[0])
            yield replace(copied, begin=begin)

    def _copy(self, reading: Reading, is_wanted: Tensor) -> Tensor:
        """Copy the pieces of each circle, one after another as they are read [voice, batch, time].

        Args:
            reading: Where they are in host memory.
            is_wanted: Which circles to copy [voice, batch].
        """
        shape = (*reading.begin.shape, self.n_time)
        samples = torch.zeros(shape, dtype=torch.int16, device=self.device)
        where = torch.stack((reading.begin, reading.length, reading.period, reading.start), dim=2)
        rows = zip(samples.flatten(0, 1), where.flatten(0, 1).tolist(), strict=True)
        for row, (begin, length, period, start) in compress(rows, is_wanted.flatten().tolist()):
            for piece, heard in circle_pieces(self.n_time, length, period, start):
                sound = reading.samples[begin + heard.start : begin + heard.stop]
                row[piece].copy_(sound, non_blocking=True)
        return samples


def _pin_in_place(samples: Tensor) -> None:
    """Page-lock memory that is there, so that the GPU can fetch from it on its own.

    ``Tensor.pin_memory`` would copy it, into a block of the next power of two.
    """
    cudart = torch.cuda.cudart()
    torch.cuda.check_error(cudart.cudaHostRegister(samples.data_ptr(), samples.nbytes, _PORTABLE))
    weakref.finalize(samples, cudart.cudaHostUnregister, samples.data_ptr())

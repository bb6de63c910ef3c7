"""Clips that fit no memory: decoded for every epoch anew, a few batches ahead of the one in use.

Threads read the bytes of a batch's files (PCM as it is, compressed files decoded) into one buffer,
pinned where there is a GPU. One copy takes it to the device, which converts, mixes and resamples.
Buffers are used again, so memory is bounded by a few batches, whatever the size of the data set.
"""

import logging
import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, TimeoutError, wait
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audioml.clips import ClipFacts, ClipHeader, check_unchanged, read_samples
from audioml.datasets.manifest import DataError, Manifest
from audioml.decode import (
    FULL_SCALE,
    DecodeError,
    PcmLayout,
    thread_pool,
    to_int16,
)
from audioml.effects import Effects
from audioml.frontend.recipe import Reading
from audioml.store import GIB, ClipStore, Pad, Request
from audioml.threads import one_thread_an_operation

log = logging.getLogger("audioml")

_N_AHEAD = 2  # batches that are read while another one is used
_SLOW_S = 10.0  # a file that takes longer is named
_ALIGNMENT = 16  # bytes; samples of every format can be read there


class _Buffer:
    """A batch's bytes on their way to the device.

    Args:
        n_bytes: Its size.
        device: Where they are wanted.
    """

    def __init__(self, n_bytes: int, device: torch.device) -> None:
        self.device = device
        self.bytes = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._copied: torch.cuda.Event | None = None

    def copy(self, n_bytes: int) -> Tensor:
        """Take the first bytes to the device, without waiting for it; on a CPU they stay."""
        if self.device.type == "cpu":
            return self.bytes[:n_bytes]
        on_device = self.bytes[:n_bytes].to(self.device, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record(torch.cuda.current_stream(self.device))
        return on_device

    def wait(self) -> None:
        """Wait until the bytes may be written again."""
        if self._copied is not None:
            self._copied.synchronize()


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch that is being read.

    Args:
        reading: Where each waveform will be among its samples.
        clips: Its clips, each once.
        groups: How the samples of clips that can be converted together are laid out, how many these
            are, and where in the buffer [byte].
        readings: What each clip's thread is doing.
        buffer: The buffer.
    """

    reading: Reading
    clips: list[int]
    groups: list[tuple[PcmLayout, int, slice]]
    readings: list[Future[None]]
    buffer: _Buffer


class StreamingStore(ClipStore):
    """Clips that are decoded when they are needed.

    Args:
        manifest: The clips.
        headers: What their files' headers say.
        clips: What decoding them once has told.
        sample_rate: The wanted rate [Hz].
        n_time: Samples a waveform.
        pad: "zero" fills short clips with silence, "wrap" repeats them.
        device: Where the samples are wanted.
        n_threads: Threads that read, 0 for Python's choice.
        effects: What is done to clips that train, in the threads; None for nothing.
    """

    def __init__(
        self,
        manifest: Manifest,
        headers: Sequence[ClipHeader],
        clips: ClipFacts,
        *,
        sample_rate: int,
        n_time: int,
        pad: Pad,
        device: torch.device,
        n_threads: int = 0,
        effects: Effects | None = None,
    ) -> None:
        super().__init__(clips, n_time=n_time, pad=pad, place="stream", device=device)
        self._manifest, self._headers = manifest, headers
        self._stored_layout = PcmLayout("s16", 1, sample_rate)
        self._pool, self._effects = thread_pool(n_threads), effects
        self._free: list[_Buffer] = []
        # Clips of one layout and length stand side by side in a batch, to be converted together.
        kinds = {header: number for number, header in enumerate(dict.fromkeys(headers))}
        kind = torch.tensor([kinds[header] for header in headers])
        self._order = kind.argsort(stable=True)
        self._rank = self._order.argsort()

    def describe(self) -> str:
        """Say where the clips are and how much is read in an epoch."""
        size_gib = sum(header.n_bytes for header in self._headers) / GIB
        return f"{len(self.length)} clips decoded as they are needed, {size_gib:.3f} GiB an epoch"

    def read(self, requests: Iterable[Request], epoch: int | None = None) -> Generator[Reading]:
        """Read batches of clips; see ``ClipStore``.

        Raises:
            DataError: If a file can't be read, or holds something else than when the run began.
        """
        waiting: deque[_Batch] = deque()
        try:
            for clips, reading in self._locate(requests):
                waiting.append(self._begin(clips, reading, epoch))
                if len(waiting) > _N_AHEAD:
                    yield self._finish(waiting.popleft())
            while waiting:
                yield self._finish(waiting.popleft())
        finally:
            for batch in waiting:
                self._abandon(batch)

    def _locate(self, requests: Iterable[Request]) -> Iterator[tuple[list[int], Reading]]:
        """List each batch's clips, each once, and where they will be among its samples."""
        nothing = torch.empty(0, dtype=torch.int16, device=self.device)  # yet
        for request in requests:
            index, begin = request.clip_index, torch.empty_like(request.clip_index)
            clips = []
            for batch in request.batches:
                ranks, place = self._rank[index[:, batch]].unique(return_inverse=True)
                clips.append(self._order[ranks])
                length = self.length[clips[-1]]
                begin[:, batch] = (length.cumsum(0) - length)[place]
            length, period = self.length[index], self.period[index]
            where = (begin, length, period, request.start % period)
            reading = Reading(nothing, *(numbers.to(self.device) for numbers in where))
            for batch, some in zip(request.batches, clips, strict=True):
                yield some.tolist(), reading.part(batch)

    def _begin(self, clips: list[int], reading: Reading, epoch: int | None) -> _Batch:
        """Let the threads read a batch."""
        headers = [self._headers[clip] for clip in clips]
        if self._effects is not None and epoch is not None:  # are done to samples as stored
            headers = [ClipHeader(self._stored_layout, int(self.length[clip])) for clip in clips]
        groups, places, end = [], [], 0
        for header, some in groupby(headers):
            begin = -(-end // _ALIGNMENT) * _ALIGNMENT
            begins = [begin + n * header.n_bytes for n, _ in enumerate(some)]
            places += [slice(begin, begin + header.n_bytes) for begin in begins]
            end = places[-1].stop
            groups.append((header.layout, len(begins), slice(begin, end)))
        buffer = self._take_buffer(end)
        bytes_read = buffer.bytes.numpy()
        readings = [
            self._pool.submit(self._read_clip, clip, epoch, bytes_read[place])
            for clip, place in zip(clips, places, strict=True)
        ]
        return _Batch(reading, clips, groups, readings, buffer)

    def _read_clip(self, clip: int, epoch: int | None, out: NDArray[np.uint8]) -> None:
        """Read a clip's bytes, in a thread."""
        header, c = self._headers[clip], self._manifest.clips[clip]

        def allocate(n_bytes: int) -> NDArray[np.uint8]:
            return out if n_bytes == len(out) else np.empty(n_bytes, dtype=np.uint8)

        payload = read_samples(c, allocate)
        check_unchanged(c, header, payload.layout, len(payload.data))
        if self._effects is not None and epoch is not None:
            data = torch.from_numpy(payload.data)
            samples = to_int16(data, payload.layout, self._stored_layout.sample_rate)
            changed = self._effects((samples / FULL_SCALE).numpy(), epoch, clip)
            # Noise and mixtures were planned for the clip's level, so an effect does not change it.
            level = math.sqrt(np.square(changed, dtype=np.float64).mean())
            gain = FULL_SCALE * float(self.rms[clip]) / level if level else 0.0
            scaled = np.rint(changed * gain).clip(-FULL_SCALE, FULL_SCALE - 1)
            out[:] = scaled.astype("<i2").view(np.uint8)

    def _finish(self, batch: _Batch) -> Reading:
        """Wait for a batch and convert its clips, one after another."""
        try:
            for clip, reading in zip(batch.clips, batch.readings, strict=True):
                self._wait_for(clip, reading)
            data = batch.buffer.copy(batch.groups[-1][2].stop)
            rate, is_cpu = self._stored_layout.sample_rate, self.device.type == "cpu"
            with one_thread_an_operation() if is_cpu else nullcontext():  # of the readers' cores
                samples = [
                    to_int16(data[place], layout, rate, n_clips)
                    for layout, n_clips, place in batch.groups
                ]
                return replace(batch.reading, samples=torch.cat(samples))
        finally:
            self._abandon(batch)

    def _wait_for(self, clip: int, reading: Future[None]) -> None:
        """Wait for a clip's bytes; a slow file is named, a bad one ends the run."""
        waited_s = 0.0
        while True:
            try:
                return reading.result(timeout=_SLOW_S)
            except TimeoutError:
                waited_s += _SLOW_S
                path = self._manifest.clips[clip].path
                log.warning("slow      %s: still reading after %.0f s", path, waited_s)
            except DecodeError as error:
                raise DataError(f"{self._manifest.describe(clip)}: {error}") from error

    def _abandon(self, batch: _Batch) -> None:
        """Let a batch's buffer be used again once nothing writes to it any more."""
        for reading in batch.readings:
            reading.cancel()
        wait(batch.readings)
        self._free.append(batch.buffer)

    def _take_buffer(self, n_bytes: int) -> _Buffer:
        """Get a buffer of at least this size; the threads may write to it."""
        buffer = self._free.pop() if self._free else None
        if buffer is None or len(buffer.bytes) < n_bytes:
            return _Buffer(n_bytes, self.device)
        buffer.wait()
        return buffer

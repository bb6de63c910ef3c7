"""The way from samples to log-mels on a CPU: a clip at a time, in buffers that stay in the cache.

A batch of 32 clips of 5 s makes 56 MB of frames and as much of spectra. glibc gives such blocks
back to the system as soon as they are free, so that every batch pays for their pages anew, and no
cache still holds them when the next step reads them. One clip makes 1.7 MB. So every thread takes
one clip all the way, with operations of one thread, in buffers that it keeps. Operations of several
threads are kept out altogether: OpenMP's threads spin for milliseconds after each, on the cores
that the next clips need.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from audioml.frontend.recipe import Reading, Recipe, circle_pieces

_BLOCK_SIZE = 1 << 19  # samples in the frames worked on at a time: 2 MB
_BAND = 16  # mel filters that share a matrix product over the frequencies they hear

Fill = Callable[[int, Tensor], None]
"""Writes the waveform of a clip [time], given its number, over that of another one."""

Finish = Callable[[int, Tensor, Tensor], None]
"""Turns mel powers [n_mels, frame] of a clip, given its number, into something as large, which is
written to the second; the powers may change."""


@dataclass(frozen=True, slots=True)
class Band:
    """Some neighbouring mel filters, cut to the frequencies where any of them is not 0.

    Args:
        mels: Which filters.
        parts: Their frequencies, as places among a spectrum's real and imaginary parts in turn.
        weight: The filters [part, mel]; each row stands twice, once for either part's square.
    """

    mels: slice
    parts: slice
    weight: Tensor


def cut_filters(filters: Tensor) -> list[Band]:
    """Cut mel filters [n_mels, freq], 98 of 100 weights of which are 0, into dense bands."""
    bands = []
    for first in range(0, len(filters), _BAND):
        some = filters[first : first + _BAND]
        heard = some.any(dim=0).nonzero()[:, 0].tolist() or [0]
        low, end = heard[0], heard[-1] + 1
        weight = some[:, low:end].t().repeat_interleave(2, dim=0).contiguous()
        bands.append(Band(slice(first, first + len(some)), slice(2 * low, 2 * end), weight))
    return bands


def reader(reading: Reading, recipe: Recipe) -> Fill:
    """Make waveforms of samples, gains and noise; see ``functional.read_waveforms``."""
    samples, gain, noise = reading.samples, recipe.gain.tolist(), recipe.noise
    where = torch.stack((reading.begin, reading.length, reading.period, reading.start), dim=2)
    voices = list(zip(gain, where.tolist(), strict=True))
    noise_gain = [] if recipe.noise_gain is None else recipe.noise_gain.tolist()
    noise_start = [] if recipe.noise_start is None else recipe.noise_start.tolist()

    def fill(clip: int, waveform: Tensor) -> None:
        for voice, (gains, places) in enumerate(voices):
            begin, length, period, start = places[clip]
            if voice == 0 and length < period:
                waveform.zero_()
            if voice > 0 and gains[clip] == 0:
                continue
            for piece, heard in circle_pieces(len(waveform), length, period, start):
                sound = samples[begin + heard.start : begin + heard.stop]
                if voice == 0:
                    torch.mul(sound, gains[clip], out=waveform[piece])
                else:
                    waveform[piece].add_(sound, alpha=gains[clip])
        if noise is not None and noise_gain[clip]:
            first = noise_start[clip]
            waveform.add_(noise[first : first + len(waveform)], alpha=noise_gain[clip])

    return fill


class _Buffers:
    """What one thread works in.

    Args:
        n_time: Samples a waveform.
        n_fft: Length of a frame.
        n_frames: Frames worked on at a time.
        n_mels: Number of mel bands.
    """

    def __init__(self, n_time: int, n_fft: int, n_frames: int, n_mels: int) -> None:
        # Silence before and after: a faster clip's last frames read the n_fft samples at the end.
        padded = torch.zeros(n_time + 2 * n_fft)
        self.waveform = padded[n_fft // 2 : n_fft // 2 + n_time]
        self.every_frame = padded.unfold(0, n_fft, 1)
        self.frames = torch.empty(n_frames, n_fft)
        self.spectrum = torch.empty(n_frames, n_fft // 2 + 1, dtype=torch.complex64)
        self.parts = torch.view_as_real(self.spectrum).flatten(1)
        self.mel = torch.empty(n_frames, n_mels)
        self._products: dict[int, tuple[list[Band], list[tuple[Tensor, Tensor, Tensor]]]] = {}

    def products(self, bands: list[Band]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """List the matrix products of a bank's bands: two factors and the place of the result."""
        if id(bands) not in self._products:
            factors = [(self.parts[:, b.parts], b.weight, self.mel[:, b.mels]) for b in bands]
            self._products[id(bands)] = bands, factors
        return self._products[id(bands)][1]


_kept = threading.local()


def _buffers(*shape: int) -> _Buffers:
    """Get this thread's buffers, made anew where the shape has changed."""
    if getattr(_kept, "shape", None) != shape:
        _kept.shape, _kept.buffers = shape, _Buffers(*shape)
    buffers: _Buffers = _kept.buffers
    return buffers


@torch.inference_mode(False)  # its results are written to by threads that know no such mode
def mel_spectrograms(
    fill: Fill,
    finish: Finish,
    starts: Tensor,
    filters: Sequence[list[Band]],
    *,
    n_time: int,
    window: Tensor,
    n_threads: int,
) -> Tensor:
    """Compute mel spectrograms, clips in parallel; to be called with operations of one thread.

    Args:
        fill: Writes the waveform of a clip.
        finish: Turns mel powers into what is wanted.
        starts: First sample of each frame, counted from ``n_fft // 2`` samples before the waveform
            [batch, frame], int64, at most ``n_time + n_fft // 2``.
        filters: The filters of each clip, cut by ``cut_filters``.
        n_time: Samples a waveform.
        window: [n_fft].
        n_threads: Threads that share the clips.

    Returns:
        [batch, n_mels, frame], float32.
    """
    n_batch, n_frames = starts.shape
    n_mels, n_block = filters[0][-1].mels.stop, max(_BLOCK_SIZE // len(window), 1)
    shape = (n_time, len(window), min(n_frames, n_block), n_mels)
    mel = torch.empty(n_batch, n_mels, n_frames)
    clips = iter(range(n_batch))  # whoever is free takes the next one

    def work() -> None:
        buffers = _buffers(*shape)
        for clip in clips:
            fill(clip, buffers.waveform)
            for first in range(0, n_frames, n_block):
                block = slice(first, first + n_block)
                power = _mel_power(buffers, starts[clip, block], window, filters[clip])
                finish(clip, power, mel[clip, :, block])

    helpers = [_pool(n_threads).submit(work) for _ in range(min(n_threads, n_batch) - 1)]
    try:
        work()
    finally:
        wait(helpers)
    for helper in helpers:
        helper.result()  # raises what it raised
    return mel


def _mel_power(buffers: _Buffers, starts: Tensor, window: Tensor, bands: list[Band]) -> Tensor:
    """Compute some frames' mel powers [n_mels, frame], to be read before the buffers change."""
    n = len(starts)  # fewer than there is room for at a clip's end
    torch.index_select(buffers.every_frame, 0, starts, out=buffers.frames[:n])
    torch.fft.rfft(buffers.frames.mul_(window), out=buffers.spectrum)
    buffers.parts.mul_(buffers.parts)
    for parts, weight, mels in buffers.products(bands):
        torch.mm(parts, weight, out=mels)
    return buffers.mel[:n].t()


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="log-mel")

"""What a clip's file holds, measured as it is: rate, length, level, offset, silence, hashes."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from audioml.datasets.manifest import Clip
from audioml.decode import FULL_SCALE, Payload, pcm_to_channels

MAX_FULL_SCALE_SAMPLES: Final = 10
SILENCE_DB: Final = -60.0
"""Frames below this level are silence [dB re full scale]."""
FRAME_S: Final = 0.02
_FULL_SCALE_LEVEL: Final = (FULL_SCALE - 1) / FULL_SCALE
_BLOCK_SAMPLES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a clip's file holds.

    Args:
        sample_rate: The file's rate [Hz].
        n_channels: Number of channels.
        duration_s: Length [s].
        peak: Largest absolute sample, full scale at 1.
        rms: Root mean square over all channels, full scale at 1.
        dc: Mean of the channel whose mean is furthest from 0, full scale at 1.
        silence_share: Share of the frames of ``FRAME_S`` whose RMS is below ``SILENCE_DB``.
        n_full_scale: Samples at full scale.
        digest: SHA-256 of the file.
        content: A hash of the samples, channels and rate; "" for digital silence, which says
            nothing about where a clip came from.
    """

    sample_rate: int
    n_channels: int
    duration_s: float
    peak: float
    rms: float
    dc: float
    silence_share: float
    n_full_scale: int
    digest: str
    content: str

    @property
    def is_silent(self) -> bool:
        """Whether every sample is zero."""
        return self.peak == 0

    @property
    def is_clipped(self) -> bool:
        """Whether more than ``MAX_FULL_SCALE_SAMPLES`` samples are at full scale."""
        return self.n_full_scale > MAX_FULL_SCALE_SAMPLES


def measure(clip: Clip, payload: Payload) -> Measurement:
    """Measure a clip, a block at a time: long ones take no more memory than their payload.

    Args:
        clip: The clip; its file is hashed.
        payload: The clip's samples as ``read_payload`` returns them.
    """
    layout = payload.layout
    frame = max(round(FRAME_S * layout.sample_rate), 1)
    peak, n_full_scale, n_silent, n_frames = 0.0, 0, 0, 0
    total = np.zeros((2, layout.n_channels))
    content = hashlib.blake2b(f"{layout.sample_rate} {layout.n_channels}".encode(), digest_size=16)
    for block in _read_blocks(payload, frame):
        level = np.abs(block)
        peak = max(peak, float(level.max()))
        n_full_scale += int((level >= _FULL_SCALE_LEVEL).sum())
        square = np.square(block, dtype=np.float64)
        total += np.stack((block.sum(0, dtype=np.float64), square.sum(0)))
        power = np.add.reduceat(square.mean(1), np.arange(0, len(block), frame)) / frame
        power[-1] *= frame / (len(block) - (len(power) - 1) * frame)  # the last may be shorter
        n_silent += int((power < 10 ** (SILENCE_DB / 10)).sum())
        n_frames += len(power)
        content.update(np.ascontiguousarray(block).data)
    mean, mean_square = total / payload.n_frames
    with clip.open() as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Measurement(
        sample_rate=layout.sample_rate,
        n_channels=layout.n_channels,
        duration_s=payload.n_frames / layout.sample_rate,
        peak=peak,
        rms=math.sqrt(mean_square.mean()),
        dc=float(mean[np.abs(mean).argmax()]),
        silence_share=n_silent / n_frames,
        n_full_scale=n_full_scale,
        digest=digest,
        content=content.hexdigest() if peak else "",
    )


def find_equal(keys: Mapping[int, Hashable]) -> list[list[int]]:
    """Group clips of equal key.

    Args:
        keys: Key of each clip by its number.

    Returns:
        The groups of two clips or more.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for clip, key in keys.items():
        groups[key].append(clip)
    return [group for group in groups.values() if len(group) > 1]


def _read_blocks(payload: Payload, frame: int) -> Iterator[NDArray[np.float32]]:
    """Convert samples a block of whole frames at a time [time, channel]."""
    layout = payload.layout
    # Blocks begin at multiples of 8 samples, and so of 8 bytes.
    length = 8 * frame * max(_BLOCK_SAMPLES // (8 * frame * layout.n_channels), 1)
    n_bytes = length * layout.frame_bytes
    for begin in range(0, len(payload.data), n_bytes):
        data = torch.from_numpy(payload.data[begin : begin + n_bytes])
        yield pcm_to_channels(data, layout).numpy()

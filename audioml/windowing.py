"""Sounds of any length as windows of the length that a model was trained on.

A sound of up to one and a half windows is cut where the run's evaluation cuts its clips. A longer
one gets windows that overlap and cover all of it, read a few at a time: a recording of ten hours
takes as little memory as one of a minute.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audioml.config import AudioConfig
from audioml.decode import (
    FULL_SCALE,
    check_conversion,
    decode_clip,
    measure_file,
    resampled_length,
)

_MOST_OF_A_CLIP: Final = 1.5  # windows; what is longer is covered by several
_N_AT_ONCE: Final = 32  # windows
_MARGIN_S: Final = 1  # on both sides of what is read, for the resampling filter


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Where a file's windows are.

    Args:
        path: The file.
        length: Samples of the sound at the model's rate.
        begin: First sample of each window [window].
        rate: The file's own rate [Hz].
        n_frames: Samples of each of the file's channels.
    """

    path: Path
    length: int
    begin: tuple[int, ...]
    rate: int
    n_frames: int

    def parts(self) -> Iterator["WindowPlan"]:
        """Cut it into plans of so many windows as are read at once."""
        for first in range(0, len(self.begin), _N_AT_ONCE):
            yield replace(self, begin=self.begin[first : first + _N_AT_ONCE])


def plan_windows(path: Path, audio: AudioConfig, overlap: float = 0.5) -> WindowPlan:
    """Decide where a file's windows are, from its header.

    Args:
        path: Any sound that libsndfile reads.
        audio: What the model was trained on.
        overlap: Share of a window that it has in common with the next one, 0 to 0.95.

    Raises:
        DecodeError: If the file can't be read as sound.
    """
    layout, n_frames = measure_file(path)
    check_conversion(path, layout, layout.sample_rate, audio.sample_rate)  # a second of it
    length = resampled_length(n_frames, layout.sample_rate, audio.sample_rate)
    begin = tuple(_choose_begins(length, audio, overlap))
    return WindowPlan(path, length, begin, layout.sample_rate, n_frames)


def read_windows(plan: WindowPlan, audio: AudioConfig) -> NDArray[np.float32]:
    """Read the windows of a plan, all at once.

    Returns:
        Samples [window, time] at the model's rate, mono, full scale at 1.

    Raises:
        DecodeError: If the file can't be decoded.
    """
    n_time, rate = audio.n_time, audio.sample_rate
    if plan.length <= _MOST_OF_A_CLIP * n_time:
        samples, first = decode_clip(plan.path, rate), 0
    else:
        # Whole seconds are whole samples at both rates, so windows lie where they would if all
        # were decoded.
        begin_s = max(plan.begin[0] // rate - _MARGIN_S, 0)
        end_s = math.ceil((plan.begin[-1] + n_time) / rate) + _MARGIN_S
        is_last = end_s * plan.rate >= plan.n_frames
        samples = decode_clip(plan.path, rate, begin_s, None if is_last else end_s)
        first = begin_s * rate
    windows = np.stack([_cut(samples, begin - first, audio) for begin in plan.begin])
    scaled: NDArray[np.float32] = windows.astype(np.float32)
    scaled /= np.float32(FULL_SCALE)
    return scaled


def _choose_begins(length: int, audio: AudioConfig, overlap: float) -> list[int]:
    room = max(length - audio.n_time, 0)
    if length > _MOST_OF_A_CLIP * audio.n_time:
        hop = max(round((1.0 - overlap) * audio.n_time), 1)
        places = np.linspace(0, room, 1 + math.ceil(room / hop))
        begins: list[int] = places.round().astype(int).tolist()
        return begins
    if not room or audio.crop == "start":
        return [0]
    return [
        math.floor((room + 1) * (crop + 0.5) / audio.eval_crops) for crop in range(audio.eval_crops)
    ]


def _cut(samples: NDArray[np.int16], begin: int, audio: AudioConfig) -> NDArray[np.int16]:
    """Cut a window; a sound that is shorter is filled up as evaluation does."""
    window = samples[begin : begin + audio.n_time]
    n_lacking = audio.n_time - len(window)
    if not n_lacking:
        return window
    return np.pad(window, (0, n_lacking), mode="wrap" if audio.pad == "wrap" else "constant")

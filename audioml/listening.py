"""What a model hears in a file: windows, probabilities over time, where the evidence lies."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audioml.classifier import Classifier
from audioml.decode import FULL_SCALE, DecodeError, PcmLayout, decode_clip, scan_length
from audioml.errors import UserError
from audioml.explanations import Explanation, explain


class ListeningError(UserError):
    """A sound that can't be classified; the message says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """A sound, and what a model makes of it.

    Args:
        classifier: The model.
        layout: How the file's samples are laid out.
        waveform: Samples [time] at the model's rate, mono, full scale at 1.
        begin: First sample of each window [window].
        log_mels: What the network is given [window, 1, mel, frame].
        probability: Of each window's classes [window, class].
    """

    classifier: Classifier
    layout: PcmLayout
    waveform: NDArray[np.float32]
    begin: NDArray[np.int64]
    log_mels: Tensor
    probability: NDArray[np.float64]

    @property
    def duration_s(self) -> float:
        """Length of the sound [s]."""
        return len(self.waveform) / self.classifier.config.audio.sample_rate

    @property
    def is_silent(self) -> bool:
        """Whether every sample is 0."""
        return not self.waveform.any()

    @property
    def begin_s(self) -> NDArray[np.float64]:
        """Beginning of each window [window] in s."""
        return self.begin / self.classifier.config.audio.sample_rate

    @cached_property
    def mean_probability(self) -> NDArray[np.float64]:
        """Of the classes, over all windows [class]."""
        mean: NDArray[np.float64] = self.probability.mean(axis=0)
        return mean

    def top(self, n: int = 5) -> list[tuple[str, int]]:
        """Name the likeliest classes and their numbers, the likeliest first."""
        order = self.mean_probability.argsort(kind="stable")[::-1][:n]
        return [(self.classifier.labels[number], int(number)) for number in order]

    def best_window(self, target: int) -> int:
        """Say in which window a class is likeliest."""
        return int(self.probability[:, target].argmax())

    def explain(self, target: int) -> Explanation:
        """Find the evidence for a class in the window where it is likeliest."""
        window = self.best_window(target)
        log_mel = self.log_mels[window : window + 1]
        return explain(self.classifier.network, log_mel, target, n_mels=len(self.frequencies))

    def level_db(self, window: int) -> NDArray[np.float32]:
        """Give the levels of a window's bands [mel, frame] in dB."""
        return self._in_db(self.log_mels[window, 0])

    @cached_property
    def whole_level_db(self) -> NDArray[np.float32]:
        """Levels of the whole sound's bands [mel, frame] in dB."""
        return self._in_db(self.classifier.log_mels(torch.from_numpy(self.waveform)[None])[0, 0])

    @property
    def frequencies(self) -> NDArray[Any]:
        """Centre of each band [mel] in Hz; of the first window length, where there are several."""
        n_windows = max(len(self.classifier.config.frontend.windows), 1)
        centres: NDArray[Any] = self.classifier.frontend.frequencies.numpy()
        return centres[: len(centres) // n_windows]

    def _in_db(self, level: Tensor) -> NDArray[np.float32]:
        frontend = self.classifier.frontend
        level_db: NDArray[np.float32] = (level * frontend.std_db + frontend.mean_db).numpy()
        return level_db[: len(self.frequencies)]


def listen(classifier: Classifier, file: Path, *, max_s: float) -> Heard:
    """Decode a file and classify it.

    Args:
        classifier: The model.
        file: Any sound that libsndfile reads.
        max_s: Longest sound that is taken [s]; the header is asked before anything is decoded.

    Raises:
        ListeningError: If the file is no sound that can be read, holds no sample, or is too long.
    """
    sample_rate = classifier.config.audio.sample_rate
    try:
        layout, n_frames = scan_length(file)
        duration_s = n_frames / layout.sample_rate
        if duration_s > max_s:
            raise ListeningError(
                f"This sound is {duration_s:.1f} s long; at most {max_s:g} s are taken."
            )
        samples = decode_clip(file, sample_rate)
    except DecodeError as error:
        reason = str(error).replace(f"{file}", file.name)
        raise ListeningError(f"This can't be read as a sound: {reason}") from error
    waveform = samples.astype(np.float32) / FULL_SCALE
    begin, windows = classifier.windows(waveform)
    log_mels = classifier.log_mels(windows)
    return Heard(
        classifier=classifier,
        layout=layout,
        waveform=waveform,
        begin=begin,
        log_mels=log_mels,
        probability=classifier.probabilities(log_mels),
    )

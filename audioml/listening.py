"""What a model hears in a file: windows, probabilities over time, where the evidence lies."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audioml.classifier import Classifier
from audioml.decode import FULL_SCALE, DecodeError, PcmLayout, decode_clip, measure_file
from audioml.errors import UserError
from audioml.explanations import Explanation, explain
from audioml.models import Network
from audioml.windowing import plan_windows, read_windows

_BATCH_SIZE = 16


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
        windows: Samples of the windows [window, time].
        probability: Of each window's classes [window, class].
    """

    classifier: Classifier
    layout: PcmLayout
    waveform: Tensor
    begin: NDArray[np.int64]
    windows: Tensor
    probability: NDArray[np.float64]

    @property
    def duration_s(self) -> float:
        """Length of the sound [s]."""
        return len(self.waveform) / self.classifier.sample_rate

    @property
    def is_silent(self) -> bool:
        """Whether every sample is 0."""
        return not bool(self.waveform.any())

    @property
    def begin_s(self) -> NDArray[np.float64]:
        """Beginning of each window [window] in s."""
        return self.begin / self.classifier.sample_rate

    @cached_property
    def mean_probability(self) -> NDArray[np.float64]:
        """Of the classes, over all windows [class]."""
        mean: NDArray[np.float64] = self.probability.mean(axis=0)
        return mean

    def top(self, n: int = 5) -> list[tuple[str, int]]:
        """Name the likeliest classes and their numbers, the likeliest first."""
        order = (-self.mean_probability).argsort(kind="stable")[:n]
        return [(self.classifier.labels[number], int(number)) for number in order]

    def best_window(self, target: int) -> int:
        """Say in which window a class is likeliest."""
        return int(self.probability[:, target].argmax())

    def explain(self, target: int) -> Explanation:
        """Find the evidence for a class in the window where it is likeliest."""
        network: nn.Module = self.classifier.network
        if self.classifier.frontend.trainable:  # then it is the first part of the network
            network = cast(nn.Sequential, network)[-1]
        log_mel = self._levels(self.windows[self.best_window(target)])[None, None]
        return explain(cast(Network, network), log_mel, target, n_mels=len(self.frequencies))

    def level_db(self, window: int | None = None) -> NDArray[np.float32]:
        """Give the levels of a window's bands, or the whole sound's [mel, frame], in dB."""
        frontend = self.classifier.frontend
        level = self._levels(self.waveform if window is None else self.windows[window])
        level_db: NDArray[np.float32] = (level * frontend.std_db + frontend.mean_db).cpu().numpy()
        return level_db[: len(self.frequencies)]

    @property
    def frequencies(self) -> NDArray[Any]:
        """Centre of each band [mel] in Hz; of the first window length, where there are several."""
        n_lengths = max(len(self.classifier.config.frontend.windows), 1)
        centres: NDArray[Any] = self.classifier.frontend.frequencies.cpu().numpy()
        return centres[: len(centres) // n_lengths]

    @torch.no_grad()
    def _levels(self, waveform: Tensor) -> Tensor:
        """Compute normalised levels [mel, frame], on the model's device."""
        levels: Tensor = self.classifier.frontend(waveform[None].to(self.classifier.device))
        return levels[0].float()


def listen(classifier: Classifier, file: Path, *, max_s: float) -> Heard:
    """Decode a file and classify it.

    Args:
        classifier: The model.
        file: Any sound that libsndfile reads.
        max_s: Longest sound that is taken [s]; the header is asked before anything is decoded.

    Raises:
        ListeningError: If the file is no sound that can be read, or is too long.
    """
    audio = classifier.config.audio
    try:
        layout, n_frames = measure_file(file)
        duration_s = n_frames / layout.sample_rate
        if duration_s > max_s:
            raise ListeningError(
                f"This sound is {duration_s:.1f} s long; at most {max_s:g} s are taken."
            )
        samples = decode_clip(file, classifier.sample_rate)
        plan = plan_windows(file, audio)
        windows = torch.from_numpy(
            np.concatenate([read_windows(part, audio) for part in plan.parts()])
        )
    except DecodeError as error:
        reason = str(error).replace(f"{file}", file.name)
        raise ListeningError(f"This can't be read as a sound: {reason}") from error
    batches = [classifier(part.to(classifier.device)) for part in windows.split(_BATCH_SIZE)]
    return Heard(
        classifier=classifier,
        layout=layout,
        waveform=torch.from_numpy(samples.astype(np.float32) / FULL_SCALE),
        begin=np.array(plan.begin),
        windows=windows,
        probability=torch.cat(batches).cpu().numpy(),
    )

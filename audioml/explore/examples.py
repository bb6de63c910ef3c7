"""A few clips to look at and to listen to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from audioml.clips import read_samples
from audioml.datasets.manifest import Clip, Manifest
from audioml.explore.survey import read_part
from audioml.frontend import BandLevels
from audioml.progress import track

MOST_EXAMPLES: Final = 60
"""Of all classes together: the page stays below 15 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A clip, as the front end hears and sees it.

    Args:
        clip: Its number in the manifest.
        row: Its row in the survey's table.
        waveform: Samples [time], mono at the front end's rate, full scale at 1; long clips are cut.
        level_db: Levels [band, frame] in dB.
    """

    clip: int
    row: pd.Series
    waveform: NDArray[np.float32]
    level_db: NDArray[np.float32]

    @property
    def contrast(self) -> float:
        """How much there is to see: what of the levels is neither a spectrum nor a course [dB]."""
        level = np.maximum(self.level_db, self.level_db.max() - 60)
        spectrum, course = level.mean(1, keepdims=True), level.mean(0, keepdims=True)
        return float((level - spectrum - course).std())


def choose_examples(audible: pd.DataFrame, n_a_class: int) -> list[int]:
    """Choose the clips of each class whose RMS is nearest to its median, of different recordings.

    Args:
        audible: Rows of clips that are not silent; the index is the clip's number.
        n_a_class: Most clips of a class.

    Returns:
        Numbers of the clips, class by class in alphabetical order, at most ``MOST_EXAMPLES``.
    """
    n_classes = audible["label"].nunique()
    n_a_class = min(n_a_class, max(MOST_EXAMPLES // max(n_classes, 1), 1))
    chosen: list[int] = []
    for _, clips in audible.groupby("label"):
        distance = (clips["rms_dbfs"] - clips["rms_dbfs"].median()).abs()
        by_distance = clips.assign(distance=distance).sort_values("distance", kind="stable")
        others = by_distance["source"].duplicated()
        ordered = pd.concat((by_distance[~others], by_distance[others]))
        chosen += ordered.index[:n_a_class].tolist()
    return chosen[:MOST_EXAMPLES]


def read_examples(
    manifest: Manifest,
    clips: pd.DataFrame,
    chosen: Sequence[int],
    frontend: BandLevels,
    *,
    longest_s: float,
) -> list[Example]:
    """Read the chosen clips; of longer ones the first ``longest_s`` seconds.

    Args:
        manifest: All clips.
        clips: Their rows.
        chosen: Numbers of the wanted ones.
        frontend: The front end, which does not normalise yet.
        longest_s: Longest part that is read [s].
    """

    def read() -> Iterator[Example]:
        for i in chosen:
            waveform = read_waveform(manifest.clips[i], frontend.sample_rate, longest_s, place=0.0)
            with torch.no_grad():
                level_db = frontend(torch.from_numpy(waveform)[None])[0]
            yield Example(clip=i, row=clips.iloc[i], waveform=waveform, level_db=level_db.numpy())

    return list(track(read(), task="examples", total=len(chosen), unit="clip"))


def read_waveform(
    clip: Clip, sample_rate: int, longest_s: float, place: float = 0.5
) -> NDArray[np.float32]:
    """Read at most ``longest_s`` seconds of a clip [time]; see ``survey.read_part``."""
    payload = read_samples(clip)
    return read_part(payload, sample_rate, round(longest_s * sample_rate), place).numpy()

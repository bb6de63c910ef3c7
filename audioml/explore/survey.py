"""One pass over all clips: what every file holds, and how it looks to the front end."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from audioml.clips import read_samples
from audioml.datasets.manifest import Clip, Manifest
from audioml.decode import (
    DecodeError,
    Payload,
    check_conversion,
    pcm_to_waveform,
    resample,
    thread_pool,
)
from audioml.frontend import BandLevels
from audioml.measurement import Measurement, measure
from audioml.progress import track

_DB_DIGITS: Final = 2
_COLUMNS: Final = (
    "path",
    "label",
    "source",
    "fold",
    "start_s",
    "end_s",
    "sample_rate",
    "channels",
    "length_s",
    "peak_dbfs",
    "rms_dbfs",
    "dc",
    "silence_share",
    "n_full_scale",
    "is_clipped",
    "is_silent",
    "digest",
    "content",
    "reason",
)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found.

    Args:
        clips: A row a clip, in the manifest's order: ``path`` (within the root), ``label``,
            ``source``, ``fold``, ``start_s``, ``end_s``, ``sample_rate``, ``channels``,
            ``length_s``, ``peak_dbfs`` and ``rms_dbfs`` (empty for digital silence), ``dc`` (full
            scale at 1), ``silence_share``, ``n_full_scale``, ``is_clipped``, ``is_silent``,
            ``digest`` (of the file), ``content`` (of the samples), and ``reason``: why it can't be
            used, empty where it can.
        spectra: Mean level of each class [class, band] in dB; NaN for a class without a sound.
        mean_db: Mean level of each band over all clips [band], cut or padded as for a model.
        std_db: Its standard deviation [band].
    """

    clips: pd.DataFrame
    spectra: NDArray[np.float64]
    mean_db: Tensor
    std_db: Tensor

    @property
    def usable(self) -> pd.DataFrame:
        """The clips that can be decoded."""
        return self.clips[self.clips["reason"] == ""]

    @property
    def audible(self) -> pd.DataFrame:
        """The clips that can be decoded and hold more than zeros."""
        return self.usable[~self.usable["is_silent"].astype(bool)]

    @property
    def bad(self) -> pd.DataFrame:
        """The clips that can't be decoded."""
        return self.clips[self.clips["reason"] != ""]


@dataclass(frozen=True, slots=True)
class _Found:
    """What one clip told: its measurement, sums over its frames, and its mean level [band]."""

    measurement: Measurement
    sums: Tensor
    n_frames: int
    spectrum: Tensor


def survey(manifest: Manifest, frontend: BandLevels, *, n_time: int, n_threads: int = 0) -> Survey:
    """Decode every file once, in threads, with a progress bar.

    Besides the result there is one file a thread in memory.

    Args:
        manifest: The clips; files may be missing.
        frontend: The front end, which does not normalise yet.
        n_time: Samples of a clip as models get it.
        n_threads: Threads, 0 for Python's choice.
    """

    def look(clip: Clip) -> _Found | str:
        try:
            payload = read_samples(clip)
            check_conversion(clip.path, payload.layout, payload.n_frames, frontend.sample_rate)
        except DecodeError as error:
            return str(error).removeprefix(f"{clip.path}: ")
        waveform = read_part(payload, frontend.sample_rate, n_time)
        return _Found(measure(clip, payload), *_measure_levels(waveform, frontend, n_time))

    sums = torch.zeros(2, len(frontend.frequencies), dtype=torch.float64)
    spectra = np.zeros((manifest.n_classes, len(frontend.frequencies)))
    n_frames, n_audible = 0, np.zeros(manifest.n_classes)
    rows = []
    with thread_pool(n_threads) as pool:
        found = pool.map(look, manifest.clips)
        bar = track(found, task="explore", total=len(manifest), unit="clip")
        for index, result in enumerate(bar):
            clip = manifest.clips[index]
            rows.append(_describe(clip, manifest.relative_path(index), result))
            if isinstance(result, str):
                continue
            sums += result.sums
            n_frames += result.n_frames
            if not result.measurement.is_silent:
                spectra[clip.target] += result.spectrum.numpy()
                n_audible[clip.target] += 1
    mean, square = sums / max(n_frames, 1)
    return Survey(
        clips=_make_table(rows),
        spectra=np.where(n_audible > 0, spectra.T / np.maximum(n_audible, 1), np.nan).T,
        mean_db=mean.float(),
        std_db=(square - mean.square()).clamp(min=0.0).sqrt().float(),
    )


def read_part(payload: Payload, sample_rate: int, most: int, place: float = 0.5) -> Tensor:
    """Take a part of a clip, mono at another rate.

    Args:
        payload: The clip's samples.
        sample_rate: The wanted rate [Hz].
        most: Most samples wanted.
        place: Where longer clips are cut: 0 the start, 0.5 the middle, as evaluation does.

    Returns:
        Samples [time], at most ``most``, float32, full scale at 1.
    """
    layout = payload.layout
    wanted = -(-most * layout.sample_rate // sample_rate)
    first = int(place * max(payload.n_frames - wanted, 0))
    data = payload.data[first * layout.frame_bytes : (first + wanted) * layout.frame_bytes].copy()
    waveform = pcm_to_waveform(torch.from_numpy(data), layout)
    if layout.sample_rate != sample_rate:
        waveform = resample(waveform[None], layout.sample_rate, sample_rate)[0]
    return waveform[:most]


def readable(name: str) -> str:
    """Write a name so that any file can hold it; bytes that are no text become question marks."""
    return os.fsencode(name).decode("utf-8", "replace")


@torch.no_grad()
def _measure_levels(
    waveform: Tensor, frontend: BandLevels, n_time: int
) -> tuple[Tensor, int, Tensor]:
    """Sum levels and their squares over the frames of a padded clip; average power without."""
    padded = F.pad(waveform, (0, n_time - len(waveform)))
    level = frontend.reference(padded[None])[0].double()
    n_heard = min(1 + len(waveform) // frontend.hop_length, level.shape[1])
    power = (10 ** (level[:, :n_heard] / 10)).mean(1)
    sums = torch.stack((level.sum(1), level.square().sum(1)))
    return sums, level.shape[1], 10 * power.log10()


def _describe(clip: Clip, path: str, result: _Found | str) -> dict[str, Any]:
    """Make a clip's row."""
    row: dict[str, Any] = {
        "path": readable(path),
        "label": readable(clip.label),
        "source": readable(clip.source),
        "fold": clip.fold,
        "start_s": clip.start_s,
        "end_s": clip.end_s,
    }
    if isinstance(result, str):
        return row | {"reason": readable(result)}
    found = result.measurement
    return row | {
        "sample_rate": found.sample_rate,
        "channels": found.n_channels,
        "length_s": round(found.duration_s, 4),
        "peak_dbfs": to_db(found.peak),
        "rms_dbfs": to_db(found.rms),
        "dc": round(found.dc, 6),
        "silence_share": round(found.silence_share, 4),
        "n_full_scale": found.n_full_scale,
        "is_clipped": found.is_clipped,
        "is_silent": found.is_silent,
        "digest": found.digest,
        "content": found.content,
        "reason": "",
    }


def to_db(amplitude: float) -> float:
    """Turn an amplitude into decibels re full scale; NaN for 0."""
    return round(20 * float(np.log10(amplitude)), _DB_DIGITS) if amplitude > 0 else float("nan")


def _make_table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Make the table, whole numbers as such where a bad clip has none."""
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    integers = dict.fromkeys(("fold", "sample_rate", "channels", "n_full_scale"), "Int64")
    return table.astype(integers | {"is_clipped": "boolean", "is_silent": "boolean"})

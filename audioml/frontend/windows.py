"""Log-mels of several window lengths, one above the other."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from audioml.frontend.levels import BandLevels
from audioml.frontend.logmel import LogMel
from audioml.frontend.recipe import Reading, Recipe


class MultiWindowLogMel(BandLevels):
    """Turn waveforms into log-mels by windows of several lengths, all with the same frames.

    A short window tells when, a long one tells which frequency. The bands of all windows stand in
    one axis, so that whatever works on levels works on these; ``n_mels`` counts those of one
    window, and a mask of them hides the same bands of each.

    Args:
        windows: Lengths of the Hann windows [samples].
        settings: The others of ``LogMel``, but for win_length and dtype.

    Source: Palanisamy et al. 2020, "Rethinking CNN models for audio classification",
        arXiv:2007.11154, who change the hop with the window as well, and resize.
    """

    def __init__(self, windows: Sequence[int], **settings: Any) -> None:
        parts = [LogMel(win_length=window, **settings) for window in windows]
        first = parts[0]
        super().__init__(
            sample_rate=first.sample_rate,
            frequencies=first.frequencies.repeat(len(parts)),
            hop_length=first.hop_length,
            floor_db=first.floor_db,
        )
        self.n_mels = first.n_mels
        self.parts = nn.ModuleList(parts)

    def set_statistics(self, mean_db: Tensor, std_db: Tensor) -> None:
        """Normalise by these from now on, each [window * n_mels]; see ``BandLevels``."""
        super().set_statistics(mean_db, std_db)
        for part, mean, std in zip(
            self._log_mels(), mean_db.split(self.n_mels), std_db.split(self.n_mels), strict=True
        ):
            part.set_statistics(mean, std)

    def forward(
        self,
        waveform: Tensor,
        rate: Tensor | None = None,
        semitones: Tensor | None = None,
        response: Tensor | None = None,
    ) -> Tensor:
        """Compute normalised log-mels [batch, window * n_mels, frame]; see ``LogMel.forward``."""
        return self._stack([part(waveform, rate, semitones, response) for part in self._log_mels()])

    def render(self, reading: Reading, recipe: Recipe, n_time: int) -> Tensor:
        """Compute normalised log-mels of stored clips, changed on the way."""
        return self._stack([part.render(reading, recipe, n_time) for part in self._log_mels()])

    def reference(
        self,
        waveform: Tensor,
        rate: Tensor | None = None,
        semitones: Tensor | None = None,
        response: Tensor | None = None,
    ) -> Tensor:
        """Compute what ``forward`` does by plain operations on whole batches, on any device."""
        return self._stack(
            [part.reference(waveform, rate, semitones, response) for part in self._log_mels()]
        )

    def _log_mels(self) -> list[LogMel]:
        return cast(list[LogMel], list(self.parts))

    def _stack(self, log_mels: list[Tensor]) -> Tensor:
        return torch.cat(log_mels, dim=1).to(self.dtype)

"""What all front ends have in common: levels of frequency bands, normalised."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from audioml.frontend import functional as F
from audioml.frontend.recipe import Reading, Recipe


class BandLevels(nn.Module, ABC):
    """Turn waveforms into levels of frequency bands, normalised by the training clips' statistics.

    Everything is computed in float32, also under autocast: the power of a loud clip overflows
    float16, and bfloat16 has steps of 0.03 dB at best.

    Args:
        sample_rate: Rate of the waveform [Hz].
        frequencies: Centre of each band [n_mels] in Hz; those of several windows one after another.
        hop_length: Samples between frames.
        floor_db: Least level kept [dB re 1].
        dtype: Of the result: float32, float16 or bfloat16.
        trainable: Whether it has parameters, to be trained with the network that it feeds.
    """

    mean_db: Tensor
    std_db: Tensor

    def __init__(
        self,
        *,
        sample_rate: int,
        frequencies: Tensor,
        hop_length: int,
        floor_db: float = -100.0,
        dtype: torch.dtype = torch.float32,
        trainable: bool = False,
    ) -> None:
        super().__init__()
        self.sample_rate, self.frequencies, self.n_mels = sample_rate, frequencies, len(frequencies)
        self.hop_length, self.floor_db, self.dtype = hop_length, floor_db, dtype
        self.trainable = trainable
        self.register_buffer("mean_db", torch.zeros(self.n_mels, 1))
        self.register_buffer("std_db", torch.ones(self.n_mels, 1))

    def n_frames(self, n_time: int) -> int:
        """Frames of a waveform of ``n_time`` samples."""
        return 1 + n_time // self.hop_length

    def set_statistics(self, mean_db: Tensor, std_db: Tensor) -> None:
        """Normalise by these from now on.

        Args:
            mean_db: Mean level of each band over the training clips [n_mels].
            std_db: Standard deviation [n_mels]; bands below 1 dB are divided by 1 dB.
        """
        self.mean_db.copy_(mean_db[:, None])
        self.std_db.copy_(std_db.clamp(min=1.0)[:, None])

    def forward(
        self,
        waveform: Tensor,
        rate: Tensor | None = None,
        semitones: Tensor | None = None,
        response: Tensor | None = None,
    ) -> Tensor:
        """Compute normalised levels.

        Args:
            waveform: Samples [batch, time], full scale at 1.
            rate: Tempo factors [batch], above 1 is faster; None for 1.
            semitones: Pitch shifts [batch]; None for 0.
            response: Gains of each band's power [n_mels, batch]; None for 1.

        Returns:
            [batch, n_mels, 1 + time // hop_length], ``dtype``, mean 0 and deviation 1 a band over
            the training clips.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            return self.reference(waveform.float(), rate, semitones, response)

    @torch.no_grad()
    def render(self, reading: Reading, recipe: Recipe, n_time: int) -> Tensor:
        """Compute normalised levels of stored clips, changed on the way.

        Args:
            reading: Where the samples are.
            recipe: How they are mixed and changed.
            n_time: Samples a waveform.

        Returns:
            [batch, n_mels, 1 + n_time // hop_length], ``dtype``, as ``forward`` returns them.
        """
        waveform = F.read_waveforms(reading, recipe, n_time)
        levels = self(waveform, recipe.rate, recipe.semitones, recipe.response)
        return levels if recipe.mask is None else F.mask_bands(levels, recipe.mask)

    @abstractmethod
    def reference(
        self,
        waveform: Tensor,
        rate: Tensor | None = None,
        semitones: Tensor | None = None,
        response: Tensor | None = None,
    ) -> Tensor:
        """Compute what ``forward`` does by plain operations on whole batches, on any device."""

    def _normalise(self, power: Tensor, response: Tensor | None = None) -> Tensor:
        """Turn powers [batch, n_mels, frame] into normalised levels, in place."""
        if response is not None:
            power.mul_(response.t()[..., None])
        level_db = F.power_to_db_(power, self.floor_db)
        return level_db.sub_(self.mean_db).div_(self.std_db)

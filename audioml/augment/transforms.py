"""What is done to training clips: drawn for a whole epoch at once, applied a batch at a time."""

from dataclasses import dataclass, fields
from typing import Self

import scipy.stats
import torch
from torch import Tensor, nn

from audioml.augment import functional as F
from audioml.config import AugmentConfig
from audioml.rng import Stream, uniform

_NOISE_S = 30.0  # seconds of each colour of noise
_QUANTILES = 1024
_VARIANT_SEMITONES = 2.0
_VARIANT_RATE = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Parameters of a batch or an epoch of clips; every field is a tensor [clip].

    Args:
        shift: Circular shift [samples], int64.
        gain_db: Change of level [dB].
        snr_db: Signal-to-noise ratio [dB], inf for no noise.
        noise_start: Where the noise begins in the flat noise bank [samples], int64.
        semitones: Pitch shift.
        rate: Tempo factor, above 1 is faster.
        mix_ratio: Share of the clip in the mixture with its partner, 1 for no mixing.
        freq_start: First masked mel band, as a share of those left by the mask, 0 to 1.
        freq_share: Share of the mel bands masked.
        time_start: First masked frame, as a share of those left by the mask, 0 to 1.
        time_share: Share of the frames masked.
    """

    shift: Tensor
    gain_db: Tensor
    snr_db: Tensor
    noise_start: Tensor
    semitones: Tensor
    rate: Tensor
    mix_ratio: Tensor
    freq_start: Tensor
    freq_share: Tensor
    time_start: Tensor
    time_share: Tensor

    def __getitem__(self, clips: slice | Tensor) -> Self:
        """Pick some of the clips."""
        return type(self)(**{f.name: getattr(self, f.name)[clips] for f in fields(self)})

    def to(self, device: torch.device) -> Self:
        """Move to a device."""
        return type(self)(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class Augment(nn.Module):
    """Draw and apply the augmentation of training clips.

    Everything is drawn in one go for an epoch (``draw``). Noise, gain and masks are applied here, a
    batch at a time. Mixing is ``functional.mix``, pitch and tempo are the front end's, the circular
    shift is the store's: the latter cost nothing where the samples are read anyway.

    Args:
        config: Ranges and probabilities.
        sample_rate: Rate of the waveform [Hz].
        n_time: Samples a waveform.
        seed: The run's seed.
    """

    noise: Tensor

    def __init__(self, config: AugmentConfig, *, sample_rate: int, n_time: int, seed: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.sample_rate, self.n_time = sample_rate, n_time
        n_noise = max(round(_NOISE_S * sample_rate), 2 * n_time)
        self._n_starts = n_noise - n_time
        self.register_buffer("noise", F.make_noise_bank(n_noise, seed), persistent=False)
        quantiles = torch.linspace(0, 1, _QUANTILES + 1, dtype=torch.float64)
        alpha = config.mixup.alpha
        self._mix_quantiles = torch.from_numpy(
            scipy.stats.beta.ppf(quantiles.numpy(), alpha, alpha)
        ).float()

    @property
    def max_semitones(self) -> float:
        """Largest pitch shift that can be drawn, up or down."""
        if self.config.preset == "four_variants":
            return _VARIANT_SEMITONES
        if self.config.preset == "none" or not self.config.pitch.probability:
            return 0.0
        return max(abs(semitones) for semitones in self.config.pitch.semitones)

    @property
    def mixes(self) -> bool:
        """Whether clips may be mixed with partners."""
        return self.config.preset == "ranges" and self.config.mixup.probability > 0

    def draw(self, epoch: int, clip_index: Tensor) -> Draws:
        """Draw the parameters of an epoch.

        Args:
            epoch: Epoch number, from 0.
            clip_index: Clips [n], int64, on the CPU.

        Returns:
            The parameters of each clip, functions of (seed, epoch, clip) alone.
        """
        streams = torch.arange(len(Stream))
        number = uniform(self.seed, epoch, clip_index[:, None], streams)
        draws = self._draw_ranges(number)
        return self._draw_fixed(draws, number) if self.config.preset != "ranges" else draws

    def _draw_ranges(self, number: Tensor) -> Draws:
        """Draw each parameter from its range, with its probability; ``number`` [n, stream, 4]."""
        c = self.config

        def pick(
            stream: Stream, probability: float, bounds: tuple[float, float], off: float
        ) -> Tensor:
            chance, place = number[:, stream, 0], number[:, stream, 1]
            value = bounds[0] + place * (bounds[1] - bounds[0])
            return torch.where(chance < probability, value, off)

        shift_s = pick(Stream.SHIFT, c.shift.probability, c.shift.shift_s, 0.0)
        colour = (number[:, Stream.NOISE_COLOUR, 0] * len(self.noise)).long()
        place = (number[:, Stream.NOISE_COLOUR, 1].double() * self._n_starts).long()
        quantile = pick(Stream.MIXUP, c.mixup.probability, (0.0, float(_QUANTILES)), _QUANTILES)
        below = quantile.long().clamp(max=_QUANTILES - 1)
        masked = number[:, Stream.MASK, 0] < c.mask.probability
        return Draws(
            shift=torch.round(shift_s.double() * self.sample_rate).long(),
            gain_db=pick(Stream.GAIN, c.gain.probability, c.gain.gain_db, 0.0),
            snr_db=pick(Stream.NOISE, c.noise.probability, c.noise.snr_db, torch.inf),
            noise_start=colour * self.noise.shape[1] + place,
            semitones=pick(Stream.PITCH, c.pitch.probability, c.pitch.semitones, 0.0),
            rate=pick(Stream.STRETCH, c.stretch.probability, c.stretch.rate, 1.0),
            mix_ratio=torch.lerp(
                self._mix_quantiles[below], self._mix_quantiles[below + 1], quantile - below
            ),
            freq_start=number[:, Stream.MASK_PLACE, 0],
            freq_share=masked * number[:, Stream.MASK, 1] * c.mask.freq_share,
            time_start=number[:, Stream.MASK_PLACE, 1],
            time_share=masked * number[:, Stream.MASK, 2] * c.mask.time_share,
        )

    def _draw_fixed(self, draws: Draws, number: Tensor) -> Draws:
        """Choose one of the original project's variants a clip, or with preset "none" the first.

        The variants are the clip as it is, with noise, 2 semitones up, and slowed to 0.9; the
        original project wrote all four to disk.
        """
        variant = (number[:, Stream.VARIANT, 0] * 4).long()
        if self.config.preset == "none":
            variant = torch.zeros_like(variant)
        least, most = self.config.noise.snr_db
        snr_db = least + number[:, Stream.NOISE, 1] * (most - least)
        zero = torch.zeros_like(draws.gain_db)
        return Draws(
            shift=torch.zeros_like(draws.shift),
            gain_db=zero,
            snr_db=torch.where(variant == 1, snr_db, torch.inf),
            noise_start=draws.noise_start,
            semitones=torch.where(variant == 2, _VARIANT_SEMITONES, zero),
            rate=torch.where(variant == 3, _VARIANT_RATE, zero + 1.0),
            mix_ratio=zero + 1.0,
            freq_start=zero,
            freq_share=zero,
            time_start=zero,
            time_share=zero,
        )

    def apply_to_waveform(self, waveform: Tensor, rms: Tensor, draws: Draws) -> Tensor:
        """Add noise and change the level.

        Args:
            waveform: Samples [batch, time].
            rms: RMS of each clip [batch].
            draws: The batch's parameters.

        Returns:
            [batch, time].
        """
        noise = self.noise.reshape(-1).unfold(0, self.n_time, 1)[draws.noise_start]
        noisy = F.add_noise(waveform, noise, draws.snr_db, rms)
        return F.apply_gain(noisy, draws.gain_db)

    def apply_to_log_mel(self, log_mel: Tensor, draws: Draws) -> Tensor:
        """Mask a band of mels and a stretch of time of normalised log-mels [batch, mel, frame]."""
        for dim, start, share in (
            (1, draws.freq_start, draws.freq_share),
            (2, draws.time_start, draws.time_share),
        ):
            size = log_mel.shape[dim]
            width = torch.round(share * size).long()
            first = torch.floor(start * (size - width + 1)).long()
            log_mel = F.mask_band(log_mel, first, width, dim)
        return log_mel

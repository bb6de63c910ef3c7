"""What is done to training clips: drawn and written down for many clips at once."""

from dataclasses import dataclass, fields, replace
from typing import Final, Self

import scipy.stats
import torch
from torch import Tensor, nn

from audioml.augment import functional as F
from audioml.config import AugmentConfig
from audioml.decode import FULL_SCALE
from audioml.frontend.recipe import Recipe
from audioml.rng import Stream, uniform

_NOISE_S = 30.0  # seconds of each colour of noise
_QUANTILES = 1024
VARIANTS: Final = ("orig", "noisy", "pitchUp2", "stretch0.9")
"""What the original project appended to the names of the four files it wrote of each clip."""
_VARIANT_SEMITONES = 2.0
_VARIANT_RATE = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Parameters of a batch or an epoch of clips; every field is a tensor [clip].

    Args:
        gain_db: Change of level [dB].
        snr_db: Signal-to-noise ratio [dB], inf for no noise.
        noise_start: Where the noise begins in the flat noise bank [samples], int64.
        semitones: Pitch shift.
        rate: Tempo factor, above 1 is faster.
        mix_ratio: Share of the clip in the mixture with its partner, 1 for no mixing.
        filter_db: Frequency response at places from the first to the last mel band [clip, place].
        freq_start: First masked mel band, as a share of those left by the mask, 0 to 1.
        freq_share: Share of the mel bands masked.
        time_start: First masked frame, as a share of those left by the mask, 0 to 1.
        time_share: Share of the frames masked.
    """

    gain_db: Tensor
    snr_db: Tensor
    noise_start: Tensor
    semitones: Tensor
    rate: Tensor
    mix_ratio: Tensor
    filter_db: Tensor
    freq_start: Tensor
    freq_share: Tensor
    time_start: Tensor
    time_share: Tensor

    def __getitem__(self, clips: slice | Tensor) -> Self:
        """Pick some of the clips."""
        return type(self)(**{f.name: getattr(self, f.name)[clips] for f in fields(self)})

    def neutral(self) -> Self:
        """Make parameters that change nothing, of as many clips; noise keeps its place."""
        zero = torch.zeros_like(self.gain_db)
        return type(self)(
            gain_db=zero,
            snr_db=zero + torch.inf,
            noise_start=self.noise_start,
            semitones=zero,
            rate=zero + 1.0,
            mix_ratio=zero + 1.0,
            filter_db=torch.zeros_like(self.filter_db),
            freq_start=zero,
            freq_share=zero,
            time_start=zero,
            time_share=zero,
        )


class Augment(nn.Module):
    """Draw the augmentation of training clips.

    Everything is drawn for many clips at once (``draw``, ``draw_shift``) and written down as what
    the front end does while it reads the samples anyway (``recipe``).

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
        self._used = _list_used(config)
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
        """Draw the parameters of clips.

        Args:
            epoch: Epoch number, from 0.
            clip_index: Clips [n], int64, on the CPU.

        Returns:
            The parameters of each clip, functions of (seed, epoch, clip) alone.
        """
        number = self._draw_numbers(epoch, clip_index)
        if self.config.preset == "ranges":
            return self._draw_ranges(number)
        variant = (number[:, Stream.VARIANT, 0] * len(VARIANTS)).long()
        if self.config.preset == "none":
            variant = torch.zeros_like(variant)
        return self._draw_fixed(number, variant)

    def draw_variant(self, variant: int, clip_index: Tensor) -> Draws:
        """Draw one of the four variants of each clip, under preset "four_variants", as in epoch 0.

        Args:
            variant: Which of ``VARIANTS``, 0 to 3.
            clip_index: Clips [n], int64, on the CPU.

        Returns:
            The parameters of each clip.
        """
        number = self._draw_numbers(0, clip_index)
        return self._draw_fixed(number, torch.full_like(clip_index, variant))

    def _draw_numbers(self, epoch: int, clip_index: Tensor) -> Tensor:
        """Draw four numbers a clip [n] and stream: [n, stream, 4], in [0, 1); 0 if unused."""
        number = torch.zeros(len(clip_index), len(Stream), 4)
        streams = torch.tensor(self._used, dtype=torch.int64)
        number[:, streams] = uniform(self.seed, epoch, clip_index[:, None], streams)
        return number

    def draw_shift(self, epoch: int, clip_index: Tensor) -> Tensor:
        """Draw how far clips are moved, as functions of (seed, epoch, clip) alone.

        Args:
            epoch: Epoch number, from 0.
            clip_index: Clips [...], int64, on the CPU.

        Returns:
            Circular shifts [...] in samples, int64.
        """
        shift = self.config.shift
        if self.config.preset != "ranges" or not shift.probability:
            return torch.zeros_like(clip_index)
        number = uniform(self.seed, epoch, clip_index, Stream.SHIFT)
        shift_s = _pick(number, shift.probability, shift.shift_s, 0.0)
        return torch.round(shift_s.double() * self.sample_rate).long()

    def _draw_ranges(self, number: Tensor) -> Draws:
        """Draw each parameter from its range, with its probability; ``number`` [n, stream, 4]."""
        c = self.config
        colour = (number[:, Stream.NOISE_COLOUR, 0] * len(self.noise)).long()
        start = (number[:, Stream.NOISE_COLOUR, 1].double() * self._n_starts).long()
        quantile = _pick(
            number[:, Stream.MIXUP], c.mixup.probability, (0.0, float(_QUANTILES)), _QUANTILES
        )
        below = quantile.long().clamp(max=_QUANTILES - 1)
        least, most = c.filter.gain_db
        is_filtered = number[:, Stream.FILTER, :1] < c.filter.probability
        place = torch.cat((number[:, Stream.FILTER, 1:], number[:, Stream.FILTER_MORE, :2]), dim=1)
        masked = number[:, Stream.MASK, 0] < c.mask.probability
        return Draws(
            gain_db=_pick(number[:, Stream.GAIN], c.gain.probability, c.gain.gain_db, 0.0),
            snr_db=_pick(number[:, Stream.NOISE], c.noise.probability, c.noise.snr_db, torch.inf),
            noise_start=colour * self.noise.shape[1] + start,
            semitones=_pick(number[:, Stream.PITCH], c.pitch.probability, c.pitch.semitones, 0.0),
            rate=_pick(number[:, Stream.STRETCH], c.stretch.probability, c.stretch.rate, 1.0),
            mix_ratio=torch.lerp(
                self._mix_quantiles[below], self._mix_quantiles[below + 1], quantile - below
            ),
            filter_db=is_filtered * (least + place * (most - least)),
            freq_start=number[:, Stream.MASK_PLACE, 0],
            freq_share=masked * number[:, Stream.MASK, 1] * c.mask.freq_share,
            time_start=number[:, Stream.MASK_PLACE, 1],
            time_share=masked * number[:, Stream.MASK, 2] * c.mask.time_share,
        )

    def _draw_fixed(self, number: Tensor, variant: Tensor) -> Draws:
        """Draw the original project's variant [n] of each clip; ``number`` [n, stream, 4].

        The variants are the clip as it is, with noise, 2 semitones up, and slowed to 0.9; the
        original project wrote all four to disk.
        """
        none = self._draw_ranges(number).neutral()
        least, most = self.config.noise.snr_db
        snr_db = least + number[:, Stream.NOISE, 1] * (most - least)
        return replace(
            none,
            snr_db=torch.where(variant == 1, snr_db, none.snr_db),
            semitones=torch.where(variant == 2, _VARIANT_SEMITONES, none.semitones),
            rate=torch.where(variant == 3, _VARIANT_RATE, none.rate),
        )

    def recipe(self, draws: Draws, rms: Tensor, *, n_mels: int, n_frames: int) -> Recipe:
        """Say how the front end is to change clips; what the settings rule out is left out.

        Args:
            draws: The clips' parameters.
            rms: RMS of each clip and, where clips are mixed, of its partner [voice, n].
            n_mels: Mel bands of the front end.
            n_frames: Frames of a clip.

        Returns:
            The recipe of all n clips, on the device of ``draws``.
        """
        voice_gain = torch.ones_like(rms)
        if len(rms) == 2:
            voice_gain = torch.stack(F.mixing_gains(draws.mix_ratio, rms[0], rms[1]))
        amplitude = F.db_to_amplitude(draws.gain_db)
        noise_gain = F.noise_gain(draws.snr_db, (rms * voice_gain).square().sum(0).sqrt())
        response = F.filter_response(draws.filter_db, n_mels)
        mask = torch.cat(
            (
                F.mask_bounds(draws.freq_start, draws.freq_share, n_mels),
                F.mask_bounds(draws.time_start, draws.time_share, n_frames),
            )
        )
        return Recipe(
            gain=voice_gain * amplitude / FULL_SCALE,
            noise=self.noise.reshape(-1) if Stream.NOISE in self._used else None,
            noise_gain=noise_gain * amplitude,
            noise_start=draws.noise_start,
            rate=draws.rate if Stream.STRETCH in self._used else None,
            semitones=draws.semitones if Stream.PITCH in self._used else None,
            response=response if Stream.FILTER in self._used else None,
            mask=mask if Stream.MASK in self._used else None,
        )


def _list_used(config: AugmentConfig) -> list[Stream]:
    """List what random numbers are drawn for, besides shifts."""
    if config.preset == "none":
        return []
    if config.preset == "four_variants":
        return [Stream.VARIANT, Stream.NOISE, Stream.NOISE_COLOUR, Stream.PITCH, Stream.STRETCH]
    probability = {
        Stream.GAIN: config.gain.probability,
        Stream.NOISE: config.noise.probability,
        Stream.NOISE_COLOUR: config.noise.probability,
        Stream.PITCH: config.pitch.probability,
        Stream.STRETCH: config.stretch.probability,
        Stream.MIXUP: config.mixup.probability,
        Stream.FILTER: config.filter.probability,
        Stream.FILTER_MORE: config.filter.probability,
        Stream.MASK: config.mask.probability,
        Stream.MASK_PLACE: config.mask.probability,
    }
    return [stream for stream in probability if probability[stream]]


def _pick(number: Tensor, probability: float, bounds: tuple[float, float], off: float) -> Tensor:
    """Choose between bounds with a probability, else ``off``; ``number`` [..., 4]."""
    value = bounds[0] + number[..., 1] * (bounds[1] - bounds[0])
    return torch.where(number[..., 0] < probability, value, off)

"""Pure, batched augmentations; one parameter a clip, no randomness, no loop over clips."""

from typing import NamedTuple

import torch
from torch import Tensor


def db_to_amplitude(level_db: Tensor) -> Tensor:
    """Convert decibels to amplitude ratios; -inf gives 0."""
    return torch.pow(10.0, level_db / 20.0)


def apply_gain(waveform: Tensor, gain_db: Tensor) -> Tensor:
    """Change the level of waveforms [batch, time] by ``gain_db`` [batch]."""
    return waveform * db_to_amplitude(gain_db)[:, None]


def add_noise(waveform: Tensor, noise: Tensor, snr_db: Tensor, rms: Tensor) -> Tensor:
    """Add noise at a signal-to-noise ratio.

    Args:
        waveform: Samples [batch, time].
        noise: Noise of RMS 1 [batch, time].
        snr_db: Ratio of the clip's RMS to the noise's [batch]; inf adds nothing.
        rms: RMS of each clip [batch]; a silent clip stays silent.

    Returns:
        [batch, time].
    """
    return torch.addcmul(waveform, noise, (rms * db_to_amplitude(-snr_db))[:, None])


class Sounds(NamedTuple):
    """Clips and what is known of them.

    Args:
        waveform: Samples [batch, time].
        rms: RMS of each clip [batch].
        target: Class probabilities [batch, class].
    """

    waveform: Tensor
    rms: Tensor
    target: Tensor


def mix(sounds: Sounds, partners: Sounds, ratio: Tensor) -> Sounds:
    """Mix each clip with its partner, and their targets in the same proportion.

    Args:
        sounds: The clips.
        partners: A partner for each.
        ratio: Share of the clip [batch], 0 to 1; 1 leaves it alone.

    Returns:
        The mixtures; a silent clip, or one whose partner is silent, stays as it is.
    """
    are_audible = (sounds.rms > 0) & (partners.rms > 0)
    ratio = torch.where(are_audible, ratio, 1.0)
    gain, partner_gain = mixing_gains(ratio, sounds.rms, partners.rms)
    return Sounds(
        sounds.waveform * gain[:, None] + partners.waveform * partner_gain[:, None],
        torch.hypot(sounds.rms * gain, partners.rms * partner_gain),
        torch.lerp(partners.target, sounds.target, ratio[:, None]),
    )


def mixing_gains(ratio: Tensor, rms: Tensor, partner_rms: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the gains at which two clips are heard in a given proportion.

    Plain weights would let the louder clip drown the other. With g = rms / partner_rms and
    p = 1 / (1 + g (1 - ratio) / ratio), the clips' RMS stand in the proportion ratio : 1 - ratio;
    dividing by sqrt(p^2 + (1 - p)^2) keeps the energy of independent sounds.

    Args:
        ratio: Share of the first clip [batch], 0 to 1; at exactly 1 the second is not heard.
        rms: RMS of the first clip [batch].
        partner_rms: RMS of the second clip [batch].

    Returns:
        Gains of the first and the second clip, each [batch].

    Source: Tokozume et al. 2018, "Learning from between-class examples for deep sound recognition",
        equation 2, with RMS in place of the A-weighted level.
    """
    least = 1e-6  # of silence, so that everything stays finite
    first = ratio * partner_rms.clamp(min=least)
    second = (1.0 - ratio) * rms.clamp(min=least)
    scale = torch.rsqrt(first.square() + second.square())
    return first * scale, second * scale


def mask_band(log_mel: Tensor, start: Tensor, width: Tensor, dim: int) -> Tensor:
    """Set a band of each spectrogram to 0, the training mean of a normalised log-mel.

    Args:
        log_mel: [batch, n_mels, frame].
        start: First row or column masked [batch], int64.
        width: How many are masked [batch], int64; 0 masks none.
        dim: 1 for mels, 2 for frames.

    Returns:
        [batch, n_mels, frame].

    Source: Park et al. 2019, "SpecAugment".
    """
    shape = [1, 1, 1]
    shape[dim] = -1
    position = torch.arange(log_mel.shape[dim], device=log_mel.device).view(shape)
    start, width = start[:, None, None], width[:, None, None]
    return log_mel.masked_fill((position >= start) & (position < start + width), 0.0)


def make_noise_bank(n_samples: int, seed: int) -> Tensor:
    """Make white, pink and brown noise of RMS 1.

    Args:
        n_samples: Length of each [samples].
        seed: Seed of the noise.

    Returns:
        [3, n_samples], float32: power falling by 0, 3 and 6 dB an octave above 20 cycles a bank.
    """
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.fft.rfft(torch.randn(3, n_samples, generator=generator))
    frequency = torch.arange(spectrum.shape[1]).clamp(min=20.0)
    exponent = torch.tensor([0.0, -0.5, -1.0])[:, None]
    noise: Tensor = torch.fft.irfft(spectrum * frequency**exponent, n=n_samples)
    noise -= noise.mean(dim=1, keepdim=True)
    return noise / noise.square().mean(dim=1, keepdim=True).sqrt()

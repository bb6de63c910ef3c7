"""Pure, batched augmentations; one parameter a clip, no randomness, no loop over clips."""

import torch
import torch.nn.functional as F
from torch import Tensor


def db_to_amplitude(level_db: Tensor) -> Tensor:
    """Convert decibels to amplitude ratios; -inf gives 0.

    In float32 the last bit of a power would depend on where in the tensor it stands.
    """
    return torch.pow(10.0, level_db.double() / 20.0).to(level_db.dtype)


def audible_ratio(ratio: Tensor, rms: Tensor, partner_rms: Tensor) -> Tensor:
    """Leave out mixtures with silence: 1 where a clip or its partner is silent, else ``ratio``."""
    return torch.where((rms > 0) & (partner_rms > 0), ratio, 1.0)


def noise_gain(snr_db: Tensor, rms: Tensor) -> Tensor:
    """Choose the amplitude of noise of RMS 1 at a signal-to-noise ratio.

    Args:
        snr_db: Ratio of the clip's RMS to the noise's [batch]; inf for no noise.
        rms: RMS of each clip [batch]; a silent clip gets none.

    Returns:
        [batch].
    """
    return rms * db_to_amplitude(-snr_db)


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


def filter_response(gain_db: Tensor, n_mels: int) -> Tensor:
    """Make frequency responses whose gain in dB changes along straight lines over the mel bands.

    Args:
        gain_db: Gains at places spread evenly over the bands, from first to last [n, place] in dB.
        n_mels: Number of mel bands.

    Returns:
        Gains of each band's power [n_mels, n].

    Source: Nam et al. 2022, "FilterAugment: an acoustic environmental data augmentation method",
        the linear kind, with fixed places.
    """
    level_db = F.interpolate(gain_db[None], n_mels, mode="linear", align_corners=True)[0]
    return db_to_amplitude(2.0 * level_db).t().contiguous()


def mask_bounds(start: Tensor, share: Tensor, size: int) -> Tensor:
    """Place a mask.

    Args:
        start: Where the mask begins, as a share of what it leaves free [batch], 0 to 1.
        share: Its width as a share of ``size`` [batch], 0 to 1.
        size: Number of mel bands, or of frames.

    Returns:
        The first masked and the first place behind it [2, batch], int64; equal for no mask.

    Source: Park et al. 2019, "SpecAugment".
    """
    width = torch.round(share * size).long()
    first = torch.floor(start * (size - width + 1)).long()
    return torch.stack((first, first + width))


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

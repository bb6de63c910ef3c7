"""Pure functions from waveforms to log-mel energies; all in float32, all batched."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from audioml.frontend.recipe import Reading, Recipe

MelScale = Literal["slaney", "htk"]
MelNorm = Literal["slaney", "none"]

# Slaney's mel scale is linear below 1 kHz, 200/3 Hz a mel, and logarithmic above: 27 mels span the
# factor 6.4.
_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


def hz_to_mel(frequency: Tensor, mel_scale: MelScale = "slaney") -> Tensor:
    """Convert frequencies [Hz] to mels; the same shape."""
    if mel_scale == "htk":
        return 2595.0 * torch.log10(1.0 + frequency / 700.0)
    logarithmic = _BREAK_MEL + torch.log(frequency.clamp(min=_BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return torch.where(frequency < _BREAK_HZ, frequency / _HZ_PER_MEL, logarithmic)


def mel_to_hz(mel: Tensor, mel_scale: MelScale = "slaney") -> Tensor:
    """Convert mels to frequencies [Hz]; the same shape."""
    if mel_scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    logarithmic = _BREAK_HZ * torch.exp(_LOG_STEP * (mel - _BREAK_MEL).clamp(min=0.0))
    return torch.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, logarithmic)


def mel_edges(
    *,
    sample_rate: int,
    n_mels: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    mel_scale: MelScale = "slaney",
) -> Tensor:
    """Place the filters' edges evenly in mels.

    Args:
        sample_rate: Rate of the waveform [Hz].
        n_mels: Number of filters.
        f_min: Lower edge of the first filter [Hz].
        f_max: Upper edge of the last filter [Hz]; None for half the sample rate.
        mel_scale: Slaney's or HTK's mel.

    Returns:
        Frequencies [n_mels + 2] in Hz, float64: filter m rises from edge m, peaks at edge m + 1
        and is back at zero at edge m + 2.
    """
    f_max = sample_rate / 2 if f_max is None else f_max
    low, high = hz_to_mel(torch.tensor([f_min, f_max], dtype=torch.float64), mel_scale).tolist()
    return mel_to_hz(torch.linspace(low, high, n_mels + 2, dtype=torch.float64), mel_scale)


def mel_heights(edges: Tensor, mel_norm: MelNorm) -> Tensor:
    """Give each filter's peak [n_mels]: "slaney" for equal areas, "none" for equal heights."""
    return 2.0 / (edges[2:] - edges[:-2]) if mel_norm == "slaney" else torch.ones_like(edges[2:])


def mel_filterbank(
    *,
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    mel_scale: MelScale = "slaney",
    mel_norm: MelNorm = "slaney",
    pitch_ratio: float = 1.0,
) -> Tensor:
    """Make triangular mel filters, on a scaled frequency axis if the pitch is to be shifted.

    Args:
        sample_rate: Rate of the waveform [Hz].
        n_fft: Length of the transform.
        n_mels: Number of filters.
        f_min: Lower edge of the first filter [Hz].
        f_max: Upper edge of the last filter [Hz]; None for half the sample rate.
        mel_scale: Slaney's or HTK's mel.
        mel_norm: "slaney" gives every filter the same area, "none" the same height.
        pitch_ratio: Frequencies are multiplied by it before they meet the filters.

    Returns:
        Filters [n_mels, n_fft // 2 + 1], float32.

    Source: librosa.filters.mel; equal to 1e-6 of the largest weight in tests/test_frontend.py.
    """
    # A signal shifted by p has the power spectrum S(f / p): mel band m of the shifted signal is
    # sum S(f / p) M_m(f) = sum S(f) M_m(p f), the same triangles read at p f. The density of the
    # shifted spectrum falls by p as its axis grows by p, so levels come out right as well. Bins
    # above f_max / p meet no filter and nothing can alias.
    edges = mel_edges(
        sample_rate=sample_rate, n_mels=n_mels, f_min=f_min, f_max=f_max, mel_scale=mel_scale
    )
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * (pitch_ratio * sample_rate / n_fft)
    slopes = edges[:, None] - bins
    widths = edges.diff()[:, None]
    rising, falling = -slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]
    filters = torch.minimum(rising, falling).clamp(min=0.0) * mel_heights(edges, mel_norm)[:, None]
    return filters.float()


def read_waveforms(reading: Reading, recipe: Recipe, n_time: int) -> Tensor:
    """Read clips from their circles, mix them, add noise.

    Args:
        reading: Where the samples are.
        recipe: Gains and noise.
        n_time: Samples a waveform.

    Returns:
        Waveforms [batch, n_time], float32.
    """
    time = torch.arange(n_time, device=reading.samples.device)
    position = (time + reading.start[..., None]) % reading.period[..., None]
    is_sound = position < reading.length[..., None]
    index = reading.begin[..., None] + torch.where(is_sound, position, 0)
    voices = reading.samples[index].float() * recipe.gain[..., None]
    waveform = voices.masked_fill_(~is_sound, 0.0).sum(0)
    if recipe.noise is None or recipe.noise_gain is None:
        return waveform
    piece = recipe.noise.unfold(0, n_time, 1)[recipe.noise_start]
    return waveform.addcmul_(piece, recipe.noise_gain[:, None])


def mask_bands(log_mel: Tensor, mask: Tensor) -> Tensor:
    """Set a band of mels and a stretch of time to 0, the training mean of a normalised log-mel.

    Args:
        log_mel: [batch, n_mels, frame].
        mask: First and past-the-last mel band, first and past-the-last frame [4, batch].

    Returns:
        [batch, n_mels, frame].

    Source: Park et al. 2019, "SpecAugment".
    """
    first_mel, end_mel, first_frame, end_frame = mask[..., None, None]
    mel = torch.arange(log_mel.shape[1], device=log_mel.device)[:, None]
    frame = torch.arange(log_mel.shape[2], device=log_mel.device)
    is_masked = (mel >= first_mel) & (mel < end_mel)
    is_masked = is_masked | ((frame >= first_frame) & (frame < end_frame))
    return log_mel.masked_fill(is_masked, 0.0)


def frame_starts(n_frames: int, hop_length: int, rate: Tensor) -> Tensor:
    """Place frames so that the clip is heard at another tempo.

    Frame k of a clip played at rate r shows what stands at k * hop_length * r in the original: a
    change of stride is a change of tempo. No vocoder is needed, for its work is to repair the
    phase, which a log-mel spectrogram throws away.

    Args:
        n_frames: Frames a clip.
        hop_length: Stride at rate 1 [samples].
        rate: Tempo factors [batch], above 1 is faster.

    Returns:
        First sample of each frame [batch, n_frames], int64.
    """
    frame = torch.arange(n_frames, device=rate.device)
    return torch.floor(frame * hop_length * rate[:, None].double() + 0.5).long()


def frame_waveform(
    waveform: Tensor, n_fft: int, hop_length: int, rate: Tensor | None = None
) -> Tensor:
    """Cut waveforms into centred, overlapping frames; there is silence before and after them.

    Args:
        waveform: Samples [batch, time].
        n_fft: Length of a frame.
        hop_length: Stride [samples].
        rate: Tempo factors [batch], above 1 is faster; None leaves the tempo as it is.

    Returns:
        Frames [batch, 1 + time // hop_length, n_fft]; without ``rate`` a view.
    """
    n_batch, n_time = waveform.shape
    n_frames = 1 + n_time // hop_length
    if rate is None:
        padded = F.pad(waveform, (n_fft // 2, n_fft - n_fft // 2))
        return padded.unfold(1, n_fft, hop_length)[:, :n_frames]
    # Faster clips end early: their last frames all read the silent n_fft samples at the very end.
    padded = F.pad(waveform, (n_fft // 2, n_fft // 2 + n_fft))
    starts = frame_starts(n_frames, hop_length, rate).clamp(max=n_time + n_fft // 2)
    row = torch.arange(n_batch, device=waveform.device)[:, None] * padded.shape[1]
    every_frame = padded.reshape(-1).unfold(0, n_fft, 1)
    return every_frame.index_select(0, (starts + row).reshape(-1)).view(n_batch, n_frames, n_fft)


def hann_window(n_fft: int, win_length: int) -> Tensor:
    """Make a periodic Hann window [n_fft] of ``win_length`` samples, centred between zeros."""
    margin = n_fft - win_length
    return F.pad(torch.hann_window(win_length), (margin // 2, margin - margin // 2))


def power_spectrum(frames: Tensor, window: Tensor) -> Tensor:
    """Take the squared magnitude of windowed frames' spectra.

    Args:
        frames: [..., n_fft].
        window: [n_fft].

    Returns:
        Power [..., n_fft // 2 + 1], non-negative.
    """
    spectrum: Tensor = torch.fft.rfft(frames * window)
    return spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)


def power_to_db_(power: Tensor, floor_db: float = -100.0) -> Tensor:
    """Convert power to decibels relative to 1, in place; what is below ``floor_db`` is set to it.

    Source: librosa.power_to_db(ref=1.0, amin=10 ** (floor_db / 10), top_db=None).
    """
    return power.clamp_(min=10.0 ** (floor_db / 10.0)).log10_().mul_(10.0)

"""From the bytes of samples to mono int16 at one rate, on the device that holds the bytes."""

from functools import reduce

import torch
from torch import Tensor

from audioml.decode.layout import FULL_SCALE, PcmLayout
from audioml.decode.resampling import resample


def pcm_to_channels(data: Tensor, layout: PcmLayout) -> Tensor:
    """Convert samples to float32.

    Args:
        data: Whole frames [byte], uint8, contiguous; a part of a larger tensor must begin at a
            multiple of 8 bytes.
        layout: How the samples are laid out.

    Returns:
        Samples [time, channel], float32, full scale at 1; 32 bit floats are a view of ``data``.

    Source: soundfile.read(dtype="float32"), equal to the last bit in tests/test_decode.py.
    """
    match layout.sample_format:
        case "u8":
            samples = data.float().sub_(128).div_(128)
        case "s16":
            samples = data.view(torch.int16).float().div_(FULL_SCALE)
        case "s24":
            low, middle, high = data.view(-1, 3).unbind(dim=1)
            samples = high.view(torch.int8).float().mul_(2**16)
            samples.add_(middle, alpha=2**8).add_(low).div_(2**23)
        case "s32":
            samples = data.view(torch.int32).float().div_(2**31)
        case "f32":
            samples = data.view(torch.float32)
        case "f64":
            samples = data.view(torch.float64).float()
    return samples.view(-1, layout.n_channels)


def pcm_to_waveform(data: Tensor, layout: PcmLayout) -> Tensor:
    """Convert samples to float32 and average the channels.

    Returns:
        Samples [time], otherwise as ``pcm_to_channels``.
    """
    first, *others = pcm_to_channels(data, layout).unbind(dim=1)
    return reduce(torch.add, others, first) / layout.n_channels if others else first


def to_int16(data: Tensor, layout: PcmLayout, sample_rate: int, n_clips: int = 1) -> Tensor:
    """Convert samples, mix them to mono, resample and round.

    Nothing waits for the device: all sizes follow from the layout.

    Args:
        data: Whole frames [byte], uint8, at least one, as for ``pcm_to_channels``.
        layout: How the samples are laid out.
        sample_rate: The wanted rate [Hz].
        n_clips: Clips of equal length that ``data`` holds one after another.

    Returns:
        Samples [n_clips * resampled_length], int16, full scale at 32,768, on the same device;
        louder ones are clipped. 16 bit mono at the wanted rate is a view of ``data``.
    """
    is_wanted_rate = layout.sample_rate == sample_rate
    if is_wanted_rate and layout.sample_format == "s16" and layout.n_channels == 1:
        return data.view(torch.int16)
    waveform = pcm_to_waveform(data, layout)
    if not is_wanted_rate:
        clips = waveform.view(n_clips, -1)
        waveform = resample(clips, layout.sample_rate, sample_rate).flatten()
    return waveform.mul(FULL_SCALE).round_().clamp_(-FULL_SCALE, FULL_SCALE - 1).to(torch.int16)

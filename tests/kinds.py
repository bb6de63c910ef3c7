"""Log-mels by every kind of front end, from the same samples."""

import torch
from kernel_device import KERNEL_DEVICE, can_run_kernels

from audioml.decode import FULL_SCALE
from audioml.frontend import LogMel
from audioml.frontend.recipe import Reading, Recipe

KINDS = ["torch", "torchaudio", "nnaudio", *["triton"] * can_run_kernels()]
IS_INTERPRETED = KERNEL_DEVICE.type == "cpu"  # Triton; a second of sound takes it seconds


def to_steps(waveform):
    """Round samples to those that an int16 holds, so that all kinds can be given the same."""
    return (waveform * FULL_SCALE).round() / FULL_SCALE


def compute(kind, waveform, rate=None, semitones=None, response=None, **settings):
    """Log-mels on the CPU; those of Triton from a store's int16 samples."""
    frontend = LogMel(kind=kind, **settings)
    if kind != "triton":
        return frontend(waveform, rate, semitones, response)
    gain = torch.full((1, len(waveform)), 1 / FULL_SCALE)
    recipe = Recipe(gain=gain, rate=rate, semitones=semitones, response=response)
    samples = (waveform * FULL_SCALE).round().to(torch.int16).to(KERNEL_DEVICE)
    frontend.to(KERNEL_DEVICE)
    reading = Reading.of_waveforms(samples[None])
    return frontend.render(reading, recipe.to(KERNEL_DEVICE), waveform.shape[1]).cpu()

"""Augmentation of waveforms and log-mels: drawn by counter, applied in batches on the device."""

from audioml.augment.transforms import VARIANTS, Augment, Draws

__all__ = ["VARIANTS", "Augment", "Draws"]

"""Sound classification, GPU-first and on the fly: no spectrogram ever touches the disk."""

__version__ = "0.1.0"

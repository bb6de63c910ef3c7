"""From waveform to log-mel spectrogram, pitch and tempo changed on the way without any phase."""

from audioml.frontend.backends import choose_kind
from audioml.frontend.levels import BandLevels
from audioml.frontend.logmel import LogMel

__all__ = ["BandLevels", "LogMel", "choose_kind"]

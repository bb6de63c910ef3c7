"""From waveform to log-mel spectrogram, pitch and tempo changed on the way without any phase."""

from audioml.frontend.backends import choose_kind
from audioml.frontend.levels import BandLevels
from audioml.frontend.logmel import LogMel
from audioml.frontend.nnaudio import LogCqt, TrainableLogMel
from audioml.frontend.windows import MultiWindowLogMel

__all__ = [
    "BandLevels",
    "LogCqt",
    "LogMel",
    "MultiWindowLogMel",
    "TrainableLogMel",
    "choose_kind",
]

"""From waveform to log-mel spectrogram, pitch and tempo changed on the way without any phase."""

from audioml.frontend.logmel import LogMel, choose_kind

__all__ = ["LogMel", "choose_kind"]

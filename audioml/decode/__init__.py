"""From an audio file to samples."""

from audioml.decode.recording import (
    FULL_SCALE,
    DecodeError,
    Recording,
    decode_clip,
    read_recording,
    thread_pool,
    to_int16,
)
from audioml.decode.resampling import resample, resampled_length

__all__ = [
    "FULL_SCALE",
    "DecodeError",
    "Recording",
    "decode_clip",
    "read_recording",
    "resample",
    "resampled_length",
    "thread_pool",
    "to_int16",
]

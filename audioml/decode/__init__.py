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

__all__ = [
    "FULL_SCALE",
    "DecodeError",
    "Recording",
    "decode_clip",
    "read_recording",
    "thread_pool",
    "to_int16",
]

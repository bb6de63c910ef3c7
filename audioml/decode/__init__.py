"""From an audio file to samples: bytes on the CPU, everything else on the device."""

from audioml.decode.device import pcm_to_channels, pcm_to_waveform, to_int16
from audioml.decode.layout import (
    FULL_SCALE,
    DecodeError,
    PcmLayout,
    check_conversion,
    make_layout,
)
from audioml.decode.payload import Payload, allocate_array, measure_file, read_payload, scan_length
from audioml.decode.recording import Recording, decode_clip, read_recording, thread_pool
from audioml.decode.resampling import resample, resampled_length

__all__ = [
    "FULL_SCALE",
    "DecodeError",
    "Payload",
    "PcmLayout",
    "Recording",
    "allocate_array",
    "check_conversion",
    "decode_clip",
    "make_layout",
    "measure_file",
    "pcm_to_channels",
    "pcm_to_waveform",
    "read_payload",
    "read_recording",
    "resample",
    "resampled_length",
    "scan_length",
    "thread_pool",
    "to_int16",
]

"""How the samples of a file are laid out in memory, and what is believed about them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

SampleFormat = Literal["u8", "s16", "s24", "s32", "f32", "f64"]

FULL_SCALE: Final = 32_768.0
SAMPLE_BYTES: Final[dict[SampleFormat, int]] = {
    "u8": 1,
    "s16": 2,
    "s24": 3,
    "s32": 4,
    "f32": 4,
    "f64": 8,
}
MAX_CHANNELS: Final = 255
# From slow sensors (seismic, heart sounds) to ultrasound recorders. A header that says something
# else is damaged, and would ask for a filter or a result of any size.
MIN_SAMPLE_RATE: Final = 100
MAX_SAMPLE_RATE: Final = 1_000_000


class DecodeError(ValueError):
    """A file that can't be used; the message names it and says what is wrong."""


@dataclass(frozen=True, slots=True)
class PcmLayout:
    """The layout of uncompressed samples: little endian, channels interleaved.

    Args:
        sample_format: Unsigned 8 bit, signed 16, 24 or 32 bit, or a 32 or 64 bit float.
        n_channels: Channels, 1 to 255.
        sample_rate: Frames a second [Hz].
    """

    sample_format: SampleFormat
    n_channels: int
    sample_rate: int

    @property
    def frame_bytes(self) -> int:
        """Size of a frame, one sample of each channel."""
        return SAMPLE_BYTES[self.sample_format] * self.n_channels


def check_layout(path: Path, layout: PcmLayout) -> PcmLayout:
    """Return a layout read from a file's header if it can be true.

    Raises:
        DecodeError: If the number of channels or the sample rate is out of bounds.
    """
    if not 1 <= layout.n_channels <= MAX_CHANNELS:
        raise DecodeError(
            f"{path}: its header says {layout.n_channels} channels, expected 1 to {MAX_CHANNELS}; "
            "replace the file"
        )
    if not MIN_SAMPLE_RATE <= layout.sample_rate <= MAX_SAMPLE_RATE:
        raise DecodeError(
            f"{path}: its header says {layout.sample_rate} Hz, expected {MIN_SAMPLE_RATE} to "
            f"{MAX_SAMPLE_RATE} Hz; replace the file"
        )
    return layout

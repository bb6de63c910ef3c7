"""How the samples of a file are laid out in memory, and what is believed about them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from audioml.decode.resampling import resampled_length

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
# What a small file can make grow: its rate says how many samples it becomes. From heart sounds to
# music it takes a ratio of 50, from ultrasound to speech one of 63.
MAX_RATIO: Final = 128
# Of a clip, all channels counted, before and after resampling: 2 GiB as float32, 6 hours of mono.
MAX_CLIP_SAMPLES: Final = 1 << 29


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


def make_layout(path: Path, sample_format: str, n_channels: int, sample_rate: int) -> PcmLayout:
    """Make the layout that an index of files tells of, if it can be true.

    Raises:
        DecodeError: If it can't; names the file.
    """
    known = next((name for name in SAMPLE_BYTES if name == sample_format), None)
    if known is None:
        raise DecodeError(f"{path}: samples of format {sample_format!r}; mend the index")
    return check_layout(path, PcmLayout(known, n_channels, sample_rate))


def check_conversion(path: Path, layout: PcmLayout, n_frames: int, sample_rate: int) -> None:
    """Refuse samples that another rate would turn into any number of samples.

    Args:
        path: Their file.
        layout: How they are laid out.
        n_frames: How many frames there are.
        sample_rate: The wanted rate [Hz].

    Raises:
        DecodeError: If the rates are more than ``MAX_RATIO`` times apart, or there would be more
            than ``MAX_CLIP_SAMPLES``.
    """
    low, high = sorted((layout.sample_rate, sample_rate))
    if high > MAX_RATIO * low:
        raise DecodeError(
            f"{path}: its header says {layout.sample_rate} Hz, more than {MAX_RATIO} times away "
            f"from audio.sample_rate={sample_rate}; set audio.sample_rate, or replace the file"
        )
    check_size(path, resampled_length(n_frames, layout.sample_rate, sample_rate))


def check_size(path: Path, n_samples: int) -> None:
    """Refuse more than ``MAX_CLIP_SAMPLES`` at once.

    Raises:
        DecodeError: If there are more; names the file.
    """
    if n_samples > MAX_CLIP_SAMPLES:
        raise DecodeError(
            f"{path}: a clip of {n_samples:,} samples, at most {MAX_CLIP_SAMPLES:,} are expected; "
            "cut it into shorter files"
        )

"""From a file to the bytes of its samples, for the device to make sense of."""

import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from audioml.decode.layout import (
    MAX_CLIP_SAMPLES,
    DecodeError,
    PcmLayout,
    check_layout,
    check_size,
)
from audioml.decode.wav import UNKNOWN_SIZE, WavSamples, find_samples

Bytes = NDArray[np.uint8]

# Music takes 4 to 30 times its size as float32, speech up to 100 times, silence thousands. A
# header that claims more than this is believed once the file has been decoded to its end.
PLAUSIBLE_EXPANSION: Final = 256
PLAUSIBLE_BYTES: Final = 64 << 20
_UNKNOWN_FRAMES: Final = 2**63 - 1  # libsndfile's, of FLAC files that were written to a pipe
_LARGEST_OGG_PAGE: Final = 65_307
_BLOCK_SAMPLES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Payload:
    """The samples of a file, or of a part of it, as stored; those of compressed files as float32.

    Args:
        layout: How they are laid out.
        data: Whole frames [byte], at least one.
    """

    layout: PcmLayout
    data: Bytes

    @property
    def n_frames(self) -> int:
        """How many frames there are."""
        return len(self.data) // self.layout.frame_bytes


class _Samples(NamedTuple):
    """An open file's samples: their layout, how many there are, and what reads some of them.

    ``read`` fills an array with the frames from a given one on and returns the bytes it read.
    """

    layout: PcmLayout
    n_frames: int
    read: Callable[[int, Bytes], int]


def allocate_array(n_bytes: int) -> Bytes:
    """Make an array for so many bytes."""
    return np.empty(n_bytes, dtype=np.uint8)


def read_payload(
    path: Path,
    start_s: float = 0.0,
    end_s: float | None = None,
    allocate: Callable[[int], Bytes] = allocate_array,
    contents: bytes | None = None,
) -> Payload:
    """Read the samples of a file, or of a part of it, without converting them.

    The samples of a plain WAV file go from the file into the array, nothing else is read; other
    files are decoded into it. A file's header alone never makes for a large array: it must agree
    with the file's size or, for compressed files beyond ``PLAUSIBLE_EXPANSION``, its content. No
    array is larger than ``MAX_CLIP_SAMPLES``.

    Args:
        path: WAV, FLAC, Ogg or MP3: whatever libsndfile reads.
        start_s: First second to read.
        end_s: Where to stop [s]; None for the end.
        allocate: Makes the array for so many bytes, in pinned memory for instance.
        contents: What stands in the file, if it is in memory; then ``path`` only names it.

    Returns:
        The samples.

    Raises:
        DecodeError: If the file is missing, empty, cut short, not audio, holds NaN or infinite
            samples, does not reach from ``start_s`` to ``end_s``, or is too long to be a clip.
    """
    with _open_samples(path, contents) as samples:
        start, stop = _select_frames(path, samples, start_s, end_s)
        data = allocate((stop - start) * samples.layout.frame_bytes)
        if samples.read(start, data) < len(data):
            raise DecodeError(f"{path}: cut short, its end is missing; replace the file")
    _check_finite(path, samples.layout, data)
    return Payload(samples.layout, data)


def scan_length(
    path: Path, start_s: float = 0.0, end_s: float | None = None
) -> tuple[PcmLayout, int]:
    """Say what ``read_payload`` would return from the file's header, without reading the samples.

    Returns:
        The layout and the number of frames.

    Raises:
        DecodeError: As ``read_payload``, but for what only shows in the samples.
    """
    with _open_samples(path) as samples:
        start, stop = _select_frames(path, samples, start_s, end_s)
    return samples.layout, stop - start


def measure_file(path: Path) -> tuple[PcmLayout, int]:
    """Say how a file's samples are laid out and how many frames it has, however long it is.

    Raises:
        DecodeError: As ``read_payload``, but for what only shows in the samples.
    """
    with _open_samples(path) as samples:
        if not samples.n_frames:
            raise DecodeError(f"{path}: no samples in it; replace the file")
        return samples.layout, samples.n_frames


@contextmanager
def _open_samples(path: Path, contents: bytes | None = None) -> Iterator[_Samples]:
    """Open a file as plain WAV or else with libsndfile; errors in the block are put in words."""
    try:
        with ExitStack() as stack:
            file = _open_file(path) if contents is None else io.BytesIO(contents)
            stack.enter_context(file)
            n_stored = file.seek(0, os.SEEK_END)
            if not n_stored:
                raise DecodeError(f"{path}: the file is empty; replace it")
            found = find_samples(file, path)
            if found is not None:
                yield _Samples(found.layout, found.n_frames, partial(_read_wav, file, found))
                return
            file.seek(max(n_stored - _LARGEST_OGG_PAGE, 0))
            end = file.read()
            file.seek(0)
            handle: BufferedIOBase | int = file
            if contents is None:
                # By number, for libsndfile has its own idea of "-", .raw, .gsm and .vox in a name.
                handle = file.fileno()
                os.lseek(handle, 0, os.SEEK_SET)  # below the buffer
            sound = stack.enter_context(soundfile.SoundFile(handle, closefd=False))
            yield _check_sound(path, sound, n_stored, end)
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror or error}; check the path") from error
    except soundfile.LibsndfileError as error:
        raise DecodeError(
            f"{path}: not readable as audio ({error.error_string.rstrip('.')}); replace it, or "
            "convert it: ffmpeg -i FILE OTHER.wav"
        ) from error


def _open_file(path: Path) -> BufferedIOBase:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe waits for a writer, for ever
        raise DecodeError(f"{path}: a folder, pipe or device, not a file; replace it")
    return path.open("rb")


def _read_wav(file: BufferedIOBase, found: WavSamples, start: int, data: Bytes) -> int:
    file.seek(found.offset + start * found.layout.frame_bytes)
    return file.readinto(data.data)


def _check_sound(path: Path, sound: soundfile.SoundFile, n_stored: int, end: bytes) -> _Samples:
    """Compare what libsndfile found with the file's size and last bytes."""
    layout = check_layout(path, PcmLayout("f32", sound.channels, sound.samplerate))
    if sound.frames == _UNKNOWN_FRAMES:
        raise DecodeError(f"{path}: its header does not say how long it is; encode it anew")
    n_bytes = sound.frames * layout.frame_bytes
    is_plausible = n_bytes <= max(PLAUSIBLE_BYTES, PLAUSIBLE_EXPANSION * n_stored)
    if not is_plausible and n_bytes > 4 * MAX_CLIP_SAMPLES:
        raise DecodeError(
            f"{path}: its header says {sound.frames} samples of {sound.channels} channels, too "
            f"many for {n_stored} bytes; replace the file"
        )
    if _is_cut_short(sound, end) or not (is_plausible or _count_frames(sound) == sound.frames):
        raise DecodeError(f"{path}: cut short, its end is missing; replace the file")
    return _Samples(layout, sound.frames, partial(_read_sound, sound))


def _read_sound(sound: soundfile.SoundFile, start: int, data: Bytes) -> int:
    if start or sound.seekable():  # GSM is not, and stands at its beginning
        sound.seek(start)
    return 4 * int(sound.channels * sound.buffer_read_into(data.data, dtype="float32"))


def _count_frames(sound: soundfile.SoundFile) -> int:
    """Decode a file to its end, keeping nothing."""
    shape = _BLOCK_SAMPLES // sound.channels, sound.channels
    block, n_frames = np.empty(shape, dtype=np.float32), 0
    while n_read := sound.buffer_read_into(block.data, dtype="float32"):
        n_frames += n_read
    return n_frames


def _is_cut_short(sound: soundfile.SoundFile, end: bytes) -> bool:
    """Tell whether a file lost its end; libsndfile reads what is left without a word."""
    if sound.format == "OGG":
        # The last page says so (RFC 3533, section 6), and is as long as its segments add up to.
        page = end[end.rfind(b"OggS") :]
        header = page[: 27 + page[26]] if len(page) > 26 else b""
        return not header or not header[5] & 4 or len(page) < len(header) + sum(header[27:])
    # WAV, AIFF, AU, W64 and RF64, each in its own words.
    pattern = r"^ *(?:data|SSND|Data Size|riff|Riff size) +: (\d+) \(should be (\d+)\)"
    sizes = re.search(pattern, sound.extra_info, re.MULTILINE)
    return sizes is not None and int(sizes[2]) < int(sizes[1]) < UNKNOWN_SIZE


def _select_frames(
    path: Path, samples: _Samples, start_s: float, end_s: float | None
) -> tuple[int, int]:
    """Turn seconds into frames [start, stop)."""
    rate, n_stored = samples.layout.sample_rate, samples.n_frames
    start = round(start_s * rate)
    stop = n_stored if end_s is None else round(end_s * rate)
    if not 0 <= start < stop <= n_stored:
        raise DecodeError(
            f"{path}: no samples from {start_s:g} s to "
            f"{'the end' if end_s is None else f'{end_s:g} s'}; "
            f"the file has {n_stored} samples at {rate} Hz; mend start_s and end_s"
        )
    check_size(path, (stop - start) * samples.layout.n_channels)
    return start, stop


def _check_finite(path: Path, layout: PcmLayout, data: Bytes) -> None:
    if not layout.sample_format.startswith("f"):
        return
    with np.errstate(over="ignore"):  # a 64 bit float beyond float32 is as good as infinite
        values = data.view(f"<{layout.sample_format[0]}{layout.frame_bytes // layout.n_channels}")
        is_finite = np.isfinite(values.astype(np.float32, copy=False))
    if not is_finite.all():
        n_bad = len(is_finite) - np.count_nonzero(is_finite)
        raise DecodeError(f"{path}: {n_bad} samples are NaN or infinite; replace the file")

"""From an audio file to samples: read, cut, mix to mono, resample, round to int16."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from audioml.decode.layout import FULL_SCALE, DecodeError

_UNKNOWN_SIZE = 0xFFFFF000
_LARGEST_OGG_PAGE = 65_307


@dataclass(frozen=True, slots=True)
class Recording:
    """What a file holds.

    Args:
        waveform: Samples [time, channel], float32, full scale at 1.
        sample_rate: The file's own rate [Hz].
    """

    waveform: NDArray[np.float32]
    sample_rate: int


def read_recording(path: Path, start_s: float = 0.0, end_s: float | None = None) -> Recording:
    """Read a file, or a part of it, as it is.

    Args:
        path: WAV, FLAC, Ogg or MP3: whatever libsndfile reads.
        start_s: First second to read.
        end_s: Where to stop [s]; None for the end.

    Returns:
        The samples and their rate.

    Raises:
        DecodeError: If the file is missing, empty, cut short, not audio, holds NaN or infinite
            samples, or does not reach from ``start_s`` to ``end_s``.
    """
    try:
        if not path.stat().st_size:
            raise DecodeError(f"{path}: the file is empty; replace it")
        with soundfile.SoundFile(path) as file:
            rate, n_stored = int(file.samplerate), int(file.frames)
            start = round(start_s * rate)
            stop = n_stored if end_s is None else round(end_s * rate)
            if not 0 <= start < stop <= n_stored:
                raise DecodeError(
                    f"{path}: no samples from {start_s:g} s to "
                    f"{'the end' if end_s is None else f'{end_s:g} s'}; "
                    f"the file has {n_stored} samples at {rate} Hz; mend start_s and end_s"
                )
            file.seek(start)
            waveform = file.read(stop - start, dtype="float32", always_2d=True)
            is_cut_short = len(waveform) < stop - start or _is_cut_short(path, file)
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror or error}; check the path") from error
    except soundfile.LibsndfileError as error:
        raise DecodeError(
            f"{path}: not readable as audio ({error.error_string.rstrip('.')}); replace the file"
        ) from error
    if is_cut_short:
        raise DecodeError(f"{path}: cut short, its end is missing; replace the file")
    if not np.isfinite(waveform).all():
        n_bad = int((~np.isfinite(waveform)).sum())
        raise DecodeError(f"{path}: {n_bad} samples are NaN or infinite; replace the file")
    return Recording(waveform, rate)


def _is_cut_short(path: Path, file: soundfile.SoundFile) -> bool:
    """Tell whether a WAV or Ogg file lost its end; libsndfile reads what is left without a word."""
    if file.format.startswith("WAV"):
        # Programs that write to a pipe can't know the size and put the largest number there.
        sizes = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
        return sizes is not None and int(sizes[2]) < int(sizes[1]) < _UNKNOWN_SIZE
    if file.format == "OGG":
        # The last page says so (RFC 3533, section 6), and is as long as its segments add up to.
        with path.open("rb") as stream:
            stream.seek(max(path.stat().st_size - _LARGEST_OGG_PAGE, 0))
            page = stream.read()
        page = page[page.rfind(b"OggS") :]
        header = page[: 27 + page[26]] if len(page) > 26 else b""
        return not header or not header[5] & 4 or len(page) < len(header) + sum(header[27:])
    return False


def to_int16(recording: Recording, sample_rate: int) -> NDArray[np.int16]:
    """Mix to mono, resample and round.

    Args:
        recording: Samples [time, channel] at their own rate.
        sample_rate: The wanted rate [Hz].

    Returns:
        Samples [time], at least one, int16, full scale at 32,768; louder ones are clipped.
    """
    waveform = recording.waveform.mean(axis=1)
    if recording.sample_rate != sample_rate:
        resampled = soxr.resample(waveform, recording.sample_rate, sample_rate, quality="HQ")
        waveform = resampled if len(resampled) else waveform[:1]  # a few samples may come to none
    scaled = np.rint(waveform * FULL_SCALE)
    samples: NDArray[np.int16] = np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    return samples


def decode_clip(
    path: Path, sample_rate: int, start_s: float = 0.0, end_s: float | None = None
) -> NDArray[np.int16]:
    """Read a clip as mono int16 at ``sample_rate``; see ``read_recording`` and ``to_int16``."""
    return to_int16(read_recording(path, start_s, end_s), sample_rate)


def thread_pool(n_threads: int = 0) -> ThreadPoolExecutor:
    """Make a pool for decoding; libsndfile and soxr release the GIL.

    Args:
        n_threads: Threads, 0 for Python's choice by the number of cores.
    """
    return ThreadPoolExecutor(max_workers=n_threads or None, thread_name_prefix="decode")

"""From a file to its samples on the CPU."""

import os
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

import numpy as np
import torch
from numpy.typing import NDArray

from audioml.decode.device import pcm_to_channels, to_int16
from audioml.decode.layout import check_conversion
from audioml.decode.payload import read_payload
from audioml.threads import one_thread_an_operation


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
        DecodeError: As ``read_payload``.
    """
    payload = read_payload(path, start_s, end_s)
    samples = pcm_to_channels(torch.from_numpy(payload.data), payload.layout)
    return Recording(samples.numpy(), payload.layout.sample_rate)


def decode_clip(
    path: Path, sample_rate: int, start_s: float = 0.0, end_s: float | None = None
) -> NDArray[np.int16]:
    """Read a clip as mono int16 at ``sample_rate``; see ``read_payload`` and ``to_int16``."""
    payload = read_payload(path, start_s, end_s)
    check_conversion(path, payload.layout, payload.n_frames, sample_rate)
    samples: NDArray[np.int16] = to_int16(
        torch.from_numpy(payload.data), payload.layout, sample_rate
    ).numpy()
    return samples


def thread_pool(n_threads: int = 0) -> ThreadPoolExecutor:
    """Make a pool for decoding; files are read, decoded and converted without the GIL.

    Operations of torch run in the thread that asks for them. That can only be set for threads to
    come as well: so the pool's begin at once, before the number is put back for all others.

    Args:
        n_threads: Threads, 0 for Python's choice by the number of cores.
    """
    n_threads = n_threads or min(32, (os.cpu_count() or 1) + 4)
    pool = ThreadPoolExecutor(n_threads, "decode", initializer=torch.get_num_threads)
    all_begun = Barrier(n_threads)
    with one_thread_an_operation():
        wait([pool.submit(all_begun.wait) for _ in range(n_threads)])
    return pool

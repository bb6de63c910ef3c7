"""What the cases work on: the clips, the chain's settings, and the log-mels to compare with."""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

import ours
from audioml.datasets.esc50 import AUDIO_SUFFIXES

N_COMPARED = 4  # clips whose log-mels are compared with the reference
_WORKER_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The work to be done on a clip; mels are Slaney's in scale and norm, levels in dB.

    Args:
        sample_rate: Rate of the clips [Hz].
        clip_s: Their length [s].
        n_fft: Length of the transform and of the window.
        hop_length: Samples between frames.
        n_mels: Mel bands.
        snr_db: Range of the noise's signal-to-noise ratio.
        semitones: Range of the pitch shift.
        rate: Range of the tempo.
    """

    sample_rate: int = 22_050
    clip_s: float = 5.0
    n_fft: int = 2048
    hop_length: int = 512
    n_mels: int = 128
    snr_db: tuple[float, float] = (5.0, 30.0)
    semitones: tuple[float, float] = (-2.0, 2.0)
    rate: tuple[float, float] = (0.9, 1.1)

    @property
    def n_time(self) -> int:
        """Samples a clip."""
        return round(self.clip_s * self.sample_rate)

    @property
    def n_frames(self) -> int:
        """Frames a clip."""
        return 1 + self.n_time // self.hop_length

    @property
    def least_bytes(self) -> int:
        """Bytes a clip that nothing can avoid to move: int16 in, float32 log-mel out."""
        return 2 * self.n_time + 4 * self.n_mels * self.n_frames

    @property
    def frontend(self) -> dict[str, int]:
        """What the project's log-mel module needs to know."""
        return {
            "sample_rate": self.sample_rate,
            "n_fft": self.n_fft,
            "hop_length": self.hop_length,
            "n_mels": self.n_mels,
        }

    def describe(self) -> str:
        """Write the settings in a line."""
        return (
            f"{self.clip_s:g} s at {self.sample_rate:,} Hz, n_fft {self.n_fft}, hop "
            f"{self.hop_length}, {self.n_mels} mels (Slaney), dB"
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a case is given.

    Args:
        chain: The work.
        samples: The clips [clip, time], int16, in host memory.
        resident: The same on the device.
        batch_size: Clips a batch.
        workers: Processes of a DataLoader.
        folder: For files, removed at the end.
    """

    chain: Chain
    samples: Tensor
    resident: Tensor
    batch_size: int
    workers: int
    folder: Path

    @property
    def device(self) -> torch.device:
        """Where the log-mels are wanted."""
        return self.resident.device

    @property
    def worker_batch(self) -> int:
        """Clips a batch where processes make it; larger ones only wait longer."""
        return min(self.batch_size, _WORKER_BATCH)

    def batches(self) -> Callable[[], Tensor]:
        """Make an endless source of batches [batch, time], int16, from all clips in turn."""
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(self.samples), generator=generator).to(self.device)
        parts = cycle(order.split(self.batch_size)[: len(order) // self.batch_size])
        return lambda: self.resident[next(parts)]


@contextmanager
def open_job(options: argparse.Namespace, chain: Chain) -> Iterator[Job]:
    """Make or read the clips, and a folder that goes at the end.

    Args:
        options: The command line.
        chain: The work.

    Raises:
        ValueError: If there are fewer clips than a batch takes.
    """
    samples = load_samples(options, chain, options.clips)
    if len(samples) < options.batch:
        raise ValueError(f"--batch {options.batch} needs as many clips, got {len(samples)}")
    with tempfile.TemporaryDirectory() as folder:
        yield Job(
            chain=chain,
            samples=samples,
            resident=samples.to(options.device),
            batch_size=options.batch,
            workers=options.workers,
            folder=Path(folder),
        )


def load_samples(options: argparse.Namespace, chain: Chain, n_clips: int) -> Tensor:
    """Read clips [clip, time], int16, from the data set the options name, or generate them."""
    if options.data is None:
        clips = make_clips(n_clips, chain.sample_rate, chain.n_time, options.seed)
    else:
        clips = read_clips(options.data, n_clips, chain.sample_rate, chain.n_time)
    return torch.from_numpy(clips)


def to_float(samples: Tensor) -> Tensor:
    """Convert int16 to float32, full scale at 1."""
    return samples.float().mul_(1.0 / 32_768.0)


def make_clips(n_clips: int, sample_rate: int, n_time: int, seed: int) -> NDArray[np.int16]:
    """Generate clips: a few decaying partials over noise of another colour each.

    Args:
        n_clips: How many.
        sample_rate: Their rate [Hz].
        n_time: Their length [samples].
        seed: The same seed gives the same clips.

    Returns:
        [clip, time].
    """
    g = np.random.default_rng(seed)
    time = np.arange(n_time, dtype=np.float32) / sample_rate
    clips = np.empty((n_clips, n_time), np.int16)
    for clip in clips:
        noise = g.standard_normal(n_time, dtype=np.float32)
        wave = g.uniform(0.005, 0.05) * (noise + g.uniform(0, 0.9) * np.roll(noise, 1))
        pitch = g.uniform(80, 800)
        for partial in range(1, 5):
            decay = np.exp(-time * g.uniform(0.3, 3.0))
            wave += g.uniform(0.02, 0.15) * decay * np.sin(2 * np.pi * pitch * partial * time)
        clip[:] = np.clip(np.rint(wave * 32_767), -32_768, 32_767)
    return clips


def read_clips(folder: Path, n_clips: int, sample_rate: int, n_time: int) -> NDArray[np.int16]:
    """Decode the first clips of a data set in ESC-50's layout, cut or padded to one length.

    Returns:
        [clip, time].
    """
    files = [f for f in sorted((folder / "audio").glob("*")) if f.suffix in AUDIO_SUFFIXES]
    if not files:
        raise ValueError(f"--data {folder}: no {', '.join(AUDIO_SUFFIXES)} files in its audio/")
    samples = np.zeros((min(n_clips, len(files)), n_time), np.int16)
    for row, file in zip(samples, files, strict=False):
        decoded = ours.decode(file, sample_rate)[:n_time]
        row[: len(decoded)] = decoded
    return samples


def write_wav_files(folder: Path, samples: NDArray[np.int16], sample_rate: int) -> list[Path]:
    """Write clips [clip, time] as 16-bit WAV files, once a folder."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"{index:05d}.wav" for index in range(len(samples))]
    for file, clip in zip(files, samples, strict=True):
        if not file.is_file():
            soundfile.write(file, clip, sample_rate, subtype="PCM_16")
    return files


def librosa_log_mel(waveform: NDArray[np.floating], chain: Chain) -> NDArray[np.floating]:
    """Compute librosa's log-mels [..., mel, frame] in dB, in the waveform's precision."""
    import librosa

    mel = librosa.feature.melspectrogram(
        y=waveform,
        sr=chain.sample_rate,
        n_fft=chain.n_fft,
        hop_length=chain.hop_length,
        n_mels=chain.n_mels,
        pad_mode="constant",
        dtype=waveform.dtype,
    )
    return librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=None)


def reference_db(samples: Tensor, chain: Chain) -> Tensor:
    """Compute the reference log-mels [clip, mel, frame] of the first clips, in float64."""
    waveform = samples[:N_COMPARED].numpy().astype(np.float64) / 32_768
    return torch.from_numpy(librosa_log_mel(waveform, chain))

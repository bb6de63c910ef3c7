"""All that the benchmarks use of this project; what is reworked there is followed here."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audioml.augment import Augment
from audioml.clips import collect, decode_all, scan_headers
from audioml.config import (
    AugmentConfig,
    GainConfig,
    MaskConfig,
    MixupConfig,
    ModelConfig,
    NoiseConfig,
    PitchConfig,
    ShiftConfig,
    StretchConfig,
)
from audioml.datasets.manifest import Clip, Manifest
from audioml.decode import decode_clip
from audioml.frontend import LogMel, choose_kind
from audioml.frontend.functional import mel_filterbank
from audioml.frontend.recipe import Reading, Recipe
from audioml.loader import Batch, Loader
from audioml.models import MODELS, build_model
from audioml.store import WaveformStore
from audioml.threads import one_thread_an_operation

__all__ = ["AugmentConfig", "one_thread_an_operation"]

N_CLASSES = 50


def make_frontend(*, device: torch.device, max_semitones: float = 0.0, **settings: int) -> LogMel:
    """Make the log-mel module, of the kind a run would choose; without statistics it returns dB.

    Args:
        device: Where it runs.
        max_semitones: Largest pitch shift that will be asked for.
        **settings: sample_rate [Hz], n_fft, hop_length and n_mels.
    """
    kind = choose_kind("auto", device)
    win_length = settings["n_fft"]
    return LogMel(max_semitones=max_semitones, win_length=win_length, kind=kind, **settings).to(
        device
    )


def make_log_mel(*, device: torch.device, **settings: int) -> Callable[[Tensor], Tensor]:
    """Make a function from int16 clips [clip, time] to plain log-mels [clip, mel, frame] in dB."""
    frontend = make_frontend(device=device, **settings)

    def log_mel(samples: Tensor) -> Tensor:
        reading = Reading.of_waveforms(samples[None])
        gain = torch.full(reading.begin.shape, 1 / 32_768, device=device)
        return frontend.render(reading, Recipe(gain=gain), samples.shape[1])

    return log_mel


def mel_filters(*, sample_rate: int, n_fft: int, n_mels: int, **_: int) -> Tensor:
    """Make the filters [mel, freq], equal to librosa's, for chains written by hand."""
    return mel_filterbank(sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels)


def make_loader(
    samples: Tensor,
    *,
    device: torch.device,
    batch_size: int,
    augment: AugmentConfig | None,
    **settings: int,
) -> Loader:
    """Make a loader over clips that are resident on the device.

    Args:
        samples: The clips [clip, time], int16, in host memory.
        device: Where they are kept and the log-mels are wanted.
        batch_size: Clips a batch.
        augment: What is done to them; None for plain log-mels.
        **settings: The front end's, see ``make_frontend``.
    """
    n_clips, n_time = samples.shape
    place = "device" if device.type == "cuda" else "host"
    clips = collect(list(samples.numpy()))
    augmentation = augment and Augment(
        augment, sample_rate=settings["sample_rate"], n_time=n_time, seed=0
    ).to(device)
    max_semitones = augmentation.max_semitones if augmentation else 0.0
    return Loader(
        store=WaveformStore(clips, n_time=n_time, pad="zero", place=place, device=device),
        frontend=make_frontend(device=device, max_semitones=max_semitones, **settings),
        clip_index=torch.arange(n_clips),
        targets=torch.eye(N_CLASSES, dtype=torch.bool)[torch.arange(n_clips) % N_CLASSES],
        batch_size=batch_size,
        augment=augmentation,
    )


def three_changes(
    *, snr_db: tuple[float, float], semitones: tuple[float, float], rate: tuple[float, float]
) -> AugmentConfig:
    """Configure noise, pitch and stretch for every clip, and nothing else."""
    return AugmentConfig(
        noise=NoiseConfig(probability=1.0, snr_db=snr_db),
        pitch=PitchConfig(probability=1.0, semitones=semitones),
        stretch=StretchConfig(probability=1.0, rate=rate),
        shift=ShiftConfig(probability=0.0),
        gain=GainConfig(probability=0.0),
        mask=MaskConfig(probability=0.0),
        mixup=MixupConfig(probability=0.0),
    )


def epochs(loader: Loader) -> Iterator[Iterator[Batch]]:
    """Yield the epochs of a loader without end."""
    return map(loader.epoch, count())


def run_epochs(loader: Loader) -> Callable[[], None]:
    """Make a function that goes through one more epoch of a loader."""
    numbered = epochs(loader)

    def run() -> None:
        for _ in next(numbered):
            pass

    return run


def first_log_mels(loader: Loader, n_clips: int) -> Tensor:
    """Compute the log-mels [clip, mel, frame] of a plain loader's first clips, in dB."""
    return next(loader.epoch(0)).input[:n_clips, 0]


def decode(path: Path, sample_rate: int) -> NDArray[np.int16]:
    """Decode a file to mono int16 at a rate."""
    return decode_clip(path, sample_rate)


def make_manifest(files: Sequence[Path]) -> Manifest:
    """List files as clips of one class."""
    clips = tuple(Clip(path=file, label="any", target=0, source=file.stem) for file in files)
    return Manifest(name="files", root=files[0].parent, labels=("any",), clips=clips)


def fill_store(
    manifest: Manifest, *, sample_rate: int, n_time: int, n_threads: int, device: torch.device
) -> WaveformStore:
    """Decode a data set into memory, on the GPU if there is one; its progress bar is not shown."""
    place = "device" if device.type == "cuda" else "host"
    with redirect_stderr(StringIO()):
        headers = scan_headers(manifest, sample_rate, n_threads)
        clips = decode_all(manifest, headers, sample_rate, n_threads, device)
    return WaveformStore(clips, n_time=n_time, pad="zero", place=place, device=device)


def make_models() -> dict[str, Callable[[], nn.Module]]:
    """List the project's models with random weights, from log-mels to logits."""

    def build(name: str) -> nn.Module:
        config = ModelConfig(name=name, weights="none")
        return build_model(config, n_classes=N_CLASSES, input_size=(128, 216))

    return {name: partial(build, name) for name in MODELS}

"""audiomentations on the CPU, a clip at a time, then librosa's log-mel, in worker processes."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from harness import Case, Workload
from material import Chain, Job, librosa_log_mel
from peers.workers import clips_a_turn, run_epochs

METHODS = {"signalsmith_stretch": "Signalsmith, its default", "librosa_phase_vocoder": "librosa"}


def cases(job: Job) -> list[Case]:
    """The whole chain with either of its engines."""
    return [
        Case(
            name=f"audiomentations ({engine}) + librosa mel, {job.workers} workers",
            build=lambda method=method: _build(method, job),
            caveat="the full chain; white noise only; clips from memory, float32 log-mels copied "
            f"between processes in batches of {job.worker_batch}",
        )
        for method, engine in METHODS.items()
    ]


def make_augment(method: str, chain: Chain) -> Callable[..., NDArray[np.float32]]:
    """Compose noise, pitch and stretch for every clip."""
    from audiomentations import AddGaussianSNR, Compose, PitchShift, TimeStretch

    return Compose(
        [
            AddGaussianSNR(*chain.snr_db, p=1.0),
            PitchShift(*chain.semitones, method=method, p=1.0),
            TimeStretch(*chain.rate, method=method, p=1.0),
        ]
    )


class AugmentedClips(Dataset[torch.Tensor]):
    """Log-mels [mel, frame] of clips, augmented anew at every look.

    Args:
        method: Engine of pitch and stretch.
        job: Clips and settings.
    """

    def __init__(self, method: str, job: Job) -> None:
        self.samples, self.chain = job.samples.numpy(), job.chain
        self.augment = make_augment(method, job.chain)
        self.n_clips = clips_a_turn(job)

    def __len__(self) -> int:
        return self.n_clips

    def __getitem__(self, index: int) -> torch.Tensor:
        waveform = self.samples[index % len(self.samples)] / np.float32(32_768)
        augmented = self.augment(waveform, sample_rate=self.chain.sample_rate)
        return torch.from_numpy(librosa_log_mel(augmented, self.chain))


def _build(method: str, job: Job) -> Workload:
    import librosa  # noqa: F401 - else it would be missing in a worker, where it can't be reported

    return run_epochs(AugmentedClips(method, job), job)

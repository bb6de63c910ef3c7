"""Spectrograms as PNG files: drawn once with fixed augmentation, then loaded every epoch."""

from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from harness import Case, Workload
from material import Chain, Job, librosa_log_mel
from peers.workers import clips_a_turn, run_epochs

SIZE = 224
_LEAST_CLIPS = 256
_DRAWN = 4  # clips a step where files are made
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as pre-trained nets want


def cases(job: Job) -> list[Case]:
    """Loading the files, and making them."""
    return [
        Case(
            name=f"PNG files, {job.workers} workers",
            build=lambda: _build_loading(job),
            caveat="loads only: the augmentation was drawn once, is the same in every epoch and "
            "is not in this time; 8-bit RGB picture of a log-mel in place of its levels",
        ),
        Case(
            name="making augmented PNG files, 1 process",
            build=lambda: _build_making(job),
            caveat="what precedes the row above, once for each variant of a clip; librosa's "
            "phase vocoder, PNG written at PIL's default compression",
        ),
    ]


def draw(log_mel: NDArray[np.floating], file: Path) -> None:
    """Save a log-mel [mel, frame] as a picture, its levels stretched over the colour map."""
    from matplotlib import colormaps
    from PIL import Image

    level = (log_mel - log_mel.min()) / max(float(np.ptp(log_mel)), 1e-9)
    pixels = colormaps["viridis"](level[::-1], bytes=True)[..., :3]
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR).save(file)


class Pictures(Dataset[torch.Tensor]):
    """PNG files as tensors [3, size, size], normalised as ImageNet's.

    Args:
        files: The files.
    """

    def __init__(self, files: list[Path]) -> None:
        from torchvision import transforms

        self.files = files
        self._transform = transforms.Compose(
            [
                transforms.Resize((SIZE, SIZE)),
                transforms.ToTensor(),
                transforms.Normalize(_MEAN, _STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        from PIL import Image

        with Image.open(self.files[index]) as picture:
            return self._transform(picture.convert("RGB"))


def _build_loading(job: Job) -> Workload:
    folder = job.folder / "png"
    folder.mkdir()
    turn = clips_a_turn(job)
    files = [folder / f"{index}.png" for index in range(turn * max(_LEAST_CLIPS // turn, 1))]
    for index, file in enumerate(files):
        samples = job.samples[index % len(job.samples)].numpy()
        draw(librosa_log_mel(samples / np.float32(32_768), job.chain), file)
    return run_epochs(Pictures(files), job)


def _build_making(job: Job) -> Workload:
    import librosa  # noqa: F401 - missing before anything is timed

    g, numbers = np.random.default_rng(0), count()

    def step() -> None:
        for _ in range(_DRAWN):
            samples = job.samples[next(numbers) % len(job.samples)].numpy()
            changed = change(samples / np.float32(32_768), job.chain, g)
            draw(librosa_log_mel(changed, job.chain), job.folder / "made.png")

    return Workload(step=step, n_clips=_DRAWN)


def change(
    waveform: NDArray[np.float32], chain: Chain, g: np.random.Generator
) -> NDArray[np.float32]:
    """Add noise, shift the pitch and change the tempo of a waveform [time], as librosa does."""
    import librosa

    noise = g.standard_normal(len(waveform), dtype=np.float32)
    level = np.sqrt(np.mean(waveform**2)) * 10 ** (-g.uniform(*chain.snr_db) / 20)
    shifted = librosa.effects.pitch_shift(
        waveform + np.float32(level) * noise,
        sr=chain.sample_rate,
        n_steps=g.uniform(*chain.semitones),
    )
    stretched = librosa.effects.time_stretch(shifted, rate=g.uniform(*chain.rate))
    return librosa.util.fix_length(stretched, size=chain.n_time)

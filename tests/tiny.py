"""A data set of a few short tones in ESC-10's layout, for whole runs in seconds."""

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from audioml.cli import main

RATE = 8000
LABELS = ["low", "middle", "high"]
# A run over it: small, on the CPU.
SETTINGS = [
    "data.name=esc10",
    "audio.sample_rate=8000",
    "audio.clip_s=0.5",
    "frontend.n_fft=256",
    "frontend.win_length=256",
    "frontend.hop_length=128",
    "frontend.n_mels=24",
    "model.width=4",
    "train.epochs=2",
    "train.batch_size=8",
    "train.device=cpu",
    "train.amp=fp32",
    "run.report=false",
]


def make_tiny(root: Path, clips_a_fold: int = 3) -> Path:
    """Write 3 classes x 5 folds x ``clips_a_fold`` clips; every source has one clip."""
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    g = np.random.default_rng(0)
    rows = []
    for target, label in enumerate(LABELS):
        for fold in range(1, 6):
            for take in range(clips_a_fold):
                source = str(1000 * target + 10 * fold + take)
                time = np.arange(round(g.uniform(0.3, 0.7) * RATE)) / RATE
                tone = np.sin(2 * np.pi * 400 * 2**target * g.uniform(0.9, 1.1) * time)
                name = f"{fold}-{source}-A-{target}.wav"
                noise = 0.05 * g.standard_normal(len(time))
                soundfile.write(root / "audio" / name, 0.4 * tone + noise, RATE)
                rows.append((name, fold, target, label, True, source, "A"))
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "meta" / "esc50.csv", index=False)
    return root


def train_tiny(root: Path, *settings: str) -> Path:
    """Train on such a data set, in ``root / "data"``; returns the run's folder."""
    words = [*SETTINGS, f"data.root={make_tiny(root / 'data')}", f"run.dir={root / 'run'}"]
    assert main(["train", *words, *settings]) == 0
    return root / "run"

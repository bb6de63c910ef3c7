"""A multi-label data set: short clips with any of three tones, or none, in a list of clips."""

from itertools import product
from pathlib import Path

import numpy as np
import soundfile
import tiny

RATE = 8000
LABELS = ("high", "low", "middle")
_HZ = {"low": 300, "middle": 900, "high": 2700}
# A run over it: small, on the CPU.
SETTINGS = ["data.name=csv", *(word for word in tiny.SETTINGS if word != "data.name=esc10")]


def make_several(root: Path, n_takes: int = 4, n_folds: int = 5) -> Path:
    """Write every set of the three tones ``n_takes`` times a fold; returns the list of clips."""
    root.mkdir(exist_ok=True)
    g = np.random.default_rng(0)
    lines = ["path,label,source,fold"]
    time = np.arange(RATE // 2) / RATE
    for fold, take in product(range(1, n_folds + 1), range(n_takes)):
        for has in product((False, True), repeat=3):
            names = [label for label, there in zip(LABELS, has, strict=True) if there]
            sound = 0.02 * g.standard_normal(len(time))
            for name in names:
                sound += 0.2 * np.sin(2 * np.pi * _HZ[name] * g.uniform(0.9, 1.1) * time)
            file = f"{fold}-{take}-{''.join(map(str, map(int, has)))}.wav"
            soundfile.write(root / file, sound, RATE)
            lines.append(f"{file},{';'.join(names)},{file},{fold}")
    (root / "clips.csv").write_text("\n".join(lines) + "\n")
    return root / "clips.csv"

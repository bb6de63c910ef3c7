"""Generated sounds that are more than noise."""

import numpy as np

RATE = 22_050


def partials(seed):
    """A gliding tone with partials, a bell, and a little noise, 5 s."""
    g = np.random.default_rng(seed)
    time = np.arange(5 * RATE) / RATE
    f0 = g.uniform(150, 500) * (1 + 0.03 * np.sin(2 * np.pi * g.uniform(1, 3) * time))
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    tone = sum(np.sin(n * phase + g.uniform(0, 6)) / n for n in range(1, 12))
    envelope = 0.5 * (1 + np.sin(2 * np.pi * g.uniform(0.3, 1.0) * time))
    bell = sum(
        np.sin(2 * np.pi * g.uniform(500, 5000) * time) * np.exp(-time * g.uniform(0.5, 3))
        for _ in range(6)
    )
    sound = tone * envelope + bell + 0.02 * g.standard_normal(len(time))
    return (0.2 * sound / np.abs(sound).max()).astype(np.float32)

"""How the learning rate and the weight average change from step to step."""

import math


def lr_factor(step: int, n_steps: int, schedule: str, warmup_share: float) -> float:
    """Say which part of the peak learning rate a step uses.

    Args:
        step: Step number, from 0.
        n_steps: Steps of the whole training.
        schedule: "cosine" (linear warm-up, then half a cosine to 0), "one_cycle" (half a cosine
            up from 1/25, half a cosine down to 0) or "constant" (after the warm-up).
        warmup_share: Share of the steps spent rising.

    Returns:
        0 to 1.

    Source: Loshchilov & Hutter 2017 (cosine); Smith & Topin 2018 (one-cycle).
    """
    n_warmup = warmup_share * n_steps
    if step < n_warmup:
        if schedule == "one_cycle":
            return 0.04 + 0.96 * 0.5 * (1.0 - math.cos(math.pi * step / n_warmup))
        return (step + 1) / (n_warmup + 1)
    if schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - n_warmup) / max(n_steps - n_warmup, 1)))


def averaging_decay(step: int, most: float) -> float:
    """Say how much of the averaged weights a step keeps: less at first, when they are worth little.

    Args:
        step: Step number, from 0.
        most: What is kept in the end, 0 to 1.

    Source: tf.train.ExponentialMovingAverage with num_updates.
    """
    return min(most, (1 + step) / (10 + step))

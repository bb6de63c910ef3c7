"""What inputs are normalised by: the levels of the training clips."""

import torch
from torch import Tensor

from audioml.loader import Loader
from audioml.progress import track


def training_statistics(loader: Loader) -> tuple[Tensor, Tensor]:
    """Measure levels over a loader's clips, which must be the training clips.

    Args:
        loader: Unaugmented training clips, with a front end that does not normalise yet.

    Returns:
        Mean and standard deviation of each mel band, of every window, in dB.
    """
    n_bands = len(loader.frontend.frequencies)
    sums = torch.zeros(2, n_bands, dtype=torch.float64, device=loader.device)
    n_frames = 0
    for batch in track(loader.epoch(0), task="statistics", total=len(loader), unit="batch"):
        level = batch.input[:, 0].double()
        sums += torch.stack((level.sum((0, 2)), level.square().sum((0, 2))))
        n_frames += level.shape[0] * level.shape[2]
    mean, square = sums / n_frames
    return mean.float(), (square - mean.square()).clamp(min=0.0).sqrt().float()

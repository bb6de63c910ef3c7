"""What inputs are normalised by: the levels of the training clips."""

import torch
from torch import Tensor

from audioml.distributed import sum_ranks, together
from audioml.loader import Loader
from audioml.progress import track


def training_statistics(loader: Loader) -> tuple[Tensor, Tensor]:
    """Measure levels over a loader's clips, which must be the training clips.

    Args:
        loader: Unaugmented training clips, with a front end that does not normalise yet. Of several
            ranks each measures its share.

    Returns:
        Mean and standard deviation of each mel band, of every window, in dB.
    """
    n_bands = len(loader.frontend.frequencies)
    sums = torch.zeros(3, n_bands, dtype=torch.float64, device=loader.device)
    with together(loader.ranks):
        batches = loader.epoch(0)
        for batch in track(batches, task="statistics", total=len(loader.steps), unit="batch"):
            level = batch.input[:, 0].double()
            n_frames = torch.full_like(sums[0], level.shape[0] * level.shape[2])
            sums += torch.stack((level.sum((0, 2)), level.square().sum((0, 2)), n_frames))
    total, square, n_frames = sum_ranks(loader.ranks, sums)
    mean = total / n_frames
    variance = square / n_frames - mean.square()
    return mean.float(), variance.clamp(min=0.0).sqrt().float()

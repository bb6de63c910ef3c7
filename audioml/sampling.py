"""Which clips an epoch draws where its classes are to come equally often."""

import torch
from torch import Tensor

from audioml.rng import Stream, number_occurrences, permutation, uniform


def draw_balanced(seed: int, epoch: int, clip_index: Tensor, has_class: Tensor) -> Tensor:
    """Draw as many clips as there are, with replacement, so that classes come equally often.

    A clip's weight is the inverse of the number of clips of its rarest class; to have no class
    counts as one. The draws are at even distances along the weights, laid out class by class and
    shuffled within: a class comes as often as its weights say, to less than one clip, and so does a
    clip, where independent draws would leave some out and take others five times by chance.

    Args:
        seed: The run's seed.
        epoch: Epoch number, from 0.
        clip_index: The clips [n], int64, ascending, on the CPU.
        has_class: Whether each has each class [n, class].

    Returns:
        Occurrences of clips [n], ascending, as ``rng.number_occurrences`` numbers them; functions
        of the arguments alone.

    Source: Kong et al. 2020, "PANNs", which draws AudioSet's classes equally often; Kitagawa 1996,
        "Monte Carlo filter and smoother", for draws at even distances.
    """
    has_class = torch.cat((has_class, ~has_class.any(dim=1, keepdim=True)), dim=1)
    n_clips = has_class.sum(dim=0)
    n_rarest, rarest = torch.where(has_class, n_clips, len(clip_index) + 1).min(dim=1)
    order = torch.searchsorted(clip_index, permutation(seed, epoch, clip_index, Stream.SAMPLING))
    order = order[torch.argsort(rarest[order], stable=True)]
    ends = (1.0 / n_rarest[order].double()).cumsum(0)
    offset = uniform(seed, epoch, clip_index[:1], Stream.SAMPLING)[:, 3].double()
    places = (torch.arange(len(order)) + offset) * (ends[-1] / len(order))
    drawn = torch.searchsorted(ends, places, right=True).clamp(max=len(order) - 1)
    return number_occurrences(clip_index[order[drawn]])

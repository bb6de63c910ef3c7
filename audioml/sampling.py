"""Which clips an epoch draws where its classes are to come equally often."""

import torch
from torch import Tensor

from audioml.rng import Stream, number_occurrences, permutation, uniform


def find_rarest(has_class: Tensor) -> tuple[Tensor, Tensor]:
    """Find the rarest class of each clip; to have no class counts as one.

    Args:
        has_class: Whether each clip has each class [n, class].

    Returns:
        The class's number [n], and the number of its clips [n], int64.
    """
    n_clips = has_class.sum(dim=0)
    rarest = torch.full((len(has_class),), has_class.shape[1])
    n_rarest = torch.full_like(rarest, int((~has_class.any(dim=1)).sum()))
    for number in n_clips.argsort(descending=True, stable=True).tolist():  # the rarest at last
        rarest[has_class[:, number]] = number
        n_rarest[has_class[:, number]] = n_clips[number]
    return rarest, n_rarest


def draw_balanced(
    seed: int, epoch: int, clip_index: Tensor, rarest: Tensor, n_rarest: Tensor
) -> Tensor:
    """Draw as many clips as there are, with replacement, so that classes come equally often.

    A clip's weight is the inverse of the number of clips of its rarest class. The draws are at even
    distances along the weights, laid out class by class and shuffled within: a class comes as often
    as its weights say, to less than one clip, and so does a clip, where independent draws would
    leave some out and take others five times by chance.

    Args:
        seed: The run's seed.
        epoch: Epoch number, from 0.
        clip_index: The clips [n], int64, ascending, on the CPU.
        rarest: The rarest class of each [n]; see ``find_rarest``.
        n_rarest: How many clips have that [n].

    Returns:
        Occurrences of clips [n], ascending, as ``rng.number_occurrences`` numbers them; functions
        of the arguments alone.

    Source: Kong et al. 2020, "PANNs", which draws AudioSet's classes equally often; Kitagawa 1996,
        "Monte Carlo filter and smoother", for draws at even distances.
    """
    order = torch.searchsorted(clip_index, permutation(seed, epoch, clip_index, Stream.SAMPLING))
    order = order[torch.argsort(rarest[order], stable=True)]
    ends = (1.0 / n_rarest[order].double()).cumsum(0)
    offset = uniform(seed, epoch, clip_index[:1], Stream.SAMPLING)[:, 3].double()
    places = (torch.arange(len(order)) + offset) * (ends[-1] / len(order))
    drawn = torch.searchsorted(ends, places, right=True).clamp(max=len(order) - 1)
    return number_occurrences(clip_index[order[drawn]])

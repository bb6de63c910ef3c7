"""How sure a figure is: intervals over clips, and whether two classifiers differ."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

_N_RESAMPLES = 20_000
_N_SLOW_RESAMPLES = 1_000  # of a figure that is no mean over clips
_N_AT_ONCE = 100
_SEED = 0


def bootstrap_mean(
    values: NDArray[np.float64], sources: Sequence[str] | NDArray[np.str_], level: float = 0.95
) -> tuple[float, float]:
    """Bootstrap an interval for a mean over clips, by percentiles over their recordings.

    Excerpts of one recording are right or wrong together: drawn one by one they would make the
    interval too narrow, so whole recordings are drawn. A resample only matters by how often each
    kind of recording is in it, by its clips' number and sum, and those counts are multinomial:
    they are drawn directly.

    Args:
        values: One number a clip [n]: 1 or 0 for an accuracy, their difference for two classifiers
            on the same clips.
        sources: The recording of each clip [n].
        level: Share of the resamples within the interval, 0 to 1.

    Returns:
        Lower and upper end; the same at every call.

    Raises:
        ValueError: If there are no clips.

    Source: Efron & Tibshirani 1993, section 13.3; Field & Welsh 2007 for recordings as clusters;
        scipy.stats.bootstrap with method="percentile", within 0.005 in tests/test_statistics.py
        where every clip has its own recording.
    """
    if not len(values):
        raise ValueError("an interval needs at least one clip, got none")
    _, source = np.unique(np.asarray(sources), return_inverse=True)
    recordings = np.stack((np.bincount(source), np.bincount(source, weights=values)), axis=1)
    kinds, counts = np.unique(recordings, axis=0, return_counts=True)
    n, rng = len(recordings), np.random.default_rng(_SEED)
    n_clips, sums = (rng.multinomial(n, counts / n, size=_N_RESAMPLES) @ kinds).T
    low, high = np.quantile(sums / n_clips, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resample_map(
    has_class: NDArray[np.bool_],
    probability: NDArray[np.float64],
    sources: Sequence[str] | NDArray[np.str_],
    seed: int = 0,
) -> NDArray[np.float64]:
    """Compute the mean average precision of resamples of the recordings.

    Whole recordings are drawn, as in ``bootstrap_mean``; the quantiles of what comes out are the
    ends of an interval. The draws depend on the sources and the seed alone, so that results of two
    classifiers on the same clips are paired. A resample's mean is over the classes it has.

    Args:
        has_class: Whether each clip has each class [clip, class].
        probability: [clip, class].
        sources: The recording of each clip [clip].
        seed: Another for recordings that are to be drawn independently of these.

    Returns:
        One a resample [1000].

    Source: ``sklearn.metrics.average_precision_score`` with clips weighed by how often they are
        drawn, within 1e-12 in tests/test_statistics.py.
    """
    names, source = np.unique(np.asarray(sources), return_inverse=True)
    rng, share = np.random.default_rng(seed), np.full(len(names), 1 / len(names))
    classes = np.flatnonzero(has_class.any(axis=0))
    values = []
    for _ in range(_N_SLOW_RESAMPLES // _N_AT_ONCE):
        counts = rng.multinomial(len(names), share, size=_N_AT_ONCE)
        weights = np.ascontiguousarray(counts.T, dtype=np.int32)[source]
        rows = [_weigh_precision(has_class[:, n], probability[:, n], weights) for n in classes]
        values.append(np.nanmean(rows, axis=0))
    return np.concatenate(values)


def _weigh_precision(
    is_of_class: NDArray[np.bool_], probability: NDArray[np.float64], weights: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Average precision of a class with clips weighed [clip, resample]: [resample], NaN if none."""
    order = np.argsort(-probability, kind="stable")
    is_right, ranked = is_of_class[order], probability[order]
    # Down to each probability that a clip of the class has: all clips, and those of the class.
    right = order[is_right]
    first = np.flatnonzero(np.diff(probability[right], prepend=np.inf))
    ends = np.searchsorted(-ranked, -probability[right[first]], side="right")
    n_above = np.add.reduceat(weights[order[: ends[-1]]], [0, *ends[:-1]], axis=0).cumsum(axis=0)
    steps = np.add.reduceat(weights[right], first, axis=0)
    n_right = steps.cumsum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 of 0 clips
        precision = n_right / np.maximum(n_above, 1)
        mean: NDArray[np.float64] = (precision * steps).sum(axis=0) / n_right[-1]
    return mean


def wilson_interval(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Give an interval for a share, which also holds near 0 and 1, where a bootstrap has no width.

    Args:
        share: What was found, 0 to 1.
        n: Of how many independent things: recordings, where clips of one belong together.
        level: How sure, 0 to 1.

    Source: Wilson 1927; scipy.stats.binomtest(...).proportion_ci(method="wilson").
    """
    z = float(norm.ppf((1 + level) / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def mcnemar(is_right: NDArray[np.bool_], other_is_right: NDArray[np.bool_]) -> float:
    """Test whether two classifiers err equally often on the same clips.

    Args:
        is_right: Whether the first is right [clip].
        other_is_right: Whether the second is right [clip].

    Returns:
        The exact two-sided p-value: of the clips on which just one of the two is right, each has
        the same chance of being either's. 1 if there are none.

    Source: McNemar 1947; statsmodels.stats.contingency_tables.mcnemar with exact=True.
    """
    n_first = int((is_right & ~other_is_right).sum())
    n_differ = int((is_right != other_is_right).sum())
    return float(binomtest(n_first, n_differ).pvalue) if n_differ else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several comparisons, so that one false find in all is as rare as said.

    Args:
        p_values: One a comparison, 0 to 1.

    Returns:
        Adjusted ones in the same order, 0 to 1.

    Source: Holm 1979.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(np.asarray(p_values)[order] * factors).clip(max=1.0)
    return adjusted.tolist()

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from audioml.statistics import bootstrap_mean, holm, mcnemar, resample_map, wilson_interval


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_interval_equals_scipys(share):
    values = (np.arange(400) < share * 400).astype(float)
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=5000, random_state=1
    ).confidence_interval
    assert bootstrap_mean(values, np.arange(400)) == pytest.approx(expected, abs=0.005)


def test_recordings_are_drawn_whole():
    """As by drawing recordings, one by one; wider where the clips of a recording err together."""
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(60), rng.integers(1, 8, size=60))
    values = (np.arange(60) % 10 > 0)[source].astype(float)
    drawn = [
        np.concatenate([values[source == s] for s in rng.choice(60, 60)]).mean()
        for _ in range(4000)
    ]
    low, high = bootstrap_mean(values, [f"recording {s}" for s in source])
    assert (low, high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)
    least, most = bootstrap_mean(values, np.arange(len(values)))
    assert high - low > 1.5 * (most - least)


def test_interval_of_a_difference_is_narrower_than_of_its_parts():
    rng = np.random.default_rng(0)
    first = rng.random(400) < 0.9
    second = first ^ (rng.random(400) < 0.02)
    low, high = bootstrap_mean(first.astype(float) - second, np.arange(400))
    alone = bootstrap_mean(first.astype(float), np.arange(400))
    assert high - low < 0.5 * (alone[1] - alone[0])
    assert low <= (first.astype(float) - second).mean() <= high


def test_interval_covers_what_it_says():
    rng = np.random.default_rng(0)
    covered = [
        low <= 0.8 <= high
        for low, high in (
            bootstrap_mean((rng.random(200) < 0.8) * 1.0, np.arange(200)) for _ in range(300)
        )
    ]
    assert 0.90 < np.mean(covered) < 0.98


def test_interval_of_equal_values_is_that_value():
    assert bootstrap_mean(np.ones(80), np.arange(80)) == (1.0, 1.0)


def test_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one clip"):
        bootstrap_mean(np.empty(0), [])


def test_mcnemar_counts_only_clips_that_differ():
    first = np.array([True] * 50 + [True] * 9 + [False] * 1)
    second = np.array([True] * 50 + [False] * 9 + [True] * 1)
    # 9 against 1 of 10 coins: 2 * (10 + 1) / 1024
    assert mcnemar(first, second) == pytest.approx(22 / 1024)
    assert mcnemar(second, first) == mcnemar(first, second)
    assert mcnemar(first, first) == 1.0


def test_holm_worked_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (3, 8), (80, 100)])
def test_wilsons_interval_is_scipys(k, n):
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson_interval(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.fixture
def several():
    """Classes and probabilities [clip, class] of recordings of 1 to 3 clips, with ties."""
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(60), rng.integers(1, 4, size=60))
    has_class = rng.random((len(source), 4)) < (0.5, 0.3, 0.1, 0.0)
    probability = (0.4 * has_class + rng.random(has_class.shape)).round(1)
    return has_class, probability, source.astype(str)


def test_resamples_of_map_equal_scikit_learns(several):
    has_class, probability, sources = several
    values = resample_map(has_class, probability, sources)
    n_sources = len(set(sources))
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n_sources, np.full(n_sources, 1 / n_sources), size=100)[:20]
    _, source = np.unique(sources, return_inverse=True)
    for value, counts in zip(values, drawn, strict=False):
        weights = counts[source]
        expected = [
            average_precision_score(has_class[:, n], probability[:, n], sample_weight=weights)
            for n in range(3)
        ]
        assert value == pytest.approx(np.mean(expected), abs=1e-12)
    assert len(values) == 1000


def test_resamples_of_two_classifiers_are_paired(several):
    has_class, probability, sources = several
    better = probability + 0.1 * has_class
    first, second = (resample_map(has_class, p, sources) for p in (probability, better))
    low, high = np.quantile(second - first, (0.025, 0.975))
    alone = np.quantile(first, (0.025, 0.975))
    assert 0 < low < high
    assert high - low < 0.5 * (alone[1] - alone[0])


def test_a_class_that_a_resample_lacks_is_left_out_of_its_mean():
    has_class = np.zeros((30, 2), dtype=bool)
    has_class[0, 0], has_class[::2, 1] = True, True
    perfect = has_class.astype(float)
    assert (resample_map(has_class, perfect, np.arange(30).astype(str)) == 1).all()

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import resample_poly
from torch import Tensor

from audioml import similarity
from audioml.similarity import (
    RATE,
    THRESHOLD,
    Fingerprint,
    NearDuplicate,
    Whitened,
    correlate,
    find_near_duplicates,
    score_fingerprints,
)

Sound = NDArray[np.float64]


def noise(seed: int, n_time: int = 3 * RATE) -> Sound:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, n_time)


def rain(seed: int) -> Sound:
    """Noise of one spectrum, falling with frequency."""
    white = np.random.default_rng(seed).standard_normal(3 * RATE)
    return 0.1 * np.convolve(white, 0.9 ** np.arange(60), mode="same")


def tone(pitch_hz: float, phase: float = 0.0, n_time: int = 3 * RATE) -> Sound:
    return 0.5 * np.sin(2 * np.pi * pitch_hz * np.arange(n_time) / RATE + phase)


def ticks(seed: int, period_s: float) -> Sound:
    """A click, each time another short noise of the same decay, at a steady pace."""
    g, sound = np.random.default_rng(seed), np.zeros(3 * RATE)
    decay = np.exp(-np.arange(RATE // 10) / (RATE // 100))
    for begin in np.arange(0.1 * RATE, 2.8 * RATE, period_s * RATE).astype(int):
        sound[begin : begin + len(decay)] += 0.3 * decay * g.standard_normal(len(decay))
    return sound


def delay(sound: Sound, lag_s: float) -> Sound:
    """Shift a sound; what leaves at one end is lost, and silence comes in at the other."""
    n = round(lag_s * RATE)
    if n < 0:
        return np.concatenate((sound[-n:], np.zeros(-n)))
    return np.concatenate((np.zeros(n), sound[: len(sound) - n]))


def with_noise(sound: Sound, snr_db: float) -> Sound:
    white = np.random.default_rng(99).standard_normal(len(sound))
    return sound + white * math.sqrt(np.square(sound).mean()) * 10 ** (-snr_db / 20)


def find(sounds: Sequence[Sound], rate: int = RATE, n_threads: int = 1) -> list[NearDuplicate]:
    clips = [torch.from_numpy(to_int16(sound)) for sound in sounds]
    return find_near_duplicates(range(len(clips)), clips.__getitem__, rate, n_threads=n_threads)


def to_int16(sound: Sound) -> NDArray[np.int16]:
    return np.rint(sound * 32_768).clip(-32_768, 32_767).astype(np.int16)


def fingerprint(sound: Sound) -> Fingerprint:
    return Fingerprint(torch.from_numpy(sound).float())


@pytest.mark.parametrize("lag_s", [-1.0, -0.1234, 0.0, 0.25, 1.0])
@pytest.mark.parametrize("make", [noise, rain, lambda seed: ticks(seed, 0.4)])
def test_a_shifted_copy_is_found_at_its_lag(make: Callable[[int], Sound], lag_s: float) -> None:
    (pair,) = find([make(0), make(1), delay(make(0), lag_s)])
    assert (pair.left, pair.right) == (0, 2)
    assert pair.lag_s == pytest.approx(lag_s, abs=1 / RATE)
    assert pair.score > 0.8


@pytest.mark.parametrize(
    "change",
    [
        lambda sound: 0.1 * sound,
        lambda sound: (4 * sound).clip(-0.5, 0.5),
        lambda sound: with_noise(sound, 20.0),
        lambda sound: resample_poly(resample_poly(sound, 2, 3), 3, 2),
        lambda sound: sound[RATE : 2 * RATE],
        lambda sound: np.concatenate((0.05 * noise(50), sound[: 3 * RATE // 2])),
        lambda sound: delay(0.2 * with_noise(sound, 20.0), -0.6),
    ],
    ids=["softer", "clipped", "noisy", "resampled", "cut", "half in a longer one", "all"],
)
@pytest.mark.parametrize("make", [noise, rain, lambda seed: ticks(seed, 0.4)])
def test_a_changed_copy_is_found(
    make: Callable[[int], Sound], change: Callable[[Sound], Sound]
) -> None:
    pairs = find([make(0), change(make(0)), make(1)])
    assert [(pair.left, pair.right) for pair in pairs] == [(0, 1)]


@pytest.mark.parametrize("overlap_s", [1.0, 2.0])
def test_stretches_that_overlap_are_found(overlap_s: float) -> None:
    recording = rain(0)
    n, hop = 2 * RATE, round((2 - overlap_s) * RATE)
    long = np.concatenate((recording, rain(7)))
    (pair,) = find([long[:n], long[hop : hop + n]])
    assert pair.lag_s == pytest.approx(overlap_s - 2, abs=1 / RATE)


def test_stretches_that_only_touch_are_not() -> None:
    recording = rain(0)
    assert find([recording[: RATE + 500], recording[RATE + 500 :]]) == []


def test_sounds_of_one_kind_are_not_alike() -> None:
    kinds = [[noise(n), rain(n), ticks(n, 0.5)] for n in range(8)]
    assert find([sound for kind in kinds for sound in kind]) == []


def test_a_tick_that_repeats_to_the_sample_is_one_sound() -> None:
    one = ticks(0, 10.0)
    loop = np.tile(one[: RATE // 2], 6)
    pairs = find([loop, np.roll(loop, RATE // 8)])
    assert [(pair.left, pair.right) for pair in pairs] == [(0, 1)]


def test_silence_and_steady_tones_match_nothing() -> None:
    silence = np.zeros(3 * RATE)
    hum = [tone(440.0), tone(440.0, phase=1.0), tone(440.0)]
    assert find([silence, silence, *hum]) == []


def test_padding_does_not_match_padding() -> None:
    padded = [np.concatenate((noise(n, RATE // 2), np.zeros(4 * RATE))) for n in range(4)]
    assert find(padded) == []


def test_a_padded_copy_is_found_under_noise() -> None:
    bark = np.concatenate((np.zeros(RATE), noise(0, RATE // 2), np.zeros(3 * RATE)))
    (pair,) = find([bark, delay(with_noise(bark, 20.0), 0.7)])
    assert pair.lag_s == pytest.approx(0.7, abs=1 / RATE)


@pytest.mark.parametrize("rate", [4_000, 8_000, 22_050, 44_100, 96_000])
def test_any_rate(rate: int) -> None:
    sounds = [noise(n, 2 * rate) for n in range(3)]
    later = np.concatenate((np.zeros(rate // 2), sounds[0][: rate + rate // 2]))
    (pair,) = find([*sounds, later], rate)
    assert (pair.left, pair.right) == (0, 3)
    assert pair.lag_s == pytest.approx(0.5, abs=1 / RATE)


def test_clips_of_any_length() -> None:
    sounds = [noise(n, n_time) for n, n_time in enumerate([1, 2, 299, 300, 1024, RATE, 20 * RATE])]
    assert find(sounds) == []
    long = sounds[-1]
    pairs = find([*sounds, long[7 * RATE : 9 * RATE]])
    assert [(pair.left, pair.right, round(pair.lag_s, 3)) for pair in pairs] == [(6, 7, -7.0)]


def test_no_clips() -> None:
    assert find([]) == []
    assert find([noise(0)]) == []


def test_blocks_equal_pairs_alone() -> None:
    lengths = [RATE, 2 * RATE, 3 * RATE, 3 * RATE + 77]
    sounds = [noise(n % 3, n_time) for n, n_time in enumerate(lengths)] + [np.zeros(RATE)]
    prints = [fingerprint(sound) for sound in sounds]
    together = score_fingerprints(prints, prints)
    for i, j in combinations(range(len(prints)), 2):
        alone = score_fingerprints([prints[i]], [prints[j]])
        torch.testing.assert_close(together[i : i + 1, j : j + 1], alone, atol=1e-5, rtol=0)


def test_small_blocks_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = [rain(n % 5) for n in range(8)]
    whole = find(sounds)
    assert [(pair.left, pair.right) for pair in whole] == [(0, 5), (1, 6), (2, 7)]
    monkeypatch.setattr(similarity, "_BLOCK_ELEMENTS", 1000)
    monkeypatch.setattr(similarity, "_KEPT_SAMPLES", 1)
    in_parts = find(sounds)
    assert [(p.left, p.right, p.lag_s) for p in in_parts] == [
        (p.left, p.right, p.lag_s) for p in whole
    ]
    assert [p.score for p in in_parts] == pytest.approx([p.score for p in whole], abs=1e-5)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_the_same_again(n_threads: int) -> None:
    sounds = [rain(n % 4) for n in range(10)]
    assert find(sounds, n_threads=n_threads) == find(sounds)


def test_blocks_bound_the_lags_compared_at_once() -> None:
    prints = {n: fingerprint(noise(n, n_time)) for n, n_time in enumerate([RATE] * 300 + [60_000])}
    blocks = list(similarity._make_blocks(prints))
    assert sorted(clip for block in blocks for clip in block) == list(range(301))
    for block in blocks:
        n_lags = 2 * max(len(prints[clip].is_sound) for clip in block)
        assert len(block) == 1 or len(block) ** 2 * n_lags <= similarity._BLOCK_ELEMENTS


def reference(a: Tensor, b: Tensor) -> tuple[float, int]:
    """Correlate two whitened clips one lag after another, in float64."""
    best = (-1.0, 0)
    for lag in range(1 - len(a), len(b)):
        begin, end = max(0, -lag), min(len(a), len(b) - lag)
        x, y = a[begin:end], b[begin + lag : end + lag]
        norm = 1.0
        for part, whole in ((x, a), (y, b)):
            share = min(0.05, 0.25 * RATE / len(whole))
            norm *= float(part.square().sum() + share * whole.square().sum())
        best = max(best, (float(x @ y) / math.sqrt(norm), lag))
    return best


@pytest.mark.parametrize(("n_a", "n_b"), [(600, 900), (900, 600), (700, 700)])
def test_correlation_is_the_sum_over_the_overlap(n_a: int, n_b: int) -> None:
    sound = torch.from_numpy(noise(0, 1200)).float()
    n = 2 * (n_a + n_b)
    a, b = Whitened(sound[:n_a], n), Whitened(sound[250 : 250 + n_b], n)
    whole = [torch.fft.irfft(x.spectrum, n)[:k].double() for x, k in ((a, n_a), (b, n_b))]
    score, lag = correlate(a, b)
    expected, expected_lag = reference(*whole)
    assert lag == expected_lag == -250
    assert score == pytest.approx(expected, abs=1e-4)


@pytest.mark.gpu
def test_cuda_finds_the_same() -> None:
    clips = [torch.from_numpy(to_int16(rain(n % 4))) for n in range(10)]
    on_cpu = find_near_duplicates(range(10), clips.__getitem__, RATE)
    on_gpu = find_near_duplicates(range(10), lambda clip: clips[clip].cuda(), RATE)
    assert [(p.left, p.right, p.lag_s) for p in on_gpu] == [
        (p.left, p.right, p.lag_s) for p in on_cpu
    ]
    assert [p.score for p in on_gpu] == pytest.approx([p.score for p in on_cpu], abs=1e-4)


def test_long_clips_are_transformed_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sizes, transform = fingerprint(rain(0)), [], torch.fft.rfft
    monkeypatch.setattr(similarity, "_N_AT_ONCE", 7)
    monkeypatch.setattr(torch.fft, "rfft", lambda x: sizes.append(len(x)) or transform(x))
    parts = fingerprint(rain(0))
    assert max(sizes) == 7
    torch.testing.assert_close(parts.change, whole.change, rtol=0, atol=1e-4)


def test_the_threshold_leaves_room_on_both_sides() -> None:
    copy = find([rain(0), with_noise(delay(rain(0), 0.9), 20.0)])[0].score
    n = 8 * RATE
    other, _ = correlate(*(Whitened(torch.from_numpy(rain(k)).float(), n) for k in (0, 1)))
    assert other < THRESHOLD / 2 < THRESHOLD * 1.2 < copy

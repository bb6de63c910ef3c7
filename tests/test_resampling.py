import math

import numpy as np
import pytest
import scipy.signal
import soxr
import torch

from audioml.decode import resample, resampled_length
from audioml.decode.resampling import _make_kernel, approximate_ratio

USUAL_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
PAIRS = [
    (44_100, 22_050),
    (48_000, 22_050),
    (32_000, 22_050),
    (44_100, 16_000),
    (8000, 22_050),
    (22_050, 44_100),
    (16_001, 22_050),
    (384_000, 1000),
    (1000, 384_000),
]


def tone(frequency, rate, n_frames, phase=0.3):
    return np.sin(2 * np.pi * frequency * np.arange(n_frames) / rate + phase)


def run(waveform, source_rate, target_rate):
    resampled = resample(torch.from_numpy(waveform.astype(np.float32)), source_rate, target_rate)
    assert resampled.dtype == torch.float32
    return resampled.numpy().astype(np.float64)


def middle(waveform):
    """Without the edges, where a tone begins and ends."""
    return waveform[len(waveform) // 4 : -len(waveform) // 4]


def level_db(waveform):
    return 20 * np.log10(np.sqrt(2) * np.sqrt(np.mean(waveform**2)) + 1e-12)


@pytest.mark.parametrize(("source_rate", "target_rate"), PAIRS)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.91])
def test_tones_below_the_edge_are_the_tone_itself(source_rate, target_rate, share):
    """Level, phase and delay at once: the difference to the tone sampled at the target rate."""
    frequency = share * min(source_rate, target_rate) / 2
    n_frames = max(source_rate // 2, 1000)
    resampled = run(tone(frequency, source_rate, n_frames), source_rate, target_rate)
    ratio = np.divide(*approximate_ratio(source_rate, target_rate))
    expected = tone(frequency, source_rate * ratio, len(resampled))
    assert level_db(middle(resampled) - middle(expected)) < -95


@pytest.mark.parametrize(("source_rate", "target_rate"), [p for p in PAIRS if p[0] > p[1]])
@pytest.mark.parametrize("place", [0.0, 0.02, 0.3, 0.9])
def test_tones_beyond_the_edge_are_gone(source_rate, target_rate, place):
    """From the target's Nyquist frequency (0) to the source's (1)."""
    frequency = (target_rate + place * (source_rate - target_rate)) / 2
    waveform = tone(frequency, source_rate, source_rate)
    assert level_db(middle(run(waveform, source_rate, target_rate))) < -100


@pytest.mark.parametrize(("source_rate", "target_rate"), [p for p in PAIRS if p[0] < p[1]])
def test_upsampling_leaves_no_image(source_rate, target_rate):
    resampled = middle(run(tone(0.4 * source_rate, source_rate, 8000), source_rate, target_rate))
    spectrum = np.abs(np.fft.rfft(resampled * np.kaiser(len(resampled), 18)))
    frequency = np.fft.rfftfreq(len(resampled), 1 / target_rate)
    image = spectrum[frequency > 0.5 * source_rate].max()
    assert 20 * np.log10(image / spectrum.max()) < -100


@pytest.mark.parametrize(("source_rate", "target_rate"), PAIRS[:6])
def test_passband_noise_equals_soxr_and_scipy(source_rate, target_rate):
    band = 0.9 * min(source_rate, target_rate) / source_rate
    noise = np.random.default_rng(0).standard_normal(source_rate)
    lowpass = scipy.signal.firwin(1023, band * 0.98, window=("kaiser", 12))
    noise = np.convolve(0.2 * noise, lowpass, mode="same")
    ours = run(noise, source_rate, target_rate)
    ratio = approximate_ratio(source_rate, target_rate)
    polyphase = scipy.signal.resample_poly(noise, *ratio, window=("kaiser", 5.0))
    theirs = soxr.resample(noise, source_rate, target_rate, quality="VHQ")
    n = min(map(len, (ours, polyphase, theirs)))
    edge = n // 8
    ours, polyphase, theirs = (x[edge : n - edge] for x in (ours, polyphase, theirs))
    # At ratios other than 1:2 soxr's own passband is 0.01 dB down at its edge.
    assert level_db(ours - theirs) < level_db(theirs) - 75
    assert np.corrcoef(ours, polyphase)[0, 1] > 0.99  # its filter is short: delay and gain only


@pytest.mark.parametrize(("source_rate", "target_rate"), PAIRS)
def test_an_impulse_stays_where_it_is(source_rate, target_rate):
    n_frames = 2001 if source_rate < 100_000 else 200_001
    impulse = np.zeros(n_frames)
    impulse[n_frames // 2] = 1
    resampled = run(impulse, source_rate, target_rate)
    time = np.arange(len(resampled)) / np.divide(*approximate_ratio(source_rate, target_rate))
    centre = (resampled * time).sum() / resampled.sum()
    assert centre == pytest.approx(n_frames // 2, abs=0.01 * max(1, source_rate / target_rate))


def test_it_is_linear():
    g = np.random.default_rng(0)
    first, second = g.standard_normal((2, 5000))
    together = run(0.5 * first - 2 * second, 44_100, 16_000)
    apart = 0.5 * run(first, 44_100, 16_000) - 2 * run(second, 44_100, 16_000)
    np.testing.assert_allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize(("source_rate", "target_rate"), PAIRS)
def test_a_constant_stays_constant(source_rate, target_rate):
    resampled = run(np.full(max(source_rate, 2000), 0.5), source_rate, target_rate)
    np.testing.assert_allclose(middle(resampled), 0.5, atol=1e-5)


@pytest.mark.parametrize(("source_rate", "target_rate"), PAIRS)
@pytest.mark.parametrize("n_frames", [1, 2, 3, 1001])
def test_lengths_follow_the_formula(source_rate, target_rate, n_frames):
    expected = math.ceil(n_frames * target_rate / source_rate)
    assert resampled_length(n_frames, source_rate, target_rate) == expected
    resampled = run(np.full(n_frames, 0.5), source_rate, target_rate)
    assert len(resampled) == expected
    assert np.isfinite(resampled).all()
    assert resampled[0] != 0


def test_lengths_are_exact_where_floats_are_not():
    assert resampled_length(44_100 * 3600 * 24, 44_100, 22_050) == 22_050 * 3600 * 24
    assert resampled_length(2**60 + 1, 1_000_000, 1_000_000) == 2**60 + 1


def test_usual_ratios_are_exact():
    for source_rate in USUAL_RATES:
        for target_rate in USUAL_RATES:
            n_up, n_down = approximate_ratio(source_rate, target_rate)
            assert n_up * source_rate == n_down * target_rate


@pytest.mark.parametrize("target_rate", [1000, 16_000, 22_050, 384_000])
def test_any_ratio_is_near_and_its_kernel_small(target_rate):
    g = np.random.default_rng(0)
    rates = [100, 101, 999_999, 1_000_000, target_rate + 1, target_rate - 1]
    for source_rate in [*rates, *g.integers(100, 1_000_000, 3000).tolist()]:
        n_up, n_down = approximate_ratio(source_rate, target_rate)
        assert n_up / n_down == pytest.approx(target_rate / source_rate, rel=5e-4)
        assert n_up * n_down <= 1_000_000
        assert max(n_up, n_down) <= 5000


@pytest.mark.parametrize(
    ("n_up", "n_down"), [(1, 5000), (5000, 1), (999, 1000), (1000, 999), (200, 5000), (5000, 200)]
)
def test_the_largest_kernels_take_less_than_8_mib(n_up, n_down):
    kernel, _, _ = _make_kernel(n_up, n_down, torch.device("cpu"))
    assert kernel.nbytes <= 8 << 20


def test_rates_too_far_apart_are_refused():
    with pytest.raises(ValueError, match=r"within 5000 times source_rate \(100 Hz\), got 600000"):
        approximate_ratio(100, 600_000)


@pytest.mark.parametrize("n_elements", [1 << 22, 3000])
@pytest.mark.parametrize("source_rate", [44_100, 48_000, 8000])
def test_clips_together_are_as_each_alone(source_rate, n_elements, monkeypatch):
    monkeypatch.setattr("audioml.decode.resampling._WINDOW_ELEMENTS", n_elements)
    clips = torch.randn(3, 5003, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([resample(clip, source_rate, 22_050) for clip in clips])
    assert torch.equal(resample(clips, source_rate, 22_050), alone)


def test_pieces_equal_the_whole(monkeypatch):
    waveform = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    whole = resample(waveform, 44_100, 22_050)
    monkeypatch.setattr("audioml.decode.resampling._WINDOW_ELEMENTS", 3000)
    torch.testing.assert_close(resample(waveform, 44_100, 22_050), whole, atol=1e-5, rtol=0)

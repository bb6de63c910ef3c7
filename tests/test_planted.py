import numpy as np
import pytest

from planted import KINDS, RATE, other_sounds, plant


def make_clip(n_time=2 * RATE):
    """Noise that gets louder."""
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, n_time)
    return np.rint(32_768 * noise * np.linspace(0.2, 1.0, n_time)).astype(np.int16)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_differs_and_is_the_same_each_time(kind):
    clip = make_clip()
    copy = plant(KINDS[kind], clip, (0, 0))
    np.testing.assert_array_equal(copy, plant(KINDS[kind], clip, (0, 0)))
    assert copy.dtype == np.int16
    assert len(copy) == (len(clip) // 2 if "half" in kind else len(clip))
    assert not np.array_equal(copy, clip)


def test_the_louder_end_stays():
    clip = make_clip()
    np.testing.assert_array_equal(plant(KINDS["the louder half alone"], clip, (0, 0)), clip[RATE:])
    shifted = plant(KINDS["shifted by 0.1 to 1 s"], clip, (0, 0))
    n_lost = len(clip) - np.flatnonzero(shifted)[-1] - 1
    assert 0.09 * RATE < n_lost < 1.01 * RATE
    np.testing.assert_array_equal(shifted[: len(clip) - n_lost], clip[n_lost:])


def test_noise_is_at_20_db():
    clip = make_clip()
    noise = plant(KINDS["white noise at 20 dB"], clip, (0, 0)).astype(float) - clip
    snr_db = 10 * np.log10(np.square(clip.astype(float)).mean() / np.square(noise).mean())
    assert snr_db == pytest.approx(20.0, abs=0.1)


def test_other_sounds_are_as_loud():
    clip = make_clip()
    for other in other_sounds(clip):
        assert other.std() == pytest.approx(clip.std(), rel=0.2)

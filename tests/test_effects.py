import random

import numpy as np
import pytest

from audioml.config import ConfigError
from audioml.effects import Effects

RATE = 8000


def sound(seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(RATE, dtype=np.float32)


def make(*settings, seed=0):
    return Effects(settings, sample_rate=RATE, seed=seed)


def test_transforms_are_applied_in_turn():
    louder = {"name": "Gain", "min_gain_db": 6.0206, "max_gain_db": 6.0206, "p": 1.0}
    clipped = {"name": "Clip", "a_min": -0.1, "a_max": 0.1, "p": 1.0}
    np.testing.assert_allclose(make(louder)(sound(), 0, 0), 2 * sound(), rtol=1e-4)
    assert np.abs(make(louder, clipped)(sound(), 0, 0)).max() == pytest.approx(0.1)
    assert np.abs(make(clipped, louder)(sound(), 0, 0)).max() == pytest.approx(0.2, rel=1e-4)


def test_clips_keep_their_length():
    shorter = make(
        {
            "name": "TimeStretch",
            "min_rate": 2.0,
            "max_rate": 2.0,
            "p": 1.0,
            "leave_length_unchanged": False,
        }
    )
    longer = make({"name": "Padding", "p": 1.0})
    assert shorter(sound(), 0, 0).shape == longer(sound(), 0, 0).shape == (RATE,)
    assert not shorter(sound(), 0, 0)[-RATE // 3 :].any()


def test_same_seed_epoch_and_clip_same_samples_and_no_traces():
    effects, again = (make({"name": "AddGaussianNoise", "p": 1.0}) for _ in range(2))
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = effects(sound(), 3, 7)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    np.testing.assert_array_equal(again(sound(), 3, 7), first)
    for other in (effects(sound(), 4, 7), effects(sound(), 3, 8)):
        assert not np.array_equal(other, first)
    assert not np.array_equal(
        make({"name": "AddGaussianNoise", "p": 1.0}, seed=1)(sound(), 3, 7), first
    )


def test_dice_that_cannot_be_seeded_are_refused():
    dice = np.random.default_rng()

    def shake(samples, sample_rate):
        return samples + dice.standard_normal(len(samples), dtype=np.float32)

    with pytest.raises(ConfigError, match=r"augment\.extra: Lambda: not the same twice"):
        make({"name": "Lambda", "transform": shake, "p": 1.0})


def test_rooms_are_the_same_twice():
    pytest.importorskip("pyroomacoustics")  # comes with audioml[effects]
    effects = make({"name": "RoomSimulator", "p": 1.0})
    np.testing.assert_array_equal(effects(sound(), 1, 2), effects(sound(), 1, 2))


def test_the_cost_is_measured():
    slow = make({"name": "PitchShift", "p": 1.0})
    fast = make({"name": "PolarityInversion", "p": 1.0})
    assert 0 < fast.cost_s([sound()] * 4) < slow.cost_s([sound()] * 4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"name": "RoomSimulater"}, "unknown transform RoomSimulater; did you mean RoomSimulator?"),
        ({"p": 1.0}, "unknown transform None; see audiomentations' documentation"),
        ({"name": "Gain", "loudness": 3}, "Gain: .*unexpected keyword argument 'loudness'"),
        ({"name": "AddBackgroundNoise", "sounds_path": "nowhere"}, "AddBackgroundNoise: "),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(ConfigError, match=f"^augment.extra: {message}"):
        make(setting)


def test_bad_samples_name_the_transform():
    effects = make({"name": "Gain", "min_gain_db": 0.0, "max_gain_db": 0.0, "p": 1.0})
    with pytest.raises(ValueError, match=r"augment\.extra: Gain made NaN or infinite samples"):
        effects(np.full(100, np.nan, dtype=np.float32), 0, 0)

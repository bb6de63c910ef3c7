import dataclasses

import numpy as np
import pytest
import torch

from audioml.augment import VARIANTS, Augment
from audioml.augment import functional as F
from audioml.config import (
    AugmentConfig,
    FilterConfig,
    GainConfig,
    MaskConfig,
    MixupConfig,
    NoiseConfig,
    PitchConfig,
    ShiftConfig,
    StretchConfig,
)
from audioml.decode import FULL_SCALE
from audioml.frontend.recipe import Recipe

RATE, N_TIME = 8000, 8000


def make(preset="ranges", seed=0, **sections):
    return Augment(
        AugmentConfig(preset=preset, **sections), sample_rate=RATE, n_time=N_TIME, seed=seed
    )


def rms(waveform):
    return waveform.square().mean(dim=-1).sqrt()


def recipe_of(augment, draws, levels):
    """The recipe of clips whose voices have these levels [voice, n]."""
    return augment.recipe(draws, levels, n_mels=16, n_frames=20)


def test_noise_has_the_asked_ratio():
    snr_db = torch.tensor([0.0, 10.0, 30.0, torch.inf])
    gain = F.noise_gain(snr_db, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    expected = [0.1, 0.2 * 10**-0.5, 0.3 * 10**-1.5, 0.0]
    torch.testing.assert_close(gain, torch.tensor(expected))


def test_silent_clips_stay_silent():
    assert F.noise_gain(torch.zeros(1), torch.zeros(1)) == 0


def test_a_filter_s_gains_lie_on_straight_lines_through_its_places():
    gain_db = torch.tensor([[-6.0, 6.0, 0.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    response_db = 10 * torch.log10(F.filter_response(gain_db, 9))
    first = [-6.0, -3.0, 0.0, 3.0, 6.0, 4.5, 3.0, 1.5, 0.0]
    expected = torch.tensor([first, [0.0] * 9, [1 + band / 4 for band in range(9)]])
    torch.testing.assert_close(response_db, expected.t(), atol=1e-5, rtol=0)
    assert F.filter_response(gain_db, 1).shape == (1, 3)


def test_noise_bank_has_unit_rms_and_its_colours():
    bank = F.make_noise_bank(1 << 16, 3)
    torch.testing.assert_close(rms(bank), torch.ones(3), atol=1e-4, rtol=0)
    power = torch.fft.rfft(bank).abs().square()
    octaves = torch.stack([power[:, 1 << k : 2 << k].mean(dim=1) for k in range(9, 14)])
    slope_db = (10 * torch.log10(octaves[1:] / octaves[:-1])).mean(dim=0)
    torch.testing.assert_close(slope_db, torch.tensor([0.0, -3.0, -6.0]), atol=0.4, rtol=0)
    assert torch.equal(bank, F.make_noise_bank(1 << 16, 3))
    assert not torch.equal(bank, F.make_noise_bank(1 << 16, 4))


def test_gain_in_decibels():
    amplitude = F.db_to_amplitude(torch.tensor([0.0, 20.0, -6.0206, -torch.inf]))
    torch.testing.assert_close(amplitude, torch.tensor([1.0, 10.0, 0.5, 0.0]))


def test_mixture_keeps_energy_and_proportion():
    g = torch.Generator().manual_seed(0)
    first, second = 0.3 * torch.randn(1, 200_000, generator=g), torch.randn(1, 200_000, generator=g)
    ratio = torch.tensor([0.7])
    gain, partner_gain = F.mixing_gains(ratio, rms(first), rms(second))
    parts = gain[:, None] * first, partner_gain[:, None] * second
    assert float(rms(parts[0]) / rms(parts[1])) == pytest.approx(0.7 / 0.3, rel=1e-4)
    assert float(gain.square() + partner_gain.square()) == pytest.approx(1, rel=1e-5)


def test_ratio_one_is_the_clip_itself_and_silence_stays_finite():
    level = torch.tensor([0.1, 0.0, 0.0])
    gain, partner_gain = F.mixing_gains(torch.ones(3), level, torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(gain, torch.ones(3))
    assert partner_gain.abs().max() == 0
    for part in F.mixing_gains(torch.full((3,), 0.5), level, torch.zeros(3)):
        assert torch.isfinite(part).all()


def test_masks_have_the_drawn_width_and_stay_inside():
    share = torch.tensor([0.0, 0.3, 0.1, 1.0])
    first, end = F.mask_bounds(torch.tensor([0.5, 0.5, 0.999, 0.7]), share, 10)
    assert (end - first).tolist() == [0, 3, 1, 10]
    assert first.tolist() == [5, 4, 9, 0]


def test_silence_is_not_mixed():
    ratio = torch.full((4,), 0.6)
    level, partner_level = torch.tensor([0.1, 0.0, 0.1, 0.0]), torch.tensor([0.2, 0.2, 0.0, 0.0])
    mixed = F.audible_ratio(ratio, level, partner_level)
    torch.testing.assert_close(mixed, torch.tensor([0.6, 1.0, 1.0, 1.0]))


def test_noise_of_a_mixture_follows_its_level():
    augment = make(noise=NoiseConfig(probability=1, snr_db=(10, 10)))
    draws = augment.draw(0, torch.arange(64))
    levels = torch.rand(2, 64) + 0.1
    recipe = recipe_of(augment, draws, levels)
    mixture = (levels * recipe.gain * FULL_SCALE).square().sum(0).sqrt()
    torch.testing.assert_close(recipe.noise_gain, mixture * 10**-0.5)
    assert ((recipe.gain[1] == 0) == (draws.mix_ratio == 1)).all()


def test_draws_stay_in_their_ranges_and_fill_them():
    config = {
        "noise": NoiseConfig(probability=1, snr_db=(5, 30)),
        "pitch": PitchConfig(probability=1, semitones=(-3, 1)),
        "stretch": StretchConfig(probability=1, rate=(0.8, 1.25)),
        "shift": ShiftConfig(probability=1, shift_s=(-0.5, 0.25)),
        "gain": GainConfig(probability=1, gain_db=(-6, 3)),
        "filter": FilterConfig(probability=1, gain_db=(-9, 4)),
        "mask": MaskConfig(probability=1, freq_share=0.2, time_share=0.1),
        "mixup": MixupConfig(probability=1, alpha=1),
    }
    augment = make(**config)
    draws = augment.draw(0, torch.arange(5000))
    for values, least, most in (
        (draws.snr_db, 5, 30),
        (draws.semitones, -3, 1),
        (draws.rate, 0.8, 1.25),
        (augment.draw_shift(0, torch.arange(5000)), -4000, 2000),
        (draws.gain_db, -6, 3),
        *((place, -9, 4) for place in draws.filter_db.t()),
        (draws.freq_share, 0, 0.2),
        (draws.time_share, 0, 0.1),
        (draws.mix_ratio, 0, 1),
    ):
        assert least <= values.min() < least + 0.01 * (most - least)
        assert most - 0.01 * (most - least) < values.max() <= most
    assert draws.noise_start.min() >= 0
    assert draws.noise_start.max() + N_TIME <= augment.noise.numel()
    assert augment.max_semitones == 3
    assert make(pitch=PitchConfig(probability=0)).max_semitones == 0


def test_probabilities_are_kept():
    draws = make(
        noise=NoiseConfig(probability=0.25),
        pitch=PitchConfig(probability=0.0),
        mixup=MixupConfig(probability=0.6),
        filter=FilterConfig(probability=0.35),
    ).draw(0, torch.arange(10_000))
    assert float(torch.isfinite(draws.snr_db).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert draws.semitones.abs().max() == 0
    assert float((draws.mix_ratio < 1).float().mean()) == pytest.approx(0.6, abs=0.02)
    is_filtered = draws.filter_db != 0
    assert torch.equal(is_filtered.any(dim=1), is_filtered.all(dim=1))
    assert float(is_filtered.float().mean()) == pytest.approx(0.35, abs=0.02)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixing_ratios_follow_the_beta_distribution(alpha):
    ratio = (
        make(mixup=MixupConfig(probability=1, alpha=alpha)).draw(0, torch.arange(20_000)).mix_ratio
    )
    assert float(ratio.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(ratio.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_noise_pieces_stay_within_one_colour():
    augment = make()
    start = augment.draw(0, torch.arange(5000)).noise_start
    within = start % augment.noise.shape[1]
    assert (within + N_TIME).max() <= augment.noise.shape[1]
    assert len((start // augment.noise.shape[1]).unique()) == 3


def test_draws_are_functions_of_seed_epoch_and_clip():
    filtered = {"filter": FilterConfig(probability=0.5)}
    augment = make(**filtered)
    clips = torch.arange(64)
    whole, shuffled = augment.draw(2, clips), augment.draw(2, clips.flip(0))
    other_epoch, other_seed = augment.draw(3, clips), make(seed=1, **filtered).draw(2, clips)
    for field in dataclasses.fields(whole):
        value = getattr(whole, field.name)
        assert torch.equal(value, getattr(shuffled, field.name).flip(0))
        assert not torch.equal(value, getattr(other_epoch, field.name))
        assert not torch.equal(value, getattr(other_seed, field.name))


def test_what_is_not_drawn_leaves_the_rest_alone():
    clips, off = torch.arange(64), {"probability": 0.0}
    whole = make().draw(1, clips)
    some = make(mask=MaskConfig(**off), noise=NoiseConfig(**off)).draw(1, clips)
    for field in ("gain_db", "semitones", "rate", "mix_ratio"):
        assert torch.equal(getattr(some, field), getattr(whole, field))
    assert not torch.isfinite(some.snr_db).any()
    assert not (some.freq_share + some.time_share).any()


def test_four_variants_are_the_original_projects():
    draws = make("four_variants").draw(0, torch.arange(4000))
    kinds = torch.stack(
        (torch.isfinite(draws.snr_db), draws.semitones == 2, draws.rate == np.float32(0.9))
    )
    assert kinds.sum(dim=0).max() == 1
    shares = [float(kind.float().mean()) for kind in kinds]
    assert shares == pytest.approx([0.25] * 3, abs=0.03)
    shift = make("four_variants").draw_shift(0, torch.arange(4000))
    for unused in (shift, draws.gain_db, draws.filter_db, draws.freq_share, draws.time_share):
        assert unused.abs().max() == 0
    assert draws.mix_ratio.min() == 1


def test_a_variant_is_what_the_preset_draws_by_chance():
    augment, clips = make("four_variants"), torch.arange(64)
    drawn, n_found = augment.draw(0, clips), 0
    for variant in range(len(VARIANTS)):
        fixed = augment.draw_variant(variant, clips)
        is_same = torch.stack(
            [
                (getattr(fixed, f.name) == getattr(drawn, f.name)).view(len(clips), -1).all(dim=1)
                for f in dataclasses.fields(drawn)
            ]
        ).all(dim=0)
        n_found += int(is_same.sum())
    assert n_found == len(clips)


def test_none_changes_nothing():
    recipe = recipe_of(make("none"), make("none").draw(0, torch.arange(8)), torch.ones(1, 8))
    assert (recipe.gain * FULL_SCALE == 1).all()
    assert recipe.noise is recipe.rate is recipe.semitones is recipe.response is recipe.mask is None


def test_a_recipes_part_is_the_recipe_of_a_part():
    augment, clips = make(filter=FilterConfig(probability=1)), torch.arange(16)
    levels = torch.rand(2, 16)
    part = recipe_of(augment, augment.draw(5, clips), levels).part(slice(4, 9))
    alone = recipe_of(augment, augment.draw(5, clips[4:9]), levels[:, 4:9])
    for field in dataclasses.fields(alone):
        assert torch.equal(getattr(part, field.name), getattr(alone, field.name)), field.name


def test_more_clips_than_there_is_noise():
    n = 50
    noise = {"noise": torch.ones(20), "noise_gain": torch.ones(n), "noise_start": torch.zeros(n)}
    recipe = Recipe(gain=torch.arange(float(n))[None], **noise)
    part = recipe.part(torch.tensor([49, 0]))
    assert part.gain.tolist() == [[49, 0]]
    assert torch.equal(part.noise, recipe.noise)

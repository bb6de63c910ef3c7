import dataclasses

import numpy as np
import pytest
import torch

from audioml.augment import Augment
from audioml.augment import functional as F
from audioml.config import (
    AugmentConfig,
    GainConfig,
    MaskConfig,
    MixupConfig,
    NoiseConfig,
    PitchConfig,
    ShiftConfig,
    StretchConfig,
)

RATE, N_TIME = 8000, 8000


def make(preset="ranges", seed=0, **sections):
    return Augment(
        AugmentConfig(preset=preset, **sections), sample_rate=RATE, n_time=N_TIME, seed=seed
    )


def rms(waveform):
    return waveform.square().mean(dim=-1).sqrt()


def test_noise_has_the_asked_ratio():
    waveform = torch.sin(torch.arange(N_TIME) * 0.3).repeat(4, 1)
    noise = F.make_noise_bank(N_TIME, 0)[[0, 1, 2, 0]]
    snr_db = torch.tensor([0.0, 10.0, 30.0, torch.inf])
    added = F.add_noise(waveform, noise, snr_db, rms(waveform)) - waveform
    measured = 20 * torch.log10(rms(waveform) / rms(added))
    torch.testing.assert_close(measured[:3], snr_db[:3], atol=0.05, rtol=0)
    assert added[3].abs().max() == 0


def test_silent_clips_stay_silent():
    noise = F.make_noise_bank(N_TIME, 0)[:1]
    silent = torch.zeros(1, N_TIME)
    assert F.add_noise(silent, noise, torch.zeros(1), torch.zeros(1)).abs().max() == 0


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
    waveform = torch.ones(3, 4)
    changed = F.apply_gain(waveform, torch.tensor([0.0, 20.0, -6.0206]))
    torch.testing.assert_close(changed[:, 0], torch.tensor([1.0, 10.0, 0.5]))


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


def test_masks_cover_what_was_drawn():
    log_mel = torch.ones(3, 10, 20)
    start, width = torch.tensor([0, 4, 9]), torch.tensor([0, 3, 1])
    rows = F.mask_band(log_mel, start, width, dim=1)
    assert [int((clip == 0).sum()) for clip in rows] == [0, 60, 20]
    assert rows[1, 4:7].abs().max() == 0
    columns = F.mask_band(log_mel, start, width, dim=2)
    assert columns[1, :, 4:7].abs().max() == 0
    assert int((columns[1] == 0).sum()) == 30


def test_sounds_and_targets_are_mixed_alike():
    g = torch.Generator().manual_seed(0)
    level = torch.tensor([0.1, 0.4, 0.0, 0.3])
    waveform = level[:, None] * torch.randn(4, 100_000, generator=g)
    clips = F.Sounds(waveform, rms(waveform), torch.eye(4))
    partners = F.Sounds(*(part.roll(1, 0) for part in clips))
    mixed = F.mix(clips, partners, torch.tensor([1.0, 0.75, 0.5, 0.5]))
    # The third clip is silent, and so is the fourth one's partner: both stay as they are.
    expected = torch.eye(4)
    expected[1] = torch.tensor([0.25, 0.75, 0, 0])
    torch.testing.assert_close(mixed.target, expected)
    for unmixed in (0, 2, 3):
        torch.testing.assert_close(mixed.waveform[unmixed], waveform[unmixed])
    torch.testing.assert_close(mixed.rms, rms(mixed.waveform), rtol=0.01, atol=1e-6)
    gain = 0.75 / 0.25 * float(clips.rms[0] / clips.rms[1])  # shares of loudness, 3 : 1
    direction = waveform[1] * gain + waveform[0]
    cosine = torch.nn.functional.cosine_similarity(mixed.waveform[1], direction, dim=0)
    assert float(cosine) > 0.9999


def test_draws_stay_in_their_ranges_and_fill_them():
    config = {
        "noise": NoiseConfig(probability=1, snr_db=(5, 30)),
        "pitch": PitchConfig(probability=1, semitones=(-3, 1)),
        "stretch": StretchConfig(probability=1, rate=(0.8, 1.25)),
        "shift": ShiftConfig(probability=1, shift_s=(-0.5, 0.25)),
        "gain": GainConfig(probability=1, gain_db=(-6, 3)),
        "mask": MaskConfig(probability=1, freq_share=0.2, time_share=0.1),
        "mixup": MixupConfig(probability=1, alpha=1),
    }
    augment = make(**config)
    draws = augment.draw(0, torch.arange(5000))
    for values, least, most in (
        (draws.snr_db, 5, 30),
        (draws.semitones, -3, 1),
        (draws.rate, 0.8, 1.25),
        (draws.shift, -4000, 2000),
        (draws.gain_db, -6, 3),
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
    ).draw(0, torch.arange(10_000))
    assert float(torch.isfinite(draws.snr_db).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert draws.semitones.abs().max() == 0
    assert float((draws.mix_ratio < 1).float().mean()) == pytest.approx(0.6, abs=0.02)


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
    augment = make()
    clips = torch.arange(64)
    whole, shuffled = augment.draw(2, clips), augment.draw(2, clips.flip(0))
    other_epoch, other_seed = augment.draw(3, clips), make(seed=1).draw(2, clips)
    for field in dataclasses.fields(whole):
        value = getattr(whole, field.name)
        assert torch.equal(value, getattr(shuffled, field.name).flip(0))
        assert not torch.equal(value, getattr(other_epoch, field.name))
        assert not torch.equal(value, getattr(other_seed, field.name))


def test_four_variants_are_the_original_projects():
    draws = make("four_variants").draw(0, torch.arange(4000))
    kinds = torch.stack(
        (torch.isfinite(draws.snr_db), draws.semitones == 2, draws.rate == np.float32(0.9))
    )
    assert kinds.sum(dim=0).max() == 1
    shares = [float(kind.float().mean()) for kind in kinds]
    assert shares == pytest.approx([0.25] * 3, abs=0.03)
    for unused in (draws.shift, draws.gain_db, draws.freq_share, draws.time_share):
        assert unused.abs().max() == 0
    assert draws.mix_ratio.min() == 1


def test_none_changes_nothing():
    augment = make("none")
    draws = augment.draw(0, torch.arange(8))
    waveform = torch.randn(8, N_TIME)
    changed = augment.apply_to_waveform(waveform, rms(waveform), draws)
    assert torch.equal(changed, waveform)
    assert (draws.rate == 1).all()
    assert (draws.semitones == 0).all()
    log_mel = torch.randn(8, 16, 20)
    assert torch.equal(augment.apply_to_log_mel(log_mel, draws), log_mel)


def test_waveform_steps_equal_a_loop_over_clips():
    augment = make()
    draws = augment.draw(5, torch.arange(16))
    g = torch.Generator().manual_seed(1)
    waveform = torch.randn(16, N_TIME, generator=g)
    together = augment.apply_to_waveform(waveform, rms(waveform), draws)
    for i in range(16):
        one = slice(i, i + 1)
        alone = augment.apply_to_waveform(waveform[one], rms(waveform[one]), draws[one])
        torch.testing.assert_close(alone[0], together[i])

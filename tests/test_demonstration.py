"""What the page says augmentation does is what a run does."""

import numpy as np
import pytest
import torch

from audioml.assembly import build_frontend
from audioml.augment import VARIANTS, Augment
from audioml.clips import collect
from audioml.config import load_config
from audioml.explore.augmentation import (
    BY_SIGNALSMITH,
    EXACT,
    UNHEARD,
    Demonstration,
    describe_settings,
    stretch,
)
from audioml.loader import Loader
from audioml.store import WaveformStore

RATE = 8000
SETTINGS = [
    "audio.sample_rate=8000",
    "audio.clip_s=0.5",
    "frontend.n_fft=256",
    "frontend.win_length=256",
    "frontend.hop_length=128",
    "frontend.n_mels=24",
    "augment.filter.probability=0.8",
    "train.seed=3",
]
LENGTHS = (3000, 4000, 6000)  # shorter, as long, longer than a clip as models get it
CPU = torch.device("cpu")


@pytest.fixture
def waveforms():
    g = np.random.default_rng(0)
    return [g.integers(-9999, 9999, n) / np.float32(32768) for n in LENGTHS]


def demonstrate(waveforms, clips, *overrides):
    config = load_config(overrides=[*SETTINGS, *overrides])
    augment = Augment(
        config.augment, sample_rate=RATE, n_time=config.audio.n_time, seed=config.train.seed
    )
    frontend = build_frontend(config, CPU, max_semitones=augment.max_semitones)
    frontend.set_statistics(torch.linspace(-40, -20, 24), torch.linspace(3, 9, 24))
    sounds = [waveforms[clip].astype(np.float32) for clip in clips]
    shown = list(Demonstration(config, frontend, augment, clips, sounds).changes())
    return config, augment, frontend, shown


@pytest.mark.parametrize("clip", range(3))
def test_all_together_is_what_the_loader_hands_out(waveforms, clip):
    overrides = ("augment.mixup.probability=0", "audio.crop=center")
    config, augment, frontend, shown = demonstrate(waveforms, [clip], *overrides)
    samples = [np.round(w * 32768).astype(np.int16) for w in waveforms]
    store = WaveformStore(
        collect(samples), n_time=config.audio.n_time, pad="zero", place="host", device=CPU
    )
    loader = Loader(
        store=store,
        frontend=frontend,
        clip_index=torch.arange(3),
        targets=torch.eye(3, dtype=torch.bool),
        batch_size=3,
        crop="center",
        seed=config.train.seed,
        augment=augment,
    )
    together = [change for change in shown if change.name == "all"]
    assert [change.epoch for change in together] == [1, 2, 3]  # as the log numbers them
    for change in together:
        (batch,) = loader.epoch(change.epoch - 1)
        row = batch.clip_index.tolist().index(clip)
        level_db = batch.input[row, 0] * frontend.std_db + frontend.mean_db
        torch.testing.assert_close(torch.from_numpy(change.level_db), level_db)


def test_each_is_shown_alone_the_weakest_and_the_strongest(waveforms):
    _, augment, _, shown = demonstrate(waveforms, [0, 1])
    names = [change.name for change in shown]
    assert names[0] == "original"
    for name in ("noise", "gain", "mixup", "pitch", "stretch", "filter", "mask", "shift"):
        assert names.count(name) == 2, name
    noise = [change for change in shown if change.name == "noise"]
    for change in noise:
        (snr_db,) = augment.draw(change.epoch - 1, torch.tensor([0])).snr_db.tolist()
        assert change.value == f"SNR {snr_db:.1f} dB"
        difference = change.waveform - shown[0].waveform
        sound = waveforms[0]
        measured_db = 10 * np.log10(np.mean(sound**2) / np.mean(difference**2))
        assert measured_db == pytest.approx(snr_db, abs=1.5)  # a short piece of a long noise
    assert float(noise[0].value[4:8]) > float(noise[1].value[4:8])


def test_what_is_heard_is_said(waveforms):
    *_, shown = demonstrate(waveforms, [0, 1])
    heard = {change.name: change.heard for change in shown}
    for name in ("original", "noise", "gain", "mixup", "shift"):
        assert heard[name] == EXACT
    assert heard["pitch"] == heard["stretch"] == BY_SIGNALSMITH
    assert heard["filter"] == heard["mask"] == heard["all"] == UNHEARD
    assert all((change.waveform is None) == (change.heard == UNHEARD) for change in shown)


def test_without_a_partner_nothing_is_mixed(waveforms):
    *_, shown = demonstrate(waveforms, [0], "augment.mixup.probability=1")
    assert "mixup" not in {change.name for change in shown}
    assert not any("this clip" in change.value for change in shown)


def test_other_presets(waveforms):
    *_, shown = demonstrate(waveforms, [0], "augment.preset=none")
    assert [change.name for change in shown] == ["original"]
    *_, shown = demonstrate(waveforms, [0], "augment.preset=four_variants")
    assert [change.name for change in shown] == ["original", *VARIANTS[1:]]
    assert shown[2].value == "+2.0 semitones"


def test_what_is_switched_off_is_not_shown(waveforms):
    off = [f"augment.{name}.probability=0" for name in ("noise", "pitch", "shift")]
    *_, shown = demonstrate(waveforms, [0, 1], *off)
    assert not {"noise", "pitch", "shift"} & {change.name for change in shown}


@pytest.mark.parametrize(("rate", "semitones"), [(1.25, 0.0), (0.8, 0.0), (1.0, 2.0), (1.0, -3.0)])
def test_signalsmith_is_asked_for_the_same_change(rate, semitones):
    time_s = np.arange(2 * RATE) / RATE
    sound = (0.5 * np.sin(2 * np.pi * 500 * time_s)).astype(np.float32)
    changed = stretch(sound, RATE, rate=rate, semitones=semitones)
    assert len(changed) == len(sound)
    middle = changed[RATE // 2 : RATE]
    peak_hz = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * RATE / len(middle)
    assert peak_hz == pytest.approx(500 * 2 ** (semitones / 12), abs=2)
    heard_s = np.flatnonzero(np.abs(changed) > 0.05)[-1] / RATE
    assert heard_s == pytest.approx(min(2 / rate, 2), abs=0.1)


def test_settings_in_words():
    config = load_config(overrides=SETTINGS).augment
    assert describe_settings(config, "noise") == "probability 0.3, snr_db 15 to 40"
    assert describe_settings(config, "mask") == "probability 0.5, freq_share 0.15, time_share 0.15"
    assert describe_settings(config, "mixup") == "probability 0.3, alpha 1"

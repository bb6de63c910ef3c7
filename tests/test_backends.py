"""Every kind of front end computes the same, also at another tempo and pitch for each clip."""

import importlib.util

import numpy as np
import pytest
import torch
from kinds import IS_INTERPRETED, KINDS, compute, to_steps
from sounds import partials

from audioml.frontend import LogMel, choose_kind
from audioml.frontend import functional as F
from audioml.frontend.backends import BACKENDS

RATE = 22_050
LIBRARIES = ["torchaudio", "nnaudio"]
BANKS = [
    {"sample_rate": RATE, "n_fft": 2048, "n_mels": 128},
    {"sample_rate": RATE, "n_fft": 1024, "n_mels": 64, "f_min": 50.0, "f_max": 8000.0},
    {"sample_rate": 44_100, "n_fft": 1500, "n_mels": 96, "mel_scale": "htk", "mel_norm": "none"},
    {"sample_rate": 8000, "n_fft": 255, "n_mels": 16},
]


def audible_difference_db(log_mel, expected):
    """Largest difference over bins within 60 dB of their clip's peak."""
    assert log_mel.shape == expected.shape
    audible = expected > expected.amax((1, 2), keepdim=True) - 60
    return float((log_mel - expected).abs()[audible].max())


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("semitones", [-12.0, -2.0, 0.0, 0.3, 2.0])
@pytest.mark.parametrize("kind", LIBRARIES)
def test_filters_equal_our_own(kind, semitones, bank):
    ratio = 2 ** (semitones / 12)
    expected = F.mel_filterbank(pitch_ratio=ratio, **bank)
    filters = BACKENDS[kind].make_filterbank(pitch_ratio=ratio, **bank)
    assert filters.dtype == torch.float32
    torch.testing.assert_close(filters, expected, rtol=0, atol=1e-4 * float(expected.max()))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_kinds_agree_at_each_clip_s_own_tempo_and_pitch(kind):
    n_time = RATE // 2 if kind == "triton" and IS_INTERPRETED else 2 * RATE
    waveform = to_steps(torch.from_numpy(np.stack([partials(n)[:n_time] for n in range(4)])))
    rate, semitones = torch.tensor([1.0, 0.9, 1.1, 1.0]), torch.tensor([0.0, -2.0, 1.3, 2.0])
    settings = {"sample_rate": RATE, "max_semitones": 2}
    expected = compute("torch", waveform, rate, semitones, **settings)
    log_mel = compute(kind, waveform, rate, semitones, **settings)
    assert audible_difference_db(log_mel, expected) < 0.05


@pytest.mark.parametrize("kind", LIBRARIES)
@pytest.mark.parametrize(("n_fft", "win_length", "hop_length"), [(300, 255, 101), (255, 255, 255)])
def test_kinds_agree_at_odd_lengths(kind, n_fft, win_length, hop_length):
    lengths = {"n_fft": n_fft, "win_length": win_length, "hop_length": hop_length}
    settings = {"sample_rate": 8000, "n_mels": 16, **lengths}
    waveform = 0.1 * torch.randn(2, 4001, generator=torch.Generator().manual_seed(0))
    expected = compute("torch", waveform, **settings)
    assert audible_difference_db(compute(kind, waveform, **settings), expected) < 0.05


@pytest.mark.parametrize("kind", LIBRARIES)
def test_silence_is_at_the_floor_and_nothing_is_printed(kind, capfd):
    log_mel = compute(kind, torch.zeros(1, 4096), sample_rate=RATE)
    torch.testing.assert_close(log_mel, torch.full_like(log_mel, -100.0))
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_of_one_kind_is_one_of_all():
    state = LogMel(sample_rate=RATE).state_dict()
    assert set(state) == {"mean_db", "std_db"}
    for kind in KINDS[1:]:
        LogMel(sample_rate=RATE, kind=kind).load_state_dict(state)


@pytest.mark.parametrize("kind", LIBRARIES)
def test_a_missing_package_is_named_with_the_remedy(kind, monkeypatch):
    assert choose_kind(kind, torch.device("cpu")) == kind
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"(?i)\A[^\n]*" + kind + r"; pip install 'audioml\[back"):
        choose_kind(kind, torch.device("cpu"))

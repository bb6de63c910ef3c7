"""Constant-Q transforms against their definition and librosa; front ends that are trained."""

import librosa
import numpy as np
import pytest
import torch
from sounds import partials

from audioml.frontend import LogCqt, LogMel, TrainableLogMel
from audioml.frontend.recipe import Reading, Recipe

RATE = 22_050
SETTINGS = {"sample_rate": 8000, "hop_length": 100, "n_mels": 16}
MEL = SETTINGS | {"n_fft": 256, "win_length": 200}
CQT = SETTINGS | {"f_min": 300.0, "bins_per_octave": 5}


def make_trainable():
    return [TrainableLogMel(**MEL), LogCqt(trainable=True, **CQT)]


def levels_by_definition(waveform, *, f_min, bins_per_octave, n_bins, hop_length):
    """Brown's sums in float64, a bin at a time: windowed exponentials of a constant Q."""
    quality = 1 / (2 ** (1 / bins_per_octave) - 1)
    levels = []
    for n in range(n_bins):
        frequency = f_min * 2 ** (n / bins_per_octave)
        length = int(np.ceil(quality * RATE / frequency))
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
        place = np.arange(length) + (-length // 2)
        kernel = window * np.exp(-2j * np.pi * frequency * place / RATE) / window.sum()
        padded = np.pad(waveform.astype(np.float64), length)
        starts = np.arange(0, len(waveform) + 1, hop_length) + length + place[0]
        frames = padded[starts[:, None] + np.arange(length)]
        levels.append(10 * np.log10(length * np.abs(frames @ kernel) ** 2))
    return np.stack(levels)


@pytest.mark.parametrize(("n_mels", "bins_per_octave", "f_min"), [(128, 16, 40.0), (84, 12, 32.7)])
def test_cqt_equals_its_definition_and_librosa(n_mels, bins_per_octave, f_min):
    waveform = partials(1)
    frontend = LogCqt(sample_rate=RATE, n_mels=n_mels, bins_per_octave=bins_per_octave, f_min=f_min)
    level_db = frontend(torch.from_numpy(waveform)[None])[0].numpy()
    settings = {"bins_per_octave": bins_per_octave, "hop_length": 512}
    exact = levels_by_definition(waveform, f_min=f_min, n_bins=n_mels, **settings)
    theirs = librosa.cqt(
        waveform.astype(np.float64),
        sr=RATE,
        fmin=f_min,
        n_bins=n_mels,
        tuning=0.0,
        sparsity=0.0,
        pad_mode="constant",
        **settings,
    )
    theirs = 20 * np.log10(np.abs(theirs) + 1e-9)
    assert level_db.shape == exact.shape == theirs.shape == (n_mels, 1 + len(waveform) // 512)
    heard = exact > exact.max() - 40
    assert np.abs(level_db - exact)[heard].max() < 0.05
    assert np.abs(level_db - theirs)[heard].mean() < 0.5
    assert level_db.min() >= -100


@pytest.mark.parametrize("n_time", [1, 99, 100, 4001])
def test_a_cqt_has_as_many_frames_as_a_log_mel(n_time):
    waveform = torch.zeros(2, n_time)
    log_cqt, log_mel = LogCqt(**CQT)(waveform), LogMel(**MEL)(waveform)
    assert log_cqt.shape == log_mel.shape
    assert (log_cqt == -100).all()


def test_a_tone_is_loudest_in_its_bin():
    frontend = LogCqt(**CQT)
    time = torch.arange(8000) / 8000
    for n in (0, 7, 15):
        tone = torch.sin(2 * torch.pi * float(frontend.frequencies[n]) * time)
        assert frontend(tone[None])[0, :, 40].argmax() == n


def test_a_trainable_log_mel_begins_as_the_fixed_one():
    waveform = 0.1 * torch.randn(2, 4001, generator=torch.Generator().manual_seed(0))
    expected = LogMel(**MEL)(waveform)
    assert (TrainableLogMel(**MEL)(waveform) - expected).abs().max() < 0.05


def test_a_trainable_cqt_begins_as_the_fixed_one():
    waveform = 0.1 * torch.randn(2, 4001, generator=torch.Generator().manual_seed(0))
    assert torch.equal(LogCqt(trainable=True, **CQT)(waveform), LogCqt(**CQT)(waveform))


@pytest.mark.parametrize("frontend", [*make_trainable(), LogCqt(**CQT)])
def test_changes_of_tempo_and_pitch_are_refused(frontend):
    waveform, one = torch.zeros(1, 400), torch.ones(1)
    for changes in ((one, None), (None, one)):
        with pytest.raises(ValueError, match=r"set augment\.stretch\.probability=0 and"):
            frontend(waveform, *changes)


@pytest.mark.parametrize("frontend", make_trainable())
def test_every_parameter_is_trained_and_the_loss_falls(frontend):
    """The mean level of a clip is to be what it is not."""
    g = torch.Generator().manual_seed(0)
    waveform = torch.linspace(0, 0.2, 16)[:, None] * torch.randn(16, 2000, generator=g)
    target = torch.linspace(-1, 1, 16)
    frontend.set_statistics(torch.full((16,), -40.0), torch.full((16,), 10.0))
    before = {name: value.clone() for name, value in frontend.state_dict().items()}
    optimizer = torch.optim.AdamW(frontend.parameters(), lr=2e-3)
    losses = []
    for _ in range(5):
        loss = (frontend(waveform).mean((1, 2)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    after = frontend.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert changed == {name for name, _ in frontend.named_parameters()} != set()


@pytest.mark.parametrize("frontend", make_trainable())
def test_gradients_pass_under_autocast_and_float32_stays(frontend):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        level = frontend(0.1 * torch.randn(1, 2000))
    assert level.dtype == torch.float32
    level.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in frontend.parameters())


def test_recipes_without_pitch_and_tempo_are_rendered():
    waveform = 0.1 * torch.randn(2, 2000, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 3], [2, 3], [0, 0], [0, 7]])
    frontend = LogCqt(**CQT)
    response = torch.full((frontend.n_mels, 2), 4.0)
    recipe = Recipe(gain=torch.ones(1, 2), response=response, mask=mask)
    rendered = frontend.render(Reading.of_waveforms(waveform[None]), recipe, 2000)
    assert (rendered[0, :2] == 0).all()
    assert (rendered[0, 2:] - frontend(2 * waveform)[0, 2:]).abs().max() < 0.05
    assert (rendered[1, :, :7] == 0).all()

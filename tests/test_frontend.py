import librosa
import numpy as np
import pytest
import torch
import torchaudio
from audiomentations import PitchShift, TimeStretch
from kinds import IS_INTERPRETED, KINDS, compute, to_steps

from audioml.frontend import LogMel
from audioml.frontend.functional import (
    frame_starts,
    frame_waveform,
    hz_to_mel,
    mel_filterbank,
    mel_to_hz,
    power_to_db_,
)

RATE = 22_050


def noise(n_batch=3, n_time=RATE, seed=0):
    return 0.1 * torch.randn(n_batch, n_time, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
def test_mel_scale_equals_librosa_and_inverts(mel_scale):
    frequency = torch.linspace(0, 11_025, 500, dtype=torch.float64)
    mel = hz_to_mel(frequency, mel_scale)
    expected = librosa.hz_to_mel(frequency.numpy(), htk=mel_scale == "htk")
    np.testing.assert_allclose(mel.numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mel_to_hz(mel, mel_scale).numpy(), frequency.numpy(), atol=1e-8)


@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
@pytest.mark.parametrize("mel_norm", ["slaney", "none"])
@pytest.mark.parametrize(("f_min", "f_max"), [(0.0, None), (50.0, 8000.0)])
def test_filterbank_equals_librosa(mel_scale, mel_norm, f_min, f_max):
    filters = mel_filterbank(
        sample_rate=RATE,
        n_fft=1024,
        n_mels=64,
        f_min=f_min,
        f_max=f_max,
        mel_scale=mel_scale,
        mel_norm=mel_norm,
    ).numpy()
    expected = librosa.filters.mel(
        sr=RATE,
        n_fft=1024,
        n_mels=64,
        fmin=f_min,
        fmax=f_max,
        htk=mel_scale == "htk",
        norm="slaney" if mel_norm == "slaney" else None,
    )
    np.testing.assert_allclose(filters, expected, atol=1e-6 * expected.max())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_fft": 1024, "win_length": 1024, "hop_length": 256, "n_mels": 64},
        {"n_fft": 2048, "win_length": 1500, "hop_length": 441},
        {"mel_scale": "htk", "mel_norm": "none", "f_min": 30.0, "f_max": 10_000.0},
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_log_mel_equals_librosa(kind, settings):
    n_batch, n_time = (1, RATE // 2) if kind == "triton" and IS_INTERPRETED else (3, RATE)
    waveform = to_steps(noise(n_batch, n_time) * torch.linspace(0, 1, n_time))
    log_mel = compute(kind, waveform, sample_rate=RATE, **settings).numpy()
    s = {"n_fft": 2048, "win_length": 2048, "hop_length": 512, "n_mels": 128, **settings}
    mel = librosa.feature.melspectrogram(
        y=waveform.numpy().astype(np.float64),
        sr=RATE,
        n_fft=s["n_fft"],
        win_length=s["win_length"],
        hop_length=s["hop_length"],
        n_mels=s["n_mels"],
        fmin=s.get("f_min", 0.0),
        fmax=s.get("f_max"),
        htk=s.get("mel_scale") == "htk",
        norm=None if s.get("mel_norm") == "none" else "slaney",
    )
    expected = librosa.power_to_db(mel, ref=1.0, top_db=None)
    assert log_mel.shape == expected.shape
    audible = expected > expected.max() - 60
    assert np.abs(log_mel - expected)[audible].max() < 0.05
    assert np.abs(log_mel - expected).max() < 0.05  # this noise has no quieter corners


def test_log_mel_equals_torchaudio():
    waveform = noise()
    reference = torchaudio.transforms.MelSpectrogram(
        sample_rate=RATE,
        n_fft=2048,
        hop_length=512,
        n_mels=128,
        norm="slaney",
        mel_scale="slaney",
        pad_mode="constant",
    )
    difference = LogMel(sample_rate=RATE)(waveform) - power_to_db_(reference(waveform))
    assert difference.abs().max() < 0.05


def test_one_clip_at_a_time_equals_the_batch():
    waveform, rate = noise(5), torch.tensor([0.9, 1.0, 1.1, 1.05, 0.95])
    semitones = torch.tensor([-2.0, 0.0, 0.33, 2.0, 1.0])
    frontend = LogMel(sample_rate=RATE, max_semitones=2)
    together = frontend(waveform, rate, semitones)
    for i in range(5):
        alone = frontend(waveform[i : i + 1], rate[i : i + 1], semitones[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=0)


@pytest.mark.parametrize("n_fft", [255, 256])
def test_every_frame_is_there_at_odd_lengths_too(n_fft):
    frontend = LogMel(sample_rate=RATE, n_fft=n_fft, win_length=n_fft, hop_length=100, n_mels=16)
    waveform = noise(5, 1000)
    together = frontend(waveform)
    assert together.shape == (5, 16, 11)
    torch.testing.assert_close(frontend(waveform[4:])[0], together[4], atol=1e-4, rtol=0)


def test_no_change_of_pitch_and_tempo_is_the_plain_log_mel():
    waveform = noise()
    frontend = LogMel(sample_rate=RATE, max_semitones=2)
    changed = frontend(waveform, torch.ones(3), torch.zeros(3))
    torch.testing.assert_close(changed, frontend(waveform), atol=1e-4, rtol=0)


def test_frames_follow_the_rate_and_end_in_silence():
    assert frame_starts(4, 512, torch.tensor([1.0, 1.1, 0.9])).tolist() == [
        [0, 512, 1024, 1536],
        [0, 563, 1126, 1690],
        [0, 461, 922, 1382],
    ]
    waveform = torch.ones(1, 5120)
    frames = frame_waveform(waveform, 1024, 512, torch.tensor([2.0]))
    assert frames.shape == (1, 11, 1024)
    assert frames[0, 2].min() == 1
    assert frames[0, 7:].abs().max() == 0


def test_pitch_moves_a_tone_to_its_new_band():
    time = torch.arange(RATE) / RATE
    frontend = LogMel(sample_rate=RATE, max_semitones=4)
    centres = librosa.mel_frequencies(n_mels=130, fmax=RATE / 2)[1:-1]
    for semitones in (-4.0, -1.5, 2.0, 4.0):
        tone = torch.sin(2 * np.pi * 1500 * time)[None]
        shifted = frontend(tone, None, torch.tensor([semitones]))[0, :, 20]
        target = 1500 * 2 ** (semitones / 12)
        plain = frontend(torch.sin(2 * np.pi * target * time)[None])[0, :, 20]
        assert abs(centres[shifted.argmax()] / target - 1) < 0.03
        assert shifted.max() == pytest.approx(plain.max(), abs=0.5)


def test_nothing_aliases_when_shifted_up():
    time = torch.arange(RATE) / RATE
    near_nyquist = torch.sin(2 * np.pi * 10_500 * time)[None]
    frontend = LogMel(sample_rate=RATE, max_semitones=2)
    shifted = frontend(near_nyquist, None, torch.tensor([2.0]))[0, :, 20]
    assert shifted.max() < frontend(near_nyquist)[0, :, 20].max() - 60


def test_shifted_noise_keeps_its_level():
    # White noise shifted down by 2 semitones has the same power in 0.89 of the band: + 1 dB.
    waveform = noise(1, 10 * RATE)
    frontend = LogMel(sample_rate=RATE, max_semitones=2)
    middle = slice(30, 100)
    plain = frontend(waveform)[0, middle].mean()
    shifted = frontend(waveform, None, torch.tensor([-2.0]))[0, middle].mean()
    assert float(shifted - plain) == pytest.approx(10 * 2 / 12 * np.log10(2), abs=0.15)


@pytest.fixture(scope="module", params=[(-2, 1.0), (2, 1.0), (0, 0.9), (0, 1.1)])
def shifted(fidelity_clips, request):
    """Clips, a pitch shift, a rate, and what Signalsmith makes of the clips [clip, time]."""
    semitones, rate = request.param
    changed = fidelity_clips
    if semitones:
        changed = [PitchShift(semitones, semitones, p=1.0)(clip, RATE) for clip in changed]
    if rate != 1:
        stretch = TimeStretch(rate, rate, leave_length_unchanged=False, p=1.0)
        changed = [stretch(clip, RATE) for clip in changed]
    n_time = len(fidelity_clips[0])
    changed = [np.pad(clip[:n_time], (0, max(0, n_time - len(clip)))) for clip in changed]
    clips, changed = (
        torch.from_numpy(np.stack(waveforms)) for waveforms in (fidelity_clips, changed)
    )
    return to_steps(clips), float(semitones), rate, changed


def distance_to_signalsmith(kind, shifted):
    """Mean |dB| and correlation to time-domain shifting, over bins within 60 dB of the peak."""
    clips, semitones, rate, changed = shifted
    expected = LogMel(sample_rate=RATE)(changed).numpy()
    if kind == "triton" and IS_INTERPRETED:  # the first 64 frames of one clip
        clips, expected = clips[1:2, : 2 * RATE], expected[1:2, :, :64]
    changes = torch.full((len(clips),), rate), torch.full((len(clips),), semitones)
    ours = compute(kind, clips, *changes, sample_rate=RATE, max_semitones=2).numpy()
    distances, correlations = [], []
    for log_mel, reference in zip(ours[..., : expected.shape[2]], expected, strict=True):
        audible = reference > reference.max() - 60
        distances.append(np.abs(log_mel - reference)[audible].mean())
        correlations.append(np.corrcoef(log_mel[audible], reference[audible])[0, 1])
    return np.mean(distances), np.mean(correlations)


@pytest.mark.parametrize("kind", KINDS)
def test_pitch_and_stretch_equal_signalsmith(kind, shifted):
    mean_db, correlation = distance_to_signalsmith(kind, shifted)
    assert mean_db <= 1.5
    assert correlation >= 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_a_response_raises_and_lowers_levels(kind):
    settings = {"sample_rate": RATE, "n_fft": 512, "win_length": 512, "n_mels": 24}
    waveform, response_db = noise(2, 6000), torch.linspace(-12, 12, 48).view(24, 2)
    plain = compute(kind, waveform, **settings)
    changed = compute(kind, waveform, response=10 ** (response_db / 10), **settings)
    expected = response_db.t()[..., None].expand_as(plain)
    torch.testing.assert_close(changed - plain, expected, atol=1e-3, rtol=0)


def test_normalisation_uses_the_statistics():
    waveform, frontend = noise(), LogMel(sample_rate=RATE)
    plain = frontend(waveform)
    mean, std = plain.mean((0, 2)), plain.std((0, 2))
    frontend.set_statistics(mean, std)
    normalised = frontend(waveform)
    assert normalised.mean((0, 2)).abs().max() < 1e-4
    assert (normalised.std((0, 2)) - 1).abs().max() < 1e-3
    frontend.set_statistics(mean, torch.zeros(128))
    assert torch.isfinite(frontend(torch.zeros(1, 4096))).all()


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e-30])
def test_silence_and_constants_stay_finite(value):
    log_mel = LogMel(sample_rate=RATE)(torch.full((1, 4096), value))
    assert torch.isfinite(log_mel).all()
    assert log_mel.min() >= -100


def test_float32_under_autocast():
    frontend, waveform = LogMel(sample_rate=RATE), noise()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_mel = frontend(waveform)
    assert log_mel.dtype == torch.float32
    assert torch.equal(log_mel, frontend(waveform))

"""Sounds at the ends of what numbers can hold, through the whole front end: all stays finite."""

import numpy as np
import pytest
import soundfile
import torch
from files import manifest_of

from audioml.augment import Augment
from audioml.clips import decode_all, scan_headers
from audioml.config import (
    AugmentConfig,
    FilterConfig,
    GainConfig,
    MaskConfig,
    MixupConfig,
    NoiseConfig,
    PitchConfig,
    StretchConfig,
)
from audioml.datasets.manifest import DataError
from audioml.frontend import LogMel
from audioml.loader import Loader
from audioml.normalization import training_statistics
from audioml.store import WaveformStore

CPU = torch.device("cpu")
RATE, N_FFT, N_TIME = 8000, 256, 2000
TIME = np.arange(N_TIME)
SOUNDS = {
    "silence": np.zeros(N_TIME),
    "minus_zero": np.full(N_TIME, -0.0),
    "dc": np.full(N_TIME, 1.0),
    "minus_dc": np.full(N_TIME, -1.0),
    "denormals": np.full(N_TIME, 1e-45),
    "one_step": (TIME == 1000) / 32_768,
    "impulse": (TIME == 1000) * 1.0,
    "square": np.where(TIME // 20 % 2, 1.0, -1.0),
    "square_at_nyquist": np.where(TIME % 2, 1.0, -1.0),
    "louder_than_loud": np.where(TIME // 20 % 2, 1e30, -1e30),
    "one_sample": np.array([1.0]),
    "one_less_than_a_frame": np.ones(N_FFT - 1),
    "a_frame": np.ones(N_FFT),
}
ALWAYS = AugmentConfig(
    noise=NoiseConfig(probability=1.0),
    pitch=PitchConfig(probability=1.0),
    stretch=StretchConfig(probability=1.0),
    gain=GainConfig(probability=1.0),
    filter=FilterConfig(probability=1.0),
    mask=MaskConfig(probability=1.0),
    mixup=MixupConfig(probability=1.0),
)


def make_store(folder, sounds, pad="zero"):
    """Decode sounds from files of 32 bit floats."""
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")
    manifest = manifest_of(folder, [f"{name}.wav" for name in sounds])
    clips = decode_all(manifest, scan_headers(manifest, RATE), RATE)
    return WaveformStore(clips, n_time=N_TIME, pad=pad, place="host", device=CPU)


def make_loader(store, frontend, augment=None):
    n_clips = len(store.length)
    return Loader(
        store=store,
        frontend=frontend,
        clip_index=torch.arange(n_clips),
        targets=torch.ones(n_clips, 1, dtype=torch.bool),
        batch_size=4,
        augment=augment,
    )


def check_finite(store, kind, dtype=torch.float32):
    """Measure the clips' statistics, then look at an epoch as it is and two augmented ones."""
    frontend = LogMel(
        sample_rate=RATE,
        n_fft=N_FFT,
        win_length=N_FFT,
        hop_length=64,
        n_mels=24,
        max_semitones=2,
        kind=kind,
    )
    plain = make_loader(store, frontend)
    frontend.set_statistics(*training_statistics(plain))
    frontend.dtype = dtype
    augment = Augment(ALWAYS, sample_rate=RATE, n_time=N_TIME, seed=0)
    augmented = make_loader(store, frontend, augment)
    for loader, epoch in ((plain, 0), (augmented, 0), (augmented, 1)):
        for batch in loader.epoch(epoch):
            assert torch.isfinite(batch.input).all()
            assert torch.isfinite(batch.target).all()


@pytest.mark.parametrize("kind", ["torch", "torchaudio", "nnaudio"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_extreme_sounds_stay_finite(tmp_path, kind, dtype):
    check_finite(make_store(tmp_path, SOUNDS), kind, dtype)


@pytest.mark.parametrize("pad", ["zero", "wrap"])
@pytest.mark.parametrize("name", SOUNDS)
def test_so_do_data_sets_of_nothing_else(tmp_path, name, pad):
    """Bands whose level never changes have no deviation to divide by."""
    copies = {f"{name}_{copy}": SOUNDS[name] for copy in range(3)}
    check_finite(make_store(tmp_path, copies, pad), "torch")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_before_they_get_there(tmp_path, value):
    sounds = SOUNDS | {"bad": np.where(TIME == 1234, value, SOUNDS["square"])}
    match = r"^1 of 14 clips .*\n  row 14 \(bad\.wav\): .*: 1 samples are NaN or infinite; replace"
    with pytest.raises(DataError, match=match):
        make_store(tmp_path, sounds)

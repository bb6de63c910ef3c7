"""Levels against signals whose levels are known."""

import math

import numpy as np
import pytest
import soundfile

from audioml.datasets.manifest import Clip
from audioml.decode import read_payload
from audioml.measurement import FRAME_S, find_equal, measure

RATE = 8000


def measured(tmp_path, waveform, rate=RATE, subtype="FLOAT", suffix="wav"):
    file = tmp_path / f"clip{len(list(tmp_path.iterdir()))}.{suffix}"
    soundfile.write(file, waveform, rate, subtype=subtype)
    return measure(Clip(path=file, label="a", target=0, source="a"), read_payload(file))


def sine(amplitude=0.5, n_samples=RATE):
    return amplitude * np.sin(2 * np.pi * 400 * np.arange(n_samples) / RATE)


def test_a_sine_has_the_levels_of_a_sine(tmp_path):
    found = measured(tmp_path, sine(0.5))
    assert found.peak == pytest.approx(0.5, abs=1e-3)
    assert found.rms == pytest.approx(0.5 / math.sqrt(2), rel=1e-6)
    assert found.dc == pytest.approx(0, abs=1e-7)
    assert found.duration_s == 1
    assert (found.silence_share, found.n_full_scale) == (0, 0)


def test_the_offset_is_that_of_the_worse_channel(tmp_path):
    found = measured(tmp_path, np.stack((sine() + 0.02, sine() - 0.1), axis=1))
    assert found.n_channels == 2
    assert found.dc == pytest.approx(-0.1, abs=1e-6)


def test_the_rms_is_over_all_channels(tmp_path):
    found = measured(tmp_path, np.stack((np.full(RATE, 0.3), np.full(RATE, 0.4)), axis=1))
    assert found.rms == pytest.approx(math.sqrt((0.09 + 0.16) / 2))


@pytest.mark.parametrize("n_extra", [0, 1, 17, round(FRAME_S * RATE) - 1])
def test_silence_is_counted_in_frames_the_last_one_too(tmp_path, n_extra):
    waveform = np.concatenate((sine(0.5, RATE // 4), np.full(3 * RATE // 4 + n_extra, 0.0009)))
    n_frames = math.ceil(len(waveform) / (FRAME_S * RATE))
    found = measured(tmp_path, waveform)
    assert found.silence_share == pytest.approx(1 - 13 / n_frames)  # 12.5 frames are loud
    assert measured(tmp_path, 1.2 * waveform[RATE // 4 :]).silence_share == 0  # above -60 dBFS


def test_many_blocks_say_what_one_says(tmp_path, monkeypatch):
    waveform = np.random.default_rng(0).uniform(-0.9, 0.9, (3 * RATE + 77, 3))
    waveform[1000:9000] = 0
    once = measured(tmp_path, waveform, subtype="PCM_24")
    monkeypatch.setattr("audioml.measurement._BLOCK_SAMPLES", 1)
    in_blocks = measured(tmp_path, waveform, subtype="PCM_24")
    assert in_blocks.rms == pytest.approx(once.rms, rel=1e-12)
    assert in_blocks.dc == pytest.approx(once.dc, abs=1e-9)
    for name in ("peak", "silence_share", "n_full_scale", "content", "digest"):
        assert getattr(in_blocks, name) == getattr(once, name)


def test_the_same_samples_in_another_format_have_the_same_content(tmp_path):
    waveform = np.random.default_rng(0).integers(-9999, 9999, RATE, dtype=np.int16)
    wav = measured(tmp_path, waveform, subtype="PCM_16")
    flac = measured(tmp_path, waveform, subtype="PCM_16", suffix="flac")
    assert wav.content == flac.content
    assert wav.digest != flac.digest
    assert measured(tmp_path, waveform, rate=2 * RATE, subtype="PCM_16").content != wav.content


def test_digital_silence_has_no_content(tmp_path):
    found = measured(tmp_path, np.zeros(RATE))
    assert found.is_silent
    assert (found.peak, found.rms, found.silence_share, found.content) == (0, 0, 1, "")


@pytest.mark.parametrize(("n_full", "is_clipped"), [(10, False), (11, True)])
def test_clipping(tmp_path, n_full, is_clipped):
    waveform = sine()
    waveform[:n_full] = -1
    assert measured(tmp_path, waveform).is_clipped == is_clipped


def test_find_equal_groups_what_is_there_twice():
    assert find_equal({3: "a", 5: "b", 7: "a", 9: "c", 11: "a"}) == [[3, 7, 11]]

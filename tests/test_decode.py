import numpy as np
import pytest
import soundfile

from audioml.decode import DecodeError, Recording, decode_clip, read_recording, to_int16

RATE = 44_100


def tone(frequency, duration_s=1.0, rate=RATE, level=0.5):
    return (
        level * np.sin(2 * np.pi * frequency * np.arange(round(duration_s * rate)) / rate)
    ).astype(np.float32)


def write(path, samples, rate=RATE, **options):
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {"subtype": "PCM_16"}),
        ("a.wav", {"subtype": "PCM_24"}),
        ("a.wav", {"subtype": "PCM_U8"}),
        ("a.wav", {"subtype": "FLOAT"}),
        ("a.flac", {}),
        ("a.ogg", {}),
        ("a.mp3", {}),
    ],
)
def test_formats_decode_to_the_same_tone(tmp_path, name, options):
    file = write(tmp_path / name, tone(440), **options)
    samples = decode_clip(file, 22_050)
    assert samples.dtype == np.int16
    assert abs(len(samples) - 22_050) <= 1200  # MP3 pads to whole frames
    spectrum = np.abs(np.fft.rfft(samples[4000:20_000] * np.hanning(16_000)))
    assert spectrum.argmax() * 22_050 / 16_000 == pytest.approx(440, abs=1.5)
    assert np.abs(samples[4000:20_000]).max() / 32_768 == pytest.approx(0.5, abs=0.02)


def test_pcm16_at_its_own_rate_is_bit_exact(tmp_path):
    samples = np.random.default_rng(0).integers(-32_768, 32_767, 5000, dtype=np.int16)
    assert np.array_equal(decode_clip(write(tmp_path / "a.wav", samples), RATE), samples)


def test_channels_are_averaged(tmp_path):
    left, right = tone(440), tone(440, level=0.1)
    file = write(tmp_path / "a.wav", np.stack((left, right), axis=1), subtype="FLOAT")
    mono = np.rint((left + right) / 2 * 32_768)
    assert np.abs(decode_clip(file, RATE) - mono).max() <= 1


def test_resampling_leaves_no_alias(tmp_path):
    file = write(tmp_path / "a.wav", tone(12_000) + tone(1000), subtype="FLOAT")
    samples = decode_clip(file, 22_050)[5000:-5000] / 32_768
    spectrum = 20 * np.log10(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) + 1e-9)
    frequency = np.fft.rfftfreq(len(samples), 1 / 22_050)
    assert spectrum[frequency > 2000].max() < spectrum.max() - 80


def test_start_and_end_cut_the_file(tmp_path):
    samples = np.arange(RATE, dtype=np.int16)
    file = write(tmp_path / "a.wav", samples)
    assert np.array_equal(decode_clip(file, RATE, 0.25, 0.5), samples[11_025:22_050])


def test_louder_than_full_scale_is_clipped_not_wrapped():
    loud = np.array([[1.5], [-1.5], [0.0]], dtype=np.float32)
    assert to_int16(Recording(loud, 8000), 8000).tolist() == [32_767, -32_768, 0]


def test_one_sample_and_silence_decode(tmp_path):
    assert len(decode_clip(write(tmp_path / "one.wav", np.array([0.5])), RATE)) == 1
    for n_samples in (1, 2, 3):
        few = write(tmp_path / f"{n_samples}.wav", np.full(n_samples, 0.5), 48_000)
        assert len(decode_clip(few, 8000)) >= 1
    assert not decode_clip(write(tmp_path / "zero.wav", np.zeros(1000)), RATE).any()


def test_bad_files_are_named_with_reason_and_remedy(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("<html>not found</html>")
    write(tmp_path / "nan.wav", np.array([0.0, np.nan, np.inf], dtype=np.float32), subtype="FLOAT")
    write(tmp_path / "none.wav", np.zeros(0, dtype=np.float32))
    for name, reason in {
        "missing.wav": "No such file",
        "empty.wav": "the file is empty",
        "text.wav": "not readable as audio",
        "nan.wav": "2 samples are NaN or infinite",
        "none.wav": "no samples",
    }.items():
        with pytest.raises(DecodeError, match=rf"{name}: .*{reason}") as error:
            decode_clip(tmp_path / name, RATE)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated_files_are_refused(tmp_path, suffix, share):
    whole = write(tmp_path / f"whole.{suffix}", tone(440, 3.0)).read_bytes()
    file = tmp_path / f"short.{suffix}"
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DecodeError, match=rf"short\.{suffix}: "):
        decode_clip(file, RATE)


def test_wav_of_unknown_size_is_read_to_its_end(tmp_path):
    file = write(tmp_path / "piped.wav", tone(440))
    content = file.read_bytes()
    place = content.index(b"data") + 4
    file.write_bytes(content[:place] + b"\xff\xff\xff\xff" + content[place + 4 :])
    assert len(decode_clip(file, RATE)) == RATE


def test_times_outside_the_file_are_refused(tmp_path):
    file = write(tmp_path / "a.wav", tone(440))
    for start_s, end_s in ((2.0, None), (0.5, 0.5), (0.0, 1.5), (-1.0, None)):
        with pytest.raises(DecodeError, match=r"no samples from .*mend start_s and end_s"):
            read_recording(file, start_s, end_s)

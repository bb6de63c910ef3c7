import resource
import sys

import numpy as np
import pytest
import soundfile
import torch

from audioml.decode import (
    DecodeError,
    PcmLayout,
    decode_clip,
    pcm_to_waveform,
    read_payload,
    read_recording,
    scan_length,
    to_int16,
)
from audioml.decode.layout import SAMPLE_BYTES

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
    flac = write(tmp_path / "a.flac", samples)
    assert np.array_equal(decode_clip(flac, RATE, 0.25, 0.5), samples[11_025:22_050])


def test_louder_than_full_scale_is_clipped_not_wrapped():
    loud = torch.tensor([1.5, -1.5, 0.0]).view(torch.uint8)
    assert to_int16(loud, PcmLayout("f32", 1, 8000), 8000).tolist() == [32_767, -32_768, 0]


def test_halves_are_rounded_to_even():
    halves = (torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5]) / 32_768).view(torch.uint8)
    assert to_int16(halves, PcmLayout("f32", 1, 8000), 8000).tolist() == [0, 2, 2, 0, -2]


PLAIN_SUBTYPES = {
    "PCM_U8": "u8",
    "PCM_16": "s16",
    "PCM_24": "s24",
    "PCM_32": "s32",
    "FLOAT": "f32",
    "DOUBLE": "f64",
}


@pytest.mark.parametrize("n_channels", [1, 2, 7])
@pytest.mark.parametrize("container", ["WAV", "WAVEX"])
@pytest.mark.parametrize(("subtype", "sample_format"), PLAIN_SUBTYPES.items())
def test_plain_wav_equals_soundfile(tmp_path, subtype, sample_format, container, n_channels):
    noise = np.random.default_rng(0).uniform(-1, 1, (999, n_channels))
    noise[:2] = [[-1.0], [1.0]]
    file = write(tmp_path / "a.wav", noise, subtype=subtype, format=container)
    payload = read_payload(file)
    assert payload.layout == PcmLayout(sample_format, n_channels, RATE)
    expected, _ = soundfile.read(file, dtype="float32", always_2d=True)
    assert np.array_equal(read_recording(file).waveform, expected)
    waveform = pcm_to_waveform(torch.from_numpy(payload.data), payload.layout)
    np.testing.assert_allclose(waveform, expected.mean(axis=1), atol=1.5e-7)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {"subtype": "ALAW"}),
        ("a.wav", {"subtype": "ULAW"}),
        ("a.wav", {"subtype": "IMA_ADPCM"}),
        ("a.wav", {"subtype": "MS_ADPCM"}),
        ("a.wav", {"subtype": "PCM_16", "endian": "BIG"}),
        ("a.wav", {"subtype": "PCM_24", "format": "RF64"}),
        ("a.w64", {"subtype": "PCM_24"}),
        ("a.aiff", {"subtype": "PCM_16"}),
        ("a.flac", {"subtype": "PCM_24"}),
        ("a.ogg", {}),
        ("a.mp3", {}),
    ],
)
def test_other_files_equal_soundfile(tmp_path, name, options):
    stereo = np.stack((tone(440), tone(1000, level=0.2)), axis=1)
    file = write(tmp_path / name, stereo, **options)
    expected, _ = soundfile.read(file, dtype="float32", start=4410, stop=22_050)
    payload = read_payload(file, 0.1, 0.5)
    assert payload.layout == PcmLayout("f32", 2, RATE)
    assert np.array_equal(payload.data.view(np.float32).reshape(-1, 2), expected)
    assert scan_length(file) == (payload.layout, soundfile.info(file).frames)


def test_compressed_files_beyond_the_plausible_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("audioml.decode.payload.PLAUSIBLE_BYTES", 0)
    monkeypatch.setattr("audioml.decode.payload.PLAUSIBLE_EXPANSION", 0)
    for suffix in ("flac", "ogg", "mp3"):
        file = write(tmp_path / f"a.{suffix}", tone(440))
        expected, _ = soundfile.read(file, dtype="float32")
        assert np.array_equal(read_recording(file).waveform[:, 0], expected)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_a_compressed_file_that_claims_gigabytes_takes_no_memory(tmp_path):
    file = tmp_path / "a.flac"
    write(file, np.random.default_rng(0).uniform(-0.5, 0.5, 20_000))
    content = bytearray(file.read_bytes())
    content[21] |= 0x0F  # STREAMINFO: 36 bits of samples from the lower half of this byte on
    content[22:26] = b"\xff\xff\xff\xff"
    file.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for look in (read_payload, scan_length):
        with pytest.raises(DecodeError, match=r"a\.flac: "):
            look(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.mark.gpu
@pytest.mark.parametrize("sample_format", SAMPLE_BYTES)
@pytest.mark.parametrize("sample_rate", [22_050, 44_100, 48_000])
def test_cuda_equals_the_cpu(sample_format, sample_rate):
    """The resampler's sums are ordered differently, so that a sample may round the other way."""
    layout = PcmLayout(sample_format, 2, RATE)
    g = np.random.default_rng(0)
    if sample_format in ("f32", "f64"):
        noise = g.uniform(-0.5, 0.5, 2 * RATE).astype(
            {"f32": np.float32, "f64": np.float64}[sample_format]
        )
        data = torch.from_numpy(noise).view(torch.uint8)
    else:
        data = torch.from_numpy(g.integers(256, size=RATE * layout.frame_bytes, dtype=np.uint8))
    on_cpu = to_int16(data, layout, sample_rate)
    on_gpu = to_int16(data.cuda(), layout, sample_rate)
    assert (on_gpu.cpu().int() - on_cpu.int()).abs().max() <= 1


@pytest.mark.gpu
def test_nothing_waits_for_the_device():
    layout = PcmLayout("s24", 2, RATE)
    data = torch.zeros(RATE * layout.frame_bytes, dtype=torch.uint8, device="cuda")
    to_int16(data, layout, 22_050)  # uploads the resampler's kernel
    torch.cuda.set_sync_debug_mode("error")
    try:
        to_int16(data, layout, 22_050)
    finally:
        torch.cuda.set_sync_debug_mode("default")


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
    write(tmp_path / "huge.wav", np.array([1e300, 0.0]), subtype="DOUBLE")
    write(tmp_path / "none.wav", np.zeros(0, dtype=np.float32))
    for name, reason in {
        "missing.wav": "No such file",
        "empty.wav": "the file is empty",
        "text.wav": "not readable as audio",
        "nan.wav": "2 samples are NaN or infinite",
        "huge.wav": "1 samples are NaN or infinite",
        "none.wav": "no samples",
    }.items():
        with pytest.raises(DecodeError, match=rf"{name}: .*{reason}") as error:
            decode_clip(tmp_path / name, RATE)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("wav", {}),
        ("wav", {"subtype": "ULAW"}),
        ("wav", {"format": "RF64"}),
        ("w64", {}),
        ("aiff", {}),
        ("au", {}),
        ("flac", {}),
        ("ogg", {}),
        ("mp3", {}),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated_files_are_refused(tmp_path, suffix, options, share):
    whole = write(tmp_path / f"whole.{suffix}", tone(440, 3.0), **options).read_bytes()
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

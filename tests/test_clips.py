import numpy as np
import pytest
import soundfile
import torch
from files import manifest_of

from audioml.clips import ClipHeader, collect, decode_all, measure_all, scan_headers
from audioml.datasets.manifest import DataError
from audioml.decode import PcmLayout, decode_clip

CPU = torch.device("cpu")


def clip(*values):
    return np.array(values, dtype=np.int16)


def decode(manifest, sample_rate, n_threads=0, device=CPU):
    return decode_all(manifest, scan_headers(manifest, sample_rate), sample_rate, n_threads, device)


def test_rms_length_and_digests():
    clips = collect([clip(3276, -3276), clip(0, 0, 0), clip(0, 0), clip(3276, -3276)])
    assert clips.rms.tolist() == pytest.approx([0.1, 0, 0, 0.1], abs=1e-4)
    assert clips.length.tolist() == [2, 3, 2, 2]
    assert clips.digests[0] == clips.digests[3] != ""
    assert clips.digests[1] == clips.digests[2] == ""


def test_decode_all_keeps_the_order(tmp_path):
    lengths = [500, 100, 300, 700, 200]
    names = [f"{n}.wav" for n in lengths]
    for n, name in zip(lengths, names, strict=True):
        soundfile.write(tmp_path / name, np.full(n, n / 1000), 8000)
    clips = decode(manifest_of(tmp_path, names), 8000, n_threads=3)
    assert clips.length.tolist() == lengths
    assert clips.rms.tolist() == pytest.approx([n / 1000 for n in lengths], abs=1e-3)


def test_decoded_clips_equal_their_files(tmp_path):
    g = np.random.default_rng(0)
    names = ["a.wav", "b.flac", "c.wav"]
    for name, rate in zip(names, (22_050, 44_100, 16_000), strict=True):
        soundfile.write(tmp_path / name, g.uniform(-0.5, 0.5, (rate // 3, 2)), rate)
    clips = decode(manifest_of(tmp_path, names), 22_050, device=CPU)
    expected = collect([decode_clip(tmp_path / name, 22_050) for name in names])
    assert torch.equal(clips.samples, expected.samples)
    assert torch.equal(clips.length, expected.length)
    assert torch.equal(clips.rms, expected.rms)
    assert clips.digests == expected.digests


def test_measuring_tells_what_decoding_tells(tmp_path):
    g = np.random.default_rng(0)
    names = ["a.wav", "b.flac", "c.ogg"]
    for name in names:
        soundfile.write(tmp_path / name, g.uniform(-0.5, 0.5, (9000, 2)), 44_100)
    manifest = manifest_of(tmp_path, names)
    headers = scan_headers(manifest, 16_000)
    measured, decoded = (f(manifest, headers, 16_000) for f in (measure_all, decode_all))
    assert torch.equal(measured.length, decoded.length)
    assert torch.equal(measured.rms, decoded.rms)
    assert measured.digests == decoded.digests


def test_a_file_that_changes_between_the_passes_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 8000)
    manifest = manifest_of(tmp_path, ["a.wav"])
    before = [ClipHeader(PcmLayout("s16", 1, 8000), 99)]
    with pytest.raises(DataError, match=r"row 1 \(a\.wav\): .*changed .* from 198 bytes .* to 200"):
        decode_all(manifest, before, 8000)


@pytest.mark.gpu
def test_decoding_on_cuda_equals_the_cpus(tmp_path):
    g = np.random.default_rng(0)
    names = [f"{n}.wav" for n in range(40)]
    for name in names:
        samples = g.uniform(-0.5, 0.5, (g.integers(1, 9000), 2))
        soundfile.write(tmp_path / name, samples, g.choice([8000, 16_000, 44_100]))
    on_cpu = decode(manifest_of(tmp_path, names), 16_000)
    on_gpu = decode(manifest_of(tmp_path, names), 16_000, device=torch.device("cuda"))
    assert torch.equal(on_cpu.length, on_gpu.length)
    assert (on_cpu.samples.int() - on_gpu.samples.int()).abs().max() <= 1


def test_every_bad_file_is_reported_with_its_row(tmp_path):
    soundfile.write(tmp_path / "good.wav", np.zeros(100), 8000)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(DataError) as error:
        decode(manifest_of(tmp_path, ["good.wav", "empty.wav", "text.wav"]), 8000)
    message = str(error.value)
    assert "2 of 3 clips can't be decoded" in message
    assert "row 2 (empty.wav)" in message
    assert "row 3 (text.wav)" in message
    assert "good.wav" not in message

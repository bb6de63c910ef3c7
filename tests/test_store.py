import numpy as np
import pytest
import soundfile
import torch

from audioml.datasets.manifest import Clip, DataError, Manifest
from audioml.decode import PcmLayout, decode_clip
from audioml.store import WaveformStore, choose_place, collect, decode_all

CPU = torch.device("cpu")
N_TIME = 10


def clip(*values):
    return np.array(values, dtype=np.int16)


SHORT, EXACT, LONG = clip(*range(1, 5)), clip(*range(1, 11)), clip(*range(1, 16))


def make_store(pad="zero", place="host"):
    """A store on the CPU; place="device" there runs the code that runs on a GPU."""
    return WaveformStore(
        collect([SHORT, EXACT, LONG]), n_time=N_TIME, pad=pad, place=place, device=CPU
    )


def read(store, index, start):
    waveform = store.gather(torch.tensor([index]), torch.tensor([start]))
    return (waveform[0] * 32_768).round().int().tolist()


@pytest.mark.parametrize("place", ["host", "device"])
def test_clips_are_read_as_circles(place):
    store = make_store(place=place)
    assert read(store, 0, 0) == [1, 2, 3, 4, 0, 0, 0, 0, 0, 0]
    assert read(store, 0, 2) == [3, 4, 0, 0, 0, 0, 0, 0, 1, 2]
    assert read(store, 0, -3) == [0, 0, 0, 1, 2, 3, 4, 0, 0, 0]
    assert read(store, 1, 7) == [8, 9, 10, 1, 2, 3, 4, 5, 6, 7]
    assert read(store, 2, 3) == list(range(4, 14))
    assert read(store, 2, 12) == [13, 14, 15, 1, 2, 3, 4, 5, 6, 7]
    assert read(store, 2, 12 - 15 * 4) == read(store, 2, 12)


@pytest.mark.parametrize("place", ["host", "device"])
def test_wrap_repeats_short_clips(place):
    store = make_store("wrap", place)
    assert read(store, 0, 0) == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert read(store, 0, 3) == [4, 1, 2, 3, 4, 1, 2, 3, 4, 1]


@pytest.mark.parametrize("pad", ["zero", "wrap"])
def test_both_places_read_the_same(pad):
    g = np.random.default_rng(0)
    clips = collect([g.integers(-9999, 9999, g.integers(1, 40), dtype=np.int16) for _ in range(50)])
    host, device = (
        WaveformStore(clips, n_time=N_TIME, pad=pad, place=place, device=CPU)
        for place in ("host", "device")
    )
    index = torch.from_numpy(g.integers(0, 50, 500))
    start = torch.from_numpy(g.integers(-100, 100, 500))
    assert torch.equal(host.gather(index, start), device.gather(index, start))


def test_crop_starts_use_the_room_there_is():
    store = make_store()
    index = torch.tensor([0, 1, 2])
    assert store.crop_start(index, 0.0).tolist() == [0, 0, 0]
    assert store.crop_start(index, 0.5).tolist() == [0, 0, 3]
    assert store.crop_start(index, torch.tensor([0.99, 0.99, 0.999])).tolist() == [0, 0, 5]


def test_rms_length_and_digests():
    clips = collect([clip(3276, -3276), clip(0, 0, 0), clip(0, 0), clip(3276, -3276)])
    assert clips.rms.tolist() == pytest.approx([0.1, 0, 0, 0.1], abs=1e-4)
    assert clips.length.tolist() == [2, 3, 2, 2]
    assert clips.digests[0] == clips.digests[3] != ""
    assert clips.digests[1] == clips.digests[2] == ""


GIB = 1 << 30


@pytest.mark.parametrize(
    ("n_gib", "device", "place"),
    [(1, "cuda", "device"), (5, "cuda", "pinned"), (1, "cpu", "host"), (15, "cpu", "host")],
)
def test_place_follows_device_and_budget(n_gib, device, place):
    chosen = choose_place(
        n_gib * GIB, torch.device(device), device_budget_gib=4, host_budget_gib=16
    )
    assert chosen == place


@pytest.mark.parametrize(
    ("n_gib", "device", "wanted", "message"),
    [
        (17, "cpu", "auto", r"17\.00 GiB, more than audio\.host_budget_gib=16; raise it"),
        (17, "cuda", "auto", r"audio\.host_budget_gib=16"),
        (5, "cuda", "device", r"audio\.device_budget_gib=4"),
        (1, "cpu", "device", r"audio\.store=device needs a CUDA device"),
        (1, "cpu", "pinned", r"audio\.store=pinned needs a CUDA device"),
    ],
)
def test_what_does_not_fit_is_refused(n_gib, device, wanted, message):
    with pytest.raises(DataError, match=message):
        choose_place(
            n_gib * GIB,
            torch.device(device),
            wanted=wanted,
            device_budget_gib=4,
            host_budget_gib=16,
        )


def manifest_of(folder, names):
    clips = tuple(Clip(path=folder / name, label="a", target=0, source=name) for name in names)
    return Manifest(name="test", root=folder, labels=("a",), clips=clips)


def test_decode_all_keeps_the_order(tmp_path):
    lengths = [500, 100, 300, 700, 200]
    names = [f"{n}.wav" for n in lengths]
    for n, name in zip(lengths, names, strict=True):
        soundfile.write(tmp_path / name, np.full(n, n / 1000), 8000)
    clips = decode_all(manifest_of(tmp_path, names), 8000, n_threads=3)
    assert clips.length.tolist() == lengths
    assert clips.rms.tolist() == pytest.approx([n / 1000 for n in lengths], abs=1e-3)


def test_decoded_clips_equal_their_files(tmp_path):
    g = np.random.default_rng(0)
    names = ["a.wav", "b.flac", "c.wav"]
    for name, rate in zip(names, (22_050, 44_100, 16_000), strict=True):
        soundfile.write(tmp_path / name, g.uniform(-0.5, 0.5, (rate // 3, 2)), rate)
    clips = decode_all(manifest_of(tmp_path, names), 22_050, device=CPU)
    expected = collect([decode_clip(tmp_path / name, 22_050) for name in names])
    assert torch.equal(clips.samples, expected.samples)
    assert torch.equal(clips.length, expected.length)
    assert torch.equal(clips.rms, expected.rms)
    assert clips.digests == expected.digests


def test_a_file_that_changes_between_the_passes_is_refused(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 8000)
    monkeypatch.setattr("audioml.store.scan_length", lambda *_: (PcmLayout("s16", 1, 8000), 99))
    with pytest.raises(DataError, match=r"row 1 \(a\.wav\): .*changed while it was decoded"):
        decode_all(manifest_of(tmp_path, ["a.wav"]), 8000)


@pytest.mark.gpu
def test_decoding_on_cuda_equals_the_cpus(tmp_path):
    g = np.random.default_rng(0)
    names = [f"{n}.wav" for n in range(40)]
    for name in names:
        samples = g.uniform(-0.5, 0.5, (g.integers(1, 9000), 2))
        soundfile.write(tmp_path / name, samples, g.choice([8000, 16_000, 44_100]))
    on_cpu = decode_all(manifest_of(tmp_path, names), 16_000)
    on_gpu = decode_all(manifest_of(tmp_path, names), 16_000, device=torch.device("cuda"))
    assert torch.equal(on_cpu.length, on_gpu.length)
    assert (on_cpu.samples.int() - on_gpu.samples.int()).abs().max() <= 1


def test_every_bad_file_is_reported_with_its_row(tmp_path):
    soundfile.write(tmp_path / "good.wav", np.zeros(100), 8000)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(DataError) as error:
        decode_all(manifest_of(tmp_path, ["good.wav", "empty.wav", "text.wav"]), 8000)
    message = str(error.value)
    assert "2 of 3 clips can't be decoded" in message
    assert "row 2 (empty.wav)" in message
    assert "row 3 (text.wav)" in message
    assert "good.wav" not in message

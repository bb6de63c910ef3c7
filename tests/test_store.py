import numpy as np
import pytest
import torch

from audioml import store
from audioml.clips import collect
from audioml.datasets.manifest import DataError
from audioml.frontend.functional import read_waveforms
from audioml.frontend.recipe import Recipe
from audioml.store import Request, WaveformStore, choose_place

CPU = torch.device("cpu")
N_TIME = 10


def clip(*values):
    return np.array(values, dtype=np.int16)


SHORT, EXACT, LONG = clip(*range(1, 5)), clip(*range(1, 11)), clip(*range(1, 16))


def make_store(pad="zero"):
    clips = collect([SHORT, EXACT, LONG])
    return WaveformStore(clips, n_time=N_TIME, pad=pad, place="host", device=CPU)


def read(store, index, start):
    waveform = store.gather(torch.tensor([index]), torch.tensor([start]))
    return (waveform[0] * 32_768).round().int().tolist()


def test_clips_are_read_as_circles():
    store = make_store()
    assert read(store, 0, 0) == [1, 2, 3, 4, 0, 0, 0, 0, 0, 0]
    assert read(store, 0, 2) == [3, 4, 0, 0, 0, 0, 0, 0, 1, 2]
    assert read(store, 0, -3) == [0, 0, 0, 1, 2, 3, 4, 0, 0, 0]
    assert read(store, 1, 7) == [8, 9, 10, 1, 2, 3, 4, 5, 6, 7]
    assert read(store, 2, 3) == list(range(4, 14))
    assert read(store, 2, 12) == [13, 14, 15, 1, 2, 3, 4, 5, 6, 7]
    assert read(store, 2, 12 - 15 * 4) == read(store, 2, 12)


def test_wrap_repeats_short_clips():
    store = make_store("wrap")
    assert read(store, 0, 0) == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert read(store, 0, 3) == [4, 1, 2, 3, 4, 1, 2, 3, 4, 1]


@pytest.mark.parametrize("pad", ["zero", "wrap"])
def test_pieces_that_are_fetched_are_those_that_stay(pad, monkeypatch):
    monkeypatch.setattr(store, "_pin_in_place", lambda samples: None)  # needs a GPU
    g = np.random.default_rng(0)
    clips = collect([g.integers(-9999, 9999, g.integers(1, 40), dtype=np.int16) for _ in range(50)])
    host, pinned = (
        WaveformStore(clips, n_time=N_TIME, pad=pad, place=place, device=CPU)
        for place in ("host", "pinned")
    )
    index = torch.from_numpy(g.integers(0, 50, 500))
    start = torch.from_numpy(g.integers(-100, 100, 500))
    assert torch.equal(host.gather(index, start), pinned.gather(index, start))


def test_what_both_voices_read_is_fetched_once(monkeypatch):
    monkeypatch.setattr(store, "_pin_in_place", lambda samples: None)
    clips = collect([SHORT, EXACT, LONG])
    pinned = WaveformStore(clips, n_time=N_TIME, pad="zero", place="pinned", device=CPU)
    index, start = torch.tensor([[0, 1, 2], [0, 2, 2]]), torch.tensor([[1, 2, 3], [1, 3, 4]])
    wanted = Request(index, start, [slice(0, 2), slice(2, 3)])
    for fetched, kept in zip(pinned.read([wanted]), make_store().read([wanted]), strict=True):
        gain = torch.tensor([[1.0], [10.0]]).expand(fetched.begin.shape)
        waveform = read_waveforms(fetched, Recipe(gain=gain), N_TIME)
        assert torch.equal(waveform, read_waveforms(kept, Recipe(gain=gain), N_TIME))
    first = next(pinned.read([wanted]))
    assert first.begin.tolist() == [[0, 10], [0, 30]]
    assert not first.samples[20:30].any()


def test_memory_is_pinned_where_it_is_until_it_goes(monkeypatch):
    calls = []

    class Cudart:
        def cudaHostRegister(self, *arguments):  # noqa: N802 - CUDA's name
            calls.append(arguments)

        def cudaHostUnregister(self, *arguments):  # noqa: N802
            calls.append(arguments)

    monkeypatch.setattr(torch.cuda, "cudart", Cudart)
    monkeypatch.setattr(torch.cuda, "check_error", lambda error: None)
    samples = torch.zeros(100, dtype=torch.int16)
    place = samples.data_ptr()
    store._pin_in_place(samples)
    assert calls == [(place, 200, 1)]
    del samples
    assert calls[1:] == [(place,)]


def test_crop_starts_use_the_room_there_is():
    store = make_store()
    index = torch.tensor([0, 1, 2])
    assert store.crop_start(index, 0.0).tolist() == [0, 0, 0]
    assert store.crop_start(index, 0.5).tolist() == [0, 0, 3]
    assert store.crop_start(index, torch.tensor([0.99, 0.99, 0.999])).tolist() == [0, 0, 5]


GIB = 1 << 30


@pytest.mark.parametrize(
    ("n_gib", "device", "place"),
    [
        (1, "cuda", "device"),
        (5, "cuda", "pinned"),
        (17, "cuda", "stream"),
        (1, "cpu", "host"),
        (15, "cpu", "host"),
        (17, "cpu", "stream"),
    ],
)
def test_place_follows_device_and_budget(n_gib, device, place):
    chosen = choose_place(
        n_gib * GIB, torch.device(device), device_budget_gib=4, host_budget_gib=16
    )
    assert chosen == place


@pytest.mark.parametrize(
    ("n_gib", "device", "wanted", "message"),
    [
        (17, "cpu", "host", r"17\.00 GiB, more than audio\.host_budget_gib=16; raise it"),
        (17, "cuda", "pinned", r"audio\.host_budget_gib=16"),
        (5, "cuda", "device", r"audio\.device_budget_gib=4"),
        (1, "cpu", "device", r"audio\.store=device needs a CUDA device"),
        (1, "cpu", "pinned", r"audio\.store=pinned needs a CUDA device"),
        (1, "cuda", "host", r"audio\.store=host is for training on a CPU.*set audio\.store=pinned"),
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


@pytest.mark.gpu
def test_pinned_memory_is_the_store_s_own():
    clips = collect([LONG] * 1000)
    pinned = WaveformStore(
        clips, n_time=N_TIME, pad="zero", place="pinned", device=torch.device("cuda")
    )
    assert pinned._samples is clips.samples
    assert clips.samples.is_pinned()
    index = torch.arange(1000)
    on_cpu = WaveformStore(clips, n_time=N_TIME, pad="zero", place="host", device=CPU)
    fetched = pinned.gather(index, index).cpu()
    assert torch.equal(fetched, on_cpu.gather(index, index))

import logging
import time

import numpy as np
import pytest
import soundfile
import torch
from files import manifest_of

from audioml import streaming
from audioml.augment import Augment
from audioml.clips import decode_all, measure_all, scan_headers
from audioml.config import AugmentConfig, MixupConfig
from audioml.datasets.manifest import DataError
from audioml.effects import Effects
from audioml.frontend import LogMel, choose_kind
from audioml.loader import Loader
from audioml.store import Request, WaveformStore
from audioml.streaming import StreamingStore

CPU = torch.device("cpu")
RATE, N_TIME, N_CLIPS = 8000, 2000, 23
MUFFLE = {"name": "LowPassFilter", "min_cutoff_freq": 2000, "max_cutoff_freq": 2000}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Short clips in several formats, rates and numbers of channels."""
    folder, g = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    kinds = [
        (".wav", 8000, 1, "PCM_16"),
        (".wav", 16_000, 2, "PCM_24"),
        (".wav", 11_025, 1, "FLOAT"),
        (".flac", 8000, 2, "PCM_16"),
        (".ogg", 16_000, 1, "VORBIS"),
    ]
    names = []
    for number in range(N_CLIPS):
        suffix, rate, n_channels, subtype = kinds[number % len(kinds)]
        samples = 0.2 * g.standard_normal((g.integers(rate // 8, rate // 2), n_channels))
        names.append(f"{number}{suffix}")
        soundfile.write(folder / names[-1], samples.clip(-1, 1), rate, subtype=subtype)
    return manifest_of(folder, names)


def make_stores(manifest, *, device=CPU, place="host", pad="zero", n_threads=3, effects=None):
    """The same clips, streamed and resident."""
    headers = scan_headers(manifest, RATE)
    shape = {"n_time": N_TIME, "pad": pad, "device": device}
    facts = measure_all(manifest, headers, RATE)
    streamed = StreamingStore(
        manifest, headers, facts, sample_rate=RATE, n_threads=n_threads, effects=effects, **shape
    )
    return streamed, WaveformStore(decode_all(manifest, headers, RATE), place=place, **shape)


def request(index, batches):
    """Ask for clips [voice, n] from their beginning."""
    return [Request(index, torch.zeros_like(index), batches)]


def make_loader(store, batch_size=5, augment=True):
    config = AugmentConfig(mixup=MixupConfig(probability=0.5))
    changes = Augment(config, sample_rate=RATE, n_time=N_TIME, seed=0)
    frontend = LogMel(
        sample_rate=RATE,
        n_fft=256,
        win_length=256,
        hop_length=128,
        n_mels=24,
        max_semitones=2,
        kind=choose_kind("auto", store.device),
    )
    return Loader(
        store=store,
        frontend=frontend.to(store.device),
        clip_index=torch.arange(N_CLIPS),
        targets=torch.eye(3, dtype=torch.bool)[torch.arange(N_CLIPS) % 3],
        batch_size=batch_size,
        augment=changes.to(store.device) if augment else None,
    )


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("pad", ["zero", "wrap"])
def test_streamed_batches_equal_resident_ones(manifest, augment, pad):
    streamed, resident = (make_loader(s, augment=augment) for s in make_stores(manifest, pad=pad))
    for epoch in (0, 1):
        pairs = zip(streamed.epoch(epoch), resident.epoch(epoch), strict=True)
        for ours, expected in pairs:
            assert torch.equal(ours.clip_index, expected.clip_index)
            assert torch.equal(ours.target, expected.target)
            torch.testing.assert_close(ours.input, expected.input, atol=1e-4, rtol=0)


def test_clips_converted_together_are_as_each_alone(tmp_path, monkeypatch):
    g, names = np.random.default_rng(0), [f"{number}.wav" for number in range(24)]
    kinds = [(8000, 1, "PCM_16"), (16_000, 3, "PCM_24"), (9000, 2, "FLOAT")]
    for number, name in enumerate(names):  # each layout and length twice
        rate, n_channels, subtype = kinds[number % 3]
        samples = 0.2 * g.standard_normal((801 + number % 4, n_channels))
        soundfile.write(tmp_path / name, samples.clip(-1, 1), rate, subtype=subtype)
    streamed, resident = make_stores(manifest_of(tmp_path, names))
    together, to_int16 = [], streaming.to_int16

    def noted(data, layout, rate, n_clips):
        together.append(n_clips)
        return to_int16(data, layout, rate, n_clips)

    monkeypatch.setattr(streaming, "to_int16", noted)
    index = torch.from_numpy(g.permutation(24))
    start = torch.zeros_like(index)
    assert torch.equal(streamed.gather(index, start), resident.gather(index, start))
    assert together == [2] * 12


def test_an_epoch_goes_on_where_it_was_left(manifest):
    loader = make_loader(make_stores(manifest)[0])
    whole = [batch.clip_index for batch in loader.epoch(3)]
    rest = [batch.clip_index for batch in loader.epoch(3, first_step=2)]
    assert [index.tolist() for index in rest] == [index.tolist() for index in whole[2:]]


def test_buffers_are_used_again(manifest):
    store, _ = make_stores(manifest)
    loader = make_loader(store)
    for epoch in range(5):
        list(loader.epoch(epoch))
        next(loader.epoch(epoch))  # and left
    assert 0 < len(store._free) <= streaming._N_AHEAD + 1


def test_files_are_read_a_few_batches_ahead_and_no_more(manifest, monkeypatch):
    store, _ = make_stores(manifest)
    read, read_clip = [], store._read_clip

    def noted(clip, epoch, out):
        read.append(clip)
        read_clip(clip, epoch, out)

    monkeypatch.setattr(store, "_read_clip", noted)
    index = torch.arange(N_CLIPS)[None]
    batches = [slice(k, k + 2) for k in range(0, N_CLIPS - 1, 2)]
    readings = store.read(request(index, batches))
    next(readings)
    store._pool.submit(lambda: None).result()
    assert len(read) <= 2 * (streaming._N_AHEAD + 1)
    readings.close()


def test_a_file_that_fails_in_the_middle_names_itself(manifest, tmp_path):
    names = [f"{number}.wav" for number in range(6)]
    for name in names:
        soundfile.write(tmp_path / name, np.full(1000, 0.1), RATE)
    store, _ = make_stores(manifest_of(tmp_path, names))
    (tmp_path / "3.wav").unlink()
    soundfile.write(tmp_path / "4.wav", np.full(500, 0.1), RATE)
    index = torch.arange(6)[None]
    readings = store.read(request(index, [slice(0, 3), slice(3, 4), slice(4, 6)]))
    next(readings)
    with pytest.raises(DataError, match=r"row 4 \(3\.wav\): .*No such file"):
        next(readings)
    with pytest.raises(DataError, match=r"row 5 \(4\.wav\): .*changed while the program ran"):
        list(store.read(request(index[:, 4:], [slice(None)])))


def test_a_slow_file_names_itself(manifest, monkeypatch, caplog):
    store, _ = make_stores(manifest)

    read = streaming.read_samples

    def read_slowly(*arguments):
        time.sleep(0.3)
        return read(*arguments)

    monkeypatch.setattr(streaming, "read_samples", read_slowly)
    monkeypatch.setattr(streaming, "_SLOW_S", 0.05)
    index = torch.tensor([[7]])
    with caplog.at_level(logging.WARNING):
        (reading,) = store.read(request(index, [slice(None)]))
    assert len(reading.samples) == store.length[7]
    assert f"{manifest.clips[7].path}: still reading after" in caplog.text


def make_effects(setting):
    return Effects([{**setting, "p": 1.0}], sample_rate=RATE, seed=0)


def read_samples(store, epoch):
    """All clips one after another, as they are read in an epoch."""
    index = torch.arange(N_CLIPS)[None]
    return next(store.read(request(index, [slice(None)]), epoch)).samples.float()


def test_effects_change_clips_that_train_and_no_others(manifest):
    inverted, _ = make_stores(manifest, effects=make_effects({"name": "PolarityInversion"}))
    plain, changed = read_samples(inverted, None), read_samples(inverted, 0)
    assert (changed + plain).abs().max() <= 1
    muffled, _ = make_stores(manifest, effects=make_effects(MUFFLE))
    as_it_is, _ = make_stores(manifest)
    for augment in (True, False):
        ours, plain = (
            next(make_loader(store, augment=augment).epoch(0)).input
            for store in (muffled, as_it_is)
        )
        assert torch.equal(ours, plain) != augment


def test_effects_leave_a_clip_s_level_alone(manifest):
    quieter = {"name": "Gain", "min_gain_db": -20.0, "max_gain_db": -20.0}
    store, _ = make_stores(manifest, effects=make_effects(quieter))
    assert (read_samples(store, 0) - read_samples(store, None)).abs().max() <= 1
    store, _ = make_stores(manifest, effects=make_effects(MUFFLE))
    changed, plain = read_samples(store, 0), read_samples(store, None)
    assert (changed - plain).abs().max() > 1000
    for clip in zip(*(s.split(store.length.tolist()) for s in (changed, plain)), strict=True):
        levels = [samples.square().mean().sqrt() for samples in clip]
        torch.testing.assert_close(levels[0], levels[1], rtol=1e-3, atol=0)


def test_effects_that_leave_silence_stay_silent(manifest):
    cut = {"name": "Lambda", "transform": lambda samples, sample_rate: 0 * samples}
    store, _ = make_stores(manifest, effects=make_effects(cut))
    assert not read_samples(store, 0).any()


def test_effects_are_functions_of_seed_epoch_and_clip(manifest):
    noise = [{"name": "AddGaussianSNR", "p": 0.7}, {"name": "TimeStretch", "p": 0.5}]
    orders = [1, 5], [23, 2]
    by_epoch = {}
    for batch_size, n_threads in orders:
        effects = Effects(noise, sample_rate=RATE, seed=0)
        store, _ = make_stores(manifest, n_threads=n_threads, effects=effects)
        index = torch.arange(N_CLIPS)[None]
        batches = [slice(k, k + batch_size) for k in range(0, N_CLIPS, batch_size)]
        for epoch in (0, 1):
            readings = store.read(request(index, batches), epoch)
            samples = torch.cat([reading.samples for reading in readings])
            assert torch.equal(by_epoch.setdefault(epoch, samples), samples)
    assert not torch.equal(by_epoch[0], by_epoch[1])


@pytest.mark.gpu
def test_streamed_cuda_batches_equal_resident_ones(manifest):
    stores = make_stores(manifest, device=torch.device("cuda"), place="device")
    streamed, resident = (make_loader(store) for store in stores)
    for epoch in range(3):
        for ours, expected in zip(streamed.epoch(epoch), resident.epoch(epoch), strict=True):
            torch.testing.assert_close(ours.input, expected.input, atol=0.02, rtol=0)

import time

import numpy as np
import pytest
import torch

from audioml import loader as loading
from audioml.augment import Augment
from audioml.augment.functional import mask_bounds, mixing_gains
from audioml.clips import collect
from audioml.config import AugmentConfig, MixupConfig
from audioml.frontend import LogMel, choose_kind
from audioml.loader import Loader
from audioml.normalization import training_statistics
from audioml.ranks import ALONE, Ranks
from audioml.rng import Stream, uniform
from audioml.store import WaveformStore

RATE, N_TIME, N_CLIPS, N_CLASSES = 8000, 8000, 41, 4
CPU = torch.device("cpu")


def make_clips(n_clips=N_CLIPS):
    g = np.random.default_rng(0)
    lengths = g.integers(N_TIME // 2, 2 * N_TIME, n_clips)
    return collect(
        [(9000 * g.standard_normal(n)).clip(-32768, 32767).astype(np.int16) for n in lengths]
    )


def make_loader(
    batch_size=8,
    *,
    place="host",
    device=CPU,
    clips=None,
    n_classes=N_CLASSES,
    preset="ranges",
    seed=0,
    ranks=ALONE,
    sampling="shuffled",
    **config,
):
    store = WaveformStore(make_clips(), n_time=N_TIME, pad="zero", place=place, device=device)
    augment = None
    if preset is not None:
        augment = Augment(
            AugmentConfig(preset=preset, **config), sample_rate=RATE, n_time=N_TIME, seed=seed
        ).to(device)
    frontend = LogMel(
        sample_rate=RATE,
        n_fft=512,
        win_length=512,
        hop_length=256,
        n_mels=32,
        max_semitones=2,
        kind=choose_kind("auto", device),
    )
    return Loader(
        store=store,
        frontend=frontend.to(device),
        clip_index=torch.arange(N_CLIPS) if clips is None else clips,
        targets=torch.eye(n_classes, dtype=torch.bool)[torch.arange(N_CLIPS) % n_classes],
        batch_size=batch_size,
        seed=seed,
        augment=augment,
        sampling=sampling,
        ranks=ranks,
    )


def read_epoch(loader, epoch=0):
    batches = list(loader.epoch(epoch))
    return [
        torch.cat([getattr(b, name) for b in batches]).cpu()
        for name in ("input", "target", "clip_index")
    ]


def test_shapes_and_types():
    batch = next(make_loader().epoch(0))
    assert batch.input.shape == (8, 1, 32, 1 + N_TIME // 256)
    assert batch.input.dtype == torch.float32
    assert batch.target.shape == (8, N_CLASSES)
    assert batch.clip_index.shape == (8,)
    torch.testing.assert_close(batch.target.sum(dim=1), torch.ones(8))


@pytest.mark.parametrize("preset", ["ranges", "four_variants", "none", None])
def test_an_epoch_holds_every_clip_once(preset):
    loader = make_loader(preset=preset)
    log_mel, _, index = read_epoch(loader)
    assert index.sort().values.tolist() == list(range(N_CLIPS))
    assert torch.isfinite(log_mel).all()
    assert len(loader) == 5


@pytest.mark.parametrize("preset", ["ranges", "four_variants"])
def test_log_mels_are_the_same_at_batch_size_8_and_32(preset):
    small, large = (read_epoch(make_loader(size, preset=preset), epoch=3) for size in (8, 32))
    for a, b in zip(small, large, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
    assert torch.equal(small[2], large[2])
    assert torch.equal(small[1], large[1])


@pytest.mark.parametrize("preset", ["ranges", "four_variants", None])
def test_batches_are_the_same_however_many_are_planned_at_a_time(preset, monkeypatch):
    whole = list(make_loader(preset=preset).epoch(1))
    for n_planned in (1, 16):
        monkeypatch.setattr(loading, "_N_PLANNED", n_planned)
        for a, b in zip(make_loader(preset=preset).epoch(1), whole, strict=True):
            assert torch.equal(a.input, b.input)
            assert torch.equal(a.target, b.target)
            assert torch.equal(a.clip_index, b.clip_index)


def test_epochs_and_seeds_differ_and_repeat():
    first = read_epoch(make_loader(), 0)
    assert torch.equal(first[0], read_epoch(make_loader(), 0)[0])
    for other in (read_epoch(make_loader(), 1), read_epoch(make_loader(seed=1), 0)):
        assert not torch.equal(first[2], other[2])
        order, other_order = first[2].argsort(), other[2].argsort()
        assert not torch.equal(first[0][order], other[0][other_order])


def test_a_resumed_epoch_goes_on_with_the_next_batch():
    loader = make_loader()
    whole, rest = list(loader.epoch(2)), list(loader.epoch(2, first_step=3))
    assert len(rest) == 2
    for a, b in zip(whole[3:], rest, strict=True):
        assert torch.equal(a.input, b.input)
    assert list(loader.epoch(2, first_step=5)) == []
    assert loader.wait_s() == 0


def test_evaluation_is_in_order_and_plain():
    loader = make_loader(preset=None, clips=torch.tensor([7, 3, 5]))
    log_mel, target, index = read_epoch(loader)
    assert index.tolist() == [3, 5, 7]
    assert target.argmax(dim=1).tolist() == [3, 1, 3]
    assert torch.equal(log_mel, read_epoch(loader, epoch=9)[0])
    start = loader.store.crop_start(index, 0.5)
    assert torch.equal(log_mel[:, 0], loader.frontend(loader.store.gather(index, start)))


def test_evaluation_cuts_long_clips_at_several_places_in_turn():
    loader = make_loader(preset=None)
    loader.n_crops = 3
    store, index = loader.store, loader.clip_index
    for epoch, place in enumerate((1 / 6, 1 / 2, 5 / 6, 1 / 6)):
        expected = loader.frontend(store.gather(index, store.crop_start(index, place)))
        assert torch.equal(read_epoch(loader, epoch)[0][:, 0], expected)


def test_clips_that_are_not_cut_are_evaluated_once():
    store = WaveformStore(make_clips(), n_time=2 * N_TIME, pad="zero", place="host", device=CPU)
    frontend = LogMel(sample_rate=RATE, n_fft=512, win_length=512, hop_length=256, n_mels=32)
    index, targets = torch.arange(N_CLIPS), torch.ones(N_CLIPS, 1, dtype=torch.bool)
    common = {"frontend": frontend, "clip_index": index, "targets": targets}
    assert Loader(store=store, batch_size=8, n_crops=5, **common).n_crops == 1


def test_partners_come_from_the_loaders_own_clips():
    """With mixup at its most, targets hold only the training clips' classes: nothing leaks in."""
    own = torch.arange(0, N_CLIPS, N_CLASSES)  # all of class 0
    loader = make_loader(clips=own, mixup=MixupConfig(probability=1.0))
    for epoch in range(3):
        _, target, _ = read_epoch(loader, epoch)
        torch.testing.assert_close(target[:, 0], torch.ones(len(own)))


def test_mixed_targets_match_the_draws():
    loader = make_loader(mixup=MixupConfig(probability=1.0))
    _, target, index = read_epoch(loader)
    ratio = loader.augment.draw(0, index).mix_ratio
    own = target.gather(1, (index % N_CLASSES)[:, None])[:, 0]
    assert (own >= ratio - 1e-6).all()
    assert ((own - ratio).abs() < 1e-6).float().mean() > 0.5
    assert (target > 0).sum(dim=1).max() <= 2


def test_statistics_are_those_of_the_training_clips():
    loader = make_loader(preset=None, clips=torch.arange(10))
    plain = read_epoch(loader)[0][:, 0]
    mean, std = training_statistics(loader)
    torch.testing.assert_close(mean, plain.mean((0, 2)), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(std, plain.std((0, 2), correction=0), atol=1e-3, rtol=1e-3)


def test_a_mixture_is_the_clip_and_the_partner_its_target_names():
    """Rebuild an epoch by hand from the store, the draws and the clips that targets name."""
    # Every clip is a class of its own: targets name partners.
    loader = make_loader(n_classes=N_CLIPS, mixup=MixupConfig(probability=1.0))
    log_mel, target, index = read_epoch(loader, epoch=2)
    draws = loader.augment.draw(2, torch.arange(N_CLIPS))
    place = uniform(0, 2, torch.arange(N_CLIPS), Stream.CROP)[:, 0]
    shift = loader.augment.draw_shift(2, torch.arange(N_CLIPS))
    start = loader.store.crop_start(torch.arange(N_CLIPS), place) + shift
    waveform = loader.store.gather(torch.arange(N_CLIPS), start)
    own = torch.eye(N_CLIPS)[index]
    others = target * (1 - own)
    partner = torch.where(others.sum(dim=1) > 0, others.argmax(dim=1), index)
    assert sorted(partner.tolist()) == list(range(N_CLIPS))
    ratio = draws.mix_ratio[index]
    expected_target = ratio[:, None] * own + (1 - ratio)[:, None] * torch.eye(N_CLIPS)[partner]
    torch.testing.assert_close(target, expected_target)
    rms = loader.store.rms
    gains = mixing_gains(ratio, rms[index], rms[partner])
    mixed = waveform[index] * gains[0][:, None] + waveform[partner] * gains[1][:, None]
    level = torch.hypot(rms[index] * gains[0], rms[partner] * gains[1])
    draws = draws[index]
    noise = loader.augment.noise.reshape(-1).unfold(0, N_TIME, 1)[draws.noise_start]
    noisy = mixed + noise * (level * 10 ** (-draws.snr_db / 20))[:, None]
    changed = noisy * 10 ** (draws.gain_db[:, None] / 20)
    expected = loader.frontend(changed, draws.rate, draws.semitones)
    for dim, start, share in (
        (0, draws.freq_start, draws.freq_share),
        (1, draws.time_start, draws.time_share),
    ):
        size = expected.shape[dim + 1]
        for clip, first, end in zip(expected, *mask_bounds(start, share, size), strict=True):
            clip.narrow(dim, int(first), int(end - first)).zero_()
    torch.testing.assert_close(log_mel[:, 0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("n_clips", "sizes"), [(1, [1]), (8, [8]), (9, [9]), (10, [8, 2]), (17, [8, 9]), (0, [])]
)
def test_no_batch_holds_a_single_clip_beside_others(n_clips, sizes):
    loader = make_loader(8, clips=torch.arange(n_clips))
    assert [len(batch.clip_index) for batch in loader.epoch(0)] == sizes
    assert len(loader) == len(sizes)


def test_waiting_is_measured():
    loader = make_loader()
    making_s, using_s = 0.0, 0.0
    render = loader.frontend.render

    def timed_render(*arguments):
        nonlocal making_s
        begin = time.perf_counter()
        log_mel = render(*arguments)
        making_s += time.perf_counter() - begin
        return log_mel

    loader.frontend.render = timed_render
    for _ in loader.epoch(0):
        time.sleep(0.1)
        using_s += 0.1
    assert making_s < loader.wait_s() < making_s + 0.5 * using_s
    first = loader.wait_s()
    list(loader.epoch(1))
    assert loader.wait_s() < 2 * first  # of the latest epoch alone


def test_a_loader_without_clips_is_empty():
    assert list(make_loader(clips=torch.arange(0)).epoch(0)) == []


@pytest.mark.gpu
@pytest.mark.parametrize("place", ["device", "pinned"])
def test_cuda_batches_equal_the_cpus(place):
    on_cpu = read_epoch(make_loader(), 1)
    on_gpu = read_epoch(make_loader(place=place, device=torch.device("cuda")), 1)
    assert torch.equal(on_cpu[2], on_gpu[2])
    torch.testing.assert_close(on_cpu[1], on_gpu[1])
    torch.testing.assert_close(on_cpu[0], on_gpu[0], atol=0.02, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("place", ["device", "pinned"])
def test_no_batch_is_overwritten_while_a_slow_consumer_reads_it(place):
    """The consumer's kernels run late; what they read must still be the batch they were given."""
    loader = make_loader(4, place=place, device=torch.device("cuda"))
    expected = [batch.input.sum().item() for batch in loader.epoch(0)]
    sums = []
    for batch in loader.epoch(0):
        torch.cuda._sleep(20_000_000)
        sums.append(batch.input.sum())
    assert [value.item() for value in sums] == pytest.approx(expected, rel=1e-5)


@pytest.mark.gpu
def test_reserved_memory_is_flat_over_epochs():
    loader = make_loader(4, place="device", device=torch.device("cuda"))
    for epoch in range(3):
        read_epoch(loader, epoch)
    before = torch.cuda.memory_reserved()
    for epoch in range(3, 20):
        read_epoch(loader, epoch)
    assert torch.cuda.memory_reserved() == before


def test_class_weights_make_classes_count_alike():
    weights = make_loader(clips=torch.arange(1, 18)).class_weights()  # 4, 5, 4 and 4 of a class
    counts = torch.tensor([4.0, 5.0, 4.0, 4.0])
    torch.testing.assert_close(weights * counts, torch.full((4,), 17 / 4))


@pytest.mark.parametrize("batch_size", [2, 8])
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_every_batch_and_change_no_clip(size, batch_size):
    """41 clips: the last batch has 9, or 3, and with 2 a batch one of 3 ranks gets none."""
    whole = list(make_loader(batch_size).epoch(3))
    loaders = [make_loader(batch_size, ranks=Ranks(rank, size)) for rank in range(size)]
    for batch, *shares in zip(whole, *(loader.epoch(3) for loader in loaders), strict=True):
        counted = [share for share in shares if not share.stands_in]
        assert sum(share.n_own for share in shares) == len(batch.clip_index)
        for name in ("input", "target", "clip_index"):
            parts = torch.cat([getattr(share, name) for share in counted])
            assert torch.equal(parts, getattr(batch, name)), name
        for share in shares:
            assert share.size == len(batch.clip_index)
            assert len(share.clip_index) >= 1
            assert not share.stands_in or share.n_own == 0


def test_ranks_go_on_within_an_epoch():
    loader = make_loader(ranks=Ranks(1, 2))
    whole, rest = list(loader.epoch(0)), list(loader.epoch(0, first_step=3))
    assert [b.clip_index.tolist() for b in rest] == [b.clip_index.tolist() for b in whole[3:]]


@pytest.mark.parametrize("size", [2, 3, 7])
def test_ranks_share_whole_batches_where_nothing_is_augmented(size):
    whole = [batch.clip_index.tolist() for batch in make_loader(preset=None).epoch(0)]
    shares = [
        [batch.clip_index.tolist() for batch in loader.epoch(0)]
        for loader in (make_loader(preset=None, ranks=Ranks(rank, size)) for rank in range(size))
    ]
    assert [batch for share in shares for batch in share] == whole


def make_uneven(batch_size=8, **options):
    """Clips 0, 4, 8, ... are one class, clip 1 alone is another, drawn equally often."""
    clips = torch.tensor([0, 1, 4, 8, 12, 16])
    return make_loader(batch_size, clips=clips, sampling="balanced", **options)


def test_a_balanced_epoch_brings_classes_equally_often_and_changes_each_time():
    log_mel, target, index = read_epoch(make_uneven(mixup=MixupConfig(probability=0.0)))
    assert target.sum(dim=0).tolist() == [3, 3, 0, 0]
    assert target.argmax(dim=1).tolist() == (index % N_CLASSES).tolist()
    repeats = log_mel[index == 1]
    assert len(repeats) == 3
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (repeats[one] - repeats[other]).abs().max() > 0.1


def test_the_first_occurrence_is_changed_as_if_it_were_the_only_one():
    options = {"mixup": MixupConfig(probability=0.0)}
    log_mel, _, index = read_epoch(make_uneven(**options))
    shuffled, _, order = read_epoch(make_loader(clips=torch.tensor([0, 1]), **options))
    wanted = shuffled[order == 1]
    distance = (log_mel[index == 1] - wanted).abs().amax(dim=(1, 2, 3))
    assert distance.min() == 0
    assert (distance == 0).sum() == 1


def test_a_balanced_epoch_is_the_same_at_any_batch_size_rank_and_first_step():
    whole = read_epoch(make_uneven(6), epoch=3)
    for one, other in zip(whole, read_epoch(make_uneven(2), epoch=3), strict=True):
        assert torch.equal(one, other)
    rest = list(make_uneven(2).epoch(3, first_step=1))
    assert torch.equal(torch.cat([b.clip_index for b in rest]), whole[2][2:])
    ranks = [list(make_uneven(6, ranks=Ranks(rank, 2)).epoch(3)) for rank in range(2)]
    for name, expected in zip(("input", "target", "clip_index"), whole, strict=True):
        shares = torch.cat([getattr(share[0], name) for share in ranks])
        assert torch.equal(shares, expected)


def test_positive_weights_make_positives_count_as_much_as_negatives():
    loader = make_loader(clips=torch.tensor([0, 4, 8, 1, 5, 2]))  # 3, 2, 1 and 0 of a class
    loader._has_class[:, 3] = True
    assert loader.positive_weights().tolist() == [1, 2, 5, 1]

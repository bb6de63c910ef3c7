import numpy as np
import pytest
import torch
from scipy import stats

from audioml.rng import Stream, permutation, philox, random_words, uniform

# Known answers of Random123's philox4x32-10 (kat_vectors): counter, key, result.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_random123s_known_answers(counter, key, answer):
    words = philox(tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(words[0].tolist()) == answer


def test_numbers_do_not_depend_on_the_batch():
    clips = torch.arange(100)
    together = uniform(7, 3, clips, Stream.GAIN)
    one_by_one = torch.cat([uniform(7, 3, clip[None], Stream.GAIN) for clip in clips.flip(0)])
    assert torch.equal(together, one_by_one.flip(0))


def test_several_streams_at_once_equal_one_at_a_time():
    clips = torch.tensor([5, 1, 9])
    together = uniform(0, 2, clips[:, None], torch.arange(len(Stream)))
    for stream in Stream:
        assert torch.equal(together[:, stream], uniform(0, 2, clips, stream))


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}, {"stream": Stream.NOISE}])
def test_seed_epoch_and_stream_each_change_every_number(change):
    base = {"seed": 0, "epoch": 0, "clip_index": torch.arange(1000), "stream": Stream.GAIN}
    same = (random_words(**base) == random_words(**base | change)).float().mean()
    assert same < 0.001


def test_seed_and_epoch_are_not_added_up():
    clips = torch.arange(10)
    assert not torch.equal(
        random_words(0, 1, clips, Stream.GAIN), random_words(1, 0, clips, Stream.GAIN)
    )


def test_numbers_are_uniform_and_independent():
    numbers = uniform(1, 0, torch.arange(20_000), Stream.PITCH).numpy()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.03


def test_permutation_is_one_and_changes_by_epoch():
    clips = torch.arange(50) * 3
    first, second = (permutation(0, epoch, clips, Stream.ORDER) for epoch in (0, 1))
    assert torch.equal(first.sort().values, clips)
    assert torch.equal(first, permutation(0, 0, clips, Stream.ORDER))
    assert (first == second).float().mean() < 0.2


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=r"seed must be in 0\.\.2\^64-1"):
        random_words(seed, 0, torch.arange(2), Stream.GAIN)


@pytest.mark.gpu
def test_numbers_are_the_same_on_cuda():
    clips = torch.arange(10_000)
    on_gpu = uniform(3, 4, clips.cuda(), Stream.MIXUP)
    assert torch.equal(on_gpu.cpu(), uniform(3, 4, clips, Stream.MIXUP))

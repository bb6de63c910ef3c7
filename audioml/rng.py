"""Counter-based randomness: every random number is a hash of (seed, epoch, clip, stream).

There is no generator state. The same clip in the same epoch draws the same numbers on any device,
at any batch size, in any order and after any interruption.
"""

from enum import IntEnum
from typing import Final

import torch
from torch import Tensor

_WORD: Final = 0xFFFFFFFF
_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)
_ROUNDS: Final = 10


class Stream(IntEnum):
    """What a random number is for; numbers of two streams are independent of each other."""

    ORDER = 0
    CROP = 1
    SHIFT = 2
    GAIN = 3
    NOISE = 4
    NOISE_COLOUR = 5
    PITCH = 6
    STRETCH = 7
    MIXUP = 8
    PARTNER = 9
    MASK = 10
    MASK_PLACE = 11
    VARIANT = 12
    DROPOUT = 13
    EFFECTS = 14
    FILTER = 15
    FILTER_MORE = 16
    SAMPLING = 17


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> Tensor:
    """Encrypt 128-bit counters with Philox4x32-10.

    Args:
        counter: Four int64 tensors [n] of 32-bit words, low word first.
        key: Two 32-bit words.

    Returns:
        Random 32-bit words [n, 4], int64.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; equal to the known
        answers of its Random123 library in tests/test_rng.py.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    # int64 products wrap modulo 2^64, so both halves of a 32 x 32-bit product can be read off;
    # the shift is arithmetic, hence the mask after it.
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        high0, low0 = (product0 >> 32) & _WORD, product0 & _WORD
        high1, low1 = (product1 >> 32) & _WORD, product1 & _WORD
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return torch.stack((c0, c1, c2, c3), dim=-1)


def random_words(seed: int, epoch: int, clip_index: Tensor, stream: int | Tensor) -> Tensor:
    """Draw four random 32-bit words a clip and stream.

    Args:
        seed: The run's seed, 0 to 2^64 - 1.
        epoch: Epoch number, from 0.
        clip_index: Clips [...], int64, below 2^32, or occurrences of clips, as
            ``number_occurrences`` numbers them; the result lives on their device.
        stream: What the numbers are for: a ``Stream``, or several in a tensor that broadcasts
            with ``clip_index``.

    Returns:
        Words [..., 4], int64, each uniform in 0 .. 2^32 - 1.

    Raises:
        ValueError: If the seed is out of range.
    """
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed must be in 0..2^64-1, got {seed}; set train.seed")
    zero = torch.zeros_like(clip_index + stream)
    clip, occurrence = clip_index & _WORD, clip_index >> 32
    counter = (zero + clip, zero + epoch, zero + stream, zero + occurrence)
    return philox(counter, (seed & _WORD, seed >> 32))


def uniform(seed: int, epoch: int, clip_index: Tensor, stream: int | Tensor) -> Tensor:
    """Draw four uniform numbers a clip and stream; arguments as in ``random_words``.

    Returns:
        Numbers [..., 4] in [0, 1), float32, multiples of 2^-24 and so equal on every device.
    """
    return (random_words(seed, epoch, clip_index, stream) >> 8).to(torch.float32) * 2.0**-24


def permutation(seed: int, epoch: int, clip_index: Tensor, stream: Stream) -> Tensor:
    """Shuffle clips for an epoch.

    Args:
        seed: The run's seed.
        epoch: Epoch number, from 0.
        clip_index: The clips to order [n], int64.
        stream: ``Stream.ORDER``, or another for an independent order.

    Returns:
        The clips of ``clip_index`` [n] in random order.
    """
    words = random_words(seed, epoch, clip_index, stream)
    key = (words[:, 0] << 31) | (words[:, 1] >> 1)
    return clip_index[torch.argsort(key, stable=True)]


def number_occurrences(clip_index: Tensor) -> Tensor:
    """Tell apart the occurrences of clips that come several times in an epoch.

    Args:
        clip_index: Clips [n], int64, below 2^32.

    Returns:
        Clip plus 2^32 times the number of its occurrences before [n], ascending; so the first one
        is the clip's own number, and draws what it draws where every clip comes once.
    """
    clips = clip_index.sort().values
    before = torch.arange(len(clips)) - torch.searchsorted(clips, clips)
    return (clips + (before << 32)).sort().values


def clips_of(occurrences: Tensor) -> Tensor:
    """Say which clips they are occurrences of, in the same order."""
    return occurrences & _WORD

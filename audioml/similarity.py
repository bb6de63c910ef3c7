"""Clips that hold the same sound, found by ear rather than by name.

Each clip becomes a fingerprint of how its bands rise and fall. All pairs of fingerprints are
compared over all lags, which is cheap and leaves a few pairs in a thousand. These are compared
sample by sample: only one recording has one fine structure, however much two sounds are alike.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional as F

from audioml.decode import FULL_SCALE, thread_pool
from audioml.decode.resampling import resample
from audioml.frontend.functional import mel_filterbank
from audioml.progress import track
from audioml.threads import one_thread_an_operation

RATE: Final = 12_000  # Hz, at which clips are compared, whatever the data set's rate
THRESHOLD: Final = 0.4  # chosen on folds 1 and 2 of ESC-10: benchmarks/near_duplicates.py

_CANDIDATE_SCORE: Final = 0.33  # of fingerprints; likewise
_N_FFT: Final = 1024
_HOP_LENGTH: Final = 300  # 40 frames a second
_N_AT_ONCE: Final = 2400  # frames, a minute of them, that are transformed at once
_N_BANDS: Final = 24
_F_MIN: Final = 100.0  # Hz
_F_MAX: Final = 5_400.0  # Hz, where the resampler's passband ends
_RANGE_DB: Final = 40.0  # what is softer than the loudest by more, noise may have replaced
_SILENCE_DB: Final = -85.0  # re full scale
_N_AROUND: Final = 10  # frames before and after that make a band's local mean
_MOST_DB: Final = 15.0  # of a change of level: a click is no more telling than a syllable
_LEAST_DB: Final = 1.0  # less than this is no change but noise
_PRIOR_FRAMES: Final = 10  # of two clips that have nothing in common, beside those that overlap
_PRIOR_SHARE: Final = 0.05  # the same for samples, as a share of the clip's energy,
_PRIOR_S: Final = 0.25  # and at most that of so many seconds
_SMOOTH_HZ: Final = 50.0
_BLOCK_ELEMENTS: Final = 1 << 21  # pairs x lags that a thread compares at once, 8 MiB in float32
_KEPT_SAMPLES: Final = 1 << 24  # of transforms of whitened clips, 8 bytes each


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Two clips that hold the same sound.

    Args:
        left: The first clip's number.
        right: The second clip's, above the first's.
        score: Correlation of their whitened samples where they overlap, up to 1.
        lag_s: How much later the sound comes in the second one [s].
    """

    left: int
    right: int
    score: float
    lag_s: float

    def text(self) -> str:
        """Say how alike the clips are, and how they lie to each other."""
        return f"score {self.score:.2f}, lag {self.lag_s:+.3f} s"


def find_near_duplicates(
    clips: Sequence[int],
    read: Callable[[int], Tensor],
    sample_rate: int,
    *,
    threshold: float = THRESHOLD,
    n_threads: int = 0,
) -> list[NearDuplicate]:
    """Compare clips with each other, all pairs, with progress bars.

    Found are copies that were re-encoded, resampled, shifted, made louder or softer, clipped or
    overlaid with noise, and stretches of one recording that overlap by a second or more. Not found
    are copies of another speed or pitch, and sounds in which nothing changes, such as silence or a
    steady tone: they say nothing about where a clip is from.

    Time grows with the square of the number of clips. In memory are all fingerprints (4 kB a second
    of sound) and some 300 MiB: 128 MiB of clips that are compared closely, and 50 MiB a thread.

    Args:
        clips: Numbers of the clips.
        read: Gives a clip's samples [time], int16, on the device that is to compare them. It is
            called in threads, once for every clip, and again for the few that are compared closely.
        sample_rate: Their rate [Hz].
        threshold: Least score of a near-duplicate.
        n_threads: Threads, 0 for Python's choice.

    Returns:
        The pairs, in the order of the clips' numbers.
    """

    def load(clip: int) -> Tensor:
        samples = read(clip).float() / FULL_SCALE
        return samples if sample_rate == RATE else resample(samples, sample_rate, RATE)

    def compare(pair: tuple[int, int]) -> NearDuplicate:
        n = next_fast_len(n_time[pair[0]] + n_time[pair[1]], real=True)
        score, lag = correlate(*(whiten(clip, n) for clip in pair))
        return NearDuplicate(*pair, score, lag / RATE)

    with one_thread_an_operation(), thread_pool(n_threads) as pool:
        made = pool.map(lambda clip: Fingerprint(load(clip)), clips)
        bar = track(made, task="fingerprint", total=len(clips), unit="clip")
        prints = dict(zip(clips, bar, strict=True))
        n_time = {clip: made.n_time for clip, made in prints.items()}
        n_kept = max(2, _KEPT_SAMPLES // (2 * max(n_time.values(), default=1)))
        whiten = lru_cache(maxsize=n_kept)(lambda clip, n: Whitened(load(clip), n))
        candidates = sorted(_find_candidates(prints, pool))
        compared = pool.map(compare, candidates)
        heard = track(compared, task="listen", total=len(candidates), unit="pair")
        return [pair for pair in heard if pair.score >= threshold]


class Fingerprint:
    """How the bands of a clip rise and fall.

    Args:
        waveform: The clip at ``RATE`` [time], float32, full scale at 1.

    Attributes:
        n_time: Samples of the clip.
        change: How much more the level of a band has changed than that of the band below it
            [band - 1, frame], in units of the RMS, float32.
        is_sound: Which frames hold sound [frame], 0 or 1, float32.
    """

    # A band's level less its mean over half a second tells nothing of the long-term spectrum, which
    # all rain has in common; less that of the band below, nothing of onsets, which all barks have,
    # and little of bands that a copy has lost. (Haitsma and Kalker, "A Highly Robust Audio
    # Fingerprinting System", ISMIR 2002, keep the signs of such differences.)
    def __init__(self, waveform: Tensor) -> None:
        self.n_time = len(waveform)
        window = torch.hann_window(_N_FFT, device=waveform.device)
        # Frames end where the clip does: where it was cut is no onset.
        padded = F.pad(waveform, (0, max(0, _N_FFT - self.n_time)))
        frames = padded.unfold(0, _N_FFT, _HOP_LENGTH)
        spectra = (torch.fft.rfft(f * (window / window.sum())) for f in frames.split(_N_AT_ONCE))
        filters = _filterbank(waveform.device)
        power = torch.cat([filters @ s.abs().square().T for s in spectra], dim=1)
        level, loudness = (10 * p.clamp(min=1e-12).log10() for p in (power, power.sum(dim=0)))
        floor = (loudness.max() - _RANGE_DB).clamp(min=_SILENCE_DB)
        self.is_sound = (loudness > floor).float()
        level = level.clamp(min=level.max() - _RANGE_DB)
        share = _local_mean(self.is_sound[None]).clamp(min=1e-3)
        change = level - _local_mean(level * self.is_sound) / share
        change = change.diff(dim=0).clamp(-_MOST_DB, _MOST_DB) * self.is_sound
        rms = (change.square().sum() / (len(change) * self.is_sound.sum()).clamp(min=1)).sqrt()
        self.change = change / rms.clamp(min=_LEAST_DB)


@lru_cache(maxsize=8)
def _filterbank(device: torch.device) -> Tensor:
    return mel_filterbank(
        sample_rate=RATE, n_fft=_N_FFT, n_mels=_N_BANDS, f_min=_F_MIN, f_max=_F_MAX, mel_norm="none"
    ).to(device)


def _local_mean(rows: Tensor) -> Tensor:
    """Average each frame with its neighbours [row, frame]; beyond the ends is 0."""
    size = 2 * _N_AROUND + 1
    return F.avg_pool1d(rows[None], size, stride=1, padding=_N_AROUND)[0]


def _find_candidates(
    prints: Mapping[int, Fingerprint], pool: ThreadPoolExecutor
) -> Iterator[tuple[int, int]]:
    """Yield the pairs of clips whose bands rise and fall together at some lag."""
    blocks = list(_make_blocks(prints))
    pairs = [(left, right) for k, right in enumerate(blocks) for left in blocks[: k + 1]]

    def compare(pair: tuple[list[int], list[int]]) -> Tensor:
        score = score_fingerprints(*([prints[clip] for clip in clips] for clips in pair))
        return (score >= _CANDIDATE_SCORE).nonzero().cpu()

    alike = track(pool.map(compare, pairs), task="compare", total=len(pairs), unit="block")
    for (left, right), found in zip(pairs, alike, strict=True):
        for row, column in found.tolist():
            if left is not right or row < column:
                yield min(left[row], right[column]), max(left[row], right[column])


def _make_blocks(prints: Mapping[int, Fingerprint]) -> Iterator[list[int]]:
    """Divide clips, shortest first, so that the lags of two blocks fit the memory for them."""
    block: list[int] = []
    for clip in sorted(prints, key=lambda clip: prints[clip].n_time):
        n_lags = 2 * len(prints[clip].is_sound)
        if block and (len(block) + 1) ** 2 * n_lags > _BLOCK_ELEMENTS:
            yield block
            block = []
        block.append(clip)
    if block:
        yield block


# sum_t a(t) b(t + lag) for all lags is a product of spectra, and the sum over bands a product of
# matrices at each frequency. The energy of one where the other holds sound is a correlation too.


def score_fingerprints(left: Sequence[Fingerprint], right: Sequence[Fingerprint]) -> Tensor:
    """Correlate fingerprints over all lags.

    Returns:
        The highest correlation of each pair [left, right], up to 1, of the frames where both hold
        sound; the fewer these are, the less it is.
    """
    n = next_fast_len(
        sum(max(len(p.is_sound) for p in prints) for prints in (left, right)), real=True
    )
    a, a_energy, a_is_sound = _transform(left, n)
    b, b_energy, b_is_sound = _transform(right, n)
    product = torch.bmm(a.conj().permute(2, 0, 1), b.permute(2, 1, 0)).permute(1, 2, 0)
    score: Tensor = torch.fft.irfft(product, n)
    for spectrum in (a_energy[:, None].conj() * b_is_sound, a_is_sound[:, None].conj() * b_energy):
        energy = torch.fft.irfft(spectrum, n).clamp_(min=0)
        score *= energy.add_(_PRIOR_FRAMES * (_N_BANDS - 1)).rsqrt_()
    return score.amax(dim=-1)


def _transform(prints: Sequence[Fingerprint], n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Transform changes [clip, band, freq], their energy [clip, freq] and where sound is alike."""
    longest = max(len(p.is_sound) for p in prints)
    padding = [(0, longest - len(p.is_sound)) for p in prints]
    change = torch.stack([F.pad(p.change, pad) for p, pad in zip(prints, padding, strict=True)])
    is_sound = torch.stack([F.pad(p.is_sound, pad) for p, pad in zip(prints, padding, strict=True)])
    energy = change.square().sum(dim=1)
    return torch.fft.rfft(change, n), torch.fft.rfft(energy, n), torch.fft.rfft(is_sound, n)


class Whitened:
    """A clip in which every octave has the same power, so that all of the spectrum counts.

    Args:
        waveform: The clip at ``RATE`` [time], float32.
        n: Length of its transform: at least its own and the other clip's, less 1.

    Attributes:
        n: Length of its transform.
        spectrum: Its transform [freq], complex64.
        total: Sum of squares up to each sample [time + 1], float64.
    """

    def __init__(self, waveform: Tensor, n: int) -> None:
        self.n = n
        spectrum = torch.fft.rfft(waveform, n)
        frequency = torch.fft.rfftfreq(n, 1 / RATE, device=waveform.device)
        radius = math.ceil(_SMOOTH_HZ * n / RATE)
        total = F.pad(spectrum.abs().square().double(), (radius + 1, radius)).cumsum(dim=0)
        power = (total[2 * radius + 1 :] - total[: -2 * radius - 1]).float()
        power = power + power.max() * 10 ** (-_RANGE_DB / 10) + 1e-12
        gain = (power * frequency.clamp(min=_F_MIN)).rsqrt()
        gain = gain * ((frequency >= _F_MIN) & (frequency <= _F_MAX))
        white = torch.fft.irfft(spectrum * gain, n)[: len(waveform)]
        self.spectrum = torch.fft.rfft(white, n)
        self.total = F.pad(white.square().cumsum(dim=0, dtype=torch.float64), (1, 0))

    def energy(self, n_other: int) -> Tensor:
        """Sum squares where another clip overlaps this one.

        Args:
            n_other: Samples of the other clip.

        Returns:
            Energy [lag] for lags of this one's sound in the other of 1 - time .. n_other - 1, and
            a share of all of it for what may be chance; float32.
        """
        # They overlap from max(0, -lag) to min(time, n_other - lag).
        inner, everything = self.total[1:-1].flip(0), self.total[-1:]
        begin = torch.cat((inner, everything.new_zeros(n_other)))
        end = torch.cat((everything.expand(n_other), inner))
        share = min(_PRIOR_SHARE, _PRIOR_S * RATE / (len(self.total) - 1))
        return (end - begin + share * everything).float()


def correlate(a: Whitened, b: Whitened) -> tuple[float, int]:
    """Correlate two clips, whitened with transforms of one length, over all lags.

    Returns:
        The highest correlation of what overlaps, up to 1, and by how many samples the sound comes
        later in the second.
    """
    n_a, n_b = len(a.total) - 1, len(b.total) - 1
    product = torch.fft.irfft(a.spectrum.conj() * b.spectrum, a.n)
    product = torch.cat((product[len(product) - n_a + 1 :], product[:n_b]))
    norm = a.energy(n_b) * b.energy(n_a).flip(0)
    score, best = (product * norm.clamp(min=1e-20).rsqrt()).max(dim=0)
    return float(score), int(best) - n_a + 1

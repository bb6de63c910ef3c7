"""Band-limited resampling as a matrix product, on any device."""

import math
from fractions import Fraction
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

# soxr's HQ: flat up to this share of the lower Nyquist frequency, silent from that frequency on.
PASSBAND: Final = 0.91
ATTENUATION_DB: Final = 100.0

_MAX_PHASES: Final = 1_000_000  # L * M: with the next bound, less than 8 MiB of kernel
_MAX_TERM: Final = 5_000
_MAX_KERNELS: Final = 64  # kept, of as many rates; between usual ones each takes less than 3 MiB
_MIN_COLUMNS: Final = 64  # fewer are slower on a CPU, more compute zeros
_KERNEL_ELEMENTS: Final = 1 << 20
_WINDOW_ELEMENTS: Final = 1 << 22  # copied at once, 16 MiB


def resampled_length(n_frames: int, source_rate: int, target_rate: int) -> int:
    """Say how many samples resampling makes: n_frames * target_rate / source_rate, rounded up."""
    return -(-n_frames * target_rate // source_rate)


def approximate_ratio(source_rate: int, target_rate: int) -> tuple[int, int]:
    """Reduce target_rate / source_rate to L / M with small terms.

    Exact where L * M <= 10^6 and both are at most 5,000: between any two of the usual rates.
    Otherwise the nearest such ratio, at most 0.05 % off, which is less than a cent of pitch; the
    worst lie just beside 1, such as 16,000 to 16,008 Hz.

    Args:
        source_rate: From this rate [Hz].
        target_rate: To this one [Hz], at most 5,000 times as much or as little.

    Returns:
        L and M, without a common divisor.

    Raises:
        ValueError: If the rates are too far apart.
    """
    low, high = sorted((source_rate, target_rate))
    if not 0 < low <= high <= _MAX_TERM * low:
        raise ValueError(
            f"target_rate must be within {_MAX_TERM} times source_rate ({source_rate} Hz), got "
            f"{target_rate} Hz"
        )
    bound = min(math.isqrt(_MAX_PHASES * high // low), _MAX_TERM)
    small = Fraction(low, high).limit_denominator(bound)
    return small.as_integer_ratio() if target_rate < source_rate else small.as_integer_ratio()[::-1]


def resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Resample waveforms without delay; before and after each is silence.

    Beside a copy of the input and the output it takes at most 24 MiB, whatever the rates.

    Args:
        waveform: Samples [time] or [clip, time], at least one, float32.
        source_rate: Their rate [Hz].
        target_rate: The wanted rate [Hz].

    Returns:
        Samples [resampled_length] or [clip, resampled_length], float32, on the same device; each
        clip's equal, to the last bit, to what it becomes alone.

    Source: soxr.resample(quality="HQ"), to which tests/test_resampling.py compares levels, aliases
    and delay. On CUDA that holds for torch's default precision of float32 products, "highest".
    """
    n_frames = waveform.shape[-1]
    n_wanted = resampled_length(n_frames, source_rate, target_rate)
    n_up, n_down = approximate_ratio(source_rate, target_rate)
    kernel, n_before, hop_length = _make_kernel(n_up, n_down, waveform.device)
    if kernel.is_cuda:  # it may be dropped from its cache while this stream still reads it
        kernel.record_stream(torch.cuda.current_stream(kernel.device))
    n_taps, n_columns = kernel.shape
    n_windows = -(-n_wanted // n_columns)
    n_padded = (n_windows - 1) * hop_length + n_taps
    padded = F.pad(waveform, (n_before, n_padded - n_before - n_frames))
    windows = padded.unfold(-1, n_taps, hop_length).view(-1, n_windows, n_taps)
    resampled = waveform.new_empty(*waveform.shape[:-1], n_windows * n_columns)
    # Windows overlap, so that a product copies them before it reads them: not all at once.
    n_rows = max(1, _WINDOW_ELEMENTS // n_taps)
    with torch.autocast(waveform.device.type, enabled=False):
        for clip, out in zip(windows, resampled.view(-1, n_windows, n_columns), strict=True):
            for some, part in zip(clip.split(n_rows), out.split(n_rows), strict=True):
                torch.mm(some, kernel, out=part)
    return resampled[..., :n_wanted]


# Output n lies at input time n * M / L. Every L outputs the same L fractions of a sample recur, M
# inputs later: R * L outputs are one window of inputs times one matrix, and the next R * L the
# window R * M inputs on times the same matrix. Its column j is a low-pass filter's impulse response
# around j * M / L: a sinc that ends halfway between passband and Nyquist frequency, under a Kaiser
# window as wide as the transition and the attenuation ask for (Kaiser 1974: (A - 7.95) / 2.285
# taps a radian a sample).


@lru_cache(maxsize=_MAX_KERNELS)
def _make_kernel(n_up: int, n_down: int, device: torch.device) -> tuple[Tensor, int, int]:
    """Tabulate the filter.

    Returns:
        The kernel [tap, output], how many taps are before the first output's time, and the inputs
        from one window to the next.
    """
    nyquist = min(1.0, n_up / n_down)  # the lower one, in units of the source's
    transition = math.pi * (1 - PASSBAND) * nyquist
    half_width = (ATTENUATION_DB - 7.95) / 2.285 / transition / 2
    n_before = math.ceil(half_width)
    n_repeats = min(_MIN_COLUMNS // n_up, _KERNEL_ELEMENTS // (2 * n_before * n_up))
    n_columns = max(1, n_repeats) * n_up
    n_taps = 2 * n_before + 1 + (n_columns - 1) * n_down // n_up
    centre = torch.arange(n_columns, dtype=torch.float64) * n_down / n_up
    time = torch.arange(-n_before, n_taps - n_before, dtype=torch.float64)[:, None] - centre
    beta = 0.1102 * (ATTENUATION_DB - 8.7)
    window = torch.special.i0(beta * (1 - (time / half_width).square()).clamp(min=0).sqrt())
    window.masked_fill_(time.abs() > half_width, 0)
    kernel = torch.sinc(time * nyquist * (1 + PASSBAND) / 2) * window
    kernel /= kernel.sum(dim=0)  # a constant stays the same constant
    return kernel.float().to(device), n_before, n_columns // n_up * n_down

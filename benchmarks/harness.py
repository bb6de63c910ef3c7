"""Measure cases side by side: interleaved, repeated, and compared within the same round."""

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from machine import PeakMemory, other_processes, synchronize

_TRIES = 3  # for an undisturbed sample
DYNAMIC_RANGE_DB = 60.0  # levels further below a clip's peak are not compared


class UnavailableError(RuntimeError):
    """A case that can't run here; the message says why and is printed in its row."""


def do_nothing() -> None:
    """Stand in where a case needs no call."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A case made ready to run.

    Args:
        step: Do the work on ``n_clips`` clips; on CUDA it may return before the work is done.
        n_clips: Clips a step.
        before: Called before every sample, not timed: drain queues, set threads.
        settle_s: Pause after every sample, for prefetching workers to go quiet [s].
        log_mel_db: Compute plain log-mels [clip, mel, frame] of the first clips, in dB; None
            where the case computes something else.
        extra: Called after the last round for further columns.
    """

    step: Callable[[], object]
    n_clips: int
    before: Callable[[], object] = do_nothing
    settle_s: float = 0.0
    log_mel_db: Callable[[], Tensor] | None = None
    extra: Callable[[], dict[str, str]] = dict


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something to measure.

    Args:
        name: Its row's name.
        build: Make it ready; not timed. A peer that raises is reported as missing.
        is_ours: Whether it is this project's; such a one must run.
        caveat: What it does not do, or does otherwise.
        reference: Cases its ratio is taken to; the fastest of them is.
        bytes_per_clip: Bytes that have to be moved at least; 0 if unknown.
    """

    name: str
    build: Callable[[], Workload]
    is_ours: bool = False
    caveat: str = ""
    reference: tuple[str, ...] = ()
    bytes_per_clip: float = 0.0


@dataclass(kw_only=True)
class Result:
    """What was found about a case.

    Args:
        case: The case.
        missing: Why it was not measured; "" if it was.
        rates: Clips per second, a sample a round.
        other_cores: Cores that other processes kept busy during each sample, where known.
        peak_mib: Memory that building and a first step took [MiB], where known.
        difference_db: Mean and largest distance to the reference log-mel, if comparable.
        extra: Further columns.
    """

    case: Case
    missing: str = ""
    rates: list[float] = field(default_factory=list)
    other_cores: list[float] = field(default_factory=list)
    peak_mib: float | None = None
    difference_db: tuple[float, float] | None = None
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Median of the rates [clips/s]."""
        return statistics.median(self.rates)

    @property
    def relative_iqr(self) -> float:
        """Distance between the quartiles of the rates, relative to their median."""
        low, high = np.quantile(self.rates, (0.25, 0.75))
        return float(high - low) / self.median


def select(cases: Sequence[Case], wanted: str) -> list[Case]:
    """Pick cases.

    Args:
        cases: All of them.
        wanted: Parts of names, separated by commas; "ours" are all of this project's.

    Raises:
        ValueError: If no case fits.
    """
    words = [word.strip().lower() for word in wanted.split(",") if word.strip()]
    chosen = [
        case
        for case in cases
        if not words
        or any(case.is_ours if word == "ours" else word in case.name.lower() for word in words)
    ]
    if not chosen:
        names = "; ".join(case.name for case in cases)
        raise ValueError(f"--cases {wanted} fits no case; there are: {names}")
    return chosen


@torch.no_grad()
def measure(
    cases: Sequence[Case],
    *,
    device: torch.device,
    rounds: int,
    min_time_s: float,
    quiet_cores: float = math.inf,
    reference_db: Tensor | None = None,
    seed: int = 0,
) -> list[Result]:
    """Measure cases in random order, every round anew, so that disturbances hit them alike.

    Args:
        cases: What to measure.
        device: Where the work is done, for synchronisation and memory.
        rounds: Samples a case.
        min_time_s: Least length of a sample [s].
        quiet_cores: Samples are taken again where other processes kept more cores busy.
        reference_db: Log-mels [clip, mel, frame] of the first clips, to compare with.
        seed: Of the order.

    Returns:
        A result a case, in the order of the cases, missing ones included.
    """
    results = [Result(case=case) for case in cases]
    prepared = [(r, _prepare(r, device, min_time_s, reference_db)) for r in results]
    ready = [(result, *found) for result, found in prepared if found is not None]
    order = random.Random(seed)  # noqa: S311 - an order that can be repeated, not a secret
    for _ in range(rounds):
        for result, workload, repeats in order.sample(ready, len(ready)):
            _sample(result, workload, repeats, device, min_time_s, quiet_cores)
    for result, workload, _ in ready:
        result.extra = workload.extra()
    return results


def _prepare(
    result: Result, device: torch.device, min_time_s: float, reference_db: Tensor | None
) -> tuple[Workload, int] | None:
    """Build a case, run it, compare its output; None if it can't run here, else steps a sample."""
    memory = PeakMemory(device)
    try:
        workload = result.case.build()
        workload.before()
        workload.step()
        synchronize(device)
        result.peak_mib = memory.growth_mib()
        if workload.log_mel_db is not None and reference_db is not None:
            result.difference_db = level_difference(workload.log_mel_db(), reference_db)
        return workload, _calibrate(workload, device, min_time_s)
    except (ImportError, OSError, RuntimeError) as error:
        if result.case.is_ours:
            raise
        result.missing = f"{type(error).__name__}: {error}".partition("\n")[0]
        return None


def _time(workload: Workload, device: torch.device, repeats: int) -> float:
    """Time some steps from idle to idle [s]."""
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        workload.step()
    synchronize(device)
    return time.perf_counter() - begin


def _calibrate(workload: Workload, device: torch.device, min_time_s: float) -> int:
    """Warm up, and find how many steps a sample takes without synchronising in between."""
    repeats = 1
    workload.before()
    while (seconds := _time(workload, device, repeats)) < min_time_s / 2:
        repeats *= 2
    time.sleep(workload.settle_s)
    return math.ceil(repeats * min_time_s / seconds)


def _sample(
    result: Result,
    workload: Workload,
    repeats: int,
    device: torch.device,
    min_time_s: float,
    quiet_cores: float,
) -> None:
    """Take a sample of a case, again if it was disturbed, and keep the least disturbed."""
    taken = []
    for _ in range(_TRIES):
        workload.before()
        cores, seconds, n_steps = other_processes(), 0.0, 0
        while seconds < min_time_s:
            seconds += _time(workload, device, repeats)
            n_steps += repeats
        busy = cores()
        time.sleep(workload.settle_s)
        taken.append((busy or 0.0, n_steps * workload.n_clips / seconds))
        if busy is None or busy <= quiet_cores:
            break
    busy_least, rate = min(taken)
    result.rates.append(rate)
    if busy is not None:
        result.other_cores.append(busy_least)


def level_difference(log_mel_db: Tensor, reference_db: Tensor) -> tuple[float, float]:
    """Compare levels that stand out: mean and largest absolute difference [dB].

    Args:
        log_mel_db: [clip, mel, frame].
        reference_db: The same of the reference, which says what stands out in each clip.
    """
    peak = reference_db.amax(dim=(1, 2), keepdim=True)
    difference = (log_mel_db.double().cpu() - reference_db.double()).abs()
    audible = difference[reference_db > peak - DYNAMIC_RANGE_DB]
    return float(audible.mean()), float(audible.max())


def find_reference(result: Result, results: Sequence[Result]) -> Result | None:
    """Find the fastest of a case's references that were measured."""
    measured = [r for r in results if r.case.name in result.case.reference and r.rates]
    return max(measured, key=lambda r: r.median, default=None)


def ratio(result: Result, reference: Result) -> float:
    """Say how many times as fast a case was, as the median over rounds of the ratios in each."""
    pairs = zip(result.rates, reference.rates, strict=True)
    return statistics.median(rate / base for rate, base in pairs)

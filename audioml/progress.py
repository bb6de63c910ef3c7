"""Progress bars on a terminal, and log lines above them; elsewhere lines alone."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from audioml.ranks import Ranks

Item = TypeVar("Item")

_OPTIONS: dict[str, Any] = {
    "leave": False,
    "disable": None,  # where stderr is no terminal
    "delay": 0.5,  # what takes less [s] needs no bar
    "mininterval": 0.5,
    "dynamic_ncols": True,
}


def track(
    items: Iterable[Item], *, task: str, total: int | None = None, unit: str
) -> Iterator[Item]:
    """Iterate over items behind a bar; see ``progress_bar``."""
    return iter(tqdm(items, desc=task, total=total, unit=unit, **_OPTIONS))


def progress_bar(*, task: str, total: int | None, unit: str, n_done: int = 0) -> "tqdm[Any]":
    """Make a bar on stderr that goes away at its end; none where stderr is no terminal.

    Args:
        task: What is being done.
        total: How many units there are; None if nobody knows.
        unit: What is counted; "B" for bytes, which get prefixes.
        n_done: Units done already.
    """
    is_bytes = unit == "B"
    return tqdm(desc=task, total=total, initial=n_done, unit=unit, unit_scale=is_bytes, **_OPTIONS)


class Console(logging.StreamHandler[TextIO]):
    """Writes log lines to a stream, above the bars; raises if nobody reads it any more."""

    def listen_to(self, ranks: Ranks) -> None:
        """Leave to rank 0 what is not a warning, and say which other rank warns; show no bar."""
        if not ranks.is_main:
            self.setLevel(logging.WARNING)
            self.setFormatter(logging.Formatter(f"rank {ranks.rank}: %(message)s"))
            _OPTIONS["disable"] = True

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line at once."""
        tqdm.write(self.format(record), file=self.stream)
        self.flush()


def describe_epoch(row: dict[str, float], n_epochs: int, is_best: bool) -> str:
    """Write an epoch's figures in a line for people."""
    parts = [f"epoch {row['epoch']:>3}/{n_epochs}", f"loss {row['train_loss']:.3f}"]
    if "val_accuracy" in row:
        parts.append(f"validation {row['val_accuracy']:.1%}, loss {row['val_loss']:.3f}")
    if "val_mean_average_precision" in row:
        mean = row["val_mean_average_precision"]
        parts.append(f"validation mAP {mean:.4f}, loss {row['val_loss']:.3f}")
    return "  ".join([*parts, describe_throughput(row)]) + ("  best" if is_best else "")


def describe_throughput(figures: dict[str, float]) -> str:
    """Write throughput for people."""
    return (
        f"{figures['clips_per_s']:.0f} clips/s ({figures['times_real_time']:.0f} x real time), "
        f"data wait {figures['data_wait']:.1%}"
    )

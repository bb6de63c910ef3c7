"""Pictures of a data set: waveforms, mel and log-mel, lengths and levels, balance, augmentation."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from audioml.explore.augmentation import Change
from audioml.explore.examples import Example
from audioml.frontend import BandLevels
from audioml.plots import envelope, label_frequencies

RANGE_DB: Final = 80.0
"""Levels that are shown, below the loudest [dB]."""
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#767676"
_INK, _LIGHT_BLUE = "#7f8794", "#3d8fd1"
_CARD_IN: Final = (3.6, 2.5)
_CARD_EDGES_IN: Final = (0.62, 0.1, 0.46, 0.06)  # left, right, bottom, top of what is drawn
_N_COLUMNS: Final = 4
_MOST_PICTURES: Final = 48
_LONG: Final = 30  # letters of a name


def plot_waveforms(examples: Sequence[Example], frontend: BandLevels) -> Figure:
    """Draw a waveform of each class, all on the same scale."""

    def draw(axes: Axes, example: Example) -> None:
        draw_waveform(axes, example.waveform, frontend.sample_rate)

    return _draw_grid(_first_of_each(examples), draw, 1.7, ("Time [s]", "Amplitude"))


def plot_log_mels(examples: Sequence[Example], frontend: BandLevels) -> Figure:
    """Draw a log-mel of each class, each down to ``RANGE_DB`` below its loudest point."""

    def draw(axes: Axes, example: Example) -> None:
        level_db = example.level_db - example.level_db.max()
        images.append(draw_levels(axes, level_db, frontend, (-RANGE_DB, 0.0)))

    images: list[Any] = []
    figure = _draw_grid(_first_of_each(examples), draw, 2.3, ("Time [s]", "Frequency [Hz]"))
    figure.colorbar(images[0], ax=figure.axes, shrink=0.5, label="Level [dB re the loudest]")
    return figure


def plot_mel_and_log_mel(
    examples: Sequence[Example], frontend: BandLevels, *, for_page: bool = False
) -> Figure:
    """Draw waveform, mel and log-mel of some clips side by side; for a page, dark or light."""
    shown = _first_of_each(examples)[:4]
    figure = Figure(figsize=(14, 2.5 * len(shown) + 0.4), layout="constrained")
    grid = figure.subplots(len(shown), 3, squeeze=False)
    for row, example in zip(grid, shown, strict=True):
        draw_waveform(row[0], example.waveform, frontend.sample_rate)
        row[0].set_ylabel(f"{plain(example.row['label'])}\nAmplitude")
        power = 10 ** ((example.level_db - example.level_db.max()) / 10)
        mel = draw_levels(row[1], power, frontend, (0.0, 1.0))
        figure.colorbar(mel, ax=row[1], label="Power re the largest")
        level_db = example.level_db - example.level_db.max()
        log_mel = draw_levels(row[2], level_db, frontend, (-RANGE_DB, 0.0))
        figure.colorbar(log_mel, ax=row[2], label="Level [dB]")
        for axes in row[1:]:
            axes.set_ylabel("Frequency [Hz]")
    for axes, title in zip(grid[0], ("Waveform", "Mel", "Log-mel"), strict=True):
        axes.set_title(title)
    for axes in grid[-1]:
        axes.set_xlabel("Time [s]")
    if for_page:
        _ink(*figure.axes)
    return figure


def plot_lengths_and_levels(clips: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Draw length, peak, RMS and silence of every clip, class by class, with medians.

    Args:
        clips: Rows of clips that can be decoded.
        labels: The classes, from top to bottom.
    """
    columns = (
        ("length_s", "Length [s]"),
        ("peak_dbfs", "Peak [dBFS]"),
        ("rms_dbfs", "RMS [dBFS]"),
        ("silence_share", "Silence [share of frames]"),
    )
    parts = [(plain(label), _BLUE, clips[clips["label"] == label]) for label in labels]
    parts += [("all", _GREY, clips)] if len(labels) > 1 else []
    figure = Figure(figsize=(14, 1.3 + 0.34 * len(parts)), layout="constrained")
    grid = figure.subplots(1, len(columns), sharey=True)
    random = np.random.default_rng(0)
    for axes, (column, title) in zip(grid, columns, strict=True):
        for place, (_, colour, part) in enumerate(parts):
            values = part[column].dropna().to_numpy(np.float64)
            jitter = place + random.uniform(-0.28, 0.28, len(values))
            dots = {"s": 9, "color": colour, "linewidths": 0, "rasterized": True}
            axes.scatter(values, jitter, alpha=0.25 if len(values) > 100 else 0.45, **dots)
            if len(values):
                median = float(np.median(values))
                axes.plot([median] * 2, [place - 0.36, place + 0.36], color=_ORANGE, linewidth=2.2)
        axes.set_xlabel(title)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    grid[0].set_yticks(range(len(parts)), [name for name, *_ in parts])
    grid[0].set_ylim(len(parts) - 0.5, -0.5)
    figure.suptitle("One dot a clip, bar: median", fontsize=10, x=0.01, ha="left")
    return figure


def plot_balance(clips: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Draw clips of each class, by fold where there are folds, and recordings as marks."""
    figure = Figure(figsize=(9, 1.5 + 0.3 * len(labels)), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(labels))
    counts = pd.crosstab(clips["label"], clips["fold"].fillna(0)).reindex(
        pd.Index(labels), fill_value=0
    )
    begin = np.zeros(len(labels))
    shades = np.linspace(0.35, 0.85, max(len(counts.columns), 1))
    for (fold, column), shade in zip(counts.items(), shades, strict=True):
        name = f"fold {fold}" if fold else "clips"
        colour = (*_mix(_BLUE, 1 - shade), 1.0)
        axes.barh(place, column, left=begin, color=colour, label=name, edgecolor="white")
        begin += column.to_numpy()
    n_sources = clips.groupby("label")["source"].nunique().reindex(pd.Index(labels), fill_value=0)
    axes.plot(n_sources, place, "D", color=_ORANGE, markersize=6, label="recordings")
    axes.set_yticks(place, [plain(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel("Clips")
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def plot_spectra(
    spectra: NDArray[np.float64], labels: Sequence[str], frontend: BandLevels
) -> Figure:
    """Draw the mean spectrum of each class, the dullest on top.

    Args:
        spectra: Mean levels [class, band] in dB; NaN for a class without a sound.
        labels: The classes.
        frontend: What measured them.
    """
    order = sort_by_brightness(spectra)
    figure = Figure(figsize=(9, 1.6 + 0.3 * len(order)), layout="constrained")
    axes = figure.subplots()
    shown = spectra[order] - spectra[order].max(1, keepdims=True)
    image = axes.imshow(shown, aspect="auto", cmap="magma", vmin=-50, vmax=0)
    axes.set_yticks(range(len(order)), [plain(labels[target]) for target in order])
    label_frequencies(axes, frontend.frequencies.numpy(), axis="x")
    axes.set_xlabel("Frequency [Hz]")
    figure.colorbar(image, ax=axes, label="Mean level [dB re the class's loudest band]")
    return figure


def sort_by_brightness(spectra: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order classes by the centre of their spectrum [class, band], those without a sound left out.

    Returns:
        Numbers of the classes, the dullest first.
    """
    heard = np.flatnonzero(~np.isnan(spectra[:, 0]))
    power = 10 ** ((spectra[heard] - spectra[heard].max(1, keepdims=True)) / 10)
    return heard[np.argsort((power * np.arange(spectra.shape[1])).sum(1) / power.sum(1))]


def plot_augmentation(changes: Sequence[Change], frontend: BandLevels) -> Figure:
    """Draw the log-mel of a clip after each augmentation, all on the original's scale.

    Args:
        changes: The original, each augmentation's draws, and all together.
        frontend: What made them.
    """
    by_name: dict[str, list[Change | None]] = {}
    for change in changes:
        by_name.setdefault(change.name, []).append(change)
    cells = [*by_name.pop("original"), *by_name.pop("all", [])]
    cells = _fill(cells[:_N_COLUMNS], _N_COLUMNS if by_name else 1)
    for draws in by_name.values():
        cells += _fill(draws, 2)
    top = float(changes[0].level_db.max())

    def draw(axes: Axes, change: Change) -> None:
        images.append(draw_levels(axes, change.level_db, frontend, (top - RANGE_DB, top)))
        value = "" if change.name == "all" else f": {change.value}"
        epoch = "" if change.epoch is None else f", epoch {change.epoch}"
        axes.set_title(f"{change.name}{value}{epoch}", fontsize=9)

    images: list[Any] = []
    figure = _draw_grid(cells, draw, 2.2, ("Time [s]", "Frequency [Hz]"))
    figure.colorbar(images[0], ax=figure.axes, shrink=0.5, label="Level [dB]")
    return figure


def _fill(cells: list[Change | None], length: int) -> list[Change | None]:
    """Add empty cells."""
    return cells + [None] * max(length - len(cells), 0)


def plot_example(example: Example, frontend: BandLevels) -> Figure:
    """Draw a waveform above its log-mel, for a page, dark or light."""
    figure = _make_card(_CARD_IN[1])
    wave, mel = figure.subplots(2, 1, height_ratios=(1, 2.2), sharex=True)
    draw_waveform(wave, example.waveform, frontend.sample_rate)
    level_db = example.level_db - example.level_db.max()
    draw_levels(mel, level_db, frontend, (-RANGE_DB, 0.0))
    wave.set(xlim=(0, len(example.waveform) / frontend.sample_rate), ylabel="Ampl.")
    mel.set(xlabel="Time [s]", ylabel="Frequency [Hz]")
    _ink(wave, mel)
    return figure


def plot_change(change: Change, top_db: float, frontend: BandLevels) -> Figure:
    """Draw a log-mel below ``top_db``, for a page, dark or light."""
    figure = _make_card(0.72 * _CARD_IN[1])
    axes = figure.subplots()
    draw_levels(axes, change.level_db, frontend, (top_db - RANGE_DB, top_db))
    axes.set(xlabel="Time [s]", ylabel="Frequency [Hz]")
    _ink(axes)
    return figure


def _make_card(height_in: float) -> Figure:
    """Make a small figure with fixed edges: finding them would take as long as drawing it."""
    width_in = _CARD_IN[0]
    left, right, bottom, top = _CARD_EDGES_IN
    figure = Figure(figsize=(width_in, height_in))
    figure.subplots_adjust(
        left=left / width_in,
        right=1 - right / width_in,
        bottom=bottom / height_in,
        top=1 - top / height_in,
        hspace=0.14,
    )
    return figure


def _ink(*parts: Axes) -> None:
    """Write in a grey that can be read on light and dark pages."""
    for axes in parts:
        axes.patch.set_alpha(0)
        axes.tick_params(colors=_INK, labelsize=8)
        axes.xaxis.label.set(color=_INK, fontsize=9)
        axes.yaxis.label.set(color=_INK, fontsize=9)
        axes.spines[:].set_color(_INK)
        axes.title.set_color(_INK)
        for fill in axes.collections:
            if isinstance(fill, PolyCollection):
                fill.set_color(_LIGHT_BLUE)
    parts[0].figure.patch.set_alpha(0)


def draw_waveform(axes: Axes, waveform: NDArray[np.float32], sample_rate: int) -> None:
    """Draw a waveform as the range of each column of pixels."""
    first, low, high = envelope(waveform)
    axes.fill_between(first / sample_rate, low, high, color=_BLUE, linewidth=0.6)
    axes.set(xlim=(0, len(waveform) / sample_rate), ylim=(-1, 1), yticks=(-1, 0, 1))
    axes.spines[["top", "right"]].set_visible(False)


def draw_levels(
    axes: Axes, levels: NDArray[np.float32], frontend: BandLevels, limits: tuple[float, float]
) -> Any:
    """Draw levels [band, frame] over time in s, the bands' frequencies in Hz at the side."""
    hop_s = frontend.hop_length / frontend.sample_rate
    image = axes.imshow(
        levels,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=limits[0],
        vmax=limits[1],
        # Frame k is centred at k hops.
        extent=(-hop_s / 2, (levels.shape[1] - 0.5) * hop_s, -0.5, len(levels) - 0.5),
    )
    axes.set_xlim(0, max((levels.shape[1] - 1) * hop_s, hop_s))
    label_frequencies(axes, frontend.frequencies.numpy())
    return image


def plain(text: str) -> str:
    """Make any name one short line that is no formula."""
    line = re.sub(r"[\x00-\x20\x7f-\x9f]+", " ", str(text)).replace("$", r"\$")
    return line if len(line) <= _LONG else f"{line[: _LONG - 1]}…"


def _first_of_each(examples: Sequence[Example]) -> list[Example]:
    """Take one example a class, at most ``_MOST_PICTURES``."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.row["label"], example)
    return list(first.values())[:_MOST_PICTURES]


def _draw_grid(
    items: Sequence[Any], draw: Callable[[Axes, Any], None], height: float, names: tuple[str, str]
) -> Figure:
    """Draw each item, if it is not None, in a cell of its own, titled with its label."""
    n_columns = min(_N_COLUMNS, len(items))
    n_rows = -(-len(items) // n_columns)
    figure = Figure(figsize=(3.5 * n_columns, height * n_rows + 0.4), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    for axes, item in zip(grid.flat, items, strict=False):
        if item is None:
            axes.set_visible(False)
            continue
        if isinstance(item, Example):
            axes.set_title(plain(item.row["label"]), fontsize=10)
        draw(axes, item)
    for axes in grid.flat[len(items) :]:
        axes.remove()
    for axes in grid[-1]:
        axes.set_xlabel(names[0])
    for axes in grid[:, 0]:
        axes.set_ylabel(names[1])
    return figure


def _mix(colour: str, share: float) -> tuple[float, float, float]:
    """Mix a colour with white."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (part + (1 - part) * share for part in parts)
    return red, green, blue

"""Figures of a run: learning curves, confusion matrix, log-mels."""

from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#767676"
_LEAST_DARK = 0.55
_N_COLUMNS = 1200  # of a drawn waveform

Floats = NDArray[np.float32]


def plot_curves(history: Sequence[Mapping[str, float]], best_epoch: int | None = None) -> Figure:
    """Draw loss, accuracy or mean average precision, and learning rate over the epochs.

    Args:
        history: A row an epoch with ``epoch``, ``train_loss``, ``lr`` and, as far as they are
            there, ``val_loss``, ``train_accuracy`` and ``val_accuracy``, or
            ``val_mean_average_precision``.
        best_epoch: The epoch that validation chose, if it did.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    main, words = "accuracy", "Accuracy"
    if "train_accuracy" not in history[0]:
        main, words = "mean_average_precision", "Mean average precision"
    loss, score, rate = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in history]
    for axes, name in ((loss, "loss"), (score, main)):
        for part, colour, label in (
            ("train", _BLUE, "training (augmented)"),
            ("val", _ORANGE, "validation"),
        ):
            if f"{part}_{name}" in history[0]:
                values = [row[f"{part}_{name}"] for row in history]
                axes.plot(epochs, values, color=colour, label=label)
    rate.plot(epochs, [row["lr"] for row in history], color=_GREY)
    score.set_ylim(0, 1)
    for axes, title in ((loss, "Loss"), (score, words), (rate, "Learning rate")):
        if best_epoch:
            axes.axvline(best_epoch, color=_GREY, linewidth=1, linestyle=":", label="best epoch")
        axes.set(title=title, xlabel="Epoch")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    loss.legend(frameon=False)
    return figure


def plot_confusion_matrix(counts: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    """Draw clips by class and prediction; shade is the share of the class, the number the count.

    Args:
        counts: [class, class], rows are the true classes.
        labels: Names of the classes.
    """
    n = len(labels)
    size = 3.2 + 0.42 * n if n <= 20 else 4.0 + 0.22 * n
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    font = 9 if n <= 20 else 6
    axes.set_xticks(range(n), list(labels), rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), list(labels))
    axes.tick_params(labelsize=font, length=0)
    axes.set(xlabel="Predicted", ylabel="True")
    for row, column in np.argwhere(counts):
        colour = "white" if share[row, column] > _LEAST_DARK else "black"
        axes.text(
            column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=font
        )
    correct = np.trace(counts)
    axes.set_title(f"{correct} of {counts.sum()} right ({correct / max(counts.sum(), 1):.1%})")
    figure.colorbar(image, ax=axes, shrink=0.8, label="Share of the class")
    return figure


def plot_average_precision(classes: pd.DataFrame) -> Figure:
    """Draw the average precision of each class, and what chance would give it.

    Args:
        classes: A row a class: ``label``, ``average_precision`` (NaN where there is none) and
            ``share``, of the clips that have the class.
    """
    rows = classes.sort_values("average_precision", na_position="first")
    figure = Figure(figsize=(7, 1.2 + 0.26 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    axes.barh(places, rows["average_precision"].fillna(0.0), color=_BLUE, height=0.6)
    (chance,) = axes.plot(rows["share"], places, "|", color=_ORANGE, label="by chance")
    chance.set(markersize=11, markeredgewidth=3)
    axes.set_yticks(places, rows["label"].tolist())
    axes.set(xlabel="Average precision", xlim=(0, 1))
    axes.set_title(f"Mean {rows['average_precision'].mean():.4f}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside right upper")
    return figure


def plot_log_mels(
    log_mels: NDArray[np.float32],
    titles: Sequence[str],
    *,
    hop_s: float,
    mel_frequencies: NDArray[np.float64],
) -> Figure:
    """Draw log-mels as the model sees them, in a grid of four columns.

    Args:
        log_mels: [clip, mel, frame], normalised.
        titles: What stands above each.
        hop_s: Time between frames [s].
        mel_frequencies: Centre of each band [Hz].
    """
    n_rows = -(-len(log_mels) // 4)
    figure = Figure(figsize=(14, 2.7 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, 4, squeeze=False, sharex=True, sharey=True)
    n_mels, n_frames = log_mels.shape[1:]
    for axes, log_mel, title in zip(grid.flat, log_mels, titles, strict=False):
        image = axes.imshow(
            log_mel,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=-2.5,
            vmax=2.5,
            extent=(0, n_frames * hop_s, -0.5, n_mels - 0.5),
        )
        axes.set_title(title, fontsize=9)
        label_frequencies(axes, mel_frequencies)
    for axes in grid.flat[len(log_mels) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("Time [s]")
    for axes in grid[:, 0]:
        axes.set_ylabel("Frequency [Hz]")
    figure.colorbar(image, ax=grid, shrink=0.8, label="Level [deviations from the training mean]")
    return figure


def plot_comparison(rows: pd.DataFrame) -> Figure:
    """Draw scores, and their differences to the first, with their intervals.

    Args:
        rows: Columns name, figure ("accuracy" or "mean_average_precision"), score, interval,
            difference, difference_interval; shares, 0 to 1.
    """
    figure = Figure(figsize=(11, 1.4 + 0.45 * len(rows)), layout="constrained")
    score, difference = figure.subplots(1, 2, sharey=True)
    for axes, name, interval in (
        (score, "score", "interval"),
        (difference, "difference", "difference_interval"),
    ):
        for place, row in enumerate(rows.to_dict("records")):
            colour = _GREY if place == 0 else _BLUE
            ends = [100 * end for end in row[interval]]
            axes.plot(ends, [place, place], color=colour, linewidth=2.5, solid_capstyle="butt")
            axes.plot(100 * row[name], place, "o", color=colour, markersize=7)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    difference.axvline(0, color=_GREY, linewidth=1, linestyle=":")
    is_accuracy = rows["figure"].iloc[0] == "accuracy"
    score.set(
        title="Accuracy" if is_accuracy else "Mean average precision",
        xlabel=f"%{' of clips' if is_accuracy else ''}, 95 % interval",
    )
    difference.set(title=f"Difference to {rows['name'][0]}", xlabel="Points, 95 % paired interval")
    score.set_yticks(range(len(rows)), list(rows["name"]))
    score.set_ylim(len(rows) - 0.5, -0.5)
    return figure


def envelope(waveform: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Give the range of a waveform [time] in each column that is drawn.

    Returns:
        First sample, least and greatest value of each column; of short waveforms every sample.
    """
    edges = np.linspace(0, len(waveform), min(_N_COLUMNS, len(waveform)), endpoint=False)
    first = edges.astype(np.int64)
    return first, np.minimum.reduceat(waveform, first), np.maximum.reduceat(waveform, first)


def label_frequencies(
    axes: Axes, mel_frequencies: NDArray[np.float64], axis: Literal["x", "y"] = "y"
) -> None:
    """Mark round frequencies between the bands, of each window where there are several.

    Args:
        axes: Where a band takes a unit, the first from -0.5 to 0.5.
        mel_frequencies: Centre of each band [Hz].
        axis: Along which axis the bands lie.
    """
    n_windows = int((mel_frequencies == mel_frequencies[0]).sum())
    bands = mel_frequencies[: len(mel_frequencies) // n_windows]
    labels = [f for f in (125, 500, 1000, 2000, 4000, 8000) if bands[0] < f < bands[-1]]
    places = np.interp(labels, bands, np.arange(len(bands)))
    set_ticks = axes.set_yticks if axis == "y" else axes.set_xticks
    set_ticks(
        [place + window * len(bands) for window in range(n_windows) for place in places],
        [str(f) for f in labels] * n_windows,
    )
    axes.tick_params(labelsize=8)


mpl.rcParams.update({"font.size": 10, "axes.titlesize": 11})

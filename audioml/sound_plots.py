"""Pictures of one sound for a page: waveform, log-mel, evidence, probabilities over time.

Backgrounds are transparent and words grey, so that they can be read on light and dark pages.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from audioml.plots import envelope

_WORDS, _WAVE = "#808894", "#3d8fd1"
_COLOURS = ("#3d8fd1", "#e0701a", "#2ca87f", "#c45c9e", "#b3953a")
_WIDTH_IN, _DPI = 5.4, 180
_RANGE_DB = 80.0  # of levels shown below the loudest
_HEAT = LinearSegmentedColormap.from_list(
    "heat", [(1.0, 0.45, 0.1, 0.0), (1.0, 0.45, 0.1, 0.55), (1.0, 0.85, 0.2, 0.9)]
)


def plot_sound(
    waveform: NDArray[np.float32],
    sample_rate: int,
    level_db: NDArray[np.float32],
    frequencies: NDArray[np.float64],
) -> Figure:
    """Draw a waveform above its log-mel.

    Args:
        waveform: Samples [time], full scale at 1.
        sample_rate: Its rate [Hz].
        level_db: Levels [mel, frame] over the same time [dB].
        frequencies: Centre of each band [mel] in Hz.
    """
    figure = _make_figure(4.0)
    wave, mel = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.4))
    duration_s = len(waveform) / sample_rate
    first, low, high = envelope(waveform)
    wave.fill_between(first / sample_rate, low, high, color=_WAVE, linewidth=0.6)
    wave.set(ylim=(-1, 1), yticks=(-1, 0, 1), ylabel="Amplitude")
    image = _show_levels(mel, level_db, frequencies, (0, duration_s), "magma")
    _style(wave, mel)
    _add_bar(figure, image, mel, "Level [dB]")
    return figure


def plot_evidence(
    level_db: NDArray[np.float32],
    frequencies: NDArray[np.float64],
    heat: NDArray[np.float32],
    span_s: tuple[float, float],
    attention: NDArray[np.float32] | None = None,
) -> Figure:
    """Draw where the evidence for a class lies over the log-mel, in grey, of what was classified.

    Args:
        level_db: Levels [mel, frame] in dB.
        frequencies: Centre of each band [mel] in Hz.
        heat: Share of the strongest evidence [mel, frame], 0..1.
        span_s: Beginning and end [s] of what was classified.
        attention: Weight of each frame in the pooling over time [frame], 1 on average; None for
            none.
    """
    figure = _make_figure(2.9 if attention is None else 4.0)
    if attention is None:
        mel = figure.subplots()
    else:
        weight, mel = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.4))
        time = np.linspace(*span_s, len(attention))
        weight.fill_between(time, attention, color=_COLOURS[1], alpha=0.5, linewidth=0)
        weight.axhline(1, color=_WORDS, linewidth=0.8, linestyle=":")
        weight.set(ylabel="Attention", ylim=(0, None))
        _style(weight)
    _show_levels(mel, level_db, frequencies, span_s, "gray")
    image = mel.imshow(
        heat,
        origin="lower",
        aspect="auto",
        cmap=_HEAT,
        vmin=0,
        vmax=1,
        extent=(*span_s, -0.5, len(heat) - 0.5),
    )
    _style(mel)
    _add_bar(figure, image, mel, "Evidence")
    return figure


def plot_course(
    begin_s: NDArray[np.float64], window_s: float, probability: Mapping[str, NDArray[np.float64]]
) -> Figure:
    """Draw probabilities over the windows of a long sound.

    Args:
        begin_s: Beginning of each window [window] in s.
        window_s: Length of a window [s].
        probability: Of the classes to show [window], at most five, the first most striking.
    """
    figure = _make_figure(2.9)
    axes = figure.subplots()
    centre = begin_s + window_s / 2
    for (label, values), colour in zip(probability.items(), _COLOURS, strict=False):
        axes.plot(centre, values, "o-", color=colour, markersize=3.5, linewidth=1.5, label=label)
    axes.set(ylim=(0, 1), ylabel="Probability", xlim=(0, begin_s[-1] + window_s))
    axes.set_xlabel("Time [s], middle of the window")
    legend = figure.legend(
        loc="outside upper center", frameon=False, fontsize=9, labelcolor=_WORDS, ncols=3
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a label is no formula
    axes.grid(alpha=0.25)
    _style(axes)
    return figure


def save_picture(figure: Figure, path: Path) -> str:
    """Write a picture as PNG; returns its path."""
    figure.savefig(path, dpi=_DPI, transparent=True)
    return str(path)


def _make_figure(height_in: float) -> Figure:
    return Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")


def _show_levels(
    axes: Axes,
    level_db: NDArray[np.float32],
    frequencies: NDArray[np.float64],
    span_s: tuple[float, float],
    colours: str,
) -> Any:
    top = float(level_db.max())
    image = axes.imshow(
        level_db,
        origin="lower",
        aspect="auto",
        cmap=colours,
        vmin=max(top - _RANGE_DB, float(level_db.min())),
        vmax=top,
        extent=(*span_s, -0.5, len(level_db) - 0.5),
    )
    marks = [f for f in (125, 250, 500, 1000, 2000, 4000, 8000, 16000) if f <= frequencies[-1]]
    places = np.interp(marks, frequencies, np.arange(len(frequencies)))
    names = [f"{f // 1000}k" if f >= 1000 else f"{f}" for f in marks]
    axes.set_yticks(*_spread(places, names, least=len(level_db) / 9))
    axes.set(ylabel="Frequency [Hz]", xlabel="Time [s]")
    return image


def _spread(
    places: NDArray[np.float64], names: Sequence[str], least: float
) -> tuple[list[float], list[str]]:
    """Leave out marks that come closer to the one above than ``least``."""
    kept: list[tuple[float, str]] = []
    for place, name in reversed(list(zip(places.tolist(), names, strict=True))):
        if not kept or kept[-1][0] - place >= least:
            kept.append((place, name))
    return [place for place, _ in kept], [name for _, name in kept]


def _style(*parts: Axes) -> None:
    """Make lines and words of a kind that any background bears."""
    for axes in parts:
        axes.tick_params(colors=_WORDS, labelsize=9)
        axes.xaxis.label.set_color(_WORDS)
        axes.yaxis.label.set_color(_WORDS)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
        for spine in axes.spines.values():
            spine.set_color(_WORDS)
        axes.spines[["top", "right"]].set_visible(False)


def _add_bar(figure: Figure, image: Any, axes: Axes, label: str) -> None:
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label(label, color=_WORDS)
    bar.ax.tick_params(colors=_WORDS, labelsize=9)
    bar.outline.set_visible(False)

"""Figures of a sweep: the validation score over what was varied."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

_BLUE, _ORANGE = "#0072b2", "#d55e00"
_SHADES = mpl.colormaps["Blues"]
_DARK = 0.55  # of the scale: white letters above
_DECADE = 10.0
_LINE = 60  # letters of the title over a column
_PERCENT = PercentFormatter(xmax=1)

Choices = Mapping[str, Sequence[str] | None]


def plot_sweep(choices: Choices, trials: pd.DataFrame, title: str, figure_name: str) -> Figure:
    """Draw the score of every trial; the best is orange.

    One key gives a line; two a heat map where both have listed values, else points; more give
    that for every pair, a cell showing the best trial over the other keys.

    Args:
        choices: The listed values of each key; None for a key drawn from a range.
        trials: A row a trial: its values by key, score and loss (NaN where there is none yet),
            state and is_best.
        title: What stands above.
        figure_name: What the score is, 0 to 1: "accuracy" or "mAP".
    """
    pairs = list(itertools.combinations(choices, 2))
    n_columns = min(max(len(pairs), 1), 3)
    n_rows = -(-max(len(pairs), 1) // n_columns)
    figure = Figure(figsize=(5.4 * n_columns + 1, 4.2 * n_rows + 0.6), layout="constrained")
    figure.suptitle(textwrap.fill(title, _LINE * n_columns), fontsize=11)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    if not pairs:
        _draw_line(grid[0, 0], next(iter(choices)), choices, trials)
        grid[0, 0].set_ylabel(f"Validation {figure_name}")
        return figure
    norm = _make_scale(trials["score"])
    for axes, pair in zip(grid.flat, pairs, strict=False):
        is_listed = all(choices[key] is not None for key in pair)
        draw = _draw_heat_map if is_listed else _draw_points
        draw(axes, *pair, choices, trials, norm)
    for axes in grid.flat[len(pairs) :]:
        axes.set_visible(False)
    scale = mpl.cm.ScalarMappable(norm, _SHADES)
    label = f"Validation {figure_name}"
    figure.colorbar(scale, ax=grid, shrink=0.8, label=label, format=_PERCENT)
    return figure


def _make_scale(score: pd.Series) -> Normalize:
    """Let the shades run from somewhat below the worst score to the best."""
    low, high = score.min(), score.max()
    if np.isnan(low):
        return Normalize(0, 1)
    return Normalize(low - max(0.1 * (high - low), 0.01), high)


def _draw_heat_map(
    axes: Axes,
    row_key: str,
    column_key: str,
    choices: Choices,
    trials: pd.DataFrame,
    norm: Normalize,
) -> None:
    rows, columns = choices[row_key] or (), choices[column_key] or ()
    worst_first = trials.sort_values(
        ["score", "loss"], ascending=[True, False], na_position="first"
    )
    cells = {(row[row_key], row[column_key]): row for row in worst_first.to_dict("records")}
    shades = np.full((len(rows), len(columns)), np.nan)
    for place in np.ndindex(shades.shape):
        key = (rows[place[0]], columns[place[1]])
        if key in cells:
            shades[place] = cells[key]["score"]
            _label_cell(axes, place, cells[key], norm)
    axes.imshow(shades, cmap=_SHADES, norm=norm, aspect="auto")
    _label_axis(axes, "y", row_key, choices, trials)
    _label_axis(axes, "x", column_key, choices, trials)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(columns) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=3)
    axes.tick_params(which="minor", length=0)


def _label_cell(
    axes: Axes, place: tuple[int, ...], cell: Mapping[Any, Any], norm: Normalize
) -> None:
    """Write a cell's figures, and frame it if it is the best."""
    row, column = place
    lines = [] if np.isnan(cell["score"]) else [f"{cell['score']:.1%}"]
    lines += [] if np.isnan(cell["loss"]) else [f"loss {cell['loss']:.3f}"]
    lines += [] if cell["state"] == "finished" else [cell["state"]]
    colour = "white" if norm(cell["score"]) > _DARK else "black"
    axes.text(column, row, "\n".join(lines), ha="center", va="center", color=colour)
    if cell["is_best"]:
        frame = Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, zorder=3)
        frame.set(edgecolor=_ORANGE, linewidth=3)
        axes.add_patch(frame)


def _draw_points(
    axes: Axes,
    y_key: str,
    x_key: str,
    choices: Choices,
    trials: pd.DataFrame,
    norm: Normalize,
) -> None:
    shown = trials[trials["score"].notna()].sort_values("is_best")  # the best on top
    x, y = (_positions(shown[key], choices[key]) for key in (x_key, y_key))
    edges = [_ORANGE if is_best else "black" for is_best in shown["is_best"]]
    widths = [3.0 if is_best else 0.5 for is_best in shown["is_best"]]
    shades = _SHADES(norm(shown["score"]))
    axes.scatter(x, y, s=90, c=shades, edgecolors=edges, linewidths=widths)
    _label_axis(axes, "y", y_key, choices, trials)
    _label_axis(axes, "x", x_key, choices, trials)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def _draw_line(axes: Axes, key: str, choices: Choices, trials: pd.DataFrame) -> None:
    """Connect listed values; values from a range are points, only the best of them labelled."""
    is_listed = choices[key] is not None
    shown = trials[trials["score"].notna()]
    x = _positions(shown[key], choices[key])
    order = np.argsort(x)
    axes.plot(x[order], shown["score"].iloc[order], "o-" if is_listed else "o", color=_BLUE)
    for place, score, is_best in zip(x, shown["score"], shown["is_best"], strict=True):
        if is_best:
            axes.plot(place, score, "o", color=_ORANGE, markersize=11)
        if is_best or is_listed:
            text, at = f"{score:.1%}", (place, score)
            axes.annotate(text, at, xytext=(0, 9), textcoords="offset points", ha="center")
    _label_axis(axes, "x", key, choices, trials)
    axes.yaxis.set_major_formatter(_PERCENT)
    axes.margins(y=0.2)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _positions(values: pd.Series, listed: Sequence[str] | None) -> NDArray[np.float64]:
    """Place values on an axis: listed ones evenly, in their order."""
    if listed is None:
        return values.to_numpy(np.float64)
    return np.array([listed.index(value) for value in values], dtype=np.float64)


def _label_axis(
    axes: Axes, name: Literal["x", "y"], key: str, choices: Choices, trials: pd.DataFrame
) -> None:
    axes.set(**{f"{name}label": key})
    listed = choices[key]
    if listed is not None:
        axes.set(
            **{
                f"{name}ticks": range(len(listed)),
                f"{name}ticklabels": list(listed),
                f"{name}lim": (-0.5, len(listed) - 0.5),
            }
        )
    elif trials[key].min() > 0 and trials[key].max() / trials[key].min() > _DECADE:
        axes.set(**{f"{name}scale": "log"})

"""Charts of a report: learning curves, classes, reliability."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audioml.explore.charts import escape
from audioml.statistics import wilson_interval

_BLUE, _ORANGE, _GREY = "#3d8fd1", "#e0701a", "#8a93a3"
_N_BINS: Final = 10
_LEGEND: Final = {
    "orientation": "h",
    "x": 1,
    "xanchor": "right",
    "y": 1.02,
    "yanchor": "bottom",
}
_ROW_PX, _MARGIN_PX = 26, 90


def chart_curves(
    history: pd.DataFrame, name: str, title: str, best_epoch: int | None = None
) -> dict[str, Any]:
    """Draw a figure over the epochs, of training and, where there is one, of validation.

    Args:
        history: A row an epoch.
        name: The figure: ``loss``, ``accuracy`` or ``mean_average_precision``.
        title: What to call it.
        best_epoch: The epoch that validation chose, if it did.
    """
    parts = (("train", "training (augmented)", _BLUE), ("val", "validation", _ORANGE))
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": label,
            "x": history["epoch"].tolist(),
            "y": history[f"{part}_{name}"].astype(float).tolist(),
            "line": {"color": colour},
            "hovertemplate": "epoch %{x}: %{y:.3f}<extra>" + label + "</extra>",
        }
        for part, label, colour in parts
        if f"{part}_{name}" in history
    ]
    limits = {"rangemode": "tozero"} if name == "loss" else {"range": [0, 1.02]}
    return {
        "data": data,
        "layout": {
            "title": {"text": title, "x": 0, "font": {"size": 13}},
            "height": 300,
            "margin": {"l": 48, "r": 10, "t": 40, "b": 40},
            "xaxis": {"title": {"text": "Epoch"}},
            "yaxis": limits,
            "legend": _LEGEND,
            "shapes": [_mark(best_epoch)] if best_epoch else [],
        },
    }


def _mark(epoch: int) -> dict[str, Any]:
    """Draw an upright line at the best epoch."""
    return {
        "type": "line",
        "x0": epoch,
        "x1": epoch,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": _GREY, "dash": "dot", "width": 1.5},
        "label": {
            "text": "best",
            "textposition": "start",
            "textangle": 0,
            "xanchor": "right",
            "font": {"color": _GREY},
        },
    }


def recall_intervals(
    target: NDArray[np.int64], is_right: NDArray[np.bool_], sources: NDArray[np.str_], n: int
) -> list[tuple[float, float, float]]:
    """Give each class's recall with its 95 % interval (Wilson's, recordings counted as one each).

    Args:
        target: Classes [clip].
        is_right: Whether each is classified right [clip].
        sources: The recording of each [clip].
        n: Number of classes.

    Returns:
        Recall, low and high, each class; NaN for one without clips.
    """
    rows = []
    for number in range(n):
        own = target == number
        if not own.any():
            rows.append((float("nan"),) * 3)
            continue
        recall = float(is_right[own].mean())
        rows.append((recall, *wilson_interval(recall, len(np.unique(sources[own])))))
    return rows


def chart_recall(
    labels: Sequence[str], intervals: Sequence[tuple[float, float, float]], n_clips: Sequence[int]
) -> dict[str, Any]:
    """Draw each class's recall with its interval, the worst on top."""
    order = sorted(range(len(labels)), key=lambda n: -np.nan_to_num(intervals[n][0], nan=2))
    recall, low, high = (np.array([intervals[n] for n in order]).T * 100).tolist()
    names = [escape(labels[n]) for n in order]
    bar = {
        "type": "bar",
        "orientation": "h",
        "y": names,
        "x": recall,
        "marker": {"color": _BLUE},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [h - r for h, r in zip(high, recall, strict=True)],
            "arrayminus": [r - a for a, r in zip(low, recall, strict=True)],
            "color": _ORANGE,
            "thickness": 1.5,
        },
        "customdata": [[n_clips[n], a, h] for n, a, h in zip(order, low, high, strict=True)],
        "hovertemplate": "%{y}: %{x:.1f} % of %{customdata[0]} clips, 95 % interval "
        "%{customdata[1]:.1f} to %{customdata[2]:.1f}<extra></extra>",
    }
    return {
        "data": [bar],
        "layout": {
            "height": _MARGIN_PX + _ROW_PX * len(labels),
            "margin": {"l": 8, "r": 16, "t": 8, "b": 44},
            "xaxis": {"title": {"text": "Recall [%]"}, "range": [0, 102]},
            "yaxis": {"automargin": True, "type": "category"},  # also if classes are numbers
            "bargap": 0.35,
        },
    }


def chart_precision(classes: pd.DataFrame) -> dict[str, Any]:
    """Draw each class's average precision, and what chance would give it, the worst on top.

    Args:
        classes: Columns label, n_clips, share and average_precision (NaN where there is none).
    """
    rows = classes.sort_values("average_precision", ascending=False, na_position="first")
    names = [escape(label) for label in rows["label"]]
    bar = {
        "type": "bar",
        "orientation": "h",
        "name": "the model",
        "y": names,
        "x": rows["average_precision"].fillna(0.0).tolist(),
        "marker": {"color": _BLUE},
        "customdata": rows["n_clips"].tolist(),
        "hovertemplate": "%{y}: %{x:.4f}, %{customdata} clips<extra></extra>",
    }
    chance = {
        "type": "scatter",
        "mode": "markers",
        "name": "by chance",
        "y": names,
        "x": rows["share"].tolist(),
        "marker": {"symbol": "line-ns", "size": 14, "line": {"color": _ORANGE, "width": 3}},
        "hovertemplate": "%{y}: %{x:.4f} by chance<extra></extra>",
    }
    return {
        "data": [bar, chance],
        "layout": {
            "height": _MARGIN_PX + _ROW_PX * len(names),
            "margin": {"l": 8, "r": 16, "t": 28, "b": 44},
            "xaxis": {"title": {"text": "Average precision"}, "range": [0, 1.02]},
            "yaxis": {"automargin": True},
            "bargap": 0.35,
            "legend": _LEGEND,
        },
    }


def calibration(
    confidence: NDArray[np.float64], is_right: NDArray[np.bool_]
) -> tuple[pd.DataFrame, float]:
    """Compare how sure a model is with how often it is right.

    Args:
        confidence: Probability of each clip's predicted class [clip].
        is_right: Whether it is right [clip].

    Returns:
        A row each tenth of confidence that has clips (columns confidence, accuracy, n_clips), and
        the expected calibration error: the mean distance of the two, over clips.

    Source: Guo et al. 2017, "On calibration of modern neural networks", ten bins of equal width.
    """
    bins = np.minimum((confidence * _N_BINS).astype(int), _N_BINS - 1)
    table = (
        pd.DataFrame({"bin": bins, "confidence": confidence, "accuracy": is_right.astype(float)})
        .groupby("bin")
        .agg(
            confidence=("confidence", "mean"),
            accuracy=("accuracy", "mean"),
            n_clips=("accuracy", "size"),
        )
    )
    gap = (table["confidence"] - table["accuracy"]).abs()
    return table, float((gap * table["n_clips"]).sum() / len(confidence))


def chart_reliability(
    table: pd.DataFrame, axes: tuple[str, str] = ("Confidence", "Right")
) -> dict[str, Any]:
    """Draw accuracy over confidence, named as ``axes``, a dot a tenth, its area by its clips."""
    size = 9 + 22 * np.sqrt(table["n_clips"] / table["n_clips"].sum())
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "x": [0, 100],
                "y": [0, 100],
                "line": {"color": _GREY, "dash": "dot", "width": 1},
                "hoverinfo": "skip",
            },
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": (100 * table["confidence"]).tolist(),
                "y": (100 * table["accuracy"]).tolist(),
                "customdata": table["n_clips"].tolist(),
                "marker": {"size": size.tolist(), "color": _BLUE},
                "line": {"color": _BLUE, "width": 1},
                "hovertemplate": f"%{{customdata}} clips: {axes[0].lower()} %{{x:.0f}} %, "
                f"{axes[1].lower()} %{{y:.0f}} %<extra></extra>",
            },
        ],
        "layout": {
            "height": 340,
            "showlegend": False,
            "margin": {"l": 56, "r": 16, "t": 8, "b": 44},
            "xaxis": {"title": {"text": f"{axes[0]} [%]"}, "range": [-3, 103]},
            "yaxis": {"title": {"text": f"{axes[1]} [%]"}, "range": [-6, 106]},
        },
    }

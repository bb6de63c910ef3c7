"""Charts of a page, to point at: every dot names its file."""

import html
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audioml.explore.figures import sort_by_brightness

MOST_DOTS: Final = 5_000
"""With more clips only the outliers are drawn."""
MEASURES: Final = (
    ("length_s", "Length [s]"),
    ("rms_dbfs", "RMS level [dBFS]"),
    ("peak_dbfs", "Peak level [dBFS]"),
    ("silence_share", "Silence [share]"),
    ("dc", "Offset [full scale 1]"),
)
_BLUE, _ORANGE = "#3d8fd1", "#e0701a"
_ROW_PX, _MARGIN_PX = 26, 90
_MAGMA = [[n / 8, mpl.colors.to_hex(mpl.colormaps["magma"](n / 8))] for n in range(9)]


def chart_measure(
    clips: pd.DataFrame, labels: Sequence[str], column: str, title: str
) -> dict[str, Any]:
    """Draw a column of the table as a box and a dot a clip, class by class.

    Args:
        clips: Rows of clips that can be decoded.
        labels: The classes, from top to bottom.
        column: The column.
        title: What it is, with its unit.

    Returns:
        A Plotly figure.
    """
    known = clips[clips[column].notna()]
    box = {
        "type": "box",
        "orientation": "h",
        "x": known[column].astype(float).tolist(),
        "y": [escape(label) for label in known["label"]],
        "text": [escape(path) for path in known["path"]],
        "hovertemplate": "%{text}<br>%{x}<extra></extra>",
        "boxpoints": "all" if len(known) <= MOST_DOTS else "outliers",
        "jitter": 0.6,
        "pointpos": 0,
        "marker": {"size": 4, "opacity": 0.55, "color": _BLUE},
        "line": {"width": 1.2, "color": _ORANGE},
        "fillcolor": "rgba(0,0,0,0)",
    }
    return _figure([box], labels, title)


def chart_balance(clips: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """Draw clips of each class, stacked by fold, and how many recordings they are from."""
    names = [escape(label) for label in labels]
    counts = pd.crosstab(clips["label"], clips["fold"].fillna(0)).reindex(
        pd.Index(labels), fill_value=0
    )
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "x": column.tolist(),
            "y": names,
            "name": f"fold {fold}" if fold else "clips",
            "marker": {"color": f"rgba(61,143,209,{0.4 + 0.13 * (place % 5):.2f})"},
        }
        for place, (fold, column) in enumerate(counts.items())
    ]
    n_sources = clips.groupby("label")["source"].nunique().reindex(pd.Index(labels), fill_value=0)
    marks = {
        "type": "scatter",
        "mode": "markers",
        "x": n_sources.tolist(),
        "y": names,
        "name": "recordings",
        "marker": {"symbol": "diamond", "size": 9, "color": _ORANGE},
    }
    figure = _figure([*bars, marks], labels, "Clips")
    figure["layout"] |= {"barmode": "stack", "showlegend": True}
    figure["layout"]["legend"] = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    figure["layout"]["legend"]["traceorder"] = "normal"
    return figure


def chart_spectra(
    spectra: NDArray[np.float64], labels: Sequence[str], frequencies: NDArray[np.float64]
) -> dict[str, Any]:
    """Draw the mean spectrum of each class, the dullest on top.

    Args:
        spectra: Mean levels [class, band] in dB; NaN for a class without a sound.
        labels: The classes.
        frequencies: Centre of each band [Hz].
    """
    order = sort_by_brightness(spectra)
    shown = spectra[order] - spectra[order].max(1, keepdims=True)
    marks = [f for f in (500, 1000, 2000, 4000, 8000) if frequencies[0] < f < frequencies[-1]]
    places = np.interp(marks, frequencies, np.arange(len(frequencies)))
    heat = {
        "type": "heatmap",
        "z": np.round(shown, 1).tolist(),
        "y": [escape(labels[target]) for target in order],
        "text": [[f"{f:.0f} Hz" for f in frequencies]] * len(order),
        "hovertemplate": "%{y}, %{text}: %{z} dB<extra></extra>",
        "colorscale": _MAGMA,
        "zmin": -50,
        "zmax": 0,
        "colorbar": {"title": {"text": "dB"}, "thickness": 12},
    }
    figure = _figure([heat], [labels[target] for target in order], "Frequency [Hz]")
    names = [f"{f // 1000}k" if f >= 1000 else f"{f}" for f in marks]
    ticks = {"tickvals": places.tolist(), "ticktext": names, "tickangle": 0}
    figure["layout"]["xaxis"] |= ticks
    return figure


def escape(name: str) -> str:
    """Write a name so that Plotly, which reads some HTML and formulas, shows it as it is."""
    return html.escape(" ".join(str(name).split())).replace("$", "&#36;")


def _figure(data: list[dict[str, Any]], labels: Sequence[str], title: str) -> dict[str, Any]:
    return {
        "data": data,
        "layout": {
            "height": _MARGIN_PX + _ROW_PX * max(len(labels), 2),
            "margin": {"l": 10, "r": 10, "t": 20, "b": 45},
            "xaxis": {"title": {"text": title}, "zeroline": False, "automargin": True},
            "yaxis": {
                "autorange": "reversed",
                "automargin": True,
                "categoryorder": "array",
                "categoryarray": [escape(label) for label in labels],
                "type": "category",
            },
            "showlegend": False,
        },
    }

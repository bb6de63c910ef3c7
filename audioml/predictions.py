"""Predictions for people and programs: a table, JSON or CSV."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from audioml.predict import Prediction

Style = Literal["table", "json", "csv"]
EVEN: Final = 0.5  # probability from which one of several classes is said to be there


def write_predictions(
    predictions: Sequence[Prediction],
    labels: Sequence[str],
    *,
    style: Style = "table",
    n_top: int = 3,
    timeline: bool = False,
    is_multi_label: bool = False,
) -> str:
    """Write what a model says of files.

    Args:
        predictions: A prediction a file.
        labels: Names of the classes.
        style: "table" and "json" have the likeliest classes, "csv" the probabilities of all.
        n_top: How many likeliest classes.
        timeline: Whether each window has a line of its own.
        is_multi_label: Whether a sound may have several classes, or none; "csv" then predicts those
            of at least even odds.

    Returns:
        Lines; files that can't be used have no line but in JSON, where they have their error.
    """
    if style == "json":
        content = [_as_object(p, labels, n_top, timeline) for p in predictions]
        return json.dumps({"predictions": content}, indent=2, ensure_ascii=False) + "\n"
    rows = [row for p in predictions if not p.error for row in _rows(p, timeline)]
    if style == "csv":
        return _csv(rows, labels, timeline, is_multi_label)
    return _table(rows, labels, n_top)


def _rows(
    prediction: Prediction, timeline: bool
) -> Iterator[tuple[Prediction, float, float, NDArray[np.float64]]]:
    """Yield begin and end [s] and probabilities [class] of the file or of each window."""
    if not timeline:
        yield prediction, 0.0, prediction.duration_s, prediction.mean_probability
        return
    for (begin_s, end_s), probability in zip(
        prediction.times_s, prediction.probability, strict=True
    ):
        yield prediction, begin_s, end_s, probability


def _top(
    probability: NDArray[np.float64], labels: Sequence[str], n_top: int
) -> list[tuple[str, float]]:
    order = (-probability).argsort(kind="stable")[:n_top]
    return [(labels[number], float(probability[number])) for number in order]


def _table(rows: Sequence[Any], labels: Sequence[str], n_top: int) -> str:
    cells = []
    for prediction, begin_s, end_s, probability in rows:
        classes = [f"{label} {p:.1%}" for label, p in _top(probability, labels, n_top)]
        name = _printable(str(prediction.path)) + (" (silent)" if prediction.is_silent else "")
        cells.append([name, f"{begin_s:.2f}-{end_s:.2f} s", *map(_printable, classes)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)] if cells else []
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    return "".join(f"{line}\n" for line in lines)


def _printable(name: str) -> str:
    """Write a name so that a terminal shows it and obeys nothing in it."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)


def _csv(rows: Sequence[Any], labels: Sequence[str], timeline: bool, is_multi_label: bool) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    times = ("begin_s", "end_s") if timeline else ("duration_s",)
    writer.writerow(["path", *times, "predicted", *(f"p_{label}" for label in labels)])
    for prediction, begin_s, end_s, probability in rows:
        shown = (begin_s, end_s) if timeline else (end_s,)
        numbers = [round(float(p), 9) for p in probability]
        predicted = labels[int(probability.argmax())]
        if is_multi_label:
            chosen = zip(labels, probability, strict=True)
            predicted = ";".join(label for label, p in chosen if p >= EVEN)
        writer.writerow(
            [str(prediction.path), *(f"{time:.3f}" for time in shown), predicted, *numbers]
        )
    return out.getvalue()


def _as_object(
    prediction: Prediction, labels: Sequence[str], n_top: int, timeline: bool
) -> dict[str, Any]:
    if prediction.error:
        return {"path": str(prediction.path), "error": prediction.error}

    def top(probability: NDArray[np.float64]) -> list[dict[str, Any]]:
        pairs = _top(probability, labels, n_top)
        return [{"label": label, "probability": p} for label, p in pairs]

    content: dict[str, Any] = {
        "path": str(prediction.path),
        "duration_s": prediction.duration_s,
        "is_silent": prediction.is_silent,
        "n_windows": len(prediction.begin),
        "top": top(prediction.mean_probability),
    }
    if timeline:
        content["timeline"] = [
            {"begin_s": begin_s, "end_s": end_s, "top": top(probability)}
            for (begin_s, end_s), probability in zip(
                prediction.times_s, prediction.probability, strict=True
            )
        ]
    return content

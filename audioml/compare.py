"""Finished runs or cross-validations side by side: figures, how sure they are, what they cost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from audioml import metrics, plots
from audioml.datasets.manifest import describe_examples
from audioml.markdown import markdown_table
from audioml.results import Results
from audioml.runs import Folder, RunError
from audioml.statistics import holm, mcnemar

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One of the things compared.

    Args:
        name: Its folder's name.
        model: Its model.
        figure: What they are compared by: accuracy, or mean_average_precision of multi-label data.
        score: Share of all clips classified right, or the mean average precision; for a
            cross-validation the latter's mean over the folds.
        interval: Bootstrap interval of that over recordings, 95 %.
        macro_auc: Of all clips; for a cross-validation the folds' mean.
        difference: Score less the first one's.
        difference_interval: Paired bootstrap interval of that over recordings, 95 %.
        p_value: McNemar's exact test against the first one, adjusted after Holm; NaN for the first
            and for multi-label data, of which it can't be had.
        n_parameters: Parameters of the model.
        train_time_s: Training, all folds together [s].
        clips_per_s: Clips trained on a second.
        latency_ms: From one clip's waveform to its logits [ms].
    """

    name: str
    model: str
    figure: str
    score: float
    interval: Interval
    macro_auc: float
    difference: float
    difference_interval: Interval
    p_value: float
    n_parameters: int
    train_time_s: float
    clips_per_s: float
    latency_ms: float

    def content(self) -> dict[str, Any]:
        """List its fields, the score under its figure's name."""
        fields = asdict(self)
        figure = fields.pop("figure")
        return {figure if key == "score" else key: value for key, value in fields.items()}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Results of the same clips, side by side.

    Args:
        results: What is compared, the first with all others.
        rows: Their figures, in that order.
    """

    results: Sequence[Results]
    rows: Sequence[Row]

    def text(self) -> str:
        """Write a Markdown table and what must be known to read it."""
        return _as_markdown(self.results, self.rows)

    def content(self) -> dict[str, Any]:
        """List what ``text`` says for other programs."""
        first, pairs = self.results[0], zip(self.results, self.rows, strict=True)
        return {
            "data": first.summary["data"],
            "protocol": first.summary["protocol"],
            "n_clips": len(first.predictions),
            "runs": [{"folder": str(result.path), **row.content()} for result, row in pairs],
        }


def compare(paths: Sequence[Path], out: Path | None = None) -> Comparison:
    """Compare finished runs or cross-validations with the first of them.

    Args:
        paths: Their folders, two or more; all tested the same clips under the same protocol.
        out: Folder to write compare.md, compare.csv and plots/compare.png to; None for nothing.

    Returns:
        The comparison.

    Raises:
        RunError: If a folder is not a finished run, or they can't be compared; it says why.
    """
    if len({path.resolve() for path in paths}) < 2:
        raise RunError(
            "compare needs the folders of two or more runs, got "
            f"{', '.join(map(str, paths)) or 'none'}; name another one"
        )
    results = [Results.read(path) for path in paths]
    results = [results[0], *(_align(results[0], other) for other in results[1:])]
    comparison = Comparison(results=results, rows=make_rows(results))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        folder = Folder(out)
        folder.write_text("compare.md", comparison.text())
        folder.write_table("compare.csv", [row.content() for row in comparison.rows])
        folder.write_figure("compare.png", plots.plot_comparison(pd.DataFrame(comparison.rows)))
    return comparison


def make_rows(results: Sequence[Results]) -> list[Row]:
    """Work out the rows of a comparison with the first of some results of the same clips."""
    first, *others = results
    p_values = [float("nan")] * len(results)
    if not first.is_multi_label:
        p_values[1:] = holm([mcnemar(first.is_right, other.is_right) for other in others])
    return [
        _make_row(result, first, p_value) for result, p_value in zip(results, p_values, strict=True)
    ]


def _make_row(result: Results, first: Results, p_value: float) -> Row:
    summary = result.summary
    return Row(
        name=result.path.resolve().name,
        model=summary["model"],
        figure=result.figure,
        score=result.score,
        interval=result.interval(),
        macro_auc=summary["macro_auc"],
        difference=result.score - first.score,
        difference_interval=result.interval(less=first),
        p_value=p_value,
        n_parameters=summary["n_parameters"],
        train_time_s=summary["train_time_s"],
        clips_per_s=summary["clips_per_s"],
        latency_ms=summary["latency_ms"],
    )


def _align(first: Results, other: Results) -> Results:
    """Bring the clips of another result into the first one's order.

    Raises:
        RunError: If the two can't be compared.
    """
    if first.is_multi_label != other.is_multi_label:
        raise RunError(
            f"{first.path} and {other.path} can't be compared: clips have several labels in one "
            "and one in the other; compare runs on the same data"
        )
    for key in ("data", "protocol"):
        if first.summary[key] != other.summary[key]:
            raise RunError(
                f"{first.path} and {other.path} can't be compared: {key} is {first.summary[key]} "
                f"in one and {other.summary[key]} in the other; compare runs of the same {key}"
            )
    columns = [name for name in ("label", "fold") if name in first.predictions]
    mine, theirs = (_number_clips(result.predictions) for result in (first, other))
    only_one = mine.index.symmetric_difference(theirs.index)
    apart = sorted(set(only_one.get_level_values("path")))
    if apart:
        raise RunError(
            f"{first.path} and {other.path} can't be compared: they tested different clips "
            f"({len(mine)} and {len(theirs)}; only one has {describe_examples(apart)}); compare "
            "runs of the same fold, or whole cross-validations"
        )
    theirs = theirs.loc[mine.index]
    if not set(columns) <= set(theirs) or not theirs[columns].equals(mine[columns]):
        raise RunError(
            f"{first.path} and {other.path} can't be compared: the same clips have other "
            f"{' or '.join(columns)}s; run both on the same data"
        )
    return Results(path=other.path, summary=other.summary, predictions=theirs.reset_index())


def _number_clips(predictions: pd.DataFrame) -> pd.DataFrame:
    """Name each clip by its file and, as a file may hold several, its place among them."""
    numbered = predictions.assign(place=predictions.groupby("path").cumcount())
    return numbered.set_index(["path", "place"])


def _as_markdown(results: Sequence[Results], rows: Sequence[Row]) -> str:
    summary, n_clips = results[0].summary, len(results[0].predictions)
    devices = sorted({str(result.summary["device"]) for result in results})
    cells = [_as_cells(row, is_first=row is rows[0]) for row in rows]
    table = markdown_table(_header(rows[0].figure), cells, words=(0, 1, 3, 6))
    test = " p: McNemar's exact test against the first, clip by clip, adjusted after Holm."
    notes = (
        f"{summary['data']}, {summary['protocol']}, {n_clips} clips. Intervals: bootstrap over "
        f"recordings, for differences paired.{'' if results[0].is_multi_label else test} Speeds on "
        + " and ".join(devices)
        + ("; they can't be compared.\n" if len(devices) > 1 else ".\n")
    )
    return f"{table}\n\n{notes}"


def _header(figure: str) -> list[str]:
    """Name the columns of the table."""
    test = ["p"] if figure == "accuracy" else []
    return [
        *("run", "model", metrics.NAMES[figure], "95 % interval", "macro AUC"),
        *("to the first", "95 % interval", *test),
        *("parameters", "training [s]", "clips/s", "latency [ms]"),
    ]


def _as_cells(row: Row, *, is_first: bool) -> list[str]:
    is_accuracy = row.figure == "accuracy"
    form = ".1%" if is_accuracy else ".4f"
    low, high = row.interval
    least, most = row.difference_interval
    paired = [f"{row.difference:+{form}}", f"{least:+{form}} to {most:+{form}}"]
    if is_accuracy:
        paired.append(f"{row.p_value:.2g}")
    return [
        row.name,
        row.model,
        f"{row.score:{form}}",
        f"{low:{form}} to {high:{form}}",
        f"{row.macro_auc:.4f}",
        *([""] * len(paired) if is_first else paired),
        f"{row.n_parameters:,}",
        f"{row.train_time_s:.0f}",
        f"{row.clips_per_s:.0f}",
        f"{row.latency_ms:.1f}",
    ]

"""The page of a run, made ready for its template."""

import json
import logging
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from audioml import __version__, metrics
from audioml.config import to_yaml
from audioml.explore.survey import readable
from audioml.model_files import ModelError
from audioml.pages import render
from audioml.predictions import EVEN
from audioml.report.charts import (
    calibration,
    chart_curves,
    chart_precision,
    chart_recall,
    chart_reliability,
    recall_intervals,
)
from audioml.report.content import Content
from audioml.report.sounds import MOST_PICTURED, Sounds

log = logging.getLogger("audioml")

_MOST_BESIDE: Final = 12  # classes of a matrix that leaves room for the clips beside it
PROTOCOLS: Final = {
    "nested": "three folds train, one chooses the epoch, one tests",
    "fixed": "four of five folds train, the last epoch is measured on the fifth, nothing is chosen",
    "holdout": "whole recordings are held out, balanced over the classes",
    "given": "the data set's own split",
}


def render_report(content: Content) -> str:
    """Write the page of a finished run or cross-validation."""
    summary, results = content.summary, content.results
    sounds = Sounds(content)
    demonstrations, not_shown = _demonstrate(sounds)
    judge = _judge_ranks if results.is_multi_label else _judge
    score = metrics.write_figure(results.figure, summary[results.figure])
    return render(
        "report.html",
        title=f"{content.path.name}: {score} on {summary['data']}",
        name=readable(content.path.name),
        data=readable(str(summary["data"])),
        model=content.config.model.name,
        is_synthetic=bool(summary.get("is_synthetic")),
        is_crossval=bool(content.folds),
        tiles=list(list_tiles(content)),
        protocol=summary["protocol"],
        protocol_words=PROTOCOLS.get(summary["protocol"], ""),
        fold=summary.get("fold"),
        figure=_title(results.figure),
        folds=list(_list_folds(content)),
        folds_mean=_average_folds(content),
        chosen=content.chosen,
        curves=_curves(content),
        labels=results.labels,
        has_sounds=content.manifest is not None,
        lost=readable(content.lost),
        demonstrations=demonstrations,
        not_shown=not_shown,
        parts=content.split["part"].value_counts().to_dict(),
        n_sources=content.split.groupby("part")["source"].nunique().to_dict(),
        audit=content.audit,
        speed=list(_list_speed(content)),
        environment=_list_environment(content),
        config=to_yaml(content.config),
        commands=list(_list_commands(content)),
        version=__version__,
        charts=True,
        **judge(content, sounds),
    )


def _judge(content: Content, sounds: Sounds) -> dict[str, Any]:
    """Show which classes are taken for which, and the mistakes."""
    results = content.results
    mistakes, heard = sounds.choose_mistakes(), sounds.choose_heard()
    audio = dict(sounds.audio(heard)) if content.manifest is not None else {}
    table, error = calibration(results.probability.max(axis=1), results.is_right)
    counts = results.confusion_matrix()
    intervals = recall_intervals(
        results.target, results.is_right, results.sources, len(results.labels)
    )
    return {
        "precision": None,
        "is_beside": len(results.labels) <= _MOST_BESIDE,
        "recall": chart_recall(results.labels, intervals, counts.sum(axis=1).tolist()),
        "matrix": _matrix(counts),
        "clips": _list_clips(content, audio),
        "n_heard": len(audio),
        "reliability": chart_reliability(table),
        "calibration_error": f"{error:.1%}",
        **_show_mistakes(content, sounds, mistakes, audio),
    }


def _judge_ranks(content: Content, sounds: Sounds) -> dict[str, Any]:
    """Show how well each class's clips are ranked: of several classes none is the right one."""
    results, mistakes = content.results, sounds.choose_mistakes()
    has_sounds = content.manifest is not None
    audio = dict(sounds.audio(mistakes[:MOST_PICTURED])) if has_sounds else {}
    table, error = calibration(results.probability.ravel(), results.target.ravel())
    return {
        "precision": chart_precision(content.class_table()),
        "matrix": [],
        "reliability": chart_reliability(table, ("Probability", "There")),
        "calibration_error": f"{error:.1%}",
        **_show_mistakes(content, sounds, mistakes, audio),
    }


def _show_mistakes(
    content: Content, sounds: Sounds, mistakes: list[int], audio: dict[int, str]
) -> dict[str, Any]:
    """Show the mistakes that the model was surest of."""
    shown = mistakes[:MOST_PICTURED]
    pictures = dict(sounds.pictures(shown)) if content.manifest is not None else {}
    return {
        "mistakes": list(_list_mistakes(content, shown, pictures, audio)),
        "n_mistakes": len(mistakes),
    }


def _title(figure: str) -> str:
    return figure.replace("_", " ").capitalize()


def _demonstrate(sounds: Sounds) -> tuple[list[dict[str, Any]], str]:
    """Show what augmentation did, or say why it can't be shown."""
    try:
        return list(sounds.demonstrations()), ""
    except ModelError as error:  # everything else can be told without the model
        log.warning("report    without what augmentation did: %s", error)
        return [], readable(str(error))


def list_tiles(content: Content) -> Iterator[tuple[str, str]]:
    """List the main figures, with the interval over recordings."""
    summary, results = content.summary, content.results
    figure = results.figure
    low, high = (metrics.write_figure(figure, end) for end in results.interval())
    yield _title(figure), metrics.write_figure(figure, summary[figure])
    yield "95 % interval", f"{low} to {high}"
    if f"{figure}_sd" in summary:
        yield "Deviation of folds", metrics.write_figure(figure, summary[f"{figure}_sd"])
    yield "Macro AUC", f"{summary['macro_auc']:.4f}"
    if not results.is_multi_label:
        yield "Macro F1", f"{summary['macro_f1']:.3f}"
    for key in ("sensitivity", "specificity", "icbhi_score", "modified_accuracy"):
        if key in summary:
            yield _title(key), f"{summary[key]:.1%}"
    yield "Tested clips", f"{len(results.predictions):,}"
    if not results.is_multi_label:
        yield "Mistakes", f"{int((~results.is_right).sum()):,}"


def _list_folds(content: Content) -> Iterator[dict[str, Any]]:
    figure = content.results.figure
    for fold in content.summary.get("folds", ()):
        report = content.folds[fold["fold"]] / "report.html"
        yield {
            "fold": fold["fold"],
            "score": metrics.write_figure(figure, fold[figure]),
            "macro_auc": f"{fold['macro_auc']:.4f}",
            "n_test": fold["n_test"],
            "train_time": f"{fold['train_time_s']:,.0f} s",
            "link": f"fold-{fold['fold']}/report.html" if report.is_file() else "",
        }


def _average_folds(content: Content) -> dict[str, str]:
    """Give mean and deviation of what folds have in common; nothing for a single run."""
    summary, figure = content.summary, content.results.figure
    if "folds" not in summary:
        return {}
    mean, deviation = (
        metrics.write_figure(figure, summary[f"{figure}{end}"]) for end in ("", "_sd")
    )
    return {
        "score": f"{mean} ± {deviation}",
        "macro_auc": f"{summary['macro_auc']:.4f} ± {summary['macro_auc_sd']:.4f}",
        "n_test": f"{summary['n_test']} in all",
        "train_time": f"{summary['train_time_s']:,.0f} s in all",
    }


def _curves(content: Content) -> list[dict[str, Any]]:
    history = content.history
    if history is None or not len(history):
        return []
    best, figure = content.summary.get("best_epoch"), content.results.figure
    curves = [chart_curves(history, "loss", "Loss", best)]
    if f"val_{figure}" in history or f"train_{figure}" in history:
        curves.append(chart_curves(history, figure, _title(figure), best))
    return curves


def _matrix(counts: Any) -> list[list[dict[str, Any]]]:
    """Give each cell its count and its share of the class."""
    sums = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        [
            {"n": int(n), "share": float(share), "percent": round(100 * float(share))}
            for n, share in zip(row, shares, strict=True)
        ]
        for row, shares in zip(counts, counts / sums, strict=True)
    ]


def _list_clips(content: Content, audio: dict[int, str]) -> list[dict[str, Any]]:
    """List each tested clip for the page's script."""
    results = content.results
    numbers = {label: number for number, label in enumerate(results.labels)}
    rows = results.predictions.to_dict("records")
    return [
        {
            "path": readable(row["path"]),
            "source": readable(row["source"]),
            "true": numbers[row["label"]],
            "said": numbers[row["predicted"]],
            "top": [[numbers[label], round(share, 4)] for label, share in top],
            "audio": audio.get(number),
        }
        for number, (row, top) in enumerate(zip(rows, content.top(), strict=True))
    ]


def _list_mistakes(
    content: Content, mistakes: list[int], pictures: dict[int, str], audio: dict[int, str]
) -> Iterator[dict[str, Any]]:
    results, top = content.results, content.top()
    table = results.predictions
    if results.is_multi_label:
        true, said = results.target, results.probability >= EVEN
        names = [[_join(results.labels, which[row]) for which in (true, said)] for row in mistakes]
    else:
        names = table[["label", "predicted"]].iloc[mistakes].to_numpy().tolist()
    for row, (true_name, said_name) in zip(mistakes, names, strict=True):
        yield {
            "path": readable(table["path"].iloc[row]),
            "source": readable(table["source"].iloc[row]),
            "true": true_name,
            "said": said_name,
            "top": ", ".join(f"{label} {share:.0%}" for label, share in top[row]),
            "picture": pictures.get(row),
            "audio": audio.get(row),
        }


def _join(labels: Sequence[str], which: NDArray[np.bool_]) -> str:
    """Name the classes that are there."""
    return ", ".join(label for label, there in zip(labels, which, strict=True) if there) or "none"


def _list_speed(content: Content) -> Iterator[tuple[str, str]]:
    summary = content.summary
    yield "Training", f"{summary['train_time_s']:,.0f} s"
    yield "Throughput", f"{summary['clips_per_s']:,.0f} clips/s"
    if "times_real_time" in summary:
        yield "Times real time", f"{summary['times_real_time']:,.0f}"
        yield "Waiting for data", f"{summary['data_wait']:.1%} of the time"
    yield "Latency of a clip", f"{summary['latency_ms']:.1f} ms"
    yield "Parameters", f"{summary['n_parameters']:,}"
    if summary.get("peak_memory_gib"):
        yield "Peak memory", f"{summary['peak_memory_gib']:.2f} GiB"
    if "device" in summary:
        yield "Device", str(summary["device"])


def _list_environment(content: Content) -> list[tuple[str, str]]:
    shown = {**content.environment, "seed": content.config.train.seed}
    return [
        (key, readable(shlex.join(value) if key == "command" else _write(value)))
        for key, value in shown.items()
    ]


def _write(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _list_commands(content: Content) -> Iterator[str]:
    path = shlex.quote(str(content.path))
    commit = content.environment.get("commit")
    if commit:
        yield f"git checkout {str(commit).removesuffix('-dirty')}"
    verb = "crossval" if content.folds else "train"
    yield f"audioml {verb} {path}/config.yaml run.dir=runs/again"
    yield f"audioml predict {shlex.quote(str(content.run_folder))} FILE"
    yield f"audioml report {path}"

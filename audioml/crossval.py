"""Every official fold in its turn as the test fold, and what the folds say together."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from audioml import challenges, metrics, plots
from audioml.config import RunConfig, load_config, to_yaml
from audioml.datasets import load_configured
from audioml.errors import Interrupted
from audioml.experiment import run_experiment
from audioml.progress import track
from audioml.results import Results
from audioml.runs import Folder, RunError, RunFolder, describe_environment
from audioml.splits import official_folds

log = logging.getLogger("audioml")

_SAME = ("data", "is_synthetic", "model", "n_parameters", "protocol", "epochs", "seed", "device")


def run_crossval(config: RunConfig) -> dict[str, Any] | None:
    """Train and test once a fold, and write what the folds say together.

    A fold is an ordinary run in a folder of its own, ``fold-K``. With ``resume`` set to the folder
    of a cross-validation, finished folds are left as they are, one that was interrupted goes on,
    and the others follow. Several processes may do that at once: a fold is one's, and whichever
    ends last writes the results.

    Args:
        config: The runs; ``splits.fold`` is set to each fold in turn.

    Returns:
        The folder, and what stands in its ``summary.json``; None if another process
        still runs a fold.

    Raises:
        ValueError: If configuration, data, folds or folder can't be used; a subclass each.
        Interrupted: If it was stopped and can be resumed; the message says how.
    """
    config, path = _settings(config)
    manifest = load_configured(config.data)
    folds = official_folds(manifest, config.splits.protocol)
    folder = Folder(path) if path else Folder.create(config, "crossval")
    if path is None:
        folder.write_text("config.yaml", to_yaml(config))
        folder.write_json("env.json", describe_environment())
    bar = track(folds, task="folds", total=len(folds), unit="fold")
    for number, fold in enumerate(bar, 1):
        log.info("fold      %d (%d of %d)", fold, number, len(folds))
        try:
            _run_fold(config, _fold_path(folder, fold), fold)
        except Timeout:
            log.info("running   in another process")
        except Interrupted as stop:
            raise Interrupted(
                f"stopped in fold {fold}; continue with: audioml crossval resume={folder.path}"
            ) from stop
    if not all((_fold_path(folder, fold) / "summary.json").is_file() for fold in folds):
        log.info("crossval  another process runs the last folds, and will write the results")
        return None
    return _write_results(folder, folds)


def describe_crossval(summary: dict[str, Any]) -> str:
    """Write a cross-validation's figures in a line for people."""
    figure = metrics.main_figure(is_multi_label="mean_average_precision" in summary)
    mean, deviation, low, high = (
        metrics.write_figure(figure, value)
        for value in (summary[figure], summary[f"{figure}_sd"], *summary[f"{figure}_interval"])
    )
    return (
        f"{summary['protocol']}, {len(summary['folds'])} folds: {metrics.NAMES[figure]} "
        f"{mean} ± {deviation} over the folds, 95 % interval over {summary['n_test']} clips "
        f"{low} to {high}; macro AUC "
        f"{summary['macro_auc']:.4f} ± {summary['macro_auc_sd']:.4f}"
    )


def _settings(config: RunConfig) -> tuple[RunConfig, Path | None]:
    """Give the settings to use, and the folder to go on with: its own settings, then."""
    if config.resume is None:
        return config, None
    path = Path(config.resume)
    if not (path / "config.yaml").is_file() or (path / "checkpoints").exists():
        raise RunError(f"{path}: not the folder of a cross-validation; start one without resume")
    return load_config([path / "config.yaml"]), path


def _fold_path(folder: Folder, fold: int) -> Path:
    return folder.path / f"fold-{fold}"


def _run_fold(config: RunConfig, path: Path, fold: int) -> None:
    """Run a fold from wherever it stands.

    Raises:
        Timeout: If another process runs it.
    """
    # The system frees the lock however the process ends.
    with FileLock(path.with_name(f".{path.name}.lock")).acquire(blocking=False):
        if (path / "summary.json").is_file():
            log.info("finished  %s", path)
            return
        if RunFolder.is_begun(path):
            run_experiment(replace(config, resume=str(path)))
            return
        if path.exists():  # stopped before its first checkpoint: nothing in it was trained
            shutil.rmtree(path)
        splits, run = replace(config.splits, fold=fold), replace(config.run, dir=str(path))
        run_experiment(replace(config, splits=splits, run=run))


def _write_results(folder: Folder, folds: Sequence[int]) -> dict[str, Any]:
    """Write what all folds say together."""
    parts = [Results.read(_fold_path(folder, fold)) for fold in folds]
    tables = [part.predictions.assign(fold=fold) for part, fold in zip(parts, folds, strict=True)]
    pooled = Results(path=folder.path, summary={}, predictions=pd.concat(tables))
    summary = _summarise(parts, pooled, folds)
    folder.write_table("predictions.csv", pooled.predictions)
    classes = _per_class(parts, pooled, folds)
    folder.write_table("per_class.csv", classes.round(4))
    if pooled.is_multi_label:
        folder.write_figure("average_precision.png", plots.plot_average_precision(classes))
    else:
        confusion = plots.plot_confusion_matrix(pooled.confusion_matrix(), pooled.labels)
        folder.write_figure("confusion_matrix.png", confusion)
    folder.write_json("summary.json", summary)
    log.info("crossval  %s", describe_crossval(summary))
    log.info("finished  %s", folder.path)
    return {"folder": str(folder.path), **summary}


def _summarise(parts: list[Results], pooled: Results, folds: Sequence[int]) -> dict[str, Any]:
    rows = [part.summary for part in parts]
    spread: dict[str, Any] = {}
    for name in filter(rows[0].__contains__, (*metrics.NAMES, *challenges.NAMES)):
        values = [row[name] for row in rows]
        spread |= {name: float(np.mean(values)), f"{name}_sd": float(np.std(values, ddof=1))}
    pooled_score = {} if pooled.is_multi_label else {"pooled_accuracy": pooled.score}
    return {
        **spread,
        f"{pooled.figure}_interval": pooled.interval(),
        **pooled_score,
        "n_test": len(pooled.predictions),
        **{name: rows[0][name] for name in _SAME},
        "train_time_s": sum(row["train_time_s"] for row in rows),
        "clips_per_s": float(np.median([row["clips_per_s"] for row in rows])),
        "latency_ms": float(np.median([row["latency_ms"] for row in rows])),
        "commits": sorted({str(row["commit"]) for row in rows}),
        "folds": [{"fold": fold, **row} for fold, row in zip(folds, rows, strict=True)],
    }


def _per_class(parts: list[Results], pooled: Results, folds: Sequence[int]) -> pd.DataFrame:
    """Tabulate each class over all clips, with its recall's spread over the folds.

    Of multi-label data average precision in place of recall, and its mean over the folds: the
    probabilities of several models are not to be ranked together.
    """
    name = "average_precision" if pooled.is_multi_label else "recall"
    tables = [part.per_class() for part in parts]
    values = pd.DataFrame(
        {f"{name}_fold_{fold}": table[name] for fold, table in zip(folds, tables, strict=True)}
    )
    spread = pd.DataFrame({f"{name}_sd": values.std(axis=1), f"{name}_min": values.min(axis=1)})
    whole = pooled.per_class()
    if pooled.is_multi_label:
        whole[name] = values.mean(axis=1)
        whole["auc"] = pd.concat([table["auc"] for table in tables], axis=1).mean(axis=1)
    return pd.concat([whole, spread, values], axis=1)

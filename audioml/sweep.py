"""Many runs over a space of settings, compared on the validation clips alone."""

import logging
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
import pandas as pd
import torch
from optuna.trial import FrozenTrial, Trial, TrialState

from audioml import metrics
from audioml.assembly import choose_device
from audioml.config import ConfigError, RunConfig, flatten, load_config, to_yaml
from audioml.datasets import load_configured
from audioml.errors import Interrupted
from audioml.experiment import run_experiment
from audioml.markdown import markdown_table
from audioml.progress import progress_bar
from audioml.runs import Folder, RunError, RunFolder, describe_commit
from audioml.search_space import (
    DEFAULT_OVER,
    assignments,
    combinations,
    describe,
    list_choices,
    read_space,
)
from audioml.splits import make_split
from audioml.step_guard import TrainingError
from audioml.study import Study
from audioml.sweep_plots import plot_sweep

log = logging.getLogger("audioml")

_OBJECTIVE = (
    "validation {} at the best epoch, whose weights a run keeps; ties go to the lower loss; no "
    "test clip is evaluated"
)
# Of these a trial fails, and the sweep goes on.
_FAILURES = (ConfigError, TrainingError, torch.OutOfMemoryError)
_FIGURES = ("loss", "best_epoch", "train_time_s")  # beside the score
_STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "interrupted",
}
_ENDED = ("finished", "pruned", "failed")


def run_sweep(
    base: RunConfig,
    over: Sequence[str] = (),
    *,
    method: Literal["grid", "tpe"] = "grid",
    n_trials: int | None = None,
    prune: bool = False,
    path: Path = Path("runs/sweep"),
) -> dict[str, Any]:
    """Run a sweep, or go on with one, to its end.

    Args:
        base: The settings that all trials share.
        over: What is varied, as ``read_space`` reads it; empty for learning rate and batch size.
        method: "grid" tries every combination; "tpe" draws values, near the better ones.
        n_trials: How many "tpe" draws, those of earlier calls included.
        prune: Whether a trial ends early if it is worse than the median of the others; asked from
            a quarter of the epochs on, once three trials are finished.
        path: The folder; with the same arguments a sweep goes on, also in several processes.

    Returns:
        The folder, and what stands in its ``summary.json``.

    Raises:
        ValueError: If settings, data, split or folder can't be used; a subclass each.
        Interrupted: If it was stopped; the same call goes on.
    """
    space = read_space(over or DEFAULT_OVER, base)
    grid = combinations(space, base) if method == "grid" else []
    _check_number(method, n_trials)
    facts = _check_base(base)
    settings = {"--method": method, "--prune": str(prune)}
    settings |= {f"--over {key}": describe(values) for key, values in space.items()}
    quarter = base.train.epochs // 4 + 1
    study = Study(
        path,
        settings | {key: str(value) for key, value in flatten(base).items()},
        space=space,
        grid=grid,
        n_trials=n_trials or len(grid),
        seed=base.train.seed,
        pruner=optuna.pruners.MedianPruner(3, quarter) if prune else optuna.pruners.NopPruner(),
    )
    return _Sweep(base, study, Folder(path), facts | {"sweep": settings}).finish()


def _check_number(method: str, n_trials: int | None) -> None:
    if method == "grid" and n_trials is not None:
        raise ConfigError(
            f"--trials {n_trials}: a grid tries every combination; leave it out, or set "
            "--method tpe"
        )
    if method == "tpe" and (n_trials is None or n_trials < 1):
        raise ConfigError(f"--trials must be at least 1 for --method tpe, got {n_trials}")


def _check_base(base: RunConfig) -> dict[str, Any]:
    """Refuse what no trial could run with, before any folder is made.

    Returns:
        What the summary says of data and split.
    """
    for key, value in (("run.dir", base.run.dir), ("resume", base.resume)):
        if value is not None:
            raise ConfigError(
                f"{key}={value}: every trial has a folder of its own; leave it out, and set --dir"
            )
    choose_device(base.train.device)
    manifest = load_configured(base.data)
    split = make_split(manifest, **asdict(base.splits))
    if not len(split.val):
        raise ConfigError(
            "a sweep selects on validation clips, which splits.protocol="
            f"{split.protocol} has not here; set splits.protocol=nested"
        )
    return {
        "figure": metrics.main_figure(is_multi_label=manifest.is_multi_label),
        "data": manifest.name,
        "is_synthetic": manifest.is_synthetic,
        "protocol": split.protocol,
        "fold": split.fold,
        "n_val": len(split.val),
    }


@dataclass(frozen=True, slots=True)
class _Sweep:
    """What the trials share, the trials, the folder, and what its summary says of them all."""

    base: RunConfig
    study: Study
    folder: Folder
    facts: dict[str, Any]

    @property
    def figure(self) -> str:
        """What trials are compared by: accuracy, or mean_average_precision of multi-label data."""
        return str(self.facts["figure"])

    @property
    def objective(self) -> str:
        """The same in words."""
        return _OBJECTIVE.format(metrics.NAMES[self.figure])

    def finish(self) -> dict[str, Any]:
        """Run the trials that are left, and show what came out."""
        total = self.study.n_trials
        with progress_bar(task="trials", total=total, unit="trial") as bar:
            while self._run_next():
                table, _ = self._write()
                bar.update(int(table["state"].isin(_ENDED).sum()) - bar.n)
        table, summary = self._write()
        path, n_running = self.folder.path, summary["states"].get("running", 0)
        log.info("\n%s\n", _to_markdown(table, self.figure))
        if n_running:
            log.info("running   %d more in another process, which completes the table", n_running)
        if summary["best"] is not None:
            log.info("best      %s", _describe_best(summary["best"], self.figure))
            log.info("          by %s", self.objective)
            command = f"python train.py {shlex.quote(str(path / 'best.yaml'))}"
            log.info("          to train it anew and evaluate the test clips: %s", command)
        elif not n_running:
            raise RunError(f"{path}: no trial was finished; trials.csv says why")
        return {"folder": str(path), **summary}

    def _run_next(self) -> bool:
        """Run the next trial, if there is one left."""
        with self.study.take() as trial:
            if trial is not None:
                self._run(trial)
            return trial is not None

    def _run(self, trial: Trial) -> None:
        """Run a trial to its end, from wherever it stands."""
        values = " ".join(assignments(trial.params))
        log.info("\ntrial     %d (%d in all): %s", trial.number, self.study.n_trials, values)
        try:
            report = partial(_report, trial, self.figure)
            config = self._configure(trial)
            summary = run_experiment(config, evaluate_test=False, on_epoch=report)
        except optuna.TrialPruned:
            log.info("pruned    worse than the median of the finished trials")
            self.study.tell(trial, TrialState.PRUNED)
        except _FAILURES as error:
            log.warning("failed    %s", error)
            trial.set_user_attr("error", str(error))
            self.study.tell(trial, TrialState.FAIL)
        except (Interrupted, KeyboardInterrupt) as stop:
            self.study.put_back(trial)
            self._write()
            raise Interrupted(
                f"stopped in trial {trial.number}; the same command goes on with it"
            ) from stop
        else:
            for name in (self.figure, *_FIGURES):
                trial.set_user_attr(name, summary[name])
            self.study.tell(trial, TrialState.COMPLETE, summary[self.figure])

    def _configure(self, trial: Trial) -> RunConfig:
        """Make the configuration of a trial; one with a checkpoint is resumed."""
        path = self._path(trial.number)
        if RunFolder.is_begun(path):
            return replace(self.base, resume=str(path))
        if path.exists():  # cut off before anything was trained
            shutil.rmtree(path)
        config = self._override(trial.params)
        return replace(config, run=replace(config.run, dir=str(path)))

    def _override(self, values: dict[str, Any]) -> RunConfig:
        return load_config(overrides=assignments(values), base=self.base)

    def _path(self, number: int) -> Path:
        return self.folder.path / "trials" / f"{number:04d}"

    def _write(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Write what is known by now.

        Returns:
            A row a trial, and what stands in ``summary.json``.
        """
        with self.study.lock:
            table = _tabulate(self.study, self.figure)
            best = self._read_best(table)
            summary: dict[str, Any] = {"best": best, "objective": self.objective}
            summary |= {"evaluated_on": "val", **self.facts}
            summary |= {"states": table["state"].value_counts().to_dict()}
            summary |= {"train_time_s": float(table["train_time_s"].sum())}
            self.folder.write_table("trials.csv", table.drop(columns="is_best"))
            self.folder.write_json("summary.json", summary | {"commit": describe_commit()})
            if best is not None:
                self._write_best(table, best)
        return table, summary

    def _read_best(self, table: pd.DataFrame) -> dict[str, Any] | None:
        rows = table[table["is_best"]].to_dict("records")
        if not rows:
            return None
        return {
            "trial": rows[0]["trial"],
            "values": {key: rows[0][key] for key in self.study.space},
            **{name: rows[0][name] for name in (self.figure, *_FIGURES)},
            "folder": str(self._path(rows[0]["trial"])),
        }

    def _write_best(self, table: pd.DataFrame, best: dict[str, Any]) -> None:
        """Write the configuration of the best trial, and the picture of all."""
        words = _describe_best(best, self.figure)
        head = f"# {words}\n# best by {self.objective}\n"
        self.folder.write_text("best.yaml", head + to_yaml(self._override(best["values"])))
        choices = list_choices(self.study.space)
        is_map = len(choices) > 1 and None not in choices.values()
        trials, name = table.rename(columns={self.figure: "score"}), metrics.NAMES[self.figure]
        picture = plot_sweep(choices, trials, f"Best: {words}", name)
        self.folder.write_figure("heat_map.png" if is_map else f"{self.figure}.png", picture)


def _report(trial: Trial, figure: str, row: dict[str, float]) -> None:
    """Write an epoch's score down, and end the trial if it is not worth going on with."""
    trial.report(row[f"val_{figure}"], int(row["epoch"]))
    if trial.should_prune():
        raise optuna.TrialPruned


def _tabulate(study: Study, figure: str) -> pd.DataFrame:
    """List the trials that were begun: number, values, figures, state, error, is_best."""
    rows = [
        {
            "trial": trial.number,
            **trial.params,
            **_read_figures(trial, figure),
            "state": _STATES[trial.state],
            "error": trial.user_attrs.get("error"),
        }
        for trial in study.trials()
        if trial.params
    ]
    columns = ["trial", *study.space, figure, *_FIGURES, "state", "error"]
    table = pd.DataFrame(rows, columns=columns).astype({"best_epoch": "Int64"})
    finished = _rank(table[table["state"] == "finished"], figure)
    return table.assign(is_best=table.index.isin(finished.index[:1]))


def _read_figures(trial: FrozenTrial, figure: str) -> dict[str, Any]:
    """Read what a trial came to; of one that did not end, its best epoch so far."""
    if trial.state == TrialState.COMPLETE or not trial.intermediate_values:
        return {name: trial.user_attrs.get(name) for name in (figure, *_FIGURES)}
    epoch, score = max(trial.intermediate_values.items(), key=lambda item: item[1])
    return {figure: score, "best_epoch": epoch}


def _rank(table: pd.DataFrame, figure: str) -> pd.DataFrame:
    """Put the best first."""
    return table.sort_values([figure, "loss"], ascending=[False, True], kind="stable")


def _describe_best(best: dict[str, Any], figure: str) -> str:
    values = " ".join(f"{key}={_as_text(value, '{:.4g}')}" for key, value in best["values"].items())
    return (
        f"trial {best['trial']}, {values}: validation {metrics.NAMES[figure]} "
        f"{metrics.write_figure(figure, best[figure])}, loss {best['loss']:.3f}, epoch "
        f"{best['best_epoch']}"
    )


def _to_markdown(table: pd.DataFrame, figure: str) -> str:
    """Write the table for people, the best first and in bold."""
    keys = list(table.columns[1 : table.columns.get_loc(figure)])
    score = f"validation {metrics.NAMES[figure]}"
    titles = ["trial", *keys, score, "loss", "best epoch", "training [s]", "state"]
    form = "{:.1%}" if figure == "accuracy" else "{:.4f}"
    rows = []
    for row in _rank(table, figure).to_dict("records"):
        mark = "**" if row["is_best"] else ""
        cells = [*(_as_text(row[key], "{:.4g}") for key in keys)]
        cells += [_as_text(row[figure], form), _as_text(row["loss"], "{:.3f}")]
        cells += [_as_text(row["best_epoch"], "{}"), _as_text(row["train_time_s"], "{:.0f}")]
        rows.append([f"{mark}{cell}{mark}" for cell in (row["trial"], *cells, row["state"])])
    return markdown_table(titles, rows, words=(len(titles) - 1,))


def _as_text(value: Any, form: str) -> str:
    """Write a number, a listed value as it is, or nothing where there is none."""
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else form.format(value)

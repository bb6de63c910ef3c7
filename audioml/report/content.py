"""What a run's folder holds, read back for its report."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from audioml.config import RunConfig, load_config
from audioml.datasets import are_there, load_manifest, locate
from audioml.datasets.manifest import Clip, DataError, Manifest
from audioml.results import Results
from audioml.runs import RunError

_N_TOP: Final = 3
_OF_SPLIT: Final = ("path", "label", "source", "part")
_OF_EPOCHS: Final = ("epoch", "train_loss")


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """A finished run or cross-validation.

    Args:
        path: Its folder.
        config: Its settings.
        results: Its summary and predictions.
        history: A row an epoch; None for a cross-validation.
        split: A row a clip, with its part; of the first fold, for a cross-validation.
        environment: Versions, devices, commit and command; of the first fold likewise.
        folds: The folders of a cross-validation's folds, by number.
        manifest: The data set; None if it is no longer where it was, or another.
        lost: Why there is no manifest.
    """

    path: Path
    config: RunConfig
    results: Results
    history: pd.DataFrame | None
    split: pd.DataFrame
    environment: dict[str, Any]
    folds: dict[int, Path]
    manifest: Manifest | None
    lost: str

    @property
    def summary(self) -> dict[str, Any]:
        """What stands in summary.json."""
        return self.results.summary

    @property
    def run_folder(self) -> Path:
        """The run itself, or the first fold."""
        return next(iter(self.folds.values()), self.path)

    @property
    def audit(self) -> list[str]:
        """What the audit of the split found; of the first fold, for a cross-validation."""
        runs = [self.summary, *self.summary.get("folds", ())]
        return next((run["audit"] for run in runs if "audit" in run), [])

    @property
    def chosen(self) -> str:
        """Which weights were evaluated, in words."""
        runs = self.summary.get("folds") or [self.summary]
        if runs[0].get("weights") != "best":
            return "those of the last epoch"
        if self.folds:
            return "those of each fold's best epoch on validation"
        return f"those of epoch {runs[0]['best_epoch']}, the best on validation"

    def class_table(self) -> pd.DataFrame:
        """Read what per_class.csv says of the classes; of a cross-validation over its folds."""
        labels = self.results.labels  # as "NA", which would be read as none
        return pd.read_csv(_find(self.path / "per_class.csv")).assign(label=labels)

    def top(self) -> list[list[tuple[str, float]]]:
        """List each clip's likeliest classes with their probabilities."""
        labels, probability = self.results.labels, self.results.probability
        order = np.argsort(-probability, axis=1, kind="stable")[:, :_N_TOP]
        return [
            [(labels[n], float(row[n])) for n in numbers]
            for row, numbers in zip(probability, order, strict=True)
        ]

    def clips(self) -> dict[int, Clip]:
        """Find the sounds of the tested clips, by their row in the predictions."""
        if self.manifest is None:
            return {}
        return dict(enumerate(self.manifest.clips[number] for number in self._tested()))

    def train_clips(self) -> list[int]:
        """List the numbers of the clips that trained (in the first fold)."""
        return np.flatnonzero(self.split["part"] == "train").tolist()

    def _tested(self) -> Iterator[int]:
        part = self.summary.get("evaluated_on", "test")
        for folder in self.folds.values() or (self.path,):
            split = _read_table(folder / "split.csv", _OF_SPLIT)
            yield from np.flatnonzero(split["part"] == part).tolist()


def read_content(path: Path) -> Content:
    """Read the folder of a finished run or cross-validation.

    Raises:
        RunError: If it is not one, or a file in it is missing or damaged.
    """
    results = Results.read(path)
    numbers = [fold["fold"] for fold in results.summary.get("folds", ())]
    folds = {number: path / f"fold-{number}" for number in numbers}
    run = next(iter(folds.values()), path)
    config = load_config([_find(run / "config.yaml")])
    split = _read_table(run / "split.csv", _OF_SPLIT)
    manifest, lost = _find_data(config, split)
    return Content(
        path=path,
        config=config,
        results=results,
        history=None if folds else _read_table(path / "metrics.csv", _OF_EPOCHS),
        split=split,
        environment=_read_object(run / "env.json"),
        folds=folds,
        manifest=manifest,
        lost=lost,
    )


def _find_data(config: RunConfig, split: pd.DataFrame) -> tuple[Manifest | None, str]:
    """Load the manifest again, if the data are there and still the same."""
    if not are_there(config.data):  # and nothing is downloaded or generated for a report
        return None, f"the data are no longer at {config.data.root or locate(config.data)}"
    try:
        manifest = load_manifest(config.data, check_files=False)
    except DataError as error:
        return None, f"the data can't be read again ({error})"
    there = [(clip.label, clip.source) for clip in manifest.clips]
    if there != list(zip(split["label"], split["source"], strict=True)):
        return None, f"the data at {manifest.root} are not those of the run"
    return manifest, ""


def _read_table(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    words = {"path": str, "label": str, "source": str}
    try:
        table = pd.read_csv(
            _find(file), dtype=words, keep_default_na=False, na_values={"fold": [""]}
        )
    except ValueError as error:  # pandas's, of damaged files
        raise _damage(file, " ".join(str(error).split())) from error
    if lacking := [name for name in columns if name not in table]:
        raise _damage(file, f"no column {', '.join(lacking)}")
    return table


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(_find(file).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damage(file, str(error)) from error
    if not isinstance(content, dict):
        raise _damage(file, "no JSON object")
    return content


def _damage(file: Path, reason: str) -> RunError:
    return RunError(f"{file}: damaged ({reason}); run it again")


def _find(file: Path) -> Path:
    if not file.is_file():
        raise RunError(f"{file}: no such file; give the folder of a finished run")
    return file

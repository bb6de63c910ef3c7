"""What a finished run or cross-validation says of its clips, read back from its folder."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audioml import metrics
from audioml.runs import RunError
from audioml.statistics import bootstrap_mean, resample_map

_PROBABILITY = "p_"  # begins the name of a column of probabilities
_TEXT = ("path", "source", "label", "predicted")  # "7" and "None" are names as well
_COLUMNS = {"path", "source", "label"}
_DECISIONS = {"predicted", "is_right"}  # columns that multi-label data have not
_FIGURES = {
    "data",
    "protocol",
    "macro_auc",
    "n_parameters",
    "clips_per_s",
    "latency_ms",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """Summary and predictions of a run, or of all folds of a cross-validation.

    Args:
        path: The folder.
        summary: What stands in ``summary.json``.
        predictions: A row a test clip: path, source, label, predicted, is_right (these two not of
            multi-label data) and a column ``p_LABEL`` a class; from a cross-validation also its
            fold.
    """

    path: Path
    summary: dict[str, Any]
    predictions: pd.DataFrame

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Read the folder of a finished run or cross-validation.

        Raises:
            RunError: If it is not one, or a file in it is damaged.
        """
        for name in ("summary.json", "predictions.csv"):
            if not (path / name).is_file():
                raise RunError(
                    f"{path}: no {name} in it; give the folder of a finished run or "
                    "cross-validation"
                )
        try:
            summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
            words: dict[Any, Any] = dict.fromkeys(_TEXT, str)
            predictions = pd.read_csv(path / "predictions.csv", dtype=words, keep_default_na=False)
        except (ValueError, RecursionError) as error:  # json's and pandas's, of damaged files
            reason = " ".join(str(error).split())
            raise RunError(
                f"{path}: summary.json or predictions.csv is damaged: {reason}; run it again"
            ) from error
        facts = summary if isinstance(summary, dict) else {}
        is_multi_label = "mean_average_precision" in facts
        figures = _FIGURES | {metrics.main_figure(is_multi_label=is_multi_label)}
        columns = _COLUMNS if is_multi_label else _COLUMNS | _DECISIONS
        for name, needed, there in (
            ("summary.json", figures, facts),
            ("predictions.csv", columns, predictions.columns),
        ):
            if lacking := sorted(needed - set(there)):
                raise RunError(
                    f"{path / name}: no {', '.join(lacking)} in it; it was written by another "
                    "version of audioml or changed: run it again"
                )
        return cls(path=path, summary=summary, predictions=predictions)

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of the model's outputs."""
        columns = [str(name) for name in self.predictions.columns]
        return [name[len(_PROBABILITY) :] for name in columns if name.startswith(_PROBABILITY)]

    @property
    def is_multi_label(self) -> bool:
        """Whether a clip may have several classes, or none."""
        return "is_right" not in self.predictions

    @property
    def figure(self) -> str:
        """The figure that results are compared by: accuracy or mean_average_precision."""
        return metrics.main_figure(is_multi_label=self.is_multi_label)

    @property
    def score(self) -> float:
        """Accuracy of all clips; mean average precision, of a cross-validation the folds' mean."""
        if not self.is_multi_label:
            return float(self.is_right.mean())
        target, probability = self.target, self.probability
        folds = self._folds
        means = [metrics.mean_average_precision(target[own], probability[own]) for own in folds]
        return float(np.mean(means))

    def interval(self, less: "Results | None" = None) -> tuple[float, float]:
        """Bootstrap a 95 % interval of the score over recordings.

        Args:
            less: Other results of the same clips, to have the interval of the difference to them.
        """
        if self.is_multi_label:
            values = self._resampled - (less._resampled if less else 0.0)
            low, high = np.nanquantile(values, (0.025, 0.975))
            return float(low), float(high)
        right = self.is_right.astype(np.float64)
        return bootstrap_mean(right - less.is_right if less else right, self.sources)

    @cached_property
    def _resampled(self) -> NDArray[np.float64]:
        """Scores of resamples of the recordings; scores of two folds' models are never ranked."""
        target, probability, sources = self.target, self.probability, self.sources
        folds = [
            resample_map(target[own], probability[own], sources[own], seed)
            for seed, own in enumerate(self._folds)
        ]
        mean: NDArray[np.float64] = np.mean(folds, axis=0)
        return mean

    @property
    def _folds(self) -> list[NDArray[np.bool_]]:
        """Which clips are a fold's, fold by fold; all, of a single run."""
        if "fold" not in self.predictions:
            return [np.ones(len(self.predictions), dtype=np.bool_)]
        fold = self.predictions["fold"].to_numpy()
        return [fold == number for number in np.unique(fold)]

    @cached_property
    def target(self) -> NDArray[Any]:
        """Classes [clip]; of multi-label data whether each clip has each class [clip, class]."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        if self.is_multi_label:
            cells = [cell.split(";") for cell in self.predictions["label"]]
            return np.array([[label in cell for label in numbers] for cell in cells])
        return np.array([numbers[label] for label in self.predictions["label"]], dtype=np.int64)

    @property
    def probability(self) -> NDArray[np.float64]:
        """What the model gives each class [clip, class]."""
        names = [_PROBABILITY + label for label in self.labels]
        return self.predictions[names].to_numpy(np.float64)

    @property
    def sources(self) -> NDArray[np.str_]:
        """The recording of each clip [clip]."""
        return self.predictions["source"].to_numpy(np.str_)

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Whether each clip is classified right [clip]."""
        return self.predictions["is_right"].to_numpy(np.bool_)

    def per_class(self) -> pd.DataFrame:
        """Tabulate each class; see ``metrics.per_class``."""
        return metrics.per_class(self.target, self.probability, self.labels)

    def confusion_matrix(self) -> NDArray[np.int64]:
        """Count clips by class and prediction [class, class]."""
        return metrics.confusion_matrix(self.target, self.probability)

"""What a finished run or cross-validation says of its clips, read back from its folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audioml import metrics
from audioml.runs import RunError

_PROBABILITY = "p_"  # begins the name of a column of probabilities
_TEXT = ("path", "source", "label", "predicted")  # "7" and "None" are names as well
_COLUMNS = {*_TEXT, "is_right"}
_FIGURES = {
    "data",
    "protocol",
    "accuracy",
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
        predictions: A row a test clip: path, source, label, predicted, is_right and a column
            ``p_LABEL`` a class; from a cross-validation also its fold.
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
        for name, needed, there in (
            ("summary.json", _FIGURES, summary if isinstance(summary, dict) else ()),
            ("predictions.csv", _COLUMNS, predictions.columns),
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
    def target(self) -> NDArray[np.int64]:
        """Classes [clip]."""
        numbers = {label: number for number, label in enumerate(self.labels)}
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
        """Tabulate each class: n_clips, precision, recall, f1, auc."""
        return metrics.per_class(self.target, self.probability, self.labels)

    def confusion_matrix(self) -> NDArray[np.int64]:
        """Count clips by class and prediction [class, class]."""
        return metrics.confusion_matrix(self.target, self.probability)

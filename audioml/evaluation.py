"""A model on a split: figures, tables, plots."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audioml import metrics, plots
from audioml.audit import LeakError
from audioml.datasets.manifest import Manifest, describe_examples
from audioml.distributed import gather
from audioml.frontend import BandLevels
from audioml.loader import Loader
from audioml.objective import probabilities
from audioml.progress import track
from audioml.ranks import ALONE, Ranks
from audioml.runs import RunFolder

_N_WARM_UP: Final = 3
_N_TIMED: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What a model says of some clips.

    Args:
        clip_index: Clips [n].
        target: Their classes [n]; of multi-label data whether each has each class [n, class].
        probability: What the model gives each class [n, class], float64.
    """

    clip_index: NDArray[np.int64]
    target: NDArray[Any]
    probability: NDArray[np.float64]

    @property
    def is_multi_label(self) -> bool:
        """Whether a clip may have several classes, or none."""
        return self.target.ndim == 2

    @property
    def loss(self) -> float:
        """Mean cross-entropy [nat]; see ``metrics.loss``."""
        return metrics.loss(self.target, self.probability)

    @property
    def accuracy(self) -> float:
        """Share of clips classified right; not for multi-label data."""
        return metrics.accuracy(self.target, self.probability)

    def figures(self) -> dict[str, float]:
        """Summarise; see ``metrics.figures``."""
        return metrics.figures(self.target, self.probability)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Loader,
    *,
    is_multi_label: bool = False,
    autocast: torch.autocast | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Run a model over a loader's clips, in evaluation mode, without augmentation.

    Args:
        model: From the loader's inputs to logits [batch, class].
        loader: The clips; made without ``augment``.
        is_multi_label: Whether a clip may have several classes, or none.
        autocast: The precision the model runs in; None for float32.
        ranks: Which of the processes this is that share the loader's batches; each gets what all
            of them found.

    Returns:
        Probabilities of every clip, the mean over its crops; the model is left in the mode it was
        in.
    """
    was_training = model.training
    model.eval()
    crops = [
        _run_epoch(model, loader, crop, is_multi_label, autocast) for crop in range(loader.n_crops)
    ]
    model.train(was_training)
    clip_index, has_class, _ = crops[0]
    probability = torch.stack([part[2] for part in crops]).mean(dim=0)
    own = [part.cpu() for part in (clip_index, has_class, probability)]
    clip_index, has_class, probability = map(torch.cat, zip(*gather(ranks, own), strict=True))
    target = has_class.bool() if is_multi_label else has_class.argmax(dim=1)
    return Evaluation(
        clip_index=clip_index.numpy(), target=target.numpy(), probability=probability.numpy()
    )


def _run_epoch(
    model: nn.Module,
    loader: Loader,
    epoch: int,
    is_multi_label: bool,
    autocast: torch.autocast | None,
) -> tuple[Tensor, ...]:
    """Run a model over an epoch: clips [n], their classes and probabilities [n, class], float64."""
    outputs = []
    for batch in track(loader.epoch(epoch), task="evaluate", total=len(loader), unit="batch"):
        with autocast or torch.autocast(batch.input.device.type, enabled=False):
            logits = model(batch.input)
        probability = probabilities(logits.double(), is_multi_label=is_multi_label)
        outputs.append((batch.clip_index, batch.target, probability))
    if not outputs:  # as many ranks as batches, or more
        nothing = torch.empty(0, dtype=torch.int64)
        return nothing, nothing.float(), nothing.double()
    return tuple(torch.cat(part) for part in zip(*outputs, strict=True))


@torch.inference_mode()
def measure_latency(
    model: nn.Module,
    frontend: BandLevels,
    n_time: int,
    *,
    device: torch.device,
    autocast: torch.autocast | None = None,
) -> float:
    """Time the way from one clip's waveform on the device to its logits, after warming up.

    Args:
        model: From the loader's inputs to logits [batch, class].
        frontend: What makes those inputs; part of the model where it is trained.
        n_time: Samples of the clip.
        device: Where it is done.
        autocast: The precision the model runs in; None for float32.

    Returns:
        Median of 20 runs [s]; the model is left in the mode it was in.
    """
    was_training = model.training
    model.eval()
    waveform = torch.rand(1, n_time, generator=torch.Generator().manual_seed(0)).to(device)
    times = []
    for _ in range(_N_WARM_UP + _N_TIMED):
        begin = time.perf_counter()
        with autocast or torch.autocast(device.type, enabled=False):
            model((waveform if frontend.trainable else frontend(waveform))[:, None]).cpu()
        times.append(time.perf_counter() - begin)
    model.train(was_training)
    return float(np.median(times[_N_WARM_UP:]))


def refuse_seen(
    manifest: Manifest, clip_index: NDArray[np.int64], train_sources: list[str]
) -> None:
    """Refuse to evaluate weights on recordings they were trained on.

    Args:
        manifest: The clips.
        clip_index: Those to be evaluated.
        train_sources: Sources of the clips the weights were trained on, from the checkpoint.

    Raises:
        LeakError: If any source is among them, the data set's named exceptions aside.
    """
    seen = set(train_sources) - manifest.known_crossing_sources
    clips = [manifest.describe(i) for i in clip_index if manifest.clips[i].source in seen]
    if clips:
        raise LeakError(
            f"{len(clips)} of {len(clip_index)} clips come from recordings these weights were "
            f"trained on: {describe_examples(clips)}; evaluate on other clips"
        )


def predictions_table(evaluation: Evaluation, manifest: Manifest) -> pd.DataFrame:
    """Tabulate each clip: file, label, prediction and the probability of every class.

    Of multi-label data there is no prediction: the probabilities are to be judged one by one.
    """
    clips = [manifest.clips[index] for index in evaluation.clip_index]
    table = pd.DataFrame(
        {
            "path": [manifest.relative_path(i) for i in evaluation.clip_index],
            "source": [clip.source for clip in clips],
            "label": [clip.label for clip in clips],
        }
    )
    if not evaluation.is_multi_label:
        predicted = evaluation.probability.argmax(axis=1)
        table["predicted"] = [manifest.labels[p] for p in predicted]
        table["is_right"] = predicted == evaluation.target
    probabilities = {
        f"p_{label}": evaluation.probability[:, n] for n, label in enumerate(manifest.labels)
    }
    return table.assign(**probabilities).round(9)


def write_evaluation(folder: RunFolder, evaluation: Evaluation, manifest: Manifest) -> Path:
    """Write predictions.csv, per_class.csv and a picture of the classes in plots/.

    Returns:
        The picture: confusion_matrix.png, or average_precision.png for multi-label data.
    """
    target, probability, labels = evaluation.target, evaluation.probability, manifest.labels
    classes = metrics.per_class(target, probability, labels)
    folder.write_table("predictions.csv", predictions_table(evaluation, manifest))
    folder.write_table("per_class.csv", classes.round(4))
    if evaluation.is_multi_label:
        name, figure = "average_precision", plots.plot_average_precision(classes)
    else:
        counts = metrics.confusion_matrix(target, probability)
        name, figure = "confusion_matrix", plots.plot_confusion_matrix(counts, labels)
    return folder.write_figure(f"{name}.png", figure)


def describe_figures(figures: dict[str, Any]) -> str:
    """Write figures in a line for people."""
    shown = [name for name in metrics.NAMES if name in figures and name != "loss"]
    return ", ".join(
        f"{metrics.NAMES[name]} {metrics.write_figure(name, figures[name])}" for name in shown
    )

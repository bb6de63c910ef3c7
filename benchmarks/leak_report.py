"""What the leak experiment found, as tables and a picture."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from audioml.audit import Kind
from audioml.augment import VARIANTS
from audioml.datasets.manifest import Manifest
from audioml.evaluation import Evaluation
from audioml.markdown import markdown_table
from audioml.splits import Split

Floats = NDArray[np.float64]

N_RESAMPLES: Final = 2000
N_SHOWN_EPOCHS: Final = 7
BELOW_LOWEST: Final = 10  # points of accuracy that the course is drawn down to, below the last ones
EPOCHS: Final = {"last": lambda run: len(run.val) - 1, "best": lambda run: run.best_epoch}
LABELS: Final = {
    "variant": "by variant\n(the original project)",
    "clip": "by clip",
    "source": "by source\n(audioml)",
}
COLOURS: Final = {"variant": "#d55e00", "clip": "#767676", "source": "#0072b2"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training under one split.

    Args:
        split: The split.
        leaks: Validation variants that training gives away, by how.
        val: What the weights say of the validation variants, an entry an epoch.
        test: What they say of the untouched clips, an entry an epoch.
        train_accuracy: On what they were trained on, while they were [epoch].
    """

    split: Split
    leaks: Mapping[Kind, int]
    val: Sequence[Evaluation]
    test: Sequence[Evaluation]
    train_accuracy: Sequence[float]

    @property
    def best_epoch(self) -> int:
        """The first epoch, from 0, of the best accuracy on the validation variants."""
        return int(np.argmax([evaluation.accuracy for evaluation in self.val]))


Runs = Mapping[str, Sequence[Run]]
"""Runs, one a fold, by what their split keeps together."""


def is_right(evaluation: Evaluation) -> NDArray[np.bool_]:
    """Say of which clips [n] the most probable class is theirs."""
    return evaluation.probability.argmax(axis=1) == evaluation.target


def over_epochs(runs: Sequence[Run]) -> tuple[Floats, Floats]:
    """Give claim and worth of each run and epoch [fold, epoch]."""
    claim = [[evaluation.accuracy for evaluation in run.val] for run in runs]
    worth = [[evaluation.accuracy for evaluation in run.test] for run in runs]
    return np.array(claim), np.array(worth)


def claim_of_originals(run: Run) -> float:
    """Give the last epoch's accuracy on those validation variants that are clips as they are."""
    last = run.val[-1]
    return float(is_right(last)[last.clip_index % len(VARIANTS) == 0].mean())


def resample_gaps(
    runs: Sequence[Run], sources: NDArray[np.str_], epoch: Callable[[Run], int]
) -> Floats:
    """Bootstrap the gap between claim and worth over sources: clips of a recording go together.

    Args:
        runs: Those of one kind of split.
        sources: Source of each variant.
        epoch: Which epoch of a run counts, from 0.

    Returns:
        Gap over the clips of all runs [resample]; resample k draws the same sources at every
        call, so that differences of two kinds of split are paired.
    """
    names, source_of = np.unique(sources, return_inverse=True)
    share = np.full(len(names), 1 / len(names))
    weights = np.random.default_rng(0).multinomial(len(names), share, size=N_RESAMPLES)

    def accuracy(evaluations: Sequence[Evaluation]) -> Floats:
        right = np.concatenate([is_right(evaluation) for evaluation in evaluations])
        clips = np.concatenate([evaluation.clip_index for evaluation in evaluations])
        weight = weights[:, source_of[clips]]
        return weight @ right / weight.sum(axis=1)

    claim = accuracy([run.val[epoch(run)] for run in runs])
    return claim - accuracy([run.test[epoch(run)] for run in runs])


def describe_sources(manifest: Manifest) -> str:
    """Say how many clips share their source with another, and with one of another class."""
    n_clips = Counter(manifest.sources.tolist())
    n_sharing = sum(n for n in n_clips.values() if n > 1)
    n_labels = Counter(source for source, _ in {(c.source, c.label) for c in manifest.clips})
    return (
        f"{manifest.name}: {len(manifest)} clips of {manifest.n_classes} classes from "
        f"{len(n_clips)} sources; {n_sharing} clips ({n_sharing / len(manifest):.0%}) share theirs "
        f"with another clip, and {sum(n > 1 for n in n_labels.values())} sources have clips of "
        "more than one class."
    )


def tables(runs: Runs, variants: Manifest) -> Iterator[str]:
    """Write titles, tables and words on how to read them."""
    n_folds = len(runs["variant"])
    yield "## Claim and worth"
    yield _claims(runs, variants.sources)
    yield (
        f"Accuracies in %, mean ± standard deviation over {n_folds} folds; best is the epoch of "
        "the best claim, as the original project reported it. The interval is a 95 % bootstrap "
        "interval of the gap over sources. " + _describe_difference(runs, variants.sources)
    )
    yield "## What training gives away"
    yield _leaks(runs)
    yield (
        "Counted by audioml's audit, all folds together. By variant a training hears some variants "
        "of nearly every clip, otherwise all variants of four clips in five: more clips for the "
        "leaking split, and so, if anything, more worth."
    )
    yield "## In the last epoch"
    yield _last_epoch(runs)
    yield (
        "Validation holds variants and the untouched fold only clips as they are; the claim of "
        "originals counts only those validation variants that are clips as they are. Training "
        "accuracy is taken while training, with dropout."
    )
    yield "## With more training"
    yield _by_epoch(runs)
    yield "Claim / worth in %, mean over the folds."
    yield "## By fold"
    yield _by_fold(runs)
    yield "Claim / worth in % in the last epoch."


def _spread(values: Sequence[float] | Floats) -> str:
    """Write mean and standard deviation in percent."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{100 * np.mean(values):.1f} ± {100 * deviation:.1f}"


def _interval(resampled: Floats) -> str:
    low, high = 100 * np.quantile(resampled, (0.025, 0.975))
    return f"{low:+.1f} to {high:+.1f}"


def _claims(runs: Runs, sources: NDArray[np.str_]) -> str:
    rows = []
    for unit, of_unit in runs.items():
        for name, epoch in EPOCHS.items():
            claim = np.array([run.val[epoch(run)].accuracy for run in of_unit])
            worth = np.array([run.test[epoch(run)].accuracy for run in of_unit])
            interval = _interval(resample_gaps(of_unit, sources, epoch))
            gap = f"**{100 * (claim - worth).mean():+.1f}**"
            rows.append([f"by {unit}", name, _spread(claim), _spread(worth), gap, interval])
    return markdown_table(["split", "epoch", "claim", "worth", "gap", "95 % interval"], rows)


def _describe_difference(runs: Runs, sources: NDArray[np.str_]) -> str:
    """Compare the gaps of the splits, on the same resamples."""
    gaps = {unit: resample_gaps(of_unit, sources, EPOCHS["last"]) for unit, of_unit in runs.items()}
    pairs = (("variant", "source"), ("variant", "clip"), ("clip", "source"))
    return (
        "In the last epoch, from the same resamples: "
        + "; ".join(
            f"the gap by {a} is {_interval(gaps[a] - gaps[b])} points above that by {b}"
            for a, b in pairs
        )
        + "."
    )


def _leaks(runs: Runs) -> str:
    rows = []
    for unit, of_unit in runs.items():
        n_val = sum(len(run.split.val) for run in of_unit)
        counts = [sum(run.leaks[kind] for run in of_unit) for kind in of_unit[0].leaks]
        shares = [f"{n:,} ({n / n_val:.0%})" for n in counts]
        n_train = sum(len(run.split.train) for run in of_unit)
        n_heard = sum(len(np.unique(run.split.train // len(VARIANTS))) for run in of_unit)
        rows.append([f"by {unit}", f"{n_train:,}", f"{n_heard:,}", f"{n_val:,}", *shares])
    counted = ["training variants", "of so many clips", "validation variants"]
    given = ["with a variant of their clip in training", "with a clip of their source in training"]
    return markdown_table(["split", *counted, *given], rows)


def _last_epoch(runs: Runs) -> str:
    rows = []
    for unit, of_unit in runs.items():
        auc = {
            part: [evaluation.figures()["macro_auc"] for evaluation in evaluations]
            for part, evaluations in (
                ("val", [run.val[-1] for run in of_unit]),
                ("test", [run.test[-1] for run in of_unit]),
            )
        }
        rows.append(
            [
                f"by {unit}",
                _spread([run.train_accuracy[-1] for run in of_unit]),
                _spread([run.val[-1].accuracy for run in of_unit]),
                _spread([claim_of_originals(run) for run in of_unit]),
                _spread([run.test[-1].accuracy for run in of_unit]),
                *(f"{np.mean(values):.4f}" for values in auc.values()),
            ]
        )
    accuracies = ["training accuracy", "claim", "claim of originals", "worth"]
    return markdown_table(["split", *accuracies, "AUC claimed", "AUC worth"], rows)


def _by_epoch(runs: Runs) -> str:
    n_epochs = len(runs["variant"][0].val)
    shown = np.unique(np.geomspace(1, n_epochs, min(N_SHOWN_EPOCHS, n_epochs)).round().astype(int))
    rows = []
    for unit, of_unit in runs.items():
        claim, worth = (100 * part.mean(axis=0) for part in over_epochs(of_unit))
        rows.append([f"by {unit}", *(f"{claim[e - 1]:.1f} / {worth[e - 1]:.1f}" for e in shown)])
    return markdown_table(["split", *(f"epoch {e}" for e in shown)], rows)


def _by_fold(runs: Runs) -> str:
    rows = [
        [f"by {unit}"]
        + [f"{100 * r.val[-1].accuracy:.1f} / {100 * r.test[-1].accuracy:.1f}" for r in of_unit]
        for unit, of_unit in runs.items()
    ]
    return markdown_table(["split", *(f"fold {run.split.fold}" for run in runs["variant"])], rows)


def plot(runs: Runs, name: str) -> Figure:
    """Draw claim and worth of each split: in the last epoch, and while training goes on."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    last, course = figure.subplots(1, 2, width_ratios=(1.25, 1))
    lowest = 100.0
    for row, (unit, of_unit) in enumerate(runs.items()):
        claim, worth = (100 * accuracy for accuracy in over_epochs(of_unit))
        lowest = min(lowest, claim[:, -1].min(), worth[:, -1].min())
        _draw_gap(last, row, claim[:, -1], worth[:, -1], COLOURS[unit])
        _draw_course(course, claim.mean(axis=0), worth.mean(axis=0), unit)
    last.set_yticks(range(len(runs)), [LABELS[unit] for unit in runs])
    for label, unit in zip(last.get_yticklabels(), runs, strict=True):
        label.set_color(COLOURS[unit])
    last.set(ylim=(len(runs) - 0.55, -0.5), title="In the last epoch", xlabel="accuracy [%]")
    last.margins(x=0.1)
    last.tick_params(axis="y", length=0)
    course.set(title="While training goes on", xlabel="epoch", ylabel="accuracy [%]")
    course.set_ylim(lowest - BELOW_LOWEST, 101)
    for axes in (last, course):
        axes.grid(axis="x" if axes is last else "both", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{name}: what a split claims, and what the same weights are worth")
    keys = _keys(len(runs["variant"]))
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_gap(axes: Axes, row: int, claim: Floats, worth: Floats, colour: str) -> None:
    """Draw a split's claims and worths [fold] in %: the means large, the folds small."""
    means = sorted((claim.mean(), worth.mean()))
    axes.plot(means, [row, row], color=colour, lw=3, alpha=0.4, zorder=1)
    for values, face in ((worth, "white"), (claim, colour)):
        axes.scatter(values, np.full(len(values), row + 0.17), s=12, fc=face, ec=colour)
        axes.scatter(values.mean(), row, s=110, fc=face, ec=colour, lw=2, zorder=2)
    beside = {"textcoords": "offset points", "va": "center"}
    axes.annotate(f"{means[0]:.1f}", (means[0], row), (-10, 0), ha="right", **beside)
    axes.annotate(f"{means[1]:.1f}", (means[1], row), (10, 0), ha="left", **beside)
    gap = f"gap {claim.mean() - worth.mean():+.1f} points"
    axes.annotate(gap, (sum(means) / 2, row), (0, 14), ha="center", color=colour, **beside)


def _draw_course(axes: Axes, claim: Floats, worth: Floats, unit: str) -> None:
    """Draw a split's claim and worth [epoch] in %, means over the folds."""
    epochs = np.arange(1, len(claim) + 1)
    axes.plot(epochs, claim, color=COLOURS[unit])
    axes.plot(epochs, worth, color=COLOURS[unit], linestyle="--")


def _keys(n_folds: int) -> list[Line2D]:
    """Explain the marks."""
    dot = {"color": "black", "marker": "o", "markersize": 8}
    return [
        Line2D([], [], label="claim: on its own validation part", **dot),
        Line2D([], [], label="worth: on untouched recordings", ls="--", mfc="white", **dot),
        Line2D([], [], label=f"each of {n_folds} folds", ls="", **dot | {"markersize": 3}),
    ]

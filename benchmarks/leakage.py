"""What a leak is worth: the same training under three splits, what it claims and what it is worth.

``python benchmarks/leakage.py --data FOLDER`` takes a data set in ESC-50's layout. The project that
this one replaces wrote four variants of every clip and split the variants at random; here the
accuracy that such a split claims is compared with that of the same weights on untouched recordings.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

import ours
from audioml.config import ConfigError, DataConfig, OptimConfig, TrainConfig
from audioml.datasets import load_manifest
from audioml.datasets.manifest import DataError, Manifest
from audioml.evaluation import Evaluation
from audioml.loader import Batch
from audioml.models.cnn import Cnn
from audioml.rng import Stream, permutation
from audioml.splits import Split, SplitError
from audioml.training import Trainer
from leak_report import Run, describe_sources, plot, tables
from machine import describe_machine, device_name
from material import Chain
from report import keep, list_facts
from variants import FLOOR_DB, UNITS, count_leaks, list_variants, make_splits, render_variants

EMA_DECAY: Final = 0.95  # at a constant learning rate single steps scatter: some 20 are averaged
LEAST_STD_DB: Final = 1.0  # as the front end has it
INTRO = """Four variants of every clip (as it is, with noise, 2 semitones up, slowed to 0.9), as the
original project wrote them, each the same in every epoch. The clips of one official fold stay
untouched: neither they nor anything of their sources trains or validates. The variants of the
others are split into training and validation, stratified by label, in three ways: by variant, as
the original project did; by clip, all variants of a clip on one side; by source, all clips of a
recording on one side. The claim is the accuracy on the validation variants, the worth that of the
same weights on the untouched clips as they are. Trainings start from the same weights and take the
same number of steps on the same number of variants."""


class Images:
    """Log-mels that are there already, handed out as audioml's loader hands out batches.

    Args:
        images: [n, mel, frame], normalised.
        clip_index: Which variants they are [n], int64.
        target: Their classes [n], int64.
        n_classes: Number of classes.
        batch_size: Images a batch.
        clip_s: Length of what they show [s], for the throughput.
        seed: Of the order, which is another in every epoch; None for the order given.
    """

    n_crops = 1  # as a loader's; there is no sound to be cut

    def __init__(
        self,
        images: Tensor,
        clip_index: Tensor,
        target: Tensor,
        *,
        n_classes: int,
        batch_size: int,
        clip_s: float,
        seed: int | None = None,
    ) -> None:
        self.device, self.batch_size, self.seed = images.device, batch_size, seed
        self.clip_s = clip_s
        self.images, self.clip_index = images[:, None], clip_index
        self.one_hot = F.one_hot(target, n_classes).float().to(images.device)

    def __len__(self) -> int:
        return math.ceil(len(self.clip_index) / self.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield an epoch's batches from a step on."""
        order = torch.arange(len(self.clip_index))
        if self.seed is not None:
            order = permutation(self.seed, epoch, order, Stream.ORDER)
        for part in order.split(self.batch_size)[first_step:]:
            yield Batch(self.images[part], self.one_hot[part], self.clip_index[part])

    def wait_s(self, *, is_over: bool = True) -> float:
        """Tell how long batches were waited for [s]: not at all."""
        return 0.0


def make_parts(
    log_mels: Tensor, variants: Manifest, split: Split, options: argparse.Namespace
) -> dict[str, Images]:
    """Make each part of a split ready, normalised by its training variants."""
    train = log_mels[split.train]
    mean_db = train.mean(dim=(0, 2))[:, None]
    std_db = train.std(dim=(0, 2))[:, None].clamp(min=LEAST_STD_DB)
    return {
        name: Images(
            (log_mels[index] - mean_db) / std_db,
            torch.from_numpy(index),
            torch.from_numpy(variants.targets[index]),
            n_classes=variants.n_classes,
            batch_size=options.batch,
            clip_s=options.clip_s,
            seed=options.seed if name == "train" else None,
        )
        for name, index in split.parts.items()
    }


def train(log_mels: Tensor, variants: Manifest, split: Split, options: argparse.Namespace) -> Run:
    """Train under a split, and ask about validation variants and untouched clips every epoch."""
    parts = make_parts(log_mels, variants, split, options)
    said: dict[str, list[Evaluation]] = {"val": [], "test": []}

    def ask(row: dict[str, float], is_best: bool) -> None:
        for name, evaluations in said.items():
            evaluations.append(trainer.evaluate(parts[name]))

    torch.manual_seed(options.seed)
    trainer = Trainer(
        model=Cnn(n_classes=variants.n_classes, width=options.width).to(log_mels.device),
        loader=parts["train"],
        val_loader=None,
        optim=OptimConfig(schedule="constant", label_smoothing=0.0, ema_decay=EMA_DECAY),
        train=TrainConfig(
            epochs=options.epochs, batch_size=options.batch, seed=options.seed, amp=options.amp
        ),
        on_epoch=ask,
    )
    trainer.fit()
    return Run(
        split=split,
        leaks=count_leaks(variants, split),
        train_accuracy=[row["train_accuracy"] for row in trainer.progress.history],
        **said,
    )


def run_folds(
    log_mels: Tensor, variants: Manifest, options: argparse.Namespace
) -> dict[str, list[Run]]:
    """Train under all splits of all folds; the runs by what a split keeps together."""
    runs: dict[str, list[Run]] = {unit: [] for unit in UNITS}
    for fold in sorted({clip.fold for clip in variants.clips}):
        splits = make_splits(variants, fold=fold, batch_size=options.batch, seed=options.seed)
        for unit, split in splits.items():
            run = train(log_mels, variants, split, options)
            runs[unit].append(run)
            claim, worth = run.val[-1].accuracy, run.test[-1].accuracy
            print(f"fold {fold}, by {unit}: claim {claim:.1%}, worth {worth:.1%}", flush=True)
    return runs


def describe_training(chain: Chain, runs: dict[str, list[Run]], options: argparse.Namespace) -> str:
    """Say what was trained, on what."""
    first = runs["variant"][0]
    width = options.width
    return (
        f"A residual CNN of width {width}, {options.epochs} epochs of {len(first.split.train)} "
        f"variants in batches of {options.batch}, AdamW at a constant learning rate, weights "
        f"averaged over some {1 / (1 - EMA_DECAY):.0f} steps, amp {options.amp}, seed "
        f"{options.seed}. Log-mels: {chain.describe()}, floor {FLOOR_DB:g} dB, computed once and "
        "kept in memory, normalised by the training variants."
    )


def parse() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Read the command line and set the threads."""
    parser = argparse.ArgumentParser(
        description="What a split claims, and what the same weights are worth.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", required=True, help="folder in ESC-50's layout; made if absent")
    parser.add_argument("--name", choices=("esc10", "esc50", "synthetic"), default="esc10")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="figures repeat at equal threads")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=32, help="variants a batch")
    parser.add_argument("--width", type=int, default=16, help="channels of the CNN's stem")
    parser.add_argument("--mels", type=int, default=64)
    parser.add_argument("--hop", type=int, default=1024, help="samples between frames")
    parser.add_argument("--clip-s", type=float, default=5.0, help="length of a clip [s]")
    parser.add_argument("--amp", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--seed", type=int, default=0, help="of weights, splits, order and noise")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return parser, options


def experiment(options: argparse.Namespace) -> None:
    """Train, tabulate, draw, keep."""
    manifest = load_manifest(
        DataConfig(name=options.name, root=options.data, url=DataConfig().url, seed=options.seed)
    )
    variants = list_variants(manifest)
    chain = Chain(clip_s=options.clip_s, n_mels=options.mels, hop_length=options.hop)
    store = ours.fill_store(
        manifest,
        sample_rate=chain.sample_rate,
        n_time=chain.n_time,
        n_threads=options.threads,
        device=options.device,
    )
    runs = run_folds(render_variants(store, chain, options.seed), variants, options)
    parts = [
        f"# What a leak is worth, on {device_name(options.device)}",
        INTRO,
        describe_sources(manifest),
        describe_training(chain, runs, options),
        *tables(runs, variants),
        "## Where",
        list_facts(describe_machine(options.device)),
    ]
    file = keep("leakage", parts, options)
    plot(runs, manifest.name).savefig(file.with_suffix(".png"), dpi=110)


def main() -> None:
    """Run the experiment, or say in a line why it can't be."""
    parser, options = parse()
    try:
        experiment(options)
    except (ConfigError, DataError, SplitError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

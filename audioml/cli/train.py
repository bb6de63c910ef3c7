"""``audioml train``, ``crossval`` and ``sweep``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from audioml.cli.settings import add_settings, read_settings, refuse_changes
from audioml.cli.verbs import Verbs, add_json, completes, print_json
from audioml.ranks import read_ranks


def add_train(verbs: Verbs) -> None:
    """Add ``audioml train``."""
    train = verbs.add_parser(
        "train",
        help="train, evaluate and write a run folder",
        description="Train, evaluate and write a run folder; without settings on the built-in "
        "data, in about a minute.",
        epilog="examples:\n"
        "  audioml train\n"
        "  audioml train configs/esc10_cnn.yaml data.root=FOLDER splits.fold=2\n"
        "  audioml train optim.lr=1e-3 train.epochs=40 run.dir=runs/try\n"
        "  audioml train resume=runs/try\n"
        "  torchrun --nproc_per_node=4 train.py configs/esc50_cnn.yaml run.dir=runs/four\n"
        "  audioml train configs/esc50_cnn.yaml --print-config\n",
    )
    add_settings(train)
    train.add_argument("--print-config", action="store_true", help="print every setting and stop")
    add_json(train)
    train.set_defaults(run=_train, takes_ranks=True)


def _train(arguments: argparse.Namespace) -> int:
    from audioml.config import to_yaml

    config, ranks = read_settings(arguments.settings), read_ranks()
    if arguments.print_config:
        if ranks.is_main:
            print(to_yaml(config), end="")
        return 0
    refuse_changes(config, arguments.settings)
    from audioml.experiment import run_experiment

    summary = run_experiment(config, ranks=ranks)
    if ranks.is_main:
        _report([Path(summary["folder"])])
    if arguments.json and ranks.is_main:
        print_json(summary)
    return 0


def _report(folders: Sequence[Path]) -> None:
    """Write the reports of finished runs, if their own settings want them: also of resumed ones."""
    from audioml.config import load_config
    from audioml.report import write_report

    for folder in folders:
        if load_config([folder / "config.yaml"]).run.report:
            write_report(folder)


def add_crossval(verbs: Verbs) -> None:
    """Add ``audioml crossval``."""
    crossval = verbs.add_parser(
        "crossval",
        help="train and test every official fold, and pool what they say",
        description="Train and test once a fold under splits.protocol nested or fixed. resume=DIR "
        "goes on with an interrupted cross-validation, and may run in several processes at once "
        "(with --json all but the last to end print null).",
        epilog="examples:\n"
        "  audioml crossval configs/esc10_cnn.yaml data.root=FOLDER run.dir=runs/cnn\n"
        "  audioml crossval resume=runs/cnn\n",
    )
    add_settings(crossval)
    add_json(crossval)
    crossval.set_defaults(run=_crossval)


def _crossval(arguments: argparse.Namespace) -> int:
    config = read_settings(arguments.settings)
    refuse_changes(config, arguments.settings)
    from audioml.crossval import run_crossval

    summary = run_crossval(config)
    if summary is not None:  # else other processes have folds to do
        folder = Path(summary["folder"])
        _report([*(folder / f"fold-{fold['fold']}" for fold in summary["folds"]), folder])
    if arguments.json:
        print_json(summary)
    return 0


def add_sweep(verbs: Verbs) -> None:
    """Add ``audioml sweep``."""
    sweep = verbs.add_parser(
        "sweep",
        help="train over a grid or a space of settings, and pick one on the validation clips",
        description="Train once for every combination, or for settings that are drawn, and pick "
        "the best on the validation clips. The same command goes on with a sweep that was "
        "stopped, and may run in several processes at once.",
        epilog="examples:\n"
        "  audioml sweep configs/esc10_cnn.yaml splits.protocol=nested \\\n"
        "      --over optim.lr=1e-4,5e-4,1e-3 --over train.batch_size=32,64 --dir runs/sweep\n"
        "  audioml sweep configs/esc10_cnn.yaml splits.protocol=nested \\\n"
        "      --method tpe --trials 30 --prune --over optim.lr=1e-4..1e-2 --dir runs/tpe\n",
    )
    add_settings(sweep)
    _add_sweep_options(sweep)
    add_json(sweep)
    sweep.set_defaults(run=_sweep)


def _add_sweep_options(sweep: argparse.ArgumentParser) -> None:
    sweep.add_argument(
        "--over",
        action="append",
        default=[],
        metavar="KEY=VALUES",
        help="what is varied: V1,V2,... or, for tpe, LOW..HIGH; repeatable; without it optim.lr "
        "and train.batch_size",
    )
    sweep.add_argument(
        "--method",
        choices=("grid", "tpe"),
        default="grid",
        help="grid: every combination; tpe: values drawn near the better ones "
        "(default: %(default)s)",
    )
    sweep.add_argument("--trials", type=int, metavar="N", help="how many tpe draws, in all")
    sweep.add_argument("--prune", action="store_true", help="end trials below the median early")
    folder = sweep.add_argument(
        "--dir", type=Path, default=Path("runs/sweep"), help="its folder (default: %(default)s)"
    )
    completes(folder, "directory")


def _sweep(arguments: argparse.Namespace) -> int:
    from audioml.sweep import run_sweep

    summary = run_sweep(
        read_settings(arguments.settings),
        arguments.over,
        method=arguments.method,
        n_trials=arguments.trials,
        prune=arguments.prune,
        path=arguments.dir,
    )
    if arguments.json:
        print_json(summary)
    return 0

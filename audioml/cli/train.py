"""``audioml train``, ``crossval`` and ``sweep``."""

import argparse
from pathlib import Path

from audioml.cli.settings import SETTINGS_HELP, read_settings, refuse_changes
from audioml.cli.verbs import Verbs
from audioml.config import to_yaml
from audioml.crossval import run_crossval
from audioml.experiment import run_experiment


def add_train(verbs: Verbs) -> None:
    """Add ``audioml train``."""
    train = verbs.add_parser(
        "train",
        help="train, evaluate and write a run folder",
        description="Train, evaluate and write a run folder; without settings on built-in data.",
        epilog="configs/default.yaml lists every setting with its unit and meaning; "
        "resume=RUN_DIR goes on with an interrupted run.",
    )
    train.add_argument("settings", nargs="*", help=SETTINGS_HELP)
    train.add_argument("--print-config", action="store_true", help="print every setting and stop")
    train.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    config = read_settings(arguments.settings)
    if arguments.print_config:
        print(to_yaml(config), end="")
        return 0
    refuse_changes(config, arguments.settings)
    run_experiment(config)
    return 0


def add_crossval(verbs: Verbs) -> None:
    """Add ``audioml crossval``."""
    crossval = verbs.add_parser(
        "crossval",
        help="train and test every official fold, and pool what they say",
        description="Train and test once a fold under splits.protocol nested or fixed. resume=DIR "
        "goes on with an interrupted cross-validation, and may run in several processes at once.",
    )
    crossval.add_argument("settings", nargs="*", help=SETTINGS_HELP)
    crossval.set_defaults(run=_crossval)


def _crossval(arguments: argparse.Namespace) -> int:
    config = read_settings(arguments.settings)
    refuse_changes(config, arguments.settings)
    run_crossval(config)
    return 0


def add_sweep(verbs: Verbs) -> None:
    """Add ``audioml sweep``."""
    sweep = verbs.add_parser(
        "sweep",
        help="train over a grid or a space of settings, and pick one on the validation clips",
        description="Train once for every combination, or for settings that are drawn, and pick "
        "the best on the validation clips. The same command goes on with a sweep that was "
        "stopped, and may run in several processes at once.",
    )
    sweep.add_argument("settings", nargs="*", help=SETTINGS_HELP)
    sweep.add_argument(
        "--over",
        action="append",
        default=[],
        metavar="KEY=VALUES",
        help="what is varied: V1,V2,... or, for tpe, LOW..HIGH; repeatable; without it optim.lr "
        "and train.batch_size",
    )
    sweep.add_argument("--method", choices=("grid", "tpe"), default="grid")
    sweep.add_argument("--trials", type=int, metavar="N", help="how many tpe draws, in all")
    sweep.add_argument("--prune", action="store_true", help="end trials below the median early")
    sweep.add_argument(
        "--dir", type=Path, default=Path("runs/sweep"), help="its folder (default: %(default)s)"
    )
    sweep.set_defaults(run=_sweep)


def _sweep(arguments: argparse.Namespace) -> int:
    from audioml.sweep import run_sweep  # only here: the others need no Optuna

    run_sweep(
        read_settings(arguments.settings),
        arguments.over,
        method=arguments.method,
        n_trials=arguments.trials,
        prune=arguments.prune,
        path=arguments.dir,
    )
    return 0

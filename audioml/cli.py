"""``audioml VERB``: the verbs, each a thin call."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from audioml.audit import LeakError, audit_files
from audioml.checkpoints import CheckpointError
from audioml.compare import compare
from audioml.config import ConfigError, RunConfig, load_config, to_yaml
from audioml.crossval import run_crossval
from audioml.datasets import load_manifest
from audioml.datasets.manifest import DataError
from audioml.experiment import run_experiment
from audioml.runs import RunError
from audioml.split_files import AuditError
from audioml.splits import SplitError
from audioml.step_guard import TrainingError
from audioml.training import Interrupted
from audioml.verify import verify

log = logging.getLogger("audioml")

# What a user can mend; anything else is a fault of the program and keeps its traceback.
_ERRORS = (
    AuditError,
    CheckpointError,
    ConfigError,
    DataError,
    LeakError,
    RunError,
    SplitError,
    TrainingError,
    OSError,
)
EXIT_DEFECT, EXIT_USAGE, EXIT_STOPPED = 1, 2, 130
_Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_SETTINGS = "YAML files and section.key=value overrides; later ones win"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; errors that a user can mend come as one line on stderr.

    Returns:
        0; 1 for a defect or leak found; 2 for bad input; 130 if stopped on request.
    """
    arguments = _parse(argv)
    console = logging.StreamHandler(sys.stdout)
    log.setLevel(logging.INFO)
    log.addHandler(console)
    try:
        return int(arguments.run(arguments))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return EXIT_STOPPED
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return EXIT_STOPPED
    except _ERRORS as error:
        if arguments.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    finally:
        log.removeHandler(console)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; settings may stand on both sides of options."""
    parser = argparse.ArgumentParser(
        prog="audioml",
        description="Train and compare sound classifiers on splits that cannot leak.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for add in (_add_train, _add_crossval, _add_sweep, _add_compare, _add_verify, _add_audit):
        add(verbs)
    arguments, rest = parser.parse_known_args(argv)
    takes_settings = hasattr(arguments, "settings")
    if rest and (not takes_settings or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if takes_settings:
        arguments.settings += rest
    return arguments


def _add_train(verbs: _Verbs) -> None:
    train = verbs.add_parser(
        "train",
        help="train, evaluate and write a run folder",
        description="Train, evaluate and write a run folder; without settings on built-in data.",
        epilog="configs/default.yaml lists every setting with its unit and meaning; "
        "resume=RUN_DIR goes on with an interrupted run.",
    )
    train.add_argument("settings", nargs="*", help=_SETTINGS)
    train.add_argument("--print-config", action="store_true", help="print every setting and stop")
    train.set_defaults(run=_train)


def _add_crossval(verbs: _Verbs) -> None:
    crossval = verbs.add_parser(
        "crossval",
        help="train and test every official fold, and pool what they say",
        description="Train and test once a fold under splits.protocol nested or fixed. resume=DIR "
        "goes on with an interrupted cross-validation, and may run in several processes at once.",
    )
    crossval.add_argument("settings", nargs="*", help=_SETTINGS)
    crossval.set_defaults(run=_crossval)


def _add_sweep(verbs: _Verbs) -> None:
    sweep = verbs.add_parser(
        "sweep",
        help="train over a grid or a space of settings, and pick one on the validation clips",
        description="Train once for every combination, or for settings that are drawn, and pick "
        "the best on the validation clips. The same command goes on with a sweep that was "
        "stopped, and may run in several processes at once.",
    )
    sweep.add_argument("settings", nargs="*", help=_SETTINGS)
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


def _add_compare(verbs: _Verbs) -> None:
    side_by_side = verbs.add_parser(
        "compare",
        help="put finished runs or cross-validations side by side",
        description="Compare finished runs or cross-validations with the first of them: figures "
        "with intervals, paired significance, size and speed.",
    )
    side_by_side.add_argument("folders", nargs="+", type=Path, metavar="RUN")
    side_by_side.add_argument("--out", type=Path, help="folder for the table and the picture")
    side_by_side.set_defaults(run=_compare)


def _add_verify(verbs: _Verbs) -> None:
    check = verbs.add_parser("verify", help="check a data set: files, classes, folds, sound")
    check.add_argument("settings", nargs="*", help=_SETTINGS)
    check.set_defaults(run=_verify)


def _add_audit(verbs: _Verbs) -> None:
    audit = verbs.add_parser("audit", help="look for leaks between two split files")
    audit.add_argument("train_csv", type=Path, help="files that train")
    audit.add_argument("val_csv", type=Path, help="files that validate or test")
    audit.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="REGEX",
        help="a further suffix that marks a variant of a clip, such as '_crop[0-9]+'; repeatable",
    )
    audit.set_defaults(run=_audit)


def read_settings(words: Sequence[str]) -> RunConfig:
    """Build a configuration from command-line words: overrides hold a "=", the rest are files."""
    files = [Path(word) for word in words if "=" not in word]
    return load_config(files, [word for word in words if "=" in word])


def _train(arguments: argparse.Namespace) -> int:
    config = read_settings(arguments.settings)
    if arguments.print_config:
        print(to_yaml(config), end="")
        return 0
    _refuse_changes(config, arguments.settings)
    run_experiment(config)
    return 0


def _crossval(arguments: argparse.Namespace) -> int:
    config = read_settings(arguments.settings)
    _refuse_changes(config, arguments.settings)
    run_crossval(config)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    print(compare(arguments.folders, arguments.out), end="")
    return 0


def _refuse_changes(config: RunConfig, settings: Sequence[str]) -> None:
    """Refuse other settings beside ``resume``."""
    if config.resume is not None and len(settings) > 1:
        raise ConfigError(
            f"resume={config.resume} goes on with that run's own settings; leave out the others, "
            "or start a new run"
        )


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


def _verify(arguments: argparse.Namespace) -> int:
    config = read_settings(arguments.settings)
    data = config.data
    manifest = load_manifest(
        name=data.name, root=data.root, url=data.url, seed=data.seed, check_files=False
    )
    report = verify(manifest, n_threads=config.audio.decode_threads)
    print(report.text())
    return EXIT_DEFECT if report.defects else 0


def _audit(arguments: argparse.Namespace) -> int:
    report = audit_files(arguments.train_csv, arguments.val_csv, arguments.variant)
    print(report.text())
    return 0 if report.is_clean else EXIT_DEFECT

"""``audioml VERB``: the verbs, each a thin call in a module beside this one."""

import argparse
import logging
import sys
from collections.abc import Sequence

from audioml.audit import LeakError
from audioml.checkpoints import CheckpointError
from audioml.cli import check, compare, init, train
from audioml.cli.verbs import EXIT_STOPPED, EXIT_USAGE
from audioml.config import ConfigError
from audioml.datasets.manifest import DataError
from audioml.runs import RunError
from audioml.split_files import AuditError
from audioml.splits import SplitError
from audioml.step_guard import TrainingError
from audioml.training import Interrupted

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
_ADD_VERBS = (
    train.add_train,
    train.add_crossval,
    train.add_sweep,
    compare.add_compare,
    check.add_verify,
    check.add_audit,
    init.add_init,
)


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
    for add in _ADD_VERBS:
        add(verbs)
    arguments, rest = parser.parse_known_args(argv)
    takes_settings = hasattr(arguments, "settings")
    if rest and (not takes_settings or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if takes_settings:
        arguments.settings += rest
    return arguments

"""``audioml VERB``: the verbs, each a thin call in a module beside this one."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Final

import audioml
from audioml.cli import (
    check,
    compare,
    demo,
    explore,
    export,
    init,
    predict,
    report,
    shard,
    train,
)
from audioml.cli.completion import SHELLS, PrintCompletion
from audioml.cli.verbs import EXIT_CODES, EXIT_PIPE, EXIT_STOPPED, EXIT_USAGE, Parser
from audioml.errors import Interrupted, UserError
from audioml.progress import Console
from audioml.ranks import ALONE, LostRankError, RankError, Ranks, read_ranks

log = logging.getLogger("audioml")

# torchrun blames the first process that it sees ended, and ends the others: a rank that has only
# lost another one gives it the time to see that one.
_AFTER_ANOTHER_S: Final = 5.0

_ADD_VERBS = (
    # make a model
    train.add_train,
    train.add_crossval,
    train.add_sweep,
    # judge it
    compare.add_compare,
    report.add_report,
    # use it
    predict.add_predict,
    demo.add_demo,
    export.add_export,
    # look at data
    init.add_init,
    explore.add_explore,
    check.add_verify,
    check.add_audit,
    shard.add_shard,
)
_EPILOG = f"""\
examples:
  audioml explore FOLDER
  audioml init FOLDER
  audioml train configs/esc10_cnn.yaml data.root=FOLDER
  audioml crossval configs/esc50_cnn.yaml run.dir=runs/cnn
  audioml compare runs/cnn runs/attention
  audioml predict runs/cnn/fold-1 dog.wav
  audioml export runs/cnn/fold-1 --format onnx
  eval "$(audioml --print-completion bash)"

{EXIT_CODES}

audioml VERB --help tells more, with examples."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; errors that a user can mend come as one line on stderr.

    Returns:
        An exit code; ``verbs.EXIT_CODES`` says what each means.
    """
    try:
        try:
            return _run(_parse(argv))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # what read the output has gone, and Python must not try again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE


def _run(arguments: argparse.Namespace) -> int:
    has_data = any(getattr(arguments, name, False) for name in ("json", "logs_to_stderr"))
    ranks, console = ALONE, Console(sys.stderr if has_data else sys.stdout)
    log.setLevel(logging.INFO)
    log.addHandler(console)
    try:
        ranks = read_ranks()
        console.listen_to(ranks)
        if ranks.are_several and not getattr(arguments, "takes_ranks", False):
            raise UserError("of all verbs only train runs on several ranks; start without torchrun")
        return int(arguments.run(arguments))
    except (Interrupted, KeyboardInterrupt) as stop:
        if ranks.is_main:
            print(str(stop) or "stopped", file=sys.stderr)
        return EXIT_STOPPED
    except BrokenPipeError:
        raise
    except (UserError, OSError) as error:
        if arguments.debug:
            raise
        return _report(error, ranks)
    finally:
        log.removeHandler(console)


def _report(error: UserError | OSError, ranks: Ranks) -> int:
    """Print an error: what all ranks of a machine meet alike, the first of them says for all."""
    is_own = isinstance(error, RankError)
    if is_own or ranks.local_rank == 0:
        print(f"error: {error}", file=sys.stderr)
    if is_own:  # an orderly end would close connections, and could wait for ranks that are gone
        sys.stdout.flush()
        sys.stderr.flush()
        if isinstance(error, LostRankError):
            time.sleep(_AFTER_ANOTHER_S)
        os._exit(EXIT_USAGE)
    return EXIT_USAGE


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; settings may stand on both sides of options."""
    parser = _make_parser()
    arguments, rest = parser.parse_known_args(argv)
    takes_settings = hasattr(arguments, "settings")
    if rest and (not takes_settings or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if takes_settings:
        arguments.settings += rest
    return arguments


def _make_parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(
        prog="audioml",
        description="Train, compare and use sound classifiers on splits that cannot leak.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"audioml {audioml.__version__}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        help="print a completion script for a shell",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for add in _ADD_VERBS:
        add(verbs)
    return parser

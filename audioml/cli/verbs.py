"""What every verb's module needs: exit codes, how help is laid out, results for scripts.

A verb's module imports what it runs inside the function that runs it: so help, completion and a
mistyped word take a fraction of a second, not the seconds that importing torch takes.
"""

import argparse
from typing import Any, Final, Literal, TypeAlias

EXIT_DEFECT: Final = 1
EXIT_USAGE: Final = 2
EXIT_STOPPED: Final = 130
EXIT_PIPE: Final = 141
EXIT_CODES: Final = """\
exit codes:
  0    done
  1    a defect or a leak was found, or a part of the work failed
  2    bad input, or a run that can't go on; one line on stderr says why
  130  stopped on request (Ctrl-C, SIGTERM); a run can be resumed
  141  whatever read the output has gone, as head does"""
Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class HelpFormatter(argparse.HelpFormatter):
    """Wraps paragraphs, and leaves indented lines, such as examples, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        lines = text.splitlines()
        return "\n".join(x if x.startswith(" ") else fill(x, width, indent) for x in lines)


class Parser(argparse.ArgumentParser):
    """A parser with that layout, which verbs share."""

    def __init__(self, *args: Any, **options: Any) -> None:
        layout: dict[str, Any] = {"formatter_class": HelpFormatter}
        super().__init__(*args, **layout | options)


def completes(action: argparse.Action, kind: Literal["file", "directory", "settings"]) -> None:
    """Say what a shell completes an argument with."""
    action.complete = kind  # type: ignore[attr-defined]  # where shtab looks for it


def at_least_one(word: str) -> int:
    """Read an option that counts something."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {word}")
    return int(word)


def add_json(parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup) -> None:
    """Add ``--json``, which sends log lines to stderr."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object; log lines go to stderr"
    )


def print_json(content: Any) -> None:
    """Print a verb's result for other programs; NaN becomes null."""
    from audioml.runs import to_json

    print(to_json(content))

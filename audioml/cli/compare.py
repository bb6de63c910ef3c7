"""``audioml compare``."""

import argparse
from pathlib import Path

from audioml.cli.verbs import Verbs
from audioml.compare import compare


def add_compare(verbs: Verbs) -> None:
    """Add ``audioml compare``."""
    side_by_side = verbs.add_parser(
        "compare",
        help="put finished runs or cross-validations side by side",
        description="Compare finished runs or cross-validations with the first of them: figures "
        "with intervals, paired significance, size and speed.",
    )
    side_by_side.add_argument("folders", nargs="+", type=Path, metavar="RUN")
    side_by_side.add_argument("--out", type=Path, help="folder for the table and the picture")
    side_by_side.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    print(compare(arguments.folders, arguments.out), end="")
    return 0

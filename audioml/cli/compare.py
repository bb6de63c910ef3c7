"""``audioml compare``."""

import argparse
from pathlib import Path

from audioml.cli.verbs import Verbs, add_json, completes, print_json


def add_compare(verbs: Verbs) -> None:
    """Add ``audioml compare``."""
    side_by_side = verbs.add_parser(
        "compare",
        help="put finished runs or cross-validations side by side",
        description="Compare finished runs or cross-validations of the same clips with the first "
        "of them: figures with intervals, paired significance, size and speed.",
        epilog="examples:\n"
        "  audioml compare runs/cnn runs/attention --out runs/compared\n"
        "  audioml compare runs/a runs/b --json | jq '.runs[].accuracy'\n",
    )
    folders = side_by_side.add_argument(
        "folders", nargs="+", type=Path, metavar="RUN", help="folder of a finished run; two or more"
    )
    completes(folders, "directory")
    out = side_by_side.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the table and the picture"
    )
    completes(out, "directory")
    add_json(side_by_side)
    side_by_side.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from audioml.compare import compare

    comparison = compare(arguments.folders, arguments.out)
    if arguments.json:
        print_json(comparison.content())
    else:
        print(comparison.text(), end="")
    return 0

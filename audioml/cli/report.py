"""``audioml report``."""

import argparse
from pathlib import Path

from audioml.cli.verbs import Verbs, completes


def add_report(verbs: Verbs) -> None:
    """Add ``audioml report``."""
    report = verbs.add_parser(
        "report",
        help="write the page and the model card of finished runs again",
        description="Write report.html (figures, curves, confusion matrix, mistakes to hear, what "
        "augmentation did, split, settings) and model_card.md of finished runs or "
        "cross-validations. train and crossval do so themselves.",
        epilog="examples:\n  audioml report runs/RUN\n",
    )
    folders = report.add_argument("folders", nargs="+", type=Path, metavar="RUN")
    completes(folders, "directory")
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from audioml.report import write_report

    for folder in arguments.folders:
        write_report(folder)
    return 0

"""``audioml verify`` and ``audit``."""

import argparse
from pathlib import Path

from audioml.audit import audit_files
from audioml.cli.settings import SETTINGS_HELP, read_settings
from audioml.cli.verbs import EXIT_DEFECT, Verbs
from audioml.datasets import load_manifest
from audioml.verify import verify


def add_verify(verbs: Verbs) -> None:
    """Add ``audioml verify``."""
    check = verbs.add_parser("verify", help="check a data set: files, classes, folds, sound")
    check.add_argument("settings", nargs="*", help=SETTINGS_HELP)
    check.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    config = read_settings(arguments.settings)
    manifest = load_manifest(config.data, check_files=False)
    report = verify(manifest, n_threads=config.audio.decode_threads)
    print(report.text())
    return EXIT_DEFECT if report.defects else 0


def add_audit(verbs: Verbs) -> None:
    """Add ``audioml audit``."""
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


def _audit(arguments: argparse.Namespace) -> int:
    report = audit_files(arguments.train_csv, arguments.val_csv, arguments.variant)
    print(report.text())
    return 0 if report.is_clean else EXIT_DEFECT

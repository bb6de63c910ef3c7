"""``audioml verify`` and ``audit``."""

import argparse
from pathlib import Path

from audioml.cli.settings import add_settings, read_settings
from audioml.cli.verbs import EXIT_DEFECT, Verbs, add_json, completes, print_json


def add_verify(verbs: Verbs) -> None:
    """Add ``audioml verify``."""
    check = verbs.add_parser(
        "verify",
        help="check a data set: files, classes, folds, sound",
        description="Read every file of a data set and compare it with the metadata; exit code 1 "
        "on a defect.",
        epilog="examples:\n"
        "  audioml verify data.name=esc10 data.root=FOLDER\n"
        "  audioml verify data.name=esc50 --json | jq '.defects'\n",
    )
    add_settings(check)
    add_json(check)
    check.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    from audioml.datasets import load_manifest
    from audioml.verify import verify

    config = read_settings(arguments.settings)
    manifest = load_manifest(config.data, check_files=False)
    report = verify(
        manifest,
        n_threads=config.audio.decode_threads,
        finds_near_duplicates=config.data.near_duplicates != "ignore",
    )
    if arguments.json:
        print_json(report.content())
    else:
        print(report.text())
    return EXIT_DEFECT if report.defects else 0


def add_audit(verbs: Verbs) -> None:
    """Add ``audioml audit``."""
    audit = verbs.add_parser(
        "audit",
        help="look for leaks between two split files",
        description="Look for clips, variants of clips and recordings that stand in both of two "
        "split files, of any program; exit code 1 on a leak.",
        epilog="examples:\n"
        "  audioml audit train.csv val.csv\n"
        "  audioml audit train.csv val.csv --variant '_crop[0-9]+'\n",
    )
    for name, part in (("train_csv", "train"), ("val_csv", "validate or test")):
        file = audit.add_argument(
            name, type=Path, metavar=name.upper(), help=f"the files that {part}"
        )
        completes(file, "file")
    audit.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="REGEX",
        help="a further suffix that marks a variant of a clip, such as '_crop[0-9]+'; repeatable",
    )
    add_json(audit)
    audit.set_defaults(run=_audit)


def _audit(arguments: argparse.Namespace) -> int:
    from audioml.audit import audit_files

    report = audit_files(arguments.train_csv, arguments.val_csv, arguments.variant)
    if arguments.json:
        print_json(report.content())
    else:
        print(report.text())
    return 0 if report.is_clean else EXIT_DEFECT

"""``audioml init``."""

import argparse
from pathlib import Path

from audioml.cli.verbs import Verbs, completes


def add_init(verbs: Verbs) -> None:
    """Add ``audioml init``."""
    init = verbs.add_parser(
        "init",
        help="look at your own data and write a configuration for them",
        description="Look at a folder with a folder of sound files for each class, at a list of "
        "clips (CSV with the columns path and label, or several labels parted by semicolons), or "
        "at data in ESC-50's layout, and write a configuration that is ready to train.",
        epilog="examples:\n"
        "  audioml init FOLDER && audioml train own.yaml\n"
        "  audioml init clips.csv --out lungs.yaml\n",
    )
    data = init.add_argument("data", type=Path, metavar="DATA", help="the folder, or the list")
    out = init.add_argument(
        "--out", type=Path, default=Path("own.yaml"), help="what is written (default: %(default)s)"
    )
    for argument in (data, out):
        completes(argument, "file")
    init.add_argument("--force", action="store_true", help="write over a file that is there")
    init.set_defaults(run=_init)


def _init(arguments: argparse.Namespace) -> int:
    from audioml.atomic import replacing
    from audioml.datasets.manifest import DataError
    from audioml.first_config import propose_config

    out: Path = arguments.out
    if out.exists() and not arguments.force:
        raise DataError(f"{out}: already there; choose another --out, or give --force")
    proposal = propose_config(arguments.data)
    with replacing(out) as file:
        file.write(proposal.yaml.encode())
    for finding in proposal.findings:
        print(finding)
    for warning in proposal.warnings:
        print(f"look: {warning}")
    print(f"\nwrote {out}. Next:\n  audioml verify {out}\n  audioml train {out}")
    return 0

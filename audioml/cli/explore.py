"""``audioml explore``."""

import argparse
from pathlib import Path

from audioml.cli.verbs import EXIT_DEFECT, Verbs, add_json, completes, print_json


def add_explore(verbs: Verbs) -> None:
    """Add ``audioml explore``."""
    explore = verbs.add_parser(
        "explore",
        help="look at sounds and listen to them: a page, pictures, a table",
        description="Look at a data set, a folder of sounds or one file before training: "
        "waveforms, mel and log-mel, lengths, levels, silence, duplicates, balance, and what each "
        "augmentation does. Writes explore.html, clips.csv and plots/; exit code 1 if a file can't "
        "be read or nothing is audible.",
        epilog="examples:\n"
        "  audioml explore configs/esc10_cnn.yaml data.root=FOLDER\n"
        "  audioml explore FOLDER --out looked\n"
        "  audioml explore dog.wav frontend.n_mels=64\n"
        "  audioml explore clips.csv --json | jq '.findings[].title'\n",
    )
    words = explore.add_argument(
        "settings",
        nargs="*",
        metavar="WORD",
        help="a folder of sounds (a folder for each class, or none), data in ESC-50's layout, a "
        "list of clips or a sound file; YAML files and section.key=value overrides",
    )
    completes(words, "settings")
    out = explore.add_argument(
        "--out", type=Path, metavar="DIR", help="what is written (default: one in runs/)"
    )
    completes(out, "directory")
    explore.add_argument(
        "--examples",
        type=int,
        default=2,
        metavar="N",
        help="examples of each class, fewer if there are many classes (default: %(default)s)",
    )
    add_json(explore)
    explore.set_defaults(run=_explore)


def _explore(arguments: argparse.Namespace) -> int:
    from audioml.explore.folder import explore

    exploration, folder = explore(arguments.settings, arguments.out, arguments.examples)
    if arguments.json:
        print_json(exploration.summary() | {"folder": str(folder)})
    return 0 if exploration.is_sound else EXIT_DEFECT

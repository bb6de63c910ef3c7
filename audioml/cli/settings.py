"""Settings on the command line."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from audioml.cli.verbs import completes
from audioml.config import ConfigError, RunConfig, load_config


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the words that ``read_settings`` reads."""
    settings = parser.add_argument(
        "settings",
        nargs="*",
        metavar="SETTING",
        help="YAML files and section.key=value overrides; later ones win; configs/default.yaml "
        "lists all with unit and meaning",
    )
    completes(settings, "settings")


def read_settings(words: Sequence[str]) -> RunConfig:
    """Build a configuration from command-line words: overrides hold a "=", the rest are files."""
    files = [Path(word) for word in words if "=" not in word]
    return load_config(files, [word for word in words if "=" in word])


def refuse_changes(config: RunConfig, settings: Sequence[str]) -> None:
    """Refuse other settings beside ``resume``."""
    if config.resume is not None and len(settings) > 1:
        raise ConfigError(
            f"resume={config.resume} goes on with that run's own settings; leave out the others, "
            "or start a new run"
        )

"""From words on the command line to a folder with a page, pictures and a table."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from matplotlib.figure import Figure

from audioml.augment import Augment
from audioml.config import ConfigError, RunConfig
from audioml.explore import figures
from audioml.explore.augmentation import Change, Demonstration
from audioml.explore.examples import Example, choose_examples, read_examples
from audioml.explore.findings import Finding, find
from audioml.explore.inputs import Input, read_input
from audioml.explore.survey import Survey, survey
from audioml.frontend import BandLevels
from audioml.datasets.manifest import DataError
from audioml.preparation import build_frontend
from audioml.runs import Folder, RunError, make_unused, name_now

log = logging.getLogger("audioml")

_LONGEST_EXAMPLE_S: Final = 10.0
_LONGEST_FILE_S: Final = 300.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Exploration:
    """All that a page shows.

    Args:
        input: What was looked at.
        survey: What its files hold.
        findings: What should be looked at.
        examples: Clips of each class.
        changes: A clip after each augmentation, first as it is; empty if nothing is audible.
        frontend: The front end, normalising by the statistics of all clips.
    """

    input: Input
    survey: Survey
    findings: list[Finding]
    examples: list[Example]
    changes: list[Change]
    frontend: BandLevels

    @property
    def is_sound(self) -> bool:
        """Whether every file can be used, and anything is to be heard."""
        return not len(self.survey.bad) and len(self.survey.audible) > 0


def explore(words: Sequence[str], out: Path | None = None, n_examples: int = 2) -> Exploration:
    """Look at sounds and write a folder: ``explore.html``, ``clips.csv``, ``plots/``.

    Args:
        words: Settings, or a folder, a list of clips or a file, with settings.
        out: The folder; None for one in ``runs/`` named after time and data.
        n_examples: Examples a class.

    Raises:
        ConfigError: If settings are wrong.
        DataError: If there are no sounds.
        RunError: If ``out`` is there already and holds anything.
    """
    found = read_input(words)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: already there; choose another --out")
    exploration = _look(found, n_examples)
    folder = _make_folder(out, found.manifest.name)
    ...
    return exploration

"""From words on the command line to a folder with a page, pictures and a table."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from matplotlib.figure import Figure

from audioml.assembly import build_frontend
from audioml.augment import Augment
from audioml.config import RunConfig
from audioml.datasets.manifest import DataError
from audioml.explore import figures
from audioml.explore.augmentation import Change, Demonstration
from audioml.explore.examples import Example, choose_examples, read_examples, read_waveform
from audioml.explore.findings import Finding, find
from audioml.explore.inputs import Input, read_input
from audioml.explore.survey import Survey, readable, survey
from audioml.frontend import BandLevels
from audioml.runs import Folder, RunError

log = logging.getLogger("audioml")

_LONGEST_EXAMPLE_S: Final = 10.0
_LONGEST_FILE_S: Final = 300.0
_LONGEST_DEMONSTRATED_S: Final = 60.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Exploration:
    """All that a page shows.

    Args:
        input: What was looked at.
        survey: What its files hold.
        findings: What should be looked at.
        examples: Clips of each class.
        changes: A clip after each augmentation, first as it is; empty if nothing is audible.
        frontend: The front end; it does not normalise.
    """

    input: Input
    survey: Survey
    findings: Sequence[Finding]
    examples: Sequence[Example]
    changes: Sequence[Change]
    frontend: BandLevels

    @property
    def labels(self) -> list[str]:
        """Names of the classes, as the table writes them."""
        return [readable(label) for label in self.input.manifest.labels]

    @property
    def is_sound(self) -> bool:
        """Whether every file can be read, and anything is to be heard."""
        return not len(self.survey.bad) and len(self.survey.audible) > 0

    def summary(self) -> dict[str, Any]:
        """List the figures for other programs."""
        usable = self.survey.usable
        columns = ["length_s", "peak_dbfs", "rms_dbfs", "silence_share", "dc"]
        levels = usable[columns].astype(float).quantile([0.0, 0.5, 1.0])
        return {
            "data": readable(self.input.manifest.name),
            "clips": len(self.survey.clips),
            "usable": len(usable),
            "classes": usable["label"].value_counts().sort_index().to_dict(),
            "total_s": float(usable["length_s"].sum()),
            **{
                column: dict(zip(("min", "median", "max"), levels[column].tolist(), strict=True))
                for column in columns
            },
            "bad": dict(zip(self.survey.bad["path"], self.survey.bad["reason"], strict=True)),
            "findings": [
                {
                    "kind": finding.kind,
                    "title": finding.title,
                    "clips": self.survey.clips["path"][list(finding.clips)].tolist(),
                }
                for finding in self.findings
            ],
        }


def explore(
    words: Sequence[str], out: Path | None = None, n_examples: int = 2
) -> tuple[Exploration, Path]:
    """Look at sounds and write a folder with ``explore.html``, ``clips.csv`` and ``plots/``.

    Args:
        words: Settings; or a folder, a list of clips or a sound file, and settings.
        out: The folder; None for one in ``runs/`` named after time and data.
        n_examples: Examples a class.

    Returns:
        What was found, and the folder.

    Raises:
        ConfigError: If settings are wrong.
        DataError: If there are no sounds, or the one file can't be read.
        RunError: If ``out`` is there already and holds anything.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: already there; choose another --out")
    exploration = look(read_input(words), n_examples)
    if out is None:
        name = re.sub(r"[^\w.-]+", "_", exploration.input.manifest.name).strip("_")[:40]
        folder = Folder.create_named("explore", name)
    else:
        out.mkdir(parents=True, exist_ok=True)
        folder = Folder(out)
    folder.write_table("clips.csv", exploration.survey.clips)
    for name, figure in _draw(exploration):
        folder.write_figure(name, figure)
    log.info("wrote     %s", readable(str(folder.path)))
    return exploration, folder.path


def look(found: Input, n_examples: int = 2) -> Exploration:
    """Measure all clips and read the examples.

    Args:
        found: What is to be looked at.
        n_examples: Examples a class; with 0 no augmentation is shown either.

    Raises:
        ConfigError: If the front end can't run here.
        DataError: If the one file can't be read.
    """
    config, manifest = found.config, found.manifest
    audio = config.audio
    augment = Augment(
        config.augment, sample_rate=audio.sample_rate, n_time=audio.n_time, seed=config.train.seed
    )
    log.info("clips     %d in %s", len(manifest), readable(str(manifest.root)))
    frontend = build_frontend(
        _for_looking(config), torch.device("cpu"), max_semitones=augment.max_semitones
    )
    told = survey(manifest, frontend, n_time=audio.n_time, n_threads=audio.decode_threads)
    if found.is_file and len(told.bad):
        raise DataError(f"{manifest.clips[0].path}: {told.bad['reason'].iloc[0]}")
    examples = read_examples(
        manifest,
        told.clips,
        choose_examples(told.audible, n_examples),
        frontend,
        longest_s=_LONGEST_FILE_S if found.is_file else _LONGEST_EXAMPLE_S,
    )
    frontend.set_statistics(told.mean_db, told.std_db)
    return Exploration(
        input=found,
        survey=told,
        findings=find(manifest, told, audio),
        examples=examples,
        changes=_demonstrate(found, examples, frontend, augment),
        frontend=frontend,
    )


def _for_looking(config: RunConfig) -> RunConfig:
    """Take the same front end in float32, on the CPU."""
    kind = "auto" if config.frontend.kind == "triton" else config.frontend.kind
    return replace(config, frontend=replace(config.frontend, kind=kind, dtype="float32"))


def _demonstrate(
    found: Input, examples: Sequence[Example], frontend: BandLevels, augment: Augment
) -> list[Change]:
    """Change the example of the most contrast, which shows most of what is done to it."""
    if not examples:
        return []
    by_contrast = sorted(examples, key=lambda example: -example.contrast)
    first, *others = by_contrast
    partner = [e for e in others if e.row["label"] != first.row["label"]][:1] or others[:1]
    pair = [first, *partner]
    longest_s = max(_LONGEST_DEMONSTRATED_S, found.config.audio.clip_s)
    waveforms = [
        read_waveform(found.manifest.clips[e.clip], frontend.sample_rate, longest_s) for e in pair
    ]
    demonstration = Demonstration(
        found.config, frontend, augment, [e.clip for e in pair], waveforms
    )
    return list(demonstration.changes())


def _draw(exploration: Exploration) -> Iterator[tuple[str, Figure]]:
    """Draw the pictures that the data have something for."""
    told, labels, frontend = exploration.survey, exploration.labels, exploration.frontend
    if exploration.examples:
        yield "waveforms.png", figures.plot_waveforms(exploration.examples, frontend)
        yield "log_mels.png", figures.plot_log_mels(exploration.examples, frontend)
        yield (
            "mel_and_log_mel.png",
            figures.plot_mel_and_log_mel(exploration.examples, frontend),
        )
        yield "spectra.png", figures.plot_spectra(told.spectra, labels, frontend)
    if len(told.usable) > 1:
        yield "lengths_levels.png", figures.plot_lengths_and_levels(told.usable, labels)
    if len(labels) > 1 and len(told.usable):
        yield "balance.png", figures.plot_balance(told.usable, labels)
    if len(exploration.changes) > 1:
        yield "augmentation.png", figures.plot_augmentation(exploration.changes, frontend)

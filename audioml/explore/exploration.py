"""All that a page shows of a data set, gathered."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from audioml.assembly import build_frontend
from audioml.augment import Augment
from audioml.config import RunConfig
from audioml.datasets.manifest import DataError
from audioml.explore.augmentation import Change, Demonstration
from audioml.explore.examples import Example, choose_examples, read_examples, read_waveform
from audioml.explore.findings import Finding, find
from audioml.explore.inputs import Input
from audioml.explore.survey import Survey, readable, survey
from audioml.frontend import BandLevels

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
        demonstrated: The clip that is augmented, and one to mix it with; empty if nothing is
            audible.
        changes: That clip after each augmentation, first as it is.
        frontend: The front end; it does not normalise.
    """

    input: Input
    survey: Survey
    findings: Sequence[Finding]
    examples: Sequence[Example]
    demonstrated: Sequence[Example]
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
        for_looking(config), torch.device("cpu"), max_semitones=augment.max_semitones
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
    pair = _choose_pair(examples)
    return Exploration(
        input=found,
        survey=told,
        findings=find(manifest, told, audio),
        examples=examples,
        demonstrated=pair,
        changes=_demonstrate(found, pair, frontend, augment) if pair else [],
        frontend=frontend,
    )


def for_looking(config: RunConfig) -> RunConfig:
    """Take a run's front end in float32, as a CPU has it."""
    kind = "auto" if config.frontend.kind == "triton" else config.frontend.kind
    return replace(config, frontend=replace(config.frontend, kind=kind, dtype="float32"))


def _choose_pair(examples: Sequence[Example]) -> list[Example]:
    """Choose the example of the most contrast, and one of another class to mix it with."""
    if not examples:
        return []
    first, *others = sorted(examples, key=lambda example: -example.contrast)
    partner = [e for e in others if e.row["label"] != first.row["label"]] or others
    return [first, *partner[:1]]


def _demonstrate(
    found: Input, pair: Sequence[Example], frontend: BandLevels, augment: Augment
) -> list[Change]:
    """Change the first of two clips."""
    longest_s = max(_LONGEST_DEMONSTRATED_S, found.config.audio.clip_s)
    waveforms = [
        read_waveform(found.manifest.clips[e.clip], frontend.sample_rate, longest_s) for e in pair
    ]
    numbers = [example.clip for example in pair]
    demonstration = Demonstration(found.config, frontend, augment, numbers, waveforms)
    return list(demonstration.changes())

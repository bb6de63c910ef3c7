"""What should be looked at before training, from the table of clips."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pandas as pd

from audioml.config import AudioConfig
from audioml.datasets.manifest import Manifest
from audioml.explore.survey import Survey
from audioml.measurement import MAX_FULL_SCALE_SAMPLES, SILENCE_DB, find_equal

_QUIET_DB: Final = -50.0
_OFFSET: Final = 0.01  # of full scale
_MOSTLY: Final = 0.5
_IMBALANCE: Final = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something to look at.

    Args:
        kind: "fault": clips that can't be used; "look": what may be meant so.
        title: What it is, with the number.
        meaning: Why it matters, or what is done about it.
        clips: Numbers of the clips, one group after another.
        groups: The same in groups, where clips belong together.
    """

    kind: Literal["fault", "look"]
    title: str
    meaning: str
    clips: tuple[int, ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()


def find(manifest: Manifest, survey: Survey, audio: AudioConfig) -> list[Finding]:
    """List what should be looked at, faults first."""
    found = [
        *_find_bad(survey),
        *_find_duplicates(survey.usable),
        *_find_shared_sources(manifest, survey.clips),
        *_find_sound(survey.usable, audio),
        *_find_imbalance(survey.usable),
    ]
    return sorted(found, key=lambda finding: finding.kind != "fault")


def _find_bad(survey: Survey) -> Iterator[Finding]:
    bad, silent = survey.bad, survey.usable[survey.usable["is_silent"].astype(bool)]
    if len(bad):
        yield Finding(
            kind="fault",
            title=_count(len(bad), "file that can't be read", "files that can't be read"),
            meaning="A run stops at them, or leaves them out with data.on_bad_file=skip.",
            clips=tuple(bad.index),
        )
    if len(silent):
        yield Finding(
            kind="fault",
            title=_count(len(silent), "clip of nothing but zeros", "clips of nothing but zeros"),
            meaning="There is nothing to learn from digital silence.",
            clips=tuple(silent.index),
        )


def _find_duplicates(usable: pd.DataFrame) -> Iterator[Finding]:
    """Find equal samples, also in files of other names or formats."""
    content = usable["content"][usable["content"] != ""]
    groups = find_equal({int(str(i)): key for i, key in content.items()})
    if not groups:
        return
    labels = sum(usable.loc[group, "label"].nunique() > 1 for group in groups)
    folds = sum(usable.loc[group, "fold"].nunique() > 1 for group in groups)
    more = [f"{labels} with different labels"] * bool(labels) + [f"{folds} across folds"] * bool(
        folds
    )
    yield Finding(
        kind="fault",
        title=_count(len(groups), "sound that is there twice", "sounds that are there twice")
        + (f" ({', '.join(more)})" if more else ""),
        meaning="Equal samples under several names; the audit refuses splits that part them.",
        clips=tuple(i for group in groups for i in group),
        groups=tuple(map(tuple, groups)),
    )


def _find_shared_sources(manifest: Manifest, clips: pd.DataFrame) -> Iterator[Finding]:
    if not manifest.has_sources:
        if len(clips) > 1:
            yield Finding(
                kind="look",
                title="Nothing says which recording a clip is from",
                meaning="Excerpts of one recording may stand on both sides of a split; set "
                "data.source_pattern, or give a list with a column source.",
            )
        return
    n_shared = int(clips["source"].duplicated(keep=False).sum())
    if n_shared:
        yield Finding(
            kind="look",
            title=f"{n_shared:,} clips share their recording with another",
            meaning="A split at random would part them; splits here are made over recordings.",
        )
    for column, what in (("fold", "folds"), ("label", "classes")):
        n_different = clips.groupby("source")[column].nunique()
        crossing = n_different[n_different > 1].index
        if len(crossing):
            groups = [tuple(clips.index[clips["source"] == source]) for source in crossing]
            yield Finding(
                kind="look",
                title=_count(len(groups), "recording", "recordings") + f" in several {what}",
                meaning="Clips of one recording sound alike: a split must not part them.",
                clips=tuple(i for group in groups for i in group),
                groups=tuple(groups),
            )


def _find_sound(usable: pd.DataFrame, audio: AudioConfig) -> Iterator[Finding]:
    heard = usable[~usable["is_silent"].astype(bool)]
    length_s = heard["length_s"]
    checks: Sequence[tuple[Any, str, str]] = (
        (
            heard["is_clipped"].astype(bool),
            "clipped",
            f"More than {MAX_FULL_SCALE_SAMPLES} samples at full scale.",
        ),
        (
            heard["rms_dbfs"] < _QUIET_DB,
            f"below {_QUIET_DB:g} dBFS",
            "Very quiet; the log-mel may lie at its floor (frontend.floor_db).",
        ),
        (
            heard["silence_share"] > _MOSTLY,
            "more than half silent",
            f"Frames of 20 ms below {SILENCE_DB:g} dBFS; a random crop may hold nothing.",
        ),
        (
            heard["dc"].abs() > _OFFSET,
            "with an offset",
            f"The mean is more than {_OFFSET:.0%} of full scale away from zero.",
        ),
        (
            heard["sample_rate"] < audio.sample_rate,
            "of a lower rate",
            f"Below audio.sample_rate={audio.sample_rate}: nothing above half of their own rate.",
        ),
        (
            length_s > 1.5 * audio.clip_s,
            f"longer than 1.5 times {audio.clip_s:g} s",
            "Cropped to audio.clip_s: at random in training; audio.eval_crops averages several.",
        ),
        (
            length_s < 0.5 * audio.clip_s,
            f"shorter than half of {audio.clip_s:g} s",
            f"Padded to audio.clip_s (audio.pad={audio.pad}).",
        ),
    )
    for is_so, what, meaning in checks:
        clips = heard[is_so]
        if len(clips):
            title = f"{_count(len(clips), 'clip', 'clips')} {what}"
            yield Finding(kind="look", title=title, meaning=meaning, clips=tuple(clips.index))
    for column, what in (("sample_rate", "sample rates"), ("channels", "numbers of channels")):
        values = usable[column].value_counts()
        if len(values) > 1:
            parts = ", ".join(f"{value} ({n} clips)" for value, n in values.items())
            yield Finding(
                kind="look",
                title=f"{len(values)} {what}",
                meaning=f"{parts}. Decoding brings them to one; see that it does not tell classes.",
            )


def _find_imbalance(usable: pd.DataFrame) -> Iterator[Finding]:
    counts = usable["label"].value_counts()
    if len(counts) > 1 and counts.max() > _IMBALANCE * counts.min():
        yield Finding(
            kind="look",
            title=f"Uneven classes: {counts.min()} to {counts.max()} clips",
            meaning="Look at macro F1 and recall, not at accuracy.",
        )


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"

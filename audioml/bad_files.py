"""Clips whose files can't be used: left out on request, and never without a word."""

import logging
from collections.abc import Mapping

import numpy as np
import pandas as pd

from audioml.datasets.manifest import DataError, Manifest
from audioml.splits import Split, leave_out, split_table

log = logging.getLogger("audioml")

_N_LOGGED = 20


def skip_bad_files(
    manifest: Manifest, split: Split, bad: Mapping[int, str], max_share: float
) -> tuple[Split, pd.DataFrame]:
    """Leave the clips of bad files out of a split, and say which and why.

    They leave the split after it was made, and stay in the manifest. So every other clip keeps its
    part, whichever files are bad on a day, and its number, on which its augmentation depends. A run
    that is resumed with other bad files than it began with has parts of another digest, and is
    refused.

    Args:
        manifest: The data set.
        split: Its split, made over all clips.
        bad: Why a clip can't be used, by its number.
        max_share: Most bad clips, as a share of all.

    Returns:
        The split without them; and a table of them: row, path, label, source, fold, the part they
        would have been in, and the reason.

    Raises:
        DataError: If there are more than ``max_share``.
        SplitError: If a part would lose its last clip of a class.
    """
    check_bad_files(manifest, bad, max_share)
    clips = sorted(bad)
    table = split_table(manifest, split).iloc[clips]
    table.insert(0, "row", [manifest.clips[clip].row or clip + 1 for clip in clips])
    table["reason"] = [bad[clip] for clip in clips]
    if clips:
        log.warning("skipped   %d of %d clips, listed in bad_files.csv", len(clips), len(manifest))
    return leave_out(manifest, split, np.array(clips, dtype=np.int64)), table


def check_bad_files(manifest: Manifest, bad: Mapping[int, str], max_share: float) -> None:
    """Log which clips can't be used, and refuse too many of them.

    Args:
        manifest: The data set.
        bad: Why a clip can't be used, by its number.
        max_share: Most bad clips, as a share of all.

    Raises:
        DataError: If there are more.
    """
    clips = sorted(bad)
    for clip in clips[:_N_LOGGED]:
        log.warning("bad file  %s: %s", manifest.describe(clip), bad[clip])
    if len(clips) > _N_LOGGED:
        log.warning("bad file  and %d more", len(clips) - _N_LOGGED)
    share = len(clips) / len(manifest)
    if share > max_share:
        raise DataError(
            f"{len(clips)} of {len(manifest)} clips ({share:.1%}) can't be decoded, more than "
            f"data.max_bad_share={max_share:g} allows, such as "
            f"{manifest.describe(clips[0])}: {bad[clips[0]]}; or raise data.max_bad_share"
        )

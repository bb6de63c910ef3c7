"""Own data listed in a CSV file: a row a clip."""

import difflib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast, get_args

import pandas as pd

from audioml.datasets.files import FileFinder
from audioml.datasets.manifest import Clip, DataError, Manifest, Part, describe_examples
from audioml.datasets.rows import TEXT, check_cells, list_columns, read_rows

log = logging.getLogger("audioml")

REQUIRED: Final = ("path", "label")
OPTIONAL: Final = ("source", "fold", "start_s", "end_s", "split")
_NAME: Final = r" *[^\x00-\x1f\x7f-\x9f;\s][^\x00-\x1f\x7f-\x9f;]*"
_SECONDS: Final = r"[0-9]{1,7}(?:\.[0-9]*)?"
_RULES: Final = {
    "path": (TEXT, "the name of a sound file"),
    "label": (_NAME, "a label, or several parted by semicolons"),
    "source": (TEXT, "the recording or patient the clip is from"),
    "fold": (r"0*[1-9][0-9]{0,8}", "an integer of at least 1"),
    "start_s": (_SECONDS, "a time in seconds, 0 or more"),
    "end_s": (rf"(?:{_SECONDS})?", "a time in seconds, or empty for the end of the file"),
    "split": ("|".join(get_args(Part)), f"one of {', '.join(get_args(Part))}"),
}
_SEVERAL: Final = (
    rf"(?:{_NAME}(?:;{_NAME})*)?",
    "labels parted by semicolons, or empty for a clip of none",
)


def read_csv(file: Path, root: Path, *, check_files: bool = True) -> Manifest:
    """Read a list of clips.

    It has the columns path and label, and perhaps source, fold, start_s, end_s and split. Several
    rows may name one file, as stretches of it. Without a column of sources a file is taken for a
    recording of its own, which the manifest says.

    If any row has several labels, parted by semicolons, the data set is multi-label: any row may
    then have any number of them, and an empty cell is a clip of none of the classes.

    Args:
        file: The list; fields separated by commas, semicolons or tabs.
        root: The folder that its paths are relative to and don't leave.
        check_files: Whether a missing sound file is an error.

    Returns:
        One clip a row, in the order of the rows; labels in alphabetical order.

    Raises:
        DataError: If the list can't be read, lacks a column, holds a bad value, a row twice or a
            file outside ``root``, or names files that are not there.
    """
    remedy = "expected a list of clips, set data.manifest"
    frame = read_rows(file, REQUIRED, remedy, optional=OPTIONAL, separators=",;\t")
    _check_columns(file, frame)
    _check_separators(file, frame)
    is_multi_label = bool(frame["label"].str.contains(";").any())
    rules = _RULES | ({"label": _SEVERAL} if is_multi_label else {})
    check_cells(file, frame, [(name, *rules[name]) for name in rules if name in frame])
    _check_times(file, frame)
    _check_repeats(file, frame)
    if is_multi_label:
        frame["label"] = _sort_labels(file, frame["label"])
    labels = tuple(sorted({name for cell in frame["label"] for name in _names(cell)}))
    clips = tuple(_make_clips(file, frame, root, labels, check_files, is_multi_label))
    return Manifest(
        name=file.name,
        root=root,
        labels=labels,
        clips=clips,
        in_esc50_layout=False,
        has_sources="source" in frame,
    )


def _make_clips(
    file: Path,
    frame: pd.DataFrame,
    root: Path,
    labels: tuple[str, ...],
    check_files: bool,
    is_multi_label: bool,
) -> Iterator[Clip]:
    finder, missing = FileFinder(root), []
    target_of = {label: target for target, label in enumerate(labels)}
    for row, cells in zip(frame.index.tolist(), frame.to_dict("records"), strict=True):
        name = cells["path"]
        path = finder.find(f"{file}, row {row}", root, name)
        if path is None and check_files:
            missing.append(f"{name} (row {row})")
        targets = tuple(target_of[label] for label in _names(cells["label"]))
        yield Clip(
            path=path or root / name,
            label=cells["label"],
            target=-1 if is_multi_label else targets[0],
            source=cells.get("source", Path(name).as_posix()),
            fold=int(cells["fold"]) if "fold" in cells else None,
            start_s=float(cells.get("start_s", 0.0)),
            end_s=float(cells["end_s"]) if cells.get("end_s") else None,
            part=cast(Part | None, cells.get("split")),
            row=row,
            targets=targets if is_multi_label else None,
        )
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(frame)} rows name files that are not in {root}: "
            f"{describe_examples(missing)}; put them there, or set data.root"
        )


def _names(cell: str) -> list[str]:
    """List the labels in a cell."""
    return cell.split(";") if cell else []


def _sort_labels(file: Path, cells: pd.Series) -> pd.Series:
    """Put the labels of each cell in alphabetical order.

    Raises:
        DataError: If a row has a label twice.
    """
    rows = cells.map(lambda cell: sorted(name.strip() for name in _names(cell)))
    twice = rows[rows.map(lambda names: len(set(names)) < len(names))]
    if len(twice):
        raise DataError(
            f"{file}, row {twice.index[0]}: a label is there twice, got {cells[twice.index[0]]!r}; "
            "remove one"
        )
    return rows.map(";".join)


def _check_columns(file: Path, frame: pd.DataFrame) -> None:
    """Refuse columns that look like misspelled ones; others are named and not used."""
    known = {*REQUIRED, *OPTIONAL}
    others = [str(column) for column in frame.columns if column not in known]
    for column in others:
        close = difflib.get_close_matches(column.lower(), known, n=1, cutoff=0.8)
        if close:
            raise DataError(
                f"{file}: unknown column {column!r}; did you mean {close[0]}? Rename or remove it"
            )
    if others:
        log.info("columns   not used: %s", list_columns(frame[others]))


def _check_separators(file: Path, frame: pd.DataFrame) -> None:
    """Refuse rows that are parted by something else than the header."""
    is_whole = frame.iloc[:, 0].str.contains("[,;\t]") & (frame.iloc[:, 1:] == "").all(axis=1)
    if is_whole.any():
        row = frame[is_whole].iloc[0]
        raise DataError(
            f"{file}, row {row.name}: fields are not parted as in the header: {row.iloc[0]!r}; "
            "use one separator throughout"
        )


def _check_times(file: Path, frame: pd.DataFrame) -> None:
    """Refuse clips that end before they begin."""
    if "end_s" not in frame:
        return
    end = pd.to_numeric(frame["end_s"]).astype(float)
    start = pd.to_numeric(frame["start_s"]).astype(float) if "start_s" in frame else 0.0 * end
    bad = frame[end <= start]
    if len(bad):
        row = bad.iloc[0]
        raise DataError(
            f"{file}, row {row.name}: end_s must be above start_s ({row.get('start_s', '0')}), got "
            f"{row['end_s']}; mend the row"
        )


def _check_repeats(file: Path, frame: pd.DataFrame) -> None:
    """Refuse rows of the same stretch of a file."""
    times = [column for column in ("start_s", "end_s") if column in frame]
    stretches = frame[["path", *times]].assign(
        **{column: pd.to_numeric(frame[column]).fillna(math.inf) for column in times}
    )
    twice = stretches[stretches.duplicated()]
    if len(twice):
        row = twice.iloc[0]
        first = stretches[stretches.eq(row).all(axis=1)].iloc[0]
        raise DataError(
            f"{file}, row {row.name}: {row['path']!r} is already row {first.name}; remove one"
        )

"""ESC-50's layout: ``meta/esc50.csv`` beside a folder ``audio/``."""

from pathlib import Path
from typing import Final

import pandas as pd

from audioml.datasets.files import FileFinder, locate
from audioml.datasets.manifest import Clip, DataError, Manifest, describe_examples
from audioml.datasets.rows import TEXT, check_cells, list_columns, read_rows

META: Final = Path("meta", "esc50.csv")
AUDIO_SUFFIXES: Final = (".wav", ".ogg", ".flac")
COLUMNS: Final = ("filename", "fold", "target", "category", "src_file")
_REMEDY: Final = f"expected {META} and audio/ in the data root, set data.root"


def read_esc50(
    root: Path, *, name: str = "esc50", esc10: bool = False, check_files: bool = True
) -> Manifest:
    """Read a data set in ESC-50's layout.

    ``meta/esc50.csv`` has the columns filename, fold, target, category, src_file and, for ESC-10,
    esc10. A file it names is looked for in ``audio/`` under that name, then under the same stem
    with .wav, .ogg or .flac: the metadata may say .wav where the sounds are kept compressed.

    Args:
        root: The folder that holds ``meta/`` and ``audio/``.
        name: The manifest's name.
        esc10: Whether to keep only the rows marked esc10, their targets renumbered from 0 in the
            official order.
        check_files: Whether a missing audio file is an error.

    Returns:
        One clip a row, in the order of the metadata.

    Raises:
        DataError: If the metadata can't be read, lacks a column, holds a bad or contradictory
            value, names a file twice or outside ``root``, or names files that are not there.
    """
    file = root / META
    frame = read_rows(file, COLUMNS, _REMEDY)
    _check_values(file, frame)
    paths = _find_files(file, frame, check_files)
    if esc10:
        frame = frame[_is_esc10(file, frame)]
    labels = _labels(file, frame, renumber=esc10)
    target_of = {label: target for target, label in enumerate(labels)}
    clips = tuple(
        Clip(
            path=paths[filename],
            label=label,
            target=target_of[label],
            source=source,
            fold=int(fold),
            row=row,
        )
        for row, filename, label, source, fold in frame[
            ["filename", "category", "src_file", "fold"]
        ].itertuples(name=None)
    )
    return Manifest(name=name, root=root, labels=labels, clips=clips)


def is_esc10(root: Path) -> bool:
    """Whether a folder in ESC-50's layout holds the ten classes of ESC-10 alone."""
    frame = read_rows(root / META, COLUMNS, _REMEDY)
    return "esc10" in frame and bool((frame["esc10"].str.lower() == "true").all())


def find_unlisted_files(root: Path) -> list[Path]:
    """List the sounds under ``audio/`` that no row of the metadata names, ESC-10 or not."""
    frame = read_rows(root / META, COLUMNS, _REMEDY)
    listed = {locate(root / "audio", filename, AUDIO_SUFFIXES) for filename in frame["filename"]}
    sounds = (path for path in (root / "audio").rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    return sorted(path for path in sounds if path not in listed)


def _check_values(file: Path, frame: pd.DataFrame) -> None:
    """Refuse empty names, bad numbers, and labels and targets that are not one to one."""
    rules = (
        ("filename", TEXT, "the name of an audio file"),
        ("category", TEXT, "a label"),
        ("src_file", TEXT, "the recording the clip was cut from"),
        ("fold", r"0*[1-9][0-9]{0,8}", "an integer of at least 1"),
        ("target", r"[0-9]{1,9}", "an integer of at least 0"),
    )
    check_cells(file, frame, rules)
    pairs = frame.assign(target=frame["target"].astype(int)).drop_duplicates(["category", "target"])
    for column in ("category", "target"):
        clash = pairs[pairs[column].duplicated(keep=False)].sort_values(column, kind="stable")
        if len(clash):
            first, second = list(clash.itertuples())[:2]
            raise DataError(
                f"{file}, row {second.Index}: category {second.category!r} with target "
                f"{second.target} contradicts row {first.Index}, {first.category!r} with "
                f"{first.target}; a label has one target and a target one label"
            )


def _is_esc10(file: Path, frame: pd.DataFrame) -> "pd.Series[bool]":
    """Say which rows belong to ESC-10."""
    if "esc10" not in frame.columns:
        raise DataError(f"{file}: no column esc10; found {list_columns(frame)}")
    flags = frame["esc10"].str.lower()
    bad = frame["esc10"][~flags.isin(["true", "false"])]
    if len(bad):
        raise DataError(
            f"{file}, row {bad.index[0]}: esc10 must be True or False, got {bad.iloc[0]!r}; "
            "mend the row"
        )
    if not (flags == "true").any():
        raise DataError(f"{file}: no row with esc10 True; use data.name=esc50 or mend the column")
    return flags == "true"


def _labels(file: Path, frame: pd.DataFrame, renumber: bool) -> tuple[str, ...]:
    """List the labels in order of target; without ``renumber`` targets must be 0, 1, 2 ..."""
    by_target = dict(sorted(zip(frame["target"].astype(int), frame["category"], strict=True)))
    gap = next((expected for expected in range(len(by_target)) if expected not in by_target), None)
    if gap is not None and not renumber:
        raise DataError(
            f"{file}: {len(by_target)} targets must be 0..{len(by_target) - 1}, but {gap} has no "
            "row; for the ESC-10 subset use data.name=esc10"
        )
    return tuple(by_target.values())


def _find_files(file: Path, frame: pd.DataFrame, check_files: bool) -> dict[str, Path]:
    """Map each file name of the metadata to the file, all of them distinct and in the root."""
    root = file.parent.parent
    folder = root / "audio"
    row_of: dict[Path, int] = {}
    paths: dict[str, Path] = {}
    missing = []
    finder = FileFinder(root)
    for row, filename in frame["filename"].items():
        where = f"{file}, row {row}"
        found = finder.find(where, folder, filename, AUDIO_SUFFIXES)
        path = found or folder / filename
        if path in row_of:
            raise DataError(f"{where}: {path.name} is already row {row_of[path]}; remove one")
        row_of[path], paths[filename] = int(str(row)), path
        if check_files and found is None:
            missing.append(f"{filename} (row {row})")
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(frame)} files are not in {folder}: "
            f"{describe_examples(missing)}; put them there, or move the folder away to have "
            "the data set downloaded"
        )
    return paths

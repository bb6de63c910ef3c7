"""ESC-50's layout: ``meta/esc50.csv`` beside a folder ``audio/``."""

import io
from functools import cache
from itertools import chain
from pathlib import Path, PureWindowsPath
from typing import Final

import pandas as pd

from audioml.datasets.manifest import Clip, DataError, Manifest, describe_examples

META: Final = Path("meta", "esc50.csv")
AUDIO_SUFFIXES: Final = (".wav", ".ogg", ".flac")
COLUMNS: Final = ("filename", "fold", "target", "category", "src_file")
# Without control characters: names are written to terminals, logs and tables.
_TEXT: Final = r"[^\x00-\x1f\x7f-\x9f]+"


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
    frame = _read_metadata(file)
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


def find_unlisted_files(root: Path) -> list[Path]:
    """List the sounds under ``audio/`` that no row of the metadata names, ESC-10 or not."""
    frame = _read_metadata(root / META)
    listed = {_locate(root / "audio", filename) for filename in frame["filename"]}
    sounds = (path for path in (root / "audio").rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    return sorted(path for path in sounds if path not in listed)


def _read_metadata(file: Path) -> pd.DataFrame:
    """Read the metadata as stripped strings; the index is the row number, from 1."""
    if file.exists() and not file.is_file():  # reading a pipe or a device may never end
        raise DataError(f"{file}: a folder, pipe or device, not a file; replace it")
    try:
        text = file.read_text(encoding="utf-8-sig")
        if "\0" in text:  # older pandas would end the cell there
            line = text.partition("\0")[0].count("\n") + 1
            raise DataError(f"{file}, line {line}: a NUL character; mend the line")
        frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except OSError as error:
        raise DataError(
            f"{file}: {error.strerror or error}; expected {META} and audio/ in the data root, "
            "set data.root"
        ) from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: not readable as CSV ({str(error).strip()}); replace the file"
        ) from error
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise DataError(
            f"{file}: no column {', '.join(missing)}; "
            f"found {_list_columns(frame)}; add the missing to the header"
        )
    twice = [name for name in COLUMNS if f"{name}.1" in frame.columns]  # as pandas calls it
    if twice:
        raise DataError(f"{file}: column {', '.join(twice)} is there twice; remove one")
    if frame.empty:
        raise DataError(f"{file}: no rows; replace the file")
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError(f"{file}: rows have more fields than the header; mend the header")
    frame.index = frame.index + 1
    stripped: pd.DataFrame = frame.fillna("").apply(lambda column: column.str.strip())
    return stripped


def _list_columns(frame: pd.DataFrame) -> str:
    return describe_examples([repr(column) for column in frame.columns], 10)


def _check_values(file: Path, frame: pd.DataFrame) -> None:
    """Refuse empty names, bad numbers, and labels and targets that are not one to one."""
    rules = (
        ("filename", _TEXT, "the name of an audio file"),
        ("category", _TEXT, "a label"),
        ("src_file", _TEXT, "the recording the clip was cut from"),
        ("fold", r"0*[1-9][0-9]{0,8}", "an integer of at least 1"),
        ("target", r"[0-9]{1,9}", "an integer of at least 0"),
    )
    for column, pattern, expected in rules:
        bad = frame[column][~frame[column].str.fullmatch(pattern)]
        if len(bad):
            raise DataError(
                f"{file}, row {bad.index[0]}: {column} must be {expected}, got {bad.iloc[0]!r}; "
                "mend the row"
            )
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
        raise DataError(f"{file}: no column esc10; found {_list_columns(frame)}")
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
    folder, inside = root / "audio", root.resolve()

    @cache
    def is_inside(path: Path) -> bool:  # of folders and links, which are fewer than files
        return path.resolve().is_relative_to(inside)

    row_of: dict[Path, int] = {}
    paths: dict[str, Path] = {}
    missing = []
    for row, filename in frame["filename"].items():
        where = f"{file}, row {row}"
        if _leaves_folder(filename):
            raise DataError(f"{where}: {filename!r} leaves the data root; name a file in audio/")
        found = _locate(folder, filename)
        path = found or folder / filename
        if found and not (is_inside(path.parent) and (not path.is_symlink() or is_inside(path))):
            raise DataError(f"{where}: {path} is a link out of the data root; put the file itself")
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


def _leaves_folder(filename: str) -> bool:
    """Whether a name is absolute, climbs or has no last part; Windows rules cover both worlds."""
    path = PureWindowsPath(filename)
    return bool(path.anchor) or ".." in path.parts or not path.name


def _locate(folder: Path, filename: str) -> Path | None:
    """Find a file under its own name or another suffix."""
    named = folder / filename
    others = (named.with_suffix(suffix) for suffix in AUDIO_SUFFIXES)
    try:
        return next((path for path in chain([named], others) if path.is_file()), None)
    except OSError:  # the name is too long for any file
        return None

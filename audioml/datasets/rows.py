"""Metadata in CSV files, read with distrust: every cell a stripped string, every row numbered."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from audioml.datasets.manifest import DataError, describe_examples

# Without control characters: names are written to terminals, logs and tables.
TEXT: Final = r"[^\x00-\x1f\x7f-\x9f]+"
_SEPARATORS: Final = {",": "comma", ";": "semicolon", "\t": "tab"}


def read_rows(
    file: Path,
    columns: Sequence[str],
    remedy: str,
    *,
    optional: Sequence[str] = (),
    separators: str = ",",
) -> pd.DataFrame:
    """Read a CSV file with a header.

    Args:
        file: The file.
        columns: Those it must have.
        remedy: What to do if it is not there.
        optional: Those it may have.
        separators: What may part its fields; the one that parts the header parts them all.

    Returns:
        Stripped strings; the index is the row number, from 1.

    Raises:
        DataError: If it can't be read, has no rows, lacks a column or has one twice, or its rows
            are not as long as its header.
    """
    if file.exists() and not file.is_file():  # reading a pipe or a device may never end
        raise DataError(f"{file}: a folder, pipe or device, not a file; replace it")
    try:
        text = file.read_text(encoding="utf-8-sig")
        if "\0" in text:  # older pandas would end the cell there
            line = text.partition("\0")[0].count("\n") + 1
            raise DataError(f"{file}, line {line}: a NUL character; mend the line")
        separator = _find_separator(file, text, separators)
        frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}; {remedy}") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: not readable as CSV ({str(error).strip()}); replace the file"
        ) from error
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise DataError(
            f"{file}: no column {', '.join(missing)}; "
            f"found {list_columns(frame)}; add the missing to the header"
        )
    known = (*columns, *optional)
    twice = [name for name in known if f"{name}.1" in frame.columns]  # as pandas calls it
    if twice:
        raise DataError(f"{file}: column {', '.join(twice)} is there twice; remove one")
    if frame.empty:
        raise DataError(f"{file}: no rows; replace the file")
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError(f"{file}: rows have more fields than the header; mend the header")
    frame.index = frame.index + 1
    stripped: pd.DataFrame = frame.fillna("").apply(lambda column: column.str.strip())
    return stripped


def list_columns(frame: pd.DataFrame) -> str:
    """Name a table's columns for a message."""
    return describe_examples([repr(column) for column in frame.columns], 10)


def check_cells(file: Path, frame: pd.DataFrame, rules: Iterable[tuple[str, str, str]]) -> None:
    """Refuse cells that don't match their column's pattern.

    Args:
        file: The file, for the message.
        frame: Its rows.
        rules: Column, regular expression and what is expected, in words.

    Raises:
        DataError: If one does not; names the row.
    """
    for column, pattern, expected in rules:
        bad = frame[column][~frame[column].str.fullmatch(pattern)]
        if len(bad):
            raise DataError(
                f"{file}, row {bad.index[0]}: {column} must be {expected}, got {bad.iloc[0]!r}; "
                "mend the row"
            )


def _find_separator(file: Path, text: str, separators: str) -> str:
    """Choose what parts the header's fields; no two may."""
    header = text.partition("\n")[0]
    found = [separator for separator in separators if separator in header]
    if len(found) > 1:
        names = " and ".join(_SEPARATORS[separator] for separator in found)
        raise DataError(f"{file}: {names} both part fields of the header; use one of them")
    return found[0] if found else separators[0]

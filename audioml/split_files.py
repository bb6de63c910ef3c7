"""Split files of other programs: which clips they list, of which recordings, in which variants."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from audioml.datasets import KNOWN_CROSSING_SOURCES
from audioml.errors import UserError

# What augmentation programs append to a name: a separator, a word, perhaps numbers with units, as
# in dog_orig, dog_noisy, dog_pitchUp2, dog_stretch0.9, dog-time_stretch-1.1 and dog_noise_snr10db.
_VARIANT_SUFFIX: Final = r"""[\s_.-]+
    (?: orig(?:inal)? | clean | copy | variant | aug(?:mented)? | spec[_-]?aug | mix[_-]?up
      | (?: white | pink | brown | gauss(?:ian)? | add(?:ed)? )? [_-]? nois(?:e|y|ed) | snr
      | pitch (?: ed | [_-]? shift(?:ed)? )? (?: [_-]? (?:up|down) )?
      | (?: time [_-]? )? (?:stretch|shift) (?:ed)? | speed (?: [_-]? (?:up|down) )? | tempo
      | gain | vol(?:ume)? | reverb(?:ed)? | (?:time|freq) [_-]? mask(?:ed)? )
    (?: [_-]? [+-]? \d+ (?:\.\d+)? (?: st | semitones? | db | x | % | m?s )? ){0,2}"""
# Names of columns, in lower case and without separators.
_FILE_COLUMN: Final = re.compile(
    r"path|fname|spectrogram|(?:slice|wav|audio|image|img|clip)?file(?:name|path)?"
    r"|(?:wav|audio|image|img|clip)(?:name|path)?"
)
_SOURCE_COLUMN: Final = re.compile(
    r"(?:source|src|recording|patient|subject|speaker)(?:id|file)?|fsid|freesoundid"
)
_EXTENSION: Final = re.compile(r"(?i)(?:\.(?:wav|flac|ogg|mp3))?\.[a-z]\w{1,4}$")
_ESC50_NAME: Final = re.compile(r"^(?P<fold>[1-5])-(?P<source>\d+)-[A-Z]-\d{1,2}$")


class AuditError(UserError):
    """Input that can't be audited; the message names the file and the row."""


def read_pair(
    train_csv: Path, val_csv: Path, suffixes: Sequence[re.Pattern[str]]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read two split files as one table, and say what was found.

    Returns:
        Rows under the index (part, row) with the columns file, id, fold (empty unless all names
        are ESC-50's) and, if it is known for all, source; and notes.
    """
    table = pd.concat({"train": _read_table(train_csv), "val": _read_table(val_csv)})
    table["id"] = [strip_suffixes(read_stem(file), suffixes) for file in table["file"]]
    esc50 = table["id"].str.extract(_ESC50_NAME)
    is_esc50 = bool(esc50["source"].notna().all())
    table["fold"] = esc50["fold"] if is_esc50 else None
    if "source" in table and table["source"].notna().all():
        origin = "read from a column"
    elif is_esc50:
        table["source"] = esc50["source"]
        origin = "read from ESC-50's file names"
    else:
        table = table.drop(columns="source", errors="ignore")
        origin = "not checked: no column of them in both files"
    notes = []
    for part, rows in table.groupby(level=0):
        n_sources = f", {rows['source'].nunique()} sources" if "source" in rows else ""
        notes.append(f"{part}: {len(rows)} rows, {rows['id'].nunique()} clip ids{n_sources}")
    notes.append(f"sources are {origin}")
    if is_esc50:
        known = ", ".join(sorted(KNOWN_CROSSING_SOURCES))
        notes.append(f"named exceptions: {known}, which cross ESC-50's official folds")
    return table, tuple(notes)


def read_stem(file: str) -> str:
    """Take a file's name without its folders and extensions."""
    return _EXTENSION.sub("", re.split(r"[/\\]", file)[-1])


def compile_suffixes(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    """Compile the endings that mark variants, the user's after the built-in ones."""
    compiled = [re.compile(rf"(?:{_VARIANT_SUFFIX})\Z", re.IGNORECASE | re.VERBOSE)]
    for pattern in patterns:
        try:
            compiled.append(re.compile(rf"(?:{pattern})\Z", re.IGNORECASE))
        except re.error as error:
            raise AuditError(
                f"variant pattern {pattern!r} is no regular expression: {error}"
            ) from error
    return compiled


def strip_suffixes(stem: str, suffixes: Sequence[re.Pattern[str]]) -> str:
    """Remove endings that mark variants as long as there are any and something is left."""
    for suffix in suffixes:
        shorter = suffix.sub("", stem)
        if shorter not in ("", stem):
            return strip_suffixes(shorter, suffixes)
    return stem


def _read_table(file: Path) -> pd.DataFrame:
    """Read the columns file and, if there is one, source; the index is the row, from 1."""
    cells = _read_cells(file)
    first = cells.iloc[0]
    names = [re.sub(r"[\s_-]", "", cell.lower()) for cell in first]
    columns = {"file": _find_column(names, _FILE_COLUMN)}
    # A first row without a known name is a header too, unless it looks like a clip: it holds a file
    # name with an extension or begins with a number or a name with digits.
    looks_like_clip = first.str.contains(_EXTENSION).any() or re.search(r"\d", first[0])
    if columns["file"] is None and looks_like_clip:
        names, cells.index = [], cells.index + 1
    else:
        cells = cells.iloc[1:]
    if cells.empty:
        raise AuditError(f"{file}: no rows; expected one a clip")
    if columns["file"] is None:
        columns["file"] = int(cells.iloc[0].str.contains(_EXTENSION).to_numpy().argmax())
    columns["source"] = _find_column(names, _SOURCE_COLUMN)
    table = pd.DataFrame({name: cells[i] for name, i in columns.items() if i is not None})
    empty = (table == "").any(axis=1) | table["file"].map(read_stem).eq("")
    if empty.any():
        row = table[empty].iloc[0]
        raise AuditError(
            f"{file}, row {row.name}: expected the name of a file and, with a source column, its "
            f"source, got {row.to_dict()}; mend the row"
        )
    return table


def _find_column(names: Sequence[str], known: re.Pattern[str]) -> int | None:
    """Find the first column of a known name."""
    return next((column for column, name in enumerate(names) if known.fullmatch(name)), None)


def _read_cells(file: Path) -> pd.DataFrame:
    """Read a CSV file's cells as stripped strings, the header as row 0, the row length checked."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)
        cells = pd.read_csv(
            io.StringIO(text), sep=separator, header=None, dtype=str, keep_default_na=False
        )
    except OSError as error:
        raise AuditError(f"{file}: {error.strerror or error}; expected a CSV file") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise AuditError(f"{file}: not readable as CSV ({str(error).strip()})") from error
    stripped: pd.DataFrame = cells.fillna("").apply(lambda column: column.str.strip())
    return stripped

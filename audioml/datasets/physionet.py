"""PhysioNet/CinC Challenge 2016, heart sounds: normal or abnormal, good or poor in quality."""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from audioml.datasets.manifest import Clip, DataError, Manifest, describe_examples

log = logging.getLogger("audioml")

LABELS: Final = ("normal", "abnormal")
_DATABASES: Final = "abcdef"
_CODES: Final = {"-1": "normal", "1": "abnormal"}


def read_physionet2016(root: Path) -> Manifest:
    """Read the training databases of the PhysioNet/CinC Challenge 2016.

    ``root`` holds ``training-a`` to ``training-f``, each with its recordings and REFERENCE.csv
    (``a0001,1``: 1 for abnormal, -1 for normal). Where the later annotations are there
    (``annotations/updated/training-a/REFERENCE_withSQI.csv``, or REFERENCE-SQI.csv beside the
    recordings), they count: they give the label and whether the quality is good. The set's folder
    ``validation`` repeats recordings of the others and is not read.

    The fold is the database (a is 1), so that ``splits.protocol=fixed`` leaves one database out,
    recorded by others with other stethoscopes. Nothing says which recordings are of one patient.

    Args:
        root: The folder.

    Returns:
        The recordings, database after database.

    Raises:
        DataError: If no database is there, a reference is malformed, or recordings are missing.

    Source: Liu et al. 2016, "An open access database for the evaluation of heart sound algorithms".
    """
    folders = [folder for letter in _DATABASES if (folder := root / f"training-{letter}").is_dir()]
    if not folders:
        raise DataError(
            f"{root}: no training-a to training-f in it; get the training set of the "
            "PhysioNet/CinC Challenge 2016 from physionet.org/content/challenge-2016 and set "
            "data.root to it"
        )
    clips: list[Clip] = []
    for folder in folders:
        clips += _read_database(root, folder, len(clips))
    return Manifest(
        name="physionet2016",
        root=root,
        labels=LABELS,
        clips=tuple(clips),
        in_esc50_layout=False,
        has_sources=False,
    )


def _read_database(root: Path, folder: Path, n_before: int) -> Iterator[Clip]:
    letter = folder.name[-1]
    labels = {name: label for name, label, _ in _read_reference(folder / "REFERENCE.csv", 2)}
    quality: dict[str, bool | None] = dict.fromkeys(labels)
    for name, label, is_good in _read_updates(root, folder):
        if name not in labels:
            raise DataError(f"{folder}: {name} has later annotations but is not in REFERENCE.csv")
        labels[name], quality[name] = label, is_good
    missing = [name for name in labels if not (folder / f"{name}.wav").is_file()]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(labels)} recordings are not there: "
            f"{describe_examples(missing)}; get the whole database"
        )
    counts = Counter(labels.values())
    log.info("database  %s: %d normal, %d abnormal", letter, counts["normal"], counts["abnormal"])
    for row, (name, label) in enumerate(labels.items(), start=n_before + 1):
        yield Clip(
            path=folder / f"{name}.wav",
            label=label,
            target=LABELS.index(label),
            source=name,
            fold=1 + _DATABASES.index(letter),
            is_good=quality[name],
            row=row,
        )


def _read_updates(root: Path, folder: Path) -> Iterator[tuple[str, str, bool | None]]:
    """Read the later annotations of a database; none if they are not there."""
    places = (
        root / "annotations" / "updated" / folder.name / "REFERENCE_withSQI.csv",
        folder / "REFERENCE-SQI.csv",
    )
    file = next((file for file in places if file.is_file()), None)
    if file is not None:
        yield from _read_reference(file, 3)


def _read_reference(file: Path, n_fields: int) -> Iterator[tuple[str, str, bool | None]]:
    """Read name, label and, if there are three fields, whether the quality is good."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: {error}; get the whole database") from error
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        fields = [field.strip() for field in line.split(",")]
        if not any(fields):
            continue
        is_known = fields[-1] in ("-1", "0", "1")
        is_whole = is_known and len(fields) == n_fields and fields[1] in _CODES
        if not is_whole or not re.fullmatch(r"[a-z]\d+", fields[0]):
            expected = "a0001,1 (1 abnormal, -1 normal)" + (" and 0 or 1" if n_fields == 3 else "")
            raise DataError(
                f"{file}, line {number}: expected {expected}, got {line.strip()[:80]!r}; mend it"
            )
        if fields[0] in seen:
            raise DataError(
                f"{file}, line {number}: {fields[0]} is already line {seen[fields[0]]}; remove one"
            )
        seen[fields[0]] = number
        yield fields[0], _CODES[fields[1]], fields[2] == "1" if n_fields == 3 else None
    if not seen:
        raise DataError(f"{file}: no recordings in it; get the whole database")

"""ICBHI 2017, lung sounds: respiratory cycles from the annotations beside the recordings."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast

import soundfile

from audioml.datasets.manifest import Clip, DataError, Manifest, Part, describe_examples

LABELS: Final = ("normal", "crackle", "wheeze", "both")
SPLIT_FILE: Final = "ICBHI_challenge_train_test.txt"
# Patients whose recordings the official split puts on both sides.
CROSSING_PATIENTS: Final = frozenset({"156", "218"})
_ROUNDING_S: Final = 0.1  # by which annotations may end after their recordings
_N_NAME_FIELDS: Final = 5  # patient, recording, place on the chest, mode, device


def read_icbhi(root: Path) -> Manifest:
    """Read the ICBHI 2017 respiratory sound database: a clip a respiratory cycle.

    The recordings, ``101_1b1_Al_sc_Meditron.wav`` and the like, and the annotation beside each, a
    text file with a line ``begin end crackles wheezes`` a cycle, lie in ``root`` or in a folder in
    it. The source is the patient. The official split, if its list is there as well, becomes each
    clip's ``part``; of two patients it puts recordings on both sides.

    Args:
        root: The folder.

    Returns:
        The cycles in the order of the recordings' names and of time.

    Raises:
        DataError: If there are no recordings, or a name, an annotation or the list is malformed.

    Source: Rocha et al. 2019, "An open access database for the evaluation of respiratory sound
        classification algorithms".
    """
    recordings = sorted(path for path in root.rglob("*.wav") if path.is_file())
    if not recordings:
        raise DataError(
            f"{root}: no recordings (.wav) in it; get ICBHI_final_database.zip from "
            "bhichallenge.med.auth.gr, unpack it and set data.root to its folder"
        )
    parts = _read_split(root, [path.stem for path in recordings])
    clips: list[Clip] = []
    for path in recordings:
        patient = _read_patient(path)
        for begin_s, end_s, label in _read_cycles(path):
            clips.append(
                Clip(
                    path=path,
                    label=label,
                    target=LABELS.index(label),
                    source=patient,
                    start_s=begin_s,
                    end_s=end_s,
                    part=parts.get(path.stem),
                    row=len(clips) + 1,
                )
            )
    crossing = CROSSING_PATIENTS if parts else frozenset[str]()
    return Manifest(
        name="icbhi",
        root=root,
        labels=LABELS,
        clips=tuple(clips),
        in_esc50_layout=False,
        known_crossing_sources=crossing,
    )


def _read_patient(path: Path) -> str:
    fields = path.stem.split("_")
    if len(fields) != _N_NAME_FIELDS or not fields[0].isdigit():
        raise DataError(
            f"{path}: expected a name such as 101_1b1_Al_sc_Meditron.wav, which begins with the "
            "patient's number; rename or remove the file"
        )
    return fields[0]


def _read_cycles(path: Path) -> Iterator[tuple[float, float, str]]:
    """Read when each cycle begins and ends [s], and its label."""
    file = path.with_suffix(".txt")
    length_s = _measure(path)
    lines = _read_lines(file, "expected the annotation of the recording beside it")
    n_before = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        begin_s, end_s, crackles, wheezes = _read_numbers(where, line)
        if not 0 <= begin_s < end_s <= length_s + _ROUNDING_S or begin_s >= length_s:
            raise DataError(
                f"{where}: a cycle from {begin_s:g} to {end_s:g} s in a recording of "
                f"{length_s:.3f} s; mend the line"
            )
        if crackles not in (0, 1) or wheezes not in (0, 1):
            raise DataError(
                f"{where}: crackles and wheezes must be 0 or 1, got {line.split()[2:]}; mend it"
            )
        n_before += 1
        yield begin_s, min(end_s, length_s), LABELS[int(crackles + 2 * wheezes)]
    if not n_before:
        raise DataError(f"{file}: no cycle in it; mend the annotation, or remove the recording")


def _read_numbers(where: str, line: str) -> list[float]:
    try:
        numbers = [float(field) for field in line.split()]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise DataError(
            f"{where}: expected four numbers, begin and end in s, crackles and wheezes, got "
            f"{line.strip()[:80]!r}; mend the line"
        )
    return numbers


def _measure(path: Path) -> float:
    """Read how long a recording is [s], from its header."""
    try:
        header = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"{path}: not readable as audio ({error}); replace the file") from error
    return float(header.frames / header.samplerate)


def _read_lines(file: Path, expected: str) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}; {expected}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a text file; {expected}") from error


def _read_split(root: Path, stems: Sequence[str]) -> dict[str, Part]:
    """Read the official split's part of each recording; of none if its list is not there."""
    file = next((f for f in (root / SPLIT_FILE, root.parent / SPLIT_FILE) if f.is_file()), None)
    if file is None:
        return {}
    listed: dict[str, Part] = {}
    for number, line in enumerate(_read_lines(file, "expected the official split"), start=1):
        name, *part = line.split() or [""]
        if line.strip() and part not in (["train"], ["test"]):
            raise DataError(
                f"{file}, line {number}: expected a recording's name and train or test, got "
                f"{line.strip()[:80]!r}; mend the line"
            )
        if name:
            listed[name] = cast(Part, part[0])
    # Of 226_1b1_Pl_sc the list says Meditron, the file LittC2SE; the device makes no name unique.
    by_take = {name.rpartition("_")[0]: part for name, part in listed.items()}
    unlisted = [stem for stem in stems if stem.rpartition("_")[0] not in by_take]
    if unlisted:
        raise DataError(
            f"{file}: {len(unlisted)} of {len(stems)} recordings are not in it: "
            f"{describe_examples(unlisted)}; get the official list, or move it away"
        )
    return {stem: listed.get(stem, by_take[stem.rpartition("_")[0]]) for stem in stems}

"""Check a data set on disk: rows against files, balance, formats, and what every file holds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np

from audioml.clips import clip_reader, read_samples, scan_headers
from audioml.datasets.esc50 import find_unlisted_files
from audioml.datasets.manifest import Clip, Manifest, describe_examples
from audioml.decode import DecodeError, thread_pool
from audioml.measurement import MAX_FULL_SCALE_SAMPLES, Measurement, find_equal, measure
from audioml.progress import track
from audioml.similarity import RATE, find_near_duplicates

# Clips, classes and folds of the official sets; every class has as many clips in every fold.
OFFICIAL_SIZES: Final = {"esc50": (2000, 50, 5), "esc10": (400, 10, 5)}
_MOST_PAIRS: Final = 20  # that are printed


@dataclass(frozen=True, slots=True)
class SoundAlike:
    """Two clips of different sources that hold the same sound.

    Args:
        left: The first clip.
        right: The second one.
        score: How alike they are, up to 1.
        lag_s: How much later the sound comes in the second one [s].
    """

    left: str
    right: str
    score: float
    lag_s: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What ``verify`` found.

    Args:
        title: The data set and its folder.
        table: Names and findings, one pair a line.
        defects: What must be mended before the data can be trusted.
        notes: What is unusual, but no defect.
        near_duplicates: Clips that sound alike under different sources; None if not looked for.
    """

    title: str
    table: tuple[tuple[str, str], ...]
    defects: tuple[str, ...]
    notes: tuple[str, ...]
    near_duplicates: tuple[SoundAlike, ...] | None = None

    def text(self) -> str:
        """Lay the report out for a terminal."""
        width = max(len(name) for name, _ in self.table)
        lines = [self.title, *(f"  {name:<{width}}  {value}" for name, value in self.table)]
        lines += [f"note: {note}" for note in self.notes]
        alike = self.near_duplicates or ()
        lines += [
            f"WARNING: one sound under two sources: {pair.left} and {pair.right}, score "
            f"{pair.score:.2f}, lag {pair.lag_s:+.3f} s; give them one source"
            for pair in alike[:_MOST_PAIRS]
        ]
        if len(alike) > _MOST_PAIRS:
            lines.append(f"WARNING: and {len(alike) - _MOST_PAIRS} more such pairs; see --json")
        lines += [f"DEFECT: {defect}" for defect in self.defects]
        return "\n".join([*lines, f"{len(self.defects)} defects"])

    def content(self) -> dict[str, Any]:
        """List what ``text`` says for other programs."""
        return {**asdict(self), "table": dict(self.table)}


def verify(manifest: Manifest, *, n_threads: int = 0, finds_near_duplicates: bool = True) -> Report:
    """Read every file of a data set and compare it with the metadata.

    Args:
        manifest: The data set, loaded with ``check_files=False`` so that missing files are
            reported rather than raised.
        n_threads: Decoding threads, 0 for Python's choice.
        finds_near_duplicates: Whether clips of different sources are compared by ear.

    Returns:
        The findings. Defects are missing, unlisted, unreadable, all-silent and byte-identical
        files, and counts that differ from the official ones.
    """
    missing = [i for i, clip in enumerate(manifest.clips) if not clip.is_there()]
    unlisted = find_unlisted_files(Path(manifest.root)) if manifest.in_esc50_layout else []
    measured, unreadable = _measure_all(manifest, set(missing), n_threads)
    readable = list(measured.values())
    silent = [manifest.describe(i) for i, found in measured.items() if found.is_silent]
    clipped = [manifest.describe(i) for i, found in measured.items() if found.is_clipped]
    duplicates = _find_duplicates(manifest, measured)
    alike = _find_alike(manifest, measured, n_threads) if finds_near_duplicates else None
    counts = _count_clips(manifest)
    table = (
        ("rows", f"{len(manifest)}"),
        ("files", f"{len(manifest) - len(missing)}"),
        ("missing files", f"{len(missing)}"),
        ("files without a row", f"{len(unlisted)}"),
        ("unreadable files", f"{len(unreadable)}"),
        *((name, _describe_counts(found)) for name, found in counts.items()),
        *_describe_formats(readable),
        ("silent clips", f"{len(silent)}"),
        ("clipped clips", f"{len(clipped)}"),
        ("duplicates", f"{len(duplicates)}"),
        ("near-duplicates", "not looked for" if alike is None else f"{len(alike)}"),
    )
    defects = (
        *_check_official(manifest, counts),
        *_summarise("missing", [manifest.describe(i) for i in missing]),
        *_summarise("without a row in the metadata", [file.name for file in unlisted]),
        *unreadable,
        *_summarise("nothing but zeros", silent),
        *duplicates,
    )
    level_note = f"more than {MAX_FULL_SCALE_SAMPLES} samples at full scale"
    notes = (*_note_formats(readable), *_summarise(level_note, clipped))
    title = f"{manifest.name} at {manifest.root}"
    return Report(title=title, table=table, defects=defects, notes=notes, near_duplicates=alike)


def _measure_all(
    manifest: Manifest, left_out: set[int], n_threads: int
) -> tuple[dict[int, Measurement], list[str]]:
    """Measure clips in threads; returns the readable ones by index, and a line for each other."""
    measured: dict[int, Measurement] = {}
    unreadable = []
    indices = [i for i in range(len(manifest)) if i not in left_out]
    with thread_pool(n_threads) as pool:
        results = pool.map(_measure, [manifest.clips[i] for i in indices])
        bar = track(results, task="verify", total=len(indices), unit="clip")
        for i, found in zip(indices, bar, strict=True):
            if isinstance(found, DecodeError):
                unreadable.append(f"{manifest.describe(i)}: {found}")
            else:
                measured[i] = found
    return measured, unreadable


def _measure(clip: Clip) -> Measurement | DecodeError:
    """Read and measure a clip's file."""
    try:
        return measure(clip, read_samples(clip))
    except DecodeError as error:
        return error


def _find_duplicates(manifest: Manifest, measured: dict[int, Measurement]) -> list[str]:
    """Describe each group of clips that are the same bytes."""
    clips, lines = manifest.clips, []
    stretches = {i: (m.digest, clips[i].start_s, clips[i].end_s) for i, m in measured.items()}
    for group in find_equal(stretches):
        folds = sorted({f"{clips[i].fold}" for i in group})
        where = f" across folds {', '.join(folds)}" if len(folds) > 1 else ""
        names = describe_examples([manifest.describe(i) for i in group])
        lines.append(f"{len(group)} files with the same bytes{where}: {names}")
    return lines


def _find_alike(
    manifest: Manifest, measured: dict[int, Measurement], n_threads: int
) -> tuple[SoundAlike, ...]:
    """Find clips of different sources and bytes that sound alike."""
    headers = scan_headers(manifest, RATE, n_threads)
    read = clip_reader(manifest, headers, RATE)
    pairs = find_near_duplicates(sorted(measured), read, RATE, n_threads=n_threads)
    return tuple(
        SoundAlike(
            manifest.describe(pair.left), manifest.describe(pair.right), pair.score, pair.lag_s
        )
        for pair in pairs
        if manifest.clips[pair.left].source != manifest.clips[pair.right].source
        and measured[pair.left].digest != measured[pair.right].digest
    )


def _count_clips(manifest: Manifest) -> dict[str, Counter[str]]:
    """Count clips by class and, if there are folds, by fold and by both, empty cells included."""
    labels = [manifest.class_names(clip) for clip in manifest.clips]
    classes = Counter(label for names in labels for label in names)
    if all(clip.fold is None for clip in manifest.clips):
        return {"classes": classes}
    folds = [f"fold {clip.fold}" for clip in manifest.clips]
    cells = Counter({f"{label} in {fold}": 0 for label, fold in product(classes, folds)})
    cells.update(
        f"{label} in {fold}" for names, fold in zip(labels, folds, strict=True) for label in names
    )
    return {"classes": classes, "folds": Counter(folds), "class and fold": cells}


def _describe_counts(counts: Counter[str]) -> str:
    least, most = min(counts.values()), max(counts.values())
    return f"{len(counts)} with {least if least == most else f'{least} to {most}'} clips each"


def _check_official(manifest: Manifest, counts: dict[str, Counter[str]]) -> list[str]:
    """Describe where the counts of an official set differ from the published ones."""
    if manifest.name not in OFFICIAL_SIZES:
        return []
    n_clips, n_classes, n_folds = OFFICIAL_SIZES[manifest.name]
    defects = [] if len(manifest) == n_clips else [f"{len(manifest)} rows, expected {n_clips}"]
    for name, size in zip(counts, (n_classes, n_folds, n_classes * n_folds), strict=True):
        found, each = counts[name], n_clips // size
        if len(found) != size:
            defects.append(f"{name}: {len(found)}, expected {size}")
        odd = [f"{n} {key}" for key, n in found.items() if n != each]
        if odd:
            defects.append(f"{name}: {describe_examples(odd)}; expected {each} clips each")
    return defects


def _describe_formats(measured: Sequence[Measurement]) -> list[tuple[str, str]]:
    """Describe rates, channels and lengths of the readable clips."""
    if not measured:
        return []
    rates = Counter(f"{found.sample_rate} Hz" for found in measured)
    channels = Counter(f"{found.n_channels}" for found in measured)
    durations = [found.duration_s for found in measured]
    least, median, most = np.quantile(durations, (0, 0.5, 1))
    return [
        ("sample rates", _describe_shares(rates)),
        ("channels", _describe_shares(channels)),
        ("lengths", f"{least:.2f} s min, {median:.2f} s median, {most:.2f} s max"),
    ]


def _describe_shares(counts: Counter[str]) -> str:
    return ", ".join(f"{value} ({n} clips)" for value, n in counts.most_common())


def _note_formats(measured: Sequence[Measurement]) -> list[str]:
    """Say which formats are mixed; decoding brings them to one."""
    counts = {
        "sample rates": len({found.sample_rate for found in measured}),
        "channel counts": len({found.n_channels for found in measured}),
        "lengths": len({found.duration_s for found in measured}),
    }
    return [f"{n} different {name}" for name, n in counts.items() if n > 1]


def _summarise(finding: str, names: Sequence[str]) -> list[str]:
    """Put a finding and its first clips in one line, none if there are none."""
    return [f"{len(names)} {finding}: {describe_examples(names)}"] if names else []

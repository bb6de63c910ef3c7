"""A first configuration for somebody's own data, from what is found in them."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from audioml.config import DataConfig
from audioml.datasets import load_manifest
from audioml.datasets.esc50 import META, is_esc10
from audioml.datasets.files import SUFFIXES
from audioml.datasets.manifest import DataError, Manifest, describe_examples
from audioml.decode import scan_length

_MOST_RATE: Final = 22_050  # Hz; more costs more, and tells little of most sounds
_LONGEST_CLIP_S: Final = 10.0
_MOST_CROPS: Final = 10
_WINDOW_S: Final = 0.08  # of about this length, in powers of two
_LEAST_SOURCES: Final = 3  # of a class, so that each of three parts gets one
_LEAST_FOLDS: Final = 3
_MOST_IMBALANCE: Final = 5
# Where names may hold the recording: ESC-50's own; a whole number at the end that counts excerpts.
_SOURCE_PATTERNS: Final = (
    r"/\d-(\d+)-[A-Z]-\d+\.",
    r"([^/]+?)(?!(?<=\d)\d)[ _-]*(?:seg|segment|part|chunk|clip|crop|take)?[ _-]*\d+\.[^.]+$",
)


_COMMENTS: Final = {
    "source_pattern": " # finds the recording in dog/yard12_3.wav; guessed, look whether it is so",
    "protocol": " # given: the column split; nested: by folds; holdout: by recordings",
    "sample_rate": " # Hz",
    "clip_s": " # s; longer clips are cropped, shorter ones padded",
    "eval_crops": " # a clip, their probabilities averaged",
    "n_fft": " # samples",
}


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Settings for a data set, and what they rest on.

    Args:
        yaml: The settings, as a YAML file with comments.
        findings: What was found, a line each.
        warnings: What should be looked at before training.
    """

    yaml: str
    findings: tuple[str, ...]
    warnings: tuple[str, ...]


def propose_config(path: Path) -> Proposal:
    """Look at a data set and propose settings.

    Args:
        path: A folder with a folder of files for each class, a folder in ESC-50's layout, a folder
            with one list of clips, or such a list (CSV with the columns path and label).

    Raises:
        DataError: If it is none of these, or a file can't be read as sound.
    """
    data = recognise_data(path)
    manifest = load_manifest(data)
    if data.name == "folder" and (pattern := _guess_pattern(manifest)):
        data = replace(data, source_pattern=pattern)
        manifest = load_manifest(data)
    rates, lengths_s = _scan(manifest)
    settings = {
        "data": _choose_data(data),
        "splits": _choose_split(manifest),
        **_choose_sound(rates, lengths_s),
    }
    return Proposal(
        yaml=_write_yaml(settings, manifest),
        findings=tuple(_describe(manifest, rates, lengths_s)),
        warnings=tuple(_warn(manifest, data)),
    )


def recognise_data(path: Path) -> DataConfig:
    """Tell what kind of data set lies there: ESC-50's layout, a list, or a folder of sounds.

    Raises:
        DataError: If nothing lies there, a sound, or several lists.
    """
    if path.suffix.lower() in SUFFIXES and path.is_file():
        raise DataError(f"{path}: a sound; give the folder of the data, or a list of clips")
    if path.is_file():
        return DataConfig(name="csv", manifest=str(path))
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; give the folder of the data")
    if (path / META).is_file():
        return DataConfig(name="esc10" if is_esc10(path) else "esc50", root=str(path))
    lists = [file for file in sorted(path.glob("*.csv")) if _is_list_of_clips(file)]
    if len(lists) > 1:
        names = ", ".join(file.name for file in lists)
        raise DataError(f"{path}: several lists of clips ({names}); give the one that counts")
    if lists:
        return DataConfig(name="csv", manifest=str(lists[0]))
    return DataConfig(name="folder", root=str(path))


def _is_list_of_clips(file: Path) -> bool:
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        fields = {field.strip() for field in re.split(r"[,;\t]", lines.readline(10_000))}
    return {"path", "label"} <= fields


def _guess_pattern(manifest: Manifest) -> str | None:
    """Find a pattern that puts files together, but never so many that a class can't be split."""
    names = [clip.source for clip in manifest.clips]  # as long as there is no pattern, paths
    for pattern in _SOURCE_PATTERNS:
        found = [re.search(pattern, name) for name in names]
        sources = [f"{match[1]}" for match in found if match]
        if len(sources) < len(names) or len(set(sources)) == len(names):
            continue
        pairs = set(zip(sources, manifest.targets.tolist(), strict=True))
        if min(Counter(target for _, target in pairs).values()) >= _LEAST_SOURCES:
            return pattern
    return None


def _scan(manifest: Manifest) -> tuple[list[int], list[float]]:
    """Read the rate [Hz] and length [s] of each clip from its file's header."""
    rates, lengths_s = [], []
    for clip in manifest.clips:
        layout, n_frames = scan_length(clip.path, clip.start_s, clip.end_s)
        rates.append(layout.sample_rate)
        lengths_s.append(n_frames / layout.sample_rate)
    return rates, lengths_s


def _choose_data(data: DataConfig) -> dict[str, Any]:
    given = {
        "name": data.name,
        "root": data.root and str(Path(data.root).resolve()),
        "manifest": data.manifest and str(Path(data.manifest).resolve()),
        "source_pattern": data.source_pattern,
    }
    return {key: value for key, value in given.items() if value is not None}


def _choose_split(manifest: Manifest) -> dict[str, Any]:
    """Take the data set's own split or folds, else hold out sources."""
    if all(clip.part for clip in manifest.clips):
        return {"protocol": "given"}
    if len({clip.fold for clip in manifest.clips if clip.fold}) >= _LEAST_FOLDS:
        return {"protocol": "nested"}
    n_sources = _count_sources(manifest)
    return {"protocol": "holdout"} | ({"val_share": 0.0} if min(n_sources.values()) < 3 else {})


def _count_sources(manifest: Manifest) -> Counter[str]:
    """Count the recordings of each class."""
    pairs = {(name, c.source) for c in manifest.clips for name in manifest.class_names(c)}
    return Counter(label for label, _ in pairs)


def _count_clips(manifest: Manifest) -> Counter[str]:
    """Count the clips of each class."""
    return Counter(name for clip in manifest.clips for name in manifest.class_names(clip))


def _choose_sound(rates: Sequence[int], lengths_s: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Choose the rate, the length of clips, and a front end that suits the rate."""
    rate = min(Counter(rates).most_common(1)[0][0], _MOST_RATE)
    longest = float(np.quantile(lengths_s, 0.95))
    clip_s = min(max(math.ceil(2 * longest) / 2, 0.5), _LONGEST_CLIP_S)
    n_crops = min(max(math.ceil(longest / clip_s), 1), _MOST_CROPS)
    n_fft = 2 ** round(math.log2(_WINDOW_S * rate))
    return {
        "audio": {"sample_rate": rate, "clip_s": clip_s, "eval_crops": n_crops},
        "frontend": {
            "n_fft": n_fft,
            "win_length": n_fft,
            "hop_length": n_fft // 4,
            "n_mels": 128 if n_fft >= 2048 else 64,
        },
    }


def _write_yaml(settings: Mapping[str, Mapping[str, Any]], manifest: Manifest) -> str:
    """Write settings with what each rests on; JSON's scalars are YAML's."""
    lines = [
        f"# {len(manifest)} clips of {manifest.n_classes} classes. configs/default.yaml says what",
        "# else there is to set. python train.py THIS_FILE",
    ]
    for section, values in settings.items():
        lines.append(f"{section}:")
        for key, value in values.items():
            comment = _COMMENTS.get(key, "")
            lines.append(f"  {key}: {json.dumps(value, ensure_ascii=False)}{comment}")
    return "\n".join(lines) + "\n"


def _describe(
    manifest: Manifest, rates: Sequence[int], lengths_s: Sequence[float]
) -> Iterator[str]:
    """Say what was found."""
    clips = _count_clips(manifest)
    classes = [f"{label} {n}" for label, n in clips.most_common()]
    yield f"{len(manifest)} clips of {manifest.n_classes} classes: {describe_examples(classes, 10)}"
    if manifest.is_multi_label:
        n_labels = [len(clip.classes) for clip in manifest.clips]
        yield (
            f"multi-label: {sum(n > 1 for n in n_labels)} clips have several classes, "
            f"{n_labels.count(0)} none"
        )
    if manifest.has_sources:
        yield (
            f"{len(set(manifest.sources))} recordings, at least "
            + str(min(_count_sources(manifest).values()))
            + " of each class"
        )
    least, median, most = np.quantile(lengths_s, (0, 0.5, 1))
    yield f"lengths {least:.2f} to {most:.2f} s, median {median:.2f} s"
    yield "rates " + ", ".join(f"{rate} Hz ({n} clips)" for rate, n in Counter(rates).most_common())


def _warn(manifest: Manifest, data: DataConfig) -> Iterator[str]:
    """Say what should be looked at before training."""
    if not manifest.has_sources:
        how = (
            "set data.source_pattern to a regular expression that finds it in a file's path"
            if data.name == "folder"
            else "add a column source"
        )
        yield (
            "nothing says which recording (or patient) a clip is from, so excerpts of one may "
            f"stand on both sides of the split; {how}"
        )
    elif data.source_pattern is not None:
        groups = Counter(manifest.sources.tolist()).most_common(3)
        examples = ", ".join(f"{source!r} ({n} files)" for source, n in groups)
        yield f"recordings were guessed from the names, such as {examples}; look whether that is so"
    clips = _count_clips(manifest)
    if max(clips.values()) > _MOST_IMBALANCE * min(clips.values()):
        yield (
            f"classes are uneven ({max(clips.values())} to {min(clips.values())} clips); look at "
            + (
                "each class's average precision beside its share of the clips"
                if manifest.is_multi_label
                else "macro F1 and recall, not at accuracy"
            )
        )

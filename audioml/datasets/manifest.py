"""The manifest: one row a clip, whatever the data set."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from audioml.errors import UserError

if TYPE_CHECKING:
    from audioml.datasets.shards import Packed

Part = Literal["train", "val", "test"]


class DataError(UserError):
    """Data that can't be used; the message names the file, the row and the remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One labelled stretch of sound.

    Args:
        path: The audio file.
        label: Name of its class; where clips may have several, all of them in alphabetical order,
            parted by semicolons, "" for none.
        target: Number of its class, 0 .. n_classes - 1; -1 where clips may have several.
        source: The recording it was cut from (for medical sets, the patient). What is split.
        fold: The official fold, from 1, or None where the data set has none.
        start_s: First second of the clip in the file.
        end_s: End of the clip in the file [s], None for the end of the file.
        part: The part of the data set's own split, or None where it has none.
        is_good: Whether its quality is good; None where nobody says.
        row: Its row in the data set's metadata, from 1, the header not counted.
        targets: Numbers of its classes, any number of them, in a multi-label data set; None in
            others.
        packed: Where its file stands in a shard, and None for a file of its own; then ``path`` is
            the name it had, relative to the data set's root.
    """

    path: Path
    label: str
    target: int
    source: str
    fold: int | None = None
    start_s: float = 0.0
    end_s: float | None = None
    part: Part | None = None
    is_good: bool | None = None
    row: int = 0
    targets: tuple[int, ...] | None = None
    packed: "Packed | None" = None

    @property
    def classes(self) -> tuple[int, ...]:
        """Numbers of its classes: one, or any number of them in a multi-label data set."""
        return (self.target,) if self.targets is None else self.targets

    def contents(self) -> bytes | None:
        """Read its file, if that stands in a shard.

        Raises:
            DataError: If it can't be read, or is not what it was.
        """
        return None if self.packed is None else self.packed.read()

    def open(self) -> io.BufferedIOBase:
        """Open its file, wherever it stands, for reading."""
        contents = self.contents()
        return self.path.open("rb") if contents is None else io.BytesIO(contents)

    def is_there(self) -> bool:
        """Whether its file is there; those in shards are, once these have been found whole."""
        return self.packed is not None or self.path.is_file()


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What decoding told of every clip when it was put in a shard; see ``ClipFacts``.

    Args:
        sample_rate: The rate it was decoded at [Hz], for RMS and digests.
        layouts: Sample format, channels and rate [Hz] of each clip's file [clip].
        n_frames: Frames of each clip at its file's rate [clip].
        rms: Root mean square of each clip [clip], float32.
        digests: A hash of each clip's samples [clip].
    """

    sample_rate: int
    layouts: Sequence[tuple[str, int, int]]
    n_frames: NDArray[np.int64]
    rms: NDArray[np.float32]
    digests: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All clips of a data set; a clip's index in it is its identity everywhere else.

    Args:
        name: The data set's name.
        root: The folder the data set lives in; of shards that lie elsewhere their address.
        labels: Class names in order of ``target``.
        clips: The clips.
        is_synthetic: Whether the sounds were generated rather than recorded.
        in_esc50_layout: Whether its metadata list all of its sound files, as ESC-50's do.
        has_sources: Whether it says which recording a clip is from; if not, each file is taken for
            a recording of its own.
        known_crossing_sources: Sources the official folds are known to place on both sides.
        measured: What is known of its clips without reading them, or None.
    """

    name: str
    root: Path | str
    labels: tuple[str, ...]
    clips: tuple[Clip, ...]
    is_synthetic: bool = False
    in_esc50_layout: bool = True
    has_sources: bool = True
    known_crossing_sources: frozenset[str] = field(default_factory=frozenset)
    measured: Measured | None = None

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @property
    def is_multi_label(self) -> bool:
        """Whether a clip may have several classes, or none."""
        return any(clip.targets is not None for clip in self.clips)

    @property
    def targets(self) -> NDArray[np.int64]:
        """Class numbers [clip]; for data that are not multi-label."""
        return np.array([clip.target for clip in self.clips], dtype=np.int64)

    @property
    def has_class(self) -> NDArray[np.bool_]:
        """Whether each clip has each class [clip, class]."""
        matrix = np.zeros((len(self), self.n_classes), dtype=np.bool_)
        for row, clip in zip(matrix, self.clips, strict=True):
            row[list(clip.classes)] = True
        return matrix

    @property
    def sources(self) -> NDArray[np.str_]:
        """Source names [clip]."""
        return np.array([clip.source for clip in self.clips], dtype=np.str_)

    def relative_path(self, index: int) -> str:
        """Name a clip's file within the data set's root."""
        path = self.clips[index].path
        is_inside = self.clips[index].packed is None and path.is_relative_to(self.root)
        return (path.relative_to(self.root) if is_inside else path).as_posix()

    def class_names(self, clip: Clip) -> list[str]:
        """Name a clip's classes."""
        return [self.labels[number] for number in clip.classes]

    def describe(self, index: int) -> str:
        """Name a clip in messages: its row in the metadata and its file."""
        clip = self.clips[index]
        return f"row {clip.row or index + 1} ({clip.path.name})"


def describe_examples(names: Sequence[str], limit: int = 5) -> str:
    """Join the first few names for a message: ``a, b, c and 7 more``."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"

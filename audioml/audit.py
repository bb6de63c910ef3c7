"""Whether the parts of a split share anything: our own splits, and split files of other projects.

Looked for are the same clip, variants of one clip (augmented copies, told by their file names), the
same source (the recording or patient), the same content (equal samples), and near-duplicates: one
sound under two sources.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from audioml.datasets import KNOWN_CROSSING_SOURCES
from audioml.datasets.manifest import Clip, Manifest, describe_examples
from audioml.errors import UserError
from audioml.similarity import NearDuplicate
from audioml.split_files import (
    AuditError,
    compile_suffixes,
    read_pair,
    read_stem,
    strip_suffixes,
)
from audioml.splits import Split

Kind = Literal[
    "same clip", "variants of one clip", "same source", "same content", "near-duplicate sound"
]
Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

_N_EXAMPLES: Final = 3


class LeakError(UserError):
    """A split that leaks; the message names the clips."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Something that stands in two parts.

    Args:
        kind: How the clips are related.
        parts: The two parts.
        shared: What they share: a file, a clip id, a source or a hash; of near-duplicates, how much
            they sound alike and at what lag.
        left: Its clips in the first part.
        right: Its clips in the second part.
        is_known: Whether it is a named exception: a source whose clips the official folds are known
            to place in different folds.
    """

    kind: Kind
    parts: tuple[str, str]
    shared: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    is_known: bool

    def text(self) -> str:
        """Name the clips on both sides."""
        sides = zip(self.parts, (self.left, self.right), strict=True)
        clips = " | ".join(f"{part} {describe_examples(names, 4)}" for part, names in sides)
        return f"{self.shared}: {clips}"


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What an audit found.

    Args:
        title: What was audited.
        n_clips: Clips of each part.
        overlaps: All that stands in two parts, named exceptions included.
        notes: How the input was read, and what was not checked.
        warns_of: Kinds of overlap that are told of, but are no leaks.
    """

    title: str
    n_clips: Mapping[str, int]
    overlaps: tuple[Overlap, ...]
    notes: tuple[str, ...] = ()
    warns_of: tuple[Kind, ...] = ()

    @property
    def leaks(self) -> tuple[Overlap, ...]:
        """The overlaps that are neither named exceptions nor warnings."""
        told = self.warnings
        return tuple(o for o in self.overlaps if not o.is_known and o not in told)

    @property
    def warnings(self) -> tuple[Overlap, ...]:
        """The overlaps that are only warned of."""
        return tuple(overlap for overlap in self.overlaps if overlap.kind in self.warns_of)

    @property
    def is_clean(self) -> bool:
        """Whether nothing but named exceptions and what is warned of stands in two parts."""
        return not self.leaks

    def text(self) -> str:
        """Write the findings as lines to read."""
        lines = [self.title, *(f"  {note}" for note in self.notes)]
        for overlaps in _group(self.overlaps, _order).values():
            is_known, kind = overlaps[0].is_known, overlaps[0].kind
            status = "WARNING" if kind in self.warns_of else "LEAK"
            lines.append(f"  {'named exception' if is_known else status}, {self._count(overlaps)}")
            shown = overlaps if is_known else overlaps[:_N_EXAMPLES]
            lines += [f"    {overlap.text()}" for overlap in shown]
        return "\n".join([*lines, f"  {'no leak' if self.is_clean else 'the split leaks'}"])

    def content(self) -> dict[str, Any]:
        """List what ``text`` says, every overlap included, for other programs."""
        return {"is_clean": self.is_clean, **asdict(self)}

    def raise_on_leak(self) -> None:
        """Refuse a split that leaks.

        Raises:
            LeakError: If anything but named exceptions stands in two parts.
        """
        if self.is_clean:
            return
        found = [
            f"{self._count(leaks)}, such as {leaks[0].text()}"
            for leaks in _group(self.leaks, _order).values()
        ]
        raise LeakError(
            f"{self.title}: {'; '.join(found)}; give clips that belong together one source and set "
            "splits.protocol=holdout, remove copies, and rename files that only look like variants"
        )

    def _count(self, overlaps: Sequence[Overlap]) -> str:
        """Count the overlaps of one kind between two parts, and their clips."""
        left, right = overlaps[0].parts
        clips = {
            left: {name for overlap in overlaps for name in overlap.left},
            right: {name for overlap in overlaps for name in overlap.right},
        }
        shares = [
            f"{len(names)} of {self.n_clips[part]} {part} clips "
            f"({len(names) / self.n_clips[part]:.1%})"
            for part, names in clips.items()
        ]
        kind = overlaps[0].kind
        return f"{kind}: {len(overlaps)} in both {left} and {right}, with {' and '.join(shares)}"


def audit_split(
    manifest: Manifest,
    split: Split,
    content: Sequence[str] | None = None,
    patterns: Sequence[str] = (),
    *,
    near_duplicates: Sequence[NearDuplicate] = (),
    warns_of: tuple[Kind, ...] = (),
) -> AuditReport:
    """Look for clips that belong together in different parts of one of our splits.

    Args:
        manifest: The data set. Its ``known_crossing_sources`` are named exceptions, but only as the
            same source of clips in different official folds.
        split: The split.
        content: Hash of each clip's samples [clip], "" for a silent one, which equals no other;
            None leaves equal content unchecked.
        patterns: Further regular expressions of endings that mark variants.
        near_duplicates: Clips that sound alike; those of one source or of equal content are found
            by these, and not told of again.
        warns_of: Kinds of overlap that are told of, but are no leaks.

    Returns:
        The overlaps between training, validation and test.

    Raises:
        AuditError: If ``content`` has not one hash a clip, or a pattern is no regular expression.
    """
    clips = manifest.clips
    if content is not None and len(content) != len(clips):
        raise AuditError(f"content must be one hash a clip ({len(clips)}), got {len(content)}")
    suffixes = compile_suffixes(patterns)
    stems = [read_stem(clip.path.name) for clip in clips]
    search = _Search(
        parts={part: indices.tolist() for part, indices in split.parts.items()},
        names=[manifest.describe(index) for index in range(len(clips))],
        folds=[(clip.fold, clip.part) for clip in clips],  # whoever placed them there
        known_sources=manifest.known_crossing_sources,
    )
    ids = [
        f"{c.label}/{strip_suffixes(stem, suffixes)}" for c, stem in zip(clips, stems, strict=True)
    ]
    overlaps = [
        *search.find(
            "same clip", [f"{c.path}" for c in clips], lambda i, j: _meet(clips[i], clips[j])
        ),
        # Equal stems in two folders are often two clips; there the sources decide.
        *search.find("variants of one clip", ids, lambda i, j: stems[i] != stems[j]),
        *search.find("same source", [c.source for c in clips]),
        *(
            search.find("same content", content, lambda i, _: content[i] != "")
            if content is not None
            else ()
        ),
        *search.find_pairs(
            "near-duplicate sound",
            {
                (pair.left, pair.right): pair.text()
                for pair in near_duplicates
                if clips[pair.left].source != clips[pair.right].source
                and not (content is not None and content[pair.left] == content[pair.right])
            },
        ),
    ]
    sizes = {**search.n_clips, "dropped": len(split.dropped)}
    return AuditReport(
        title=f"{manifest.name}, {split.title}: "
        + ", ".join(f"{part} {size}" for part, size in sizes.items()),
        n_clips=search.n_clips,
        overlaps=tuple(overlaps),
        notes=("equal content not checked",) if content is None else (),
        warns_of=warns_of,
    )


def audit_files(train_csv: Path, val_csv: Path, patterns: Sequence[str] = ()) -> AuditReport:
    """Look for clips and sources that stand in both of two split files.

    The column of files is found by its name (path, filename, image and the like), else by the
    extension of its first value, else it is the first; a list of names needs no header. A clip's id
    is its file name without folder, extension and endings that mark variants, so a file listed on
    both sides counts as a variant of itself. Sources come from a column (source, src_file, patient
    and the like) of both files, else from ESC-50's file names, {fold}-{source}-{take}-{target}.

    Args:
        train_csv: The training clips; fields separated by comma, semicolon or tab.
        val_csv: The validation or test clips.
        patterns: Further regular expressions of endings that mark variants.

    Returns:
        The clip ids and sources on both sides.

    Raises:
        AuditError: If a file can't be read, has no rows or a row without a file or source, or a
            pattern is no regular expression.
    """
    table, notes = read_pair(train_csv, val_csv, compile_suffixes(patterns))
    numbers = table.index.get_level_values(1)
    search = _Search(
        parts={str(part): list(rows) for part, rows in table.groupby(level=0).indices.items()},
        names=[f"row {row} ({file})" for row, file in zip(numbers, table["file"], strict=True)],
        folds=table["fold"].tolist(),
        known_sources=KNOWN_CROSSING_SOURCES,
    )
    overlaps = list(search.find("variants of one clip", table["id"].tolist()))
    if "source" in table:
        overlaps += search.find("same source", table["source"].tolist())
    return AuditReport(
        title=f"{train_csv} (train) against {val_csv} (val)",
        n_clips=search.n_clips,
        overlaps=tuple(overlaps),
        notes=notes,
    )


@dataclass(frozen=True, kw_only=True)
class _Search:
    """The search for what stands in two parts.

    Args:
        parts: Clips of each part.
        names: Names of the clips [clip].
        folds: Official folds [clip].
        known_sources: Sources that may stand in different folds.
    """

    parts: Mapping[str, Sequence[int]]
    names: Sequence[str]
    folds: Sequence[Hashable]
    known_sources: frozenset[str]

    @property
    def n_clips(self) -> dict[str, int]:
        """Number of clips of each part."""
        return {part: len(clips) for part, clips in self.parts.items()}

    def find(
        self,
        kind: Kind,
        keys: Sequence[str],
        belong: Callable[[int, int], bool] = lambda i, j: True,
    ) -> Iterator[Overlap]:
        """Find clips of equal key [clip], for which ``belong`` holds too, in two parts."""
        by_key = {part: _group(clips, keys.__getitem__) for part, clips in self.parts.items()}
        for left, right in combinations(self.parts, 2):
            for key in sorted(by_key[left].keys() & by_key[right].keys()):
                in_left, in_right = by_key[left][key], by_key[right][key]
                in_left = [i for i in in_left if any(belong(i, j) for j in in_right)]
                in_right = [j for j in in_right if any(belong(i, j) for i in in_left)]
                if in_left:
                    yield Overlap(
                        kind=kind,
                        parts=(left, right),
                        shared=key,
                        left=tuple(self.names[i] for i in in_left),
                        right=tuple(self.names[j] for j in in_right),
                        is_known=kind == "same source" and self._is_known(key, in_left, in_right),
                    )

    def find_pairs(self, kind: Kind, pairs: Mapping[tuple[int, int], str]) -> Iterator[Overlap]:
        """Find pairs of clips, with what they share, that stand in two parts."""
        part_of = {clip: part for part, clips in self.parts.items() for clip in clips}
        order = list(self.parts)
        for pair, shared in pairs.items():
            if not all(clip in part_of for clip in pair) or part_of[pair[0]] == part_of[pair[1]]:
                continue
            left, right = sorted(pair, key=lambda clip: order.index(part_of[clip]))
            yield Overlap(
                kind=kind,
                parts=(part_of[left], part_of[right]),
                shared=shared,
                left=(self.names[left],),
                right=(self.names[right],),
                is_known=False,
            )

    def _is_known(self, source: str, left: Sequence[int], right: Sequence[int]) -> bool:
        """Whether it is the official folds that part a source's clips."""
        folds = {self.folds[i] for i in left} & {self.folds[j] for j in right}
        return source in self.known_sources and not folds


def _group(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Collect the items of each key."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _order(overlap: Overlap) -> tuple[tuple[str, str], Kind, bool]:
    return overlap.parts, overlap.kind, overlap.is_known


def _meet(a: Clip, b: Clip) -> bool:
    """Whether two clips of one file overlap in time."""
    a_end, b_end = (math.inf if clip.end_s is None else clip.end_s for clip in (a, b))
    return a.start_s < b_end and b.start_s < a_end

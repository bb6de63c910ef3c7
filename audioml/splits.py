"""Which clips train, choose and test: pure functions over the manifest, before any decoding."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audioml.datasets.manifest import Manifest, describe_examples
from audioml.errors import UserError

Protocol = Literal["nested", "fixed", "holdout", "given"]
_LEAST_FOLDS: Final[dict[str, int]] = {"nested": 3, "fixed": 2}


class SplitError(UserError):
    """A split that can't be made; the message says why and what to set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The clips of each part, as indices into the manifest in ascending order.

    Args:
        protocol: How the split was made.
        fold: The test fold, None under ``holdout`` and ``given``.
        train: Clips that train.
        val: Clips that choose the epoch; empty where the protocol has none.
        test: Clips that are measured once.
        dropped: Clips left out by ``strict_sources``, or because their files are bad.
    """

    protocol: str
    fold: int | None
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    dropped: NDArray[np.int64]

    @property
    def title(self) -> str:
        """The protocol and its fold, as printed with every figure."""
        return self.protocol if self.fold is None else f"{self.protocol}, fold {self.fold}"

    @property
    def parts(self) -> dict[str, NDArray[np.int64]]:
        """The parts that are used, by name."""
        return {"train": self.train, "val": self.val, "test": self.test}


def make_split(
    manifest: Manifest,
    *,
    protocol: str,
    fold: int | None,
    test_share: float,
    val_share: float,
    seed: int,
    strict_sources: bool,
) -> Split:
    """Split a data set.

    Under ``nested`` one fold tests, the next one (the first after the last) validates and the
    others train; under ``fixed`` one fold tests and the others train; ``holdout`` ignores folds,
    keeps every source in one part and gives every class its share of each part as closely as the
    sizes of the sources allow; ``given`` is the data set's own split. Membership does not depend on
    the order of the rows.

    Args:
        manifest: The data set.
        protocol: ``"nested"``, ``"fixed"``, ``"holdout"`` or ``"given"``.
        fold: The fold that tests, for ``nested`` and ``fixed``.
        test_share: Share of the clips that test, in (0, 1), for ``holdout``.
        val_share: Share of the clips that validate, in [0, 1), for ``holdout``.
        seed: Choice of sources, for ``holdout``.
        strict_sources: Whether to drop training clips with a source in validation or test, and
            validation clips with a source in test.

    Returns:
        The split; its parts and the dropped clips are disjoint and cover the manifest.

    Raises:
        SplitError: If the folds or sources don't allow the split, or a class would have no clip in
            training or in test.
    """
    if protocol == "holdout":
        part = _assign_sources(manifest, test_share, val_share, seed)
    elif protocol == "given":
        part = _take_given(manifest)
    elif protocol in _LEAST_FOLDS:
        part = _assign_folds(manifest, protocol, fold)
    else:
        known = ", ".join(get_args(Protocol))
        raise SplitError(f"splits.protocol must be one of {known}, got {protocol!r}")
    if strict_sources:
        _drop_crossing(part, manifest.sources)
    split = Split(
        protocol=protocol,
        fold=fold if protocol in _LEAST_FOLDS else None,
        train=np.flatnonzero(part == "train"),
        val=np.flatnonzero(part == "val"),
        test=np.flatnonzero(part == "test"),
        dropped=np.flatnonzero(part == "dropped"),
    )
    _check_classes(manifest, split)
    return split


def leave_out(manifest: Manifest, split: Split, clips: NDArray[np.int64]) -> Split:
    """Drop clips from a split; all others stay where they are.

    Args:
        manifest: The data set.
        split: Its split.
        clips: Clips to drop, as indices into the manifest.

    Raises:
        SplitError: If a part would lose its last clip of a class.
    """
    has_class, parts = manifest.has_class, split.parts
    left: dict[str, Any] = {name: np.setdiff1d(parts[name], clips) for name in parts}
    for name, indices in left.items():
        lost = has_class[parts[name]].any(axis=0) & ~has_class[indices].any(axis=0)
        if lost.any():
            labels = describe_examples([manifest.labels[n] for n in np.flatnonzero(lost)])
            raise SplitError(
                f"{manifest.name} ({split.title}): without {len(clips)} bad files no clip of "
                f"{labels} is left in {name}; mend the files, or add clips of these classes"
            )
    return replace(split, **left, dropped=np.union1d(split.dropped, clips))


def official_folds(manifest: Manifest, protocol: str) -> list[int]:
    """List the folds that can test under a protocol, in ascending order.

    Raises:
        SplitError: If the protocol or the data set has no folds.
    """
    if protocol not in _LEAST_FOLDS:
        raise SplitError(
            f"a cross-validation rotates official folds, which splits.protocol={protocol} does not "
            f"use; set splits.protocol to {' or '.join(_LEAST_FOLDS)}"
        )
    folds = {clip.fold for clip in manifest.clips}
    if None in folds:
        raise SplitError(
            f"{manifest.name} has no official folds, so there is nothing to cross-validate; train "
            "once with splits.protocol=holdout"
        )
    return sorted(fold for fold in folds if fold is not None)


def split_digest(manifest: Manifest, indices: NDArray[np.int64]) -> str:
    """Hash a set of clips: SHA-256 over their sorted file names, sources and times.

    Folders and the order of rows don't enter, so the digest is the same on every machine.
    """
    clips = (manifest.clips[index] for index in indices)
    lines = sorted(f"{c.path.name}\t{c.source}\t{c.start_s}\t{c.end_s}" for c in clips)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def split_table(manifest: Manifest, split: Split) -> pd.DataFrame:
    """List every clip with its part, in the manifest's order.

    Returns:
        Columns path (within the data root), label, source, fold (empty where there is none) and
        part ("train", "val", "test" or "dropped").
    """
    part = np.full(len(manifest), "dropped")
    for name, indices in split.parts.items():
        part[indices] = name
    clips = manifest.clips
    return pd.DataFrame(
        {
            "path": [manifest.relative_path(clip) for clip in range(len(manifest))],
            "label": [clip.label for clip in clips],
            "source": manifest.sources,
            "fold": pd.array([clip.fold for clip in clips], dtype="Int64"),
            "part": part,
        }
    )


def _take_given(manifest: Manifest) -> NDArray[np.str_]:
    """Name each clip's part as the data set does."""
    lacking = [manifest.describe(i) for i, clip in enumerate(manifest.clips) if clip.part is None]
    if lacking:
        raise SplitError(
            f"{manifest.name} gives no part for {describe_examples(lacking)}, which "
            "splits.protocol=given needs; add a column split, or set splits.protocol=holdout"
        )
    return np.array([clip.part for clip in manifest.clips], dtype="<U7")


def _assign_folds(manifest: Manifest, protocol: str, fold: int | None) -> NDArray[np.str_]:
    """Name each clip's part by its official fold."""
    folds = np.array([clip.fold or 0 for clip in manifest.clips])
    lacking = [manifest.describe(index) for index in np.flatnonzero(folds == 0).tolist()]
    if lacking:
        raise SplitError(
            f"{manifest.name} gives no fold for {describe_examples(lacking)}, which "
            f"splits.protocol={protocol} needs; set splits.protocol=holdout"
        )
    existing = sorted(set(folds.tolist()))
    listed = ", ".join(map(str, existing))
    if len(existing) < _LEAST_FOLDS[protocol]:
        raise SplitError(
            f"splits.protocol={protocol} needs at least {_LEAST_FOLDS[protocol]} folds, "
            f"{manifest.name} has {len(existing)} ({listed}); set splits.protocol=holdout"
        )
    if fold not in existing:
        raise SplitError(f"splits.fold must be one of {manifest.name}'s ({listed}), got {fold}")
    part = np.full(len(manifest), "train", dtype="<U7")
    if protocol == "nested":
        part[folds == existing[(existing.index(fold) + 1) % len(existing)]] = "val"
    part[folds == fold] = "test"
    return part


def _assign_sources(
    manifest: Manifest, test_share: float, val_share: float, seed: int
) -> NDArray[np.str_]:
    """Name each clip's part by its source, balancing the classes."""
    shares = {"train": 1 - test_share - val_share, "val": val_share, "test": test_share}
    if not (test_share > 0 and val_share >= 0 and shares["train"] > 0):
        raise SplitError(
            "splits.test_share must be above 0, splits.val_share at least 0 and their sum below 1, "
            f"got {test_share:g} and {val_share:g}"
        )
    shares = {name: share for name, share in shares.items() if share > 0}
    sources, source_of_clip = np.unique(manifest.sources, return_inverse=True)
    counts = np.zeros((len(sources), manifest.n_classes), dtype=np.int64)
    np.add.at(counts, source_of_clip, manifest.has_class)
    _check_sources(manifest, counts, len(shares))
    size, shuffled = np.bincount(source_of_clip), [_hash_source(seed, name) for name in sources]
    rarity = np.zeros(len(sources), dtype=np.int64)
    if manifest.is_multi_label:
        counts, rarity = _add_empty_class(manifest, counts, source_of_clip), _find_rarity(counts)
    # Large sources first, so that small ones fill the gaps they leave; where clips have several
    # classes those with the rarest before, which otherwise go where the others are wanted.
    order = sorted(range(len(sources)), key=lambda n: (rarity[n], -size[n], shuffled[n]))
    part_of_source = np.empty(len(sources), dtype=np.int64)
    part_of_source[order] = _balance(counts[order], np.array(list(shares.values())))
    return np.array(list(shares), dtype="<U7")[part_of_source[source_of_clip]]


def _add_empty_class(
    manifest: Manifest, counts: NDArray[np.int64], source_of_clip: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count clips of none of the classes as a class of their own, if there are any."""
    is_empty = ~manifest.has_class.any(axis=1)
    n_empty = np.bincount(source_of_clip, weights=is_empty).astype(np.int64)
    return np.column_stack((counts, n_empty)) if n_empty.any() else counts


def _find_rarity(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the sources of each source's rarest class.

    Source: Sechidis et al. 2011, "On the stratification of multi-label data", which also deals out
        the rarest class first.
    """
    n_sources = (counts > 0).sum(axis=0)
    rarity: NDArray[np.int64] = np.where(counts > 0, n_sources, len(counts) + 1).min(axis=1)
    return rarity


def _hash_source(seed: int, source: str) -> str:
    return hashlib.sha256(f"{seed}:{source}".encode()).hexdigest()


# A part that has n_c clips of class c and wants w_c is off by chi2 = sum_c (n_c - w_c)^2 / w_c.
# A source with g_c clips changes that by sum_c g_c (2 (n_c - w_c) + g_c) / w_c: at first
# -2 g + g^2 / w, so parts fill in proportion and a large source avoids a part it would overfill.
def _balance(counts: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Put each source, in turn, where the distance from the wanted numbers falls most.

    Args:
        counts: Clips [source, class].
        shares: Wanted shares [part], above 0, sum 1.

    Returns:
        Part numbers [source]; every part gets a source of every class as long as sources of one
        class each can provide it.
    """
    wanted = shares[:, None] * counts.sum(axis=0)
    filled = np.zeros_like(wanted)
    sources_left = (counts > 0).sum(axis=0)
    part_of_source = np.empty(len(counts), dtype=np.int64)
    for index, clips in enumerate(counts):
        change = (clips * (2 * (filled - wanted) + clips) / wanted).sum(axis=1)
        lacking = filled == 0
        urgent = (clips > 0) & (sources_left <= lacking.sum(axis=0))
        if urgent.any():
            change[~(lacking & urgent).any(axis=1)] = np.inf
        part_of_source[index] = part = np.argmin(change)
        filled[part] += clips
        sources_left -= clips > 0
    return part_of_source


def _check_sources(manifest: Manifest, counts: NDArray[np.int64], n_parts: int) -> None:
    """Refuse classes with fewer sources than parts."""
    n_sources = (counts > 0).sum(axis=0)
    few = [f"{manifest.labels[target]} ({n})" for target, n in enumerate(n_sources) if n < n_parts]
    if few:
        raise SplitError(
            f"splits.protocol=holdout needs at least {n_parts} sources of each class in "
            f"{manifest.name}, one a part; too few of: {describe_examples(few)}; add recordings"
            + (", or do without validation: splits.val_share=0" if n_parts > 2 else "")
        )


def _drop_crossing(part: NDArray[np.str_], sources: NDArray[np.str_]) -> None:
    """Rename, in place, the part of clips whose source also stands in a part held out from them."""
    for side, held_out in (("val", ["test"]), ("train", ["val", "test"])):
        crosses = np.isin(sources, sources[np.isin(part, held_out)])
        part[(part == side) & crosses] = "dropped"


def _check_classes(manifest: Manifest, split: Split) -> None:
    """Refuse a split without training or test clips of some class."""
    has_class = manifest.has_class
    faults = []
    for name, indices in (("training", split.train), ("test", split.test)):
        present = has_class[indices].any(axis=0)
        missing = [manifest.labels[n] for n in np.flatnonzero(~present)]
        if missing:
            faults.append(f"no clip in {name} of {describe_examples(missing)}")
    if faults:
        strict = ", unset splits.strict_sources" if len(split.dropped) else ""
        raise SplitError(
            f"{manifest.name} ({split.title}): {'; '.join(faults)}; add clips of these "
            f"classes{strict} or set another splits.protocol or splits.fold"
        )

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from esc50_like import CROSSING_FOLDS

from audioml.datasets.manifest import Clip, Manifest
from audioml.splits import Split, SplitError, make_split, split_digest, split_table

FOLDS = (1, 2, 3, 4, 5)


def split_of(manifest: Manifest, protocol: str, fold: int | None = None, **options: Any) -> Split:
    defaults = {"test_share": 0.2, "val_share": 0.2, "seed": 0, "strict_sources": False}
    return make_split(manifest, protocol=protocol, fold=fold, **(defaults | options))


def manifest_of(rows: list[tuple[str, str, int | None]]) -> Manifest:
    """A manifest of (label, source, fold)."""
    labels = tuple(sorted({label for label, _, _ in rows}))
    clips = tuple(
        Clip(
            path=Path("data", "audio", f"{row}.wav"),
            label=label,
            target=labels.index(label),
            source=source,
            fold=fold,
        )
        for row, (label, source, fold) in enumerate(rows)
    )
    return Manifest(name="small", root=Path("data"), labels=labels, clips=clips)


def random_manifest(seed: int, n_labels_a_source: int = 1) -> Manifest:
    """2 to 11 classes of 3 to 60 sources with 1 to 9 clips each."""
    rng = np.random.default_rng(seed)
    n_classes = rng.integers(2, 12)
    rows: list[tuple[str, str, int | None]] = []
    for label in range(n_classes):
        for number in range(rng.integers(3, 61)):
            for _ in range(rng.integers(1, 10)):
                other = (label + rng.integers(n_labels_a_source)) % n_classes
                rows.append((f"class {other}", f"{label}/{number}", None))
    return manifest_of(rows)


def sources_of(manifest: Manifest, indices: np.ndarray) -> set[str]:
    return {manifest.clips[index].source for index in indices}


def all_indices(split: Split) -> np.ndarray:
    return np.concatenate([*split.parts.values(), split.dropped])


class TestFolds:
    @pytest.mark.parametrize("fold", FOLDS)
    def test_nested_rotates_three_one_one(self, esc50_manifest: Manifest, fold: int) -> None:
        split = split_of(esc50_manifest, "nested", fold)
        folds = np.array([clip.fold for clip in esc50_manifest.clips])
        assert set(folds[split.test]) == {fold}
        assert set(folds[split.val]) == {fold % 5 + 1}
        assert set(folds[split.train]) == set(FOLDS) - {fold, fold % 5 + 1}
        assert [len(part) for part in split.parts.values()] == [1200, 400, 400]
        assert (split.title, len(split.dropped)) == (f"nested, fold {fold}", 0)

    @pytest.mark.parametrize("fold", FOLDS)
    def test_fixed_trains_on_all_but_the_test_fold(
        self, esc50_manifest: Manifest, fold: int
    ) -> None:
        split = split_of(esc50_manifest, "fixed", fold)
        folds = np.array([clip.fold for clip in esc50_manifest.clips])
        assert set(folds[split.test]) == {fold}
        assert set(folds[split.train]) == set(FOLDS) - {fold}
        assert [len(part) for part in split.parts.values()] == [1600, 0, 400]

    def test_fold_numbers_may_have_gaps(self) -> None:
        manifest = manifest_of([("a", f"{fold}", fold) for fold in (2, 5, 9)])
        split = split_of(manifest, "nested", 9)
        assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == ([1], [0], [2])

    @pytest.mark.parametrize("fold", FOLDS)
    @pytest.mark.parametrize("protocol", ["nested", "fixed"])
    def test_strict_sources_drops_the_crossing_clips(
        self, esc50_manifest: Manifest, protocol: str, fold: int
    ) -> None:
        loose = split_of(esc50_manifest, protocol, fold)
        strict = split_of(esc50_manifest, protocol, fold, strict_sources=True)
        parts = [sources_of(esc50_manifest, part) for part in strict.parts.values()]
        assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
        assert strict.test.tolist() == loose.test.tolist()
        assert sorted(all_indices(strict)) == list(range(2000))
        part_of = dict.fromkeys(FOLDS, "train") | {fold: "test"}
        if protocol == "nested":
            part_of[fold % 5 + 1] = "val"
        assert sources_of(esc50_manifest, strict.dropped) == {
            source for source, (a, b) in CROSSING_FOLDS.items() if part_of[a] != part_of[b]
        }


class TestHoldout:
    @pytest.mark.parametrize(("test_share", "val_share"), [(0.2, 0.2), (0.1, 0.0), (0.3, 0.15)])
    def test_esc50_classes_get_their_shares(
        self, esc50_manifest: Manifest, test_share: float, val_share: float
    ) -> None:
        split = split_of(esc50_manifest, "holdout", test_share=test_share, val_share=val_share)
        for part, share in ((split.test, test_share), (split.val, val_share)):
            counts = np.bincount(esc50_manifest.targets[part], minlength=50)
            np.testing.assert_array_equal(counts, round(40 * share))
        assert split.fold is None

    @pytest.mark.parametrize("seed", range(20))
    @pytest.mark.parametrize("val_share", [0.0, 0.2])
    def test_random_sets_are_split_by_source_and_stratified(
        self, seed: int, val_share: float
    ) -> None:
        manifest = random_manifest(seed)
        split = split_of(manifest, "holdout", seed=seed, val_share=val_share)
        parts = {name: part for name, part in split.parts.items() if len(part)}
        assert sorted(all_indices(split)) == list(range(len(manifest)))
        assert sum(len(sources_of(manifest, part)) for part in parts.values()) == len(
            set(manifest.sources)
        )
        shares = {"train": 0.8 - val_share, "val": val_share, "test": 0.2}
        total = np.bincount(manifest.targets)
        for name, part in parts.items():
            counts = np.bincount(manifest.targets[part], minlength=manifest.n_classes)
            assert counts.min() >= 1
            # No part is off by more than the largest source.
            assert np.abs(counts - shares[name] * total).max() <= 9

    @pytest.mark.parametrize("seed", range(10))
    def test_sources_of_several_classes_stay_whole(self, seed: int) -> None:
        manifest = random_manifest(seed, n_labels_a_source=2)
        split = split_of(manifest, "holdout", seed=seed)
        parts = [sources_of(manifest, part) for part in split.parts.values()]
        assert sum(map(len, parts)) == len(set.union(*parts))
        assert len(split.test) / len(manifest) == pytest.approx(0.2, abs=0.06)

    def test_seed_decides(self, esc50_manifest: Manifest) -> None:
        first, again, other = (split_of(esc50_manifest, "holdout", seed=s) for s in (3, 3, 4))
        np.testing.assert_array_equal(first.test, again.test)
        assert len(np.intersect1d(first.test, other.test)) < 200

    def test_large_sources_reach_every_part(self, esc50_manifest: Manifest) -> None:
        split = split_of(esc50_manifest, "holdout")
        sources, counts = np.unique(esc50_manifest.sources, return_counts=True)
        siblings = set(sources[counts > 1])
        for part in split.parts.values():
            share = np.mean([esc50_manifest.clips[index].source in siblings for index in part])
            assert 0.3 < share < 0.5

    def test_three_sources_fill_three_parts(self) -> None:
        manifest = manifest_of([("a", source, None) for source in "xyyyyyyyz"])
        split = split_of(manifest, "holdout", test_share=0.01, val_share=0.01)
        assert [len(part) for part in split.parts.values()] == [7, 1, 1]


@pytest.mark.parametrize("protocol", ["nested", "fixed", "holdout"])
def test_order_of_rows_does_not_matter(esc50_manifest: Manifest, protocol: str) -> None:
    order = np.random.default_rng(0).permutation(2000)
    shuffled = replace(esc50_manifest, clips=tuple(esc50_manifest.clips[i] for i in order))
    split, other = (split_of(m, protocol, 2) for m in (esc50_manifest, shuffled))
    for name, part in split.parts.items():
        assert split_digest(esc50_manifest, part) == split_digest(shuffled, other.parts[name])
        assert set(part) == set(order[other.parts[name]])


def test_digest_depends_on_clips_only(esc50_manifest: Manifest, tmp_path: Path) -> None:
    indices = np.arange(10)
    digest = split_digest(esc50_manifest, indices)
    assert len(digest) == 64
    assert split_digest(esc50_manifest, indices[::-1]) == digest
    assert split_digest(esc50_manifest, indices[:9]) != digest
    first, *others = esc50_manifest.clips
    for change, is_equal in (
        ({"path": tmp_path / first.path.name}, True),
        ({"path": tmp_path / "other.wav"}, False),
        ({"source": "other"}, False),
        ({"end_s": 2.5}, False),
    ):
        changed = replace(esc50_manifest, clips=(replace(first, **change), *others))
        assert (split_digest(changed, indices) == digest) is is_equal


def test_table_lists_every_clip(esc50_manifest: Manifest) -> None:
    split = split_of(esc50_manifest, "fixed", 2, strict_sources=True)
    table = split_table(esc50_manifest, split)
    assert table.columns.tolist() == ["path", "label", "source", "fold", "part"]
    assert table["part"].value_counts().to_dict() == {"train": 1598, "test": 400, "dropped": 2}
    for name in ("train", "test", "dropped"):
        np.testing.assert_array_equal(np.flatnonzero(table["part"] == name), getattr(split, name))
    clip = esc50_manifest.clips[7]
    row = [f"audio/{clip.path.name}", clip.label, clip.source, clip.fold]
    assert table.iloc[7].tolist()[:4] == row


def test_table_without_folds_or_root() -> None:
    manifest = manifest_of([("a", f"{source}", None) for source in range(9)])
    manifest = replace(manifest, root=Path("elsewhere"))
    table = split_table(manifest, split_of(manifest, "holdout"))
    assert table["fold"].isna().all()
    assert table["path"][0] == "data/audio/0.wav"
    assert pd.Series(table["part"]).value_counts().to_dict() == {"train": 5, "val": 2, "test": 2}


def with_folds(*folds: int | None) -> Manifest:
    return manifest_of([("a", f"{row}", fold) for row, fold in enumerate(folds)])


UNEVEN = manifest_of(
    [("a", f"a{fold}", fold) for fold in (1, 2, 3)]
    + [("b", "b", 1), ("c", "c1", 2), ("c", "c2", 3)]
)
CROSSED = manifest_of([("a", "1", 1), ("a", "2", 2), ("b", "3", 1), ("b", "3", 2)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: split_of(with_folds(1, 2, 3), "nested", 4), r"one of small's \(1, 2, 3\), got 4"),
        (lambda: split_of(with_folds(1, 2, 3), "nested", None), "got None"),
        (
            lambda: split_of(with_folds(1, None, 3), "fixed", 1),
            r"no fold for row 2 \(1\.wav\).*set splits\.protocol=holdout",
        ),
        (
            lambda: split_of(with_folds(1, 2), "nested", 1),
            r"at least 3 folds, small has 2 \(1, 2\)",
        ),
        (lambda: split_of(with_folds(1, 1), "fixed", 1), r"at least 2 folds, small has 1 \(1\)"),
        (
            lambda: split_of(UNEVEN, "fixed", 1),
            r"small \(fixed, fold 1\): no clip in training of b; no clip in test of c",
        ),
        (
            lambda: split_of(CROSSED, "fixed", 1, strict_sources=True),
            "no clip in training of b; .*unset splits.strict_sources",
        ),
        (
            lambda: split_of(UNEVEN, "holdout"),
            r"at least 3 sources of each class .* b \(1\), c \(2\); .*splits\.val_share=0",
        ),
        (
            lambda: split_of(UNEVEN, "holdout", val_share=0.0),
            r"at least 2 sources of each class .*: b \(1\); add recordings$",
        ),
        (lambda: split_of(UNEVEN, "holdout", test_share=0.0), "splits.test_share must be above 0"),
        (lambda: split_of(UNEVEN, "holdout", test_share=0.5, val_share=0.5), "below 1"),
        (
            lambda: split_of(UNEVEN, "random", 1),
            "holdout, given, got 'random'",
        ),
    ],
)
def test_refusals(make: Callable[[], Split], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        make()


def several_manifest(has_class: Any, sources: Any, fold: Any = None) -> Manifest:
    """A multi-label manifest of a matrix [clip, class]."""
    labels = tuple("abcdefgh"[: has_class.shape[1]])
    clips = tuple(
        Clip(
            path=Path("data", f"{number}.wav"),
            label=";".join(labels[n] for n in np.flatnonzero(row)),
            target=-1,
            source=str(source),
            fold=None if fold is None else fold[number],
            row=number + 1,
            targets=tuple(np.flatnonzero(row).tolist()),
        )
        for number, (row, source) in enumerate(zip(has_class, sources, strict=True))
    )
    return Manifest(name="several", root=Path("data"), labels=labels, clips=clips)


class TestMultiLabel:
    @pytest.mark.parametrize("seed", range(20))
    def test_classes_and_clips_of_none_get_their_shares(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n_sources = 120
        has_class = rng.random((n_sources, 5)) < (0.5, 0.3, 0.2, 0.1, 0.08)
        has_class[:6, 4] = True
        source = np.repeat(np.arange(n_sources), rng.integers(1, 4, size=n_sources))
        manifest = several_manifest(has_class[source], source)
        split = split_of(manifest, "holdout", seed=seed)
        assert sorted(all_indices(split)) == list(range(len(manifest)))
        parts = [sources_of(manifest, part) for part in split.parts.values()]
        assert sum(map(len, parts)) == len(set.union(*parts))
        whole = manifest.has_class
        kinds = np.column_stack((whole, ~whole.any(axis=1)))
        for name, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
            counts = kinds[split.parts[name]].sum(axis=0)
            assert counts.min() >= 1
            assert np.abs(counts - share * kinds.sum(axis=0)).max() <= 6

    def test_a_rare_class_is_dealt_out_before_common_ones(self) -> None:
        has_class = np.zeros((60, 2), dtype=bool)
        has_class[:, 0] = True
        has_class[[5, 25, 45], 1] = True  # one a part
        split = split_of(several_manifest(has_class, range(60)), "holdout")
        for part in split.parts.values():
            assert has_class[part, 1].sum() == 1

    def test_a_class_without_a_test_clip_is_refused(self) -> None:
        has_class = np.array([[1, 0], [1, 1], [1, 0], [0, 0]], dtype=bool)
        manifest = several_manifest(has_class, range(4), fold=[1, 2, 3, 1])
        with pytest.raises(SplitError, match="no clip in test of b"):
            split_of(manifest, "fixed", 1)

    def test_the_table_keeps_all_labels(self) -> None:
        has_class = np.array([[1, 1], [1, 1], [0, 0]], dtype=bool)
        manifest = several_manifest(has_class, range(3), fold=[1, 2, 2])
        table = split_table(manifest, split_of(manifest, "fixed", 1))
        assert table["label"].tolist() == ["a;b", "a;b", ""]

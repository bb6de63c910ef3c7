"""Four variants of every clip, as the original project wrote them, and three ways to split them."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

import ours
from audioml.audit import Kind, audit_split
from audioml.augment import VARIANTS, Augment
from audioml.config import AugmentConfig
from audioml.datasets.manifest import Clip, Manifest
from audioml.splits import Split, SplitError, make_split
from audioml.store import ClipStore, Request
from material import Chain

VAL_SHARE: Final = 0.2  # of the variants that do not test, in each class
FLOOR_DB: Final = -70.0  # as in configs/esc10_cnn.yaml: many clips end in digital silence
_RENDERED_AT_ONCE: Final = 32

UNITS: Final[dict[str, Callable[[Clip], str]]] = {
    "variant": lambda variant: variant.path.name,
    "clip": lambda variant: variant.path.stem.rpartition("_")[0],
    "source": lambda variant: variant.source,
}
"""What a split keeps in one part: a name that all that must stay together have in common."""


def list_variants(manifest: Manifest) -> Manifest:
    """List the variants of all clips, all variants of the first clip first.

    Returns:
        A manifest with four rows a clip; their files, named as the original project named them,
        are not there.
    """
    variants = [
        replace(clip, path=clip.path.with_stem(f"{clip.path.stem}_{name}"))
        for clip in manifest.clips
        for name in VARIANTS
    ]
    return replace(
        manifest, clips=tuple(replace(v, row=row) for row, v in enumerate(variants, start=1))
    )


def render_variants(store: ClipStore, chain: Chain, seed: int) -> Tensor:
    """Compute the log-mels of the variants of all clips of a store.

    Args:
        store: The clips; longer ones are cut to their middle.
        chain: Settings of the front end.
        seed: Of the noise.

    Returns:
        [variant, mel, frame], in the order of ``list_variants``, in dB.
    """
    augment = Augment(
        AugmentConfig(preset="four_variants"),
        sample_rate=chain.sample_rate,
        n_time=store.n_time,
        seed=seed,
    )
    rendered = [_render(store, chain, augment, variant) for variant in range(len(VARIANTS))]
    return torch.stack(rendered, dim=1).flatten(0, 1)


def _render(store: ClipStore, chain: Chain, augment: Augment, variant: int) -> Tensor:
    """Compute one variant of all clips [clip, mel, frame]."""
    frontend = ours.make_frontend(
        device=store.device,
        max_semitones=augment.max_semitones,
        floor_db=FLOOR_DB,
        **chain.frontend,
    )
    clips = torch.arange(len(store.length))
    recipe = augment.recipe(
        augment.draw_variant(variant, clips),
        store.rms[None],
        n_mels=chain.n_mels,
        n_frames=chain.n_frames,
    ).to(store.device)
    start = store.crop_start(clips, 0.5)
    first = range(0, len(clips), _RENDERED_AT_ONCE)
    batches = [slice(i, i + _RENDERED_AT_ONCE) for i in first]
    with closing(store.read([Request(clips[None], start[None], batches)])) as readings:
        parts = zip(batches, readings, strict=True)
        return torch.cat([frontend.render(r, recipe.part(b), store.n_time) for b, r in parts])


def split_variants(variants: Manifest, unit: str, *, fold: int, seed: int) -> Split:
    """Split variants into training and validation, with one fold's clips untouched.

    Args:
        variants: From ``list_variants``.
        unit: What stays in one part, one of ``UNITS``.
        fold: The fold whose clips, as they are, test; nothing of their sources trains or validates.
        seed: Which of the others validate.

    Returns:
        The split; what is neither, such as the test clips' other variants, counts as dropped.

    Raises:
        SplitError: If the data set has no such fold, or a class too few units.
    """
    is_test = np.array([clip.fold == fold for clip in variants.clips])
    if not is_test.any():
        raise SplitError(f"{variants.name} has no clip in fold {fold}; choose another fold")
    pool = np.flatnonzero(~np.isin(variants.sources, variants.sources[is_test]))
    clips = [variants.clips[i] for i in pool]
    grouped = replace(variants, clips=tuple(replace(c, source=UNITS[unit](c)) for c in clips))
    parts = make_split(
        grouped,
        protocol="holdout",
        fold=None,
        test_share=VAL_SHARE,  # a holdout's test clips are what validates here
        val_share=0.0,
        seed=seed,
        strict_sources=False,
    )
    test = np.flatnonzero(is_test)[:: len(VARIANTS)]
    train, val = pool[parts.train], pool[parts.test]
    return Split(
        protocol=f"by {unit}",
        fold=fold,
        train=train,
        val=val,
        test=test,
        dropped=np.setdiff1d(np.arange(len(variants)), np.concatenate((train, val, test))),
    )


def make_splits(variants: Manifest, *, fold: int, batch_size: int, seed: int) -> dict[str, Split]:
    """Make the split by each of ``UNITS``, all with the same number of whole batches to train on.

    Args:
        variants: From ``list_variants``.
        fold: The fold whose clips test.
        batch_size: Variants a batch.
        seed: Which validate, and which few are left out to make the numbers equal.

    Returns:
        Split by unit.
    """
    splits = {unit: split_variants(variants, unit, fold=fold, seed=seed) for unit in UNITS}
    n_train = min(len(split.train) for split in splits.values()) // batch_size * batch_size
    if not n_train:
        raise SplitError(f"fold {fold} leaves no batch of {batch_size} to train on; lower --batch")
    return {unit: _trim(split, n_train, seed) for unit, split in splits.items()}


def _trim(split: Split, n_train: int, seed: int) -> Split:
    """Leave out training variants at random."""
    shuffled = np.random.default_rng(seed).permutation(split.train)
    dropped = np.sort(np.concatenate((split.dropped, shuffled[n_train:])))
    return replace(split, train=np.sort(shuffled[:n_train]), dropped=dropped)


def count_leaks(variants: Manifest, split: Split) -> dict[Kind, int]:
    """Count the validation variants that training gives away, as audioml's audit finds them.

    Returns:
        Validation variants with another variant of their clip in training, and with a variant of
        their source there.

    Raises:
        LeakError: If anything of the test clips' stands in another part.
    """
    audit_split(variants, replace(split, val=split.val[:0])).raise_on_leak()
    audit_split(variants, replace(split, train=split.train[:0])).raise_on_leak()
    overlaps = audit_split(variants, replace(split, test=split.test[:0])).overlaps
    kinds: tuple[Kind, ...] = ("variants of one clip", "same source")
    return {k: len({name for o in overlaps if o.kind == k for name in o.right}) for k in kinds}

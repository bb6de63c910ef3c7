"""What ranks must have in common to train together, compared before they do."""

import hashlib

import numpy as np
import torch

import audioml
from audioml.config import ConfigError, RunConfig, flatten
from audioml.datasets.manifest import Clip, Manifest
from audioml.distributed import SharedError, describe_ranks, gather
from audioml.ranks import Ranks
from audioml.splits import Split
from audioml.store import ClipStore

# Where data lie may differ from machine to machine; rank 0 alone writes.
_OWN = ("data.root", "data.manifest", "run.dir", "resume")
_RMS_TOLERANCE = 1e-3  # relative; GPUs of two kinds resample with other rounding


def check_settings(config: RunConfig, device: torch.device, ranks: Ranks) -> None:
    """Refuse settings that can't be had with these ranks, or on this device.

    Raises:
        ConfigError: With the setting.
    """
    train = config.train
    if train.sync_batch_norm and device.type == "cpu":
        raise ConfigError(
            "train.sync_batch_norm=true needs CUDA, got cpu; set train.sync_batch_norm=false"
        )
    if not ranks.are_several:
        return
    if train.auto_batch:
        raise ConfigError(
            "train.auto_batch=true is for one process: on one of several ranks memory may run out "
            "alone; set train.auto_batch=false and, for less memory, train.accumulate"
        )
    if train.batch_size < ranks.size:
        raise ConfigError(
            f"train.batch_size={train.batch_size} is what {ranks.size} ranks share, and gives none "
            "to some of them; raise it, or start fewer ranks"
        )


def compare_settings(ranks: Ranks, config: RunConfig) -> None:
    """Compare versions and settings, but for where data lie.

    Raises:
        SharedError: On all ranks, with the first that differs.
    """
    settings = {key: str(value) for key, value in flatten(config).items() if key not in _OWN}
    versions = {"audioml's version": audioml.__version__, "torch's version": str(torch.__version__)}
    _compare(ranks, versions | settings)


def compare_data(ranks: Ranks, manifest: Manifest, split: Split, store: ClipStore) -> None:
    """Compare manifest, split and samples.

    Args:
        ranks: Which of the processes this is.
        manifest: The clips.
        split: Their split.
        store: Their samples.

    Raises:
        SharedError: On all ranks, with the first clip that differs.
    """
    if not ranks.are_several:
        return
    labels = ", ".join(manifest.labels)
    _compare(ranks, {"the number of clips": str(len(manifest)), "the classes": labels})
    part = np.full(len(manifest), "", dtype="<U7")
    for name, clips in split.parts.items():
        part[clips] = name
    texts = zip(map(_describe, manifest.clips), part.tolist(), store.length.tolist(), strict=True)
    own = torch.tensor([_hash(str(text)) for text in texts])
    everywhere = gather(ranks, (own, store.rms))
    differs = [
        (theirs != everywhere[0][0])
        | ~torch.isclose(their_rms, everywhere[0][1], rtol=_RMS_TOLERANCE, atol=0.0)
        for theirs, their_rms in everywhere
    ]
    rows = torch.stack(differs).any(dim=0).nonzero()
    if len(rows):
        row = int(rows[0])
        others = [rank for rank, here in enumerate(differs) if here[row]]
        raise SharedError(
            f"the ranks disagree on {manifest.describe(row)}: another name, label, source, part or "
            f"sound on {describe_ranks(others)} than on rank 0; give all the same data"
        )


def _describe(clip: Clip) -> tuple[object, ...]:
    return clip.path.name, clip.label, clip.source, clip.fold, clip.start_s, clip.end_s


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def _compare(ranks: Ranks, facts: dict[str, str]) -> None:
    everywhere = gather(ranks, facts)
    for key in facts | {key: "" for other in everywhere for key in other}:
        said = [other.get(key, "nothing") for other in everywhere]
        if len(set(said)) > 1:
            of = {text: [r for r, other in enumerate(said) if other == text] for text in said}
            values = ", ".join(f"{text} on {describe_ranks(of[text])}" for text in of)
            raise SharedError(
                f"the ranks disagree on {key}: {values}; start all with the same settings and data"
            )

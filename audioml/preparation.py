"""Everything a run is made of, built and checked before anything is trained."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from audioml.assembly import WithFrontend, build_frontend
from audioml.audit import AuditReport, audit_split
from audioml.augment import Augment
from audioml.bad_files import skip_bad_files
from audioml.clips import (
    ClipFacts,
    ClipHeader,
    DecodedClips,
    clip_reader,
    scan_headers,
)
from audioml.config import ConfigError, DataConfig, RunConfig
from audioml.datasets import load_configured
from audioml.datasets.manifest import DataError, Manifest
from audioml.decoding import decode_together
from audioml.effects import Effects
from audioml.frontend import BandLevels, choose_kind
from audioml.frontend.functional import read_waveforms
from audioml.loader import Loader
from audioml.models import Network, build_model, wants_weights
from audioml.normalization import training_statistics
from audioml.ranks import ALONE, Ranks
from audioml.similarity import NearDuplicate, find_near_duplicates
from audioml.splits import Split, make_split
from audioml.store import ClipStore, Place, WaveformStore, choose_place
from audioml.streaming import StreamingStore

log = logging.getLogger("audioml")

_N_TIMED = 4  # clips that effects are timed on


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """Everything a run is made of, built and checked, before anything is trained.

    Args:
        config: The run's settings.
        device: Where it runs.
        manifest: The clips.
        split: Which of them train, validate and test.
        bad_files: The clips left out because their files are bad, and why.
        audit: What the audit of the split found; no leak.
        store: The decoded clips.
        frontend: The front end with the statistics of the training clips.
        model: The network, with its first weights; after the front end, where that is trained.
        loaders: ``train`` (augmented), ``test`` and, where there is one, ``val``.
    """

    config: RunConfig
    device: torch.device
    manifest: Manifest
    split: Split
    bad_files: pd.DataFrame
    audit: AuditReport
    store: ClipStore
    frontend: BandLevels
    model: Network
    loaders: dict[str, Loader]


def prepare(
    config: RunConfig,
    device: torch.device,
    *,
    resumes: bool = False,
    ranks: Ranks = ALONE,
) -> Experiment:
    """Build and check everything a run needs: manifest, split, audit, model, clips, loaders.

    Args:
        config: The run's settings.
        device: Where it runs.
        resumes: Whether a checkpoint brings weights and statistics; trained weights are then
            neither read nor downloaded, and no statistics taken.
        ranks: Which of the processes is served that share the batches.
    """
    data = config.data
    manifest = _load_manifest(data)
    split = make_split(manifest, **asdict(config.splits))
    if config.train.patience and not len(split.val):
        raise ConfigError(
            "train.patience needs a validation split, which splits.protocol="
            f"{split.protocol} has not; set train.patience=0 or splits.protocol=nested"
        )
    _check_finetuning(config)
    _log_split(manifest, split)
    audit_split(manifest, split).raise_on_leak()  # by name, before hours of decoding
    torch.manual_seed(config.train.seed)
    model = build_model(
        config.model,
        n_classes=manifest.n_classes,
        input_size=config.input_size,
        trained=not resumes,
    )
    headers, place, clips = _decode(config, manifest, device, ranks)
    split, bad_files = skip_bad_files(manifest, split, clips.bad, data.max_bad_share)
    read = clip_reader(manifest, headers, config.audio.sample_rate, clips, device)
    audit = _audit_sounds(config, manifest, split, clips, read)
    effects = _make_effects(config, place)
    store = _make_store(config, device, manifest, headers, clips, place, effects)
    log.info("store     %s", store.describe())
    if effects is not None:
        _log_cost(effects, store, split)
    experiment = _build(config, device, manifest, split, bad_files, audit, store, model, ranks)
    if not resumes:
        _set_statistics(experiment, ranks)
    experiment.frontend.dtype = getattr(torch, config.frontend.dtype)  # statistics are of float32
    return experiment


def _load_manifest(data: DataConfig) -> Manifest:
    """Load the data, and say what can't be seen in them."""
    manifest = load_configured(data)
    if manifest.n_classes < 2:
        raise DataError(
            f"{manifest.name}: one class, {manifest.labels[0]!r}, and nothing to tell it from; add "
            "clips of others"
        )
    if not manifest.has_sources:
        log.warning(
            "sources   %s does not say which recording a clip is from: each file is taken for one "
            "of its own, and excerpts of one recording may stand on both sides of the split",
            manifest.name,
        )
    return manifest


def _decode(
    config: RunConfig, manifest: Manifest, device: torch.device, ranks: Ranks
) -> tuple[list[ClipHeader], Place, ClipFacts]:
    """Choose by the headers where the clips are kept, and decode all of them."""
    audio = config.audio
    headers = scan_headers(manifest, audio.sample_rate, audio.decode_threads)
    place = choose_place(
        sum(2 * header.length(audio.sample_rate) for header in headers),
        device,
        wanted=audio.store,
        device_budget_gib=audio.device_budget_gib,
        host_budget_gib=audio.host_budget_gib,
    )
    clips = decode_together(
        manifest,
        headers,
        audio.sample_rate,
        audio.decode_threads,
        device,
        keeps=place != "stream",
        skip_bad=config.data.on_bad_file == "skip",
        ranks=ranks,
    )
    return headers, place, clips


def _audit_sounds(
    config: RunConfig,
    manifest: Manifest,
    split: Split,
    clips: ClipFacts,
    read: Callable[[int], Tensor],
) -> AuditReport:
    """Audit the split once more, by what is in the clips.

    Raises:
        LeakError: If it leaks.
    """
    wanted = config.data.near_duplicates
    audit = audit_split(
        manifest,
        split,
        clips.digests,
        near_duplicates=_find_near_duplicates(config, manifest, split, read),
        warns_of=() if wanted == "stop" else ("near-duplicate sound",),
    )
    level = logging.WARNING if audit.warnings else logging.INFO
    log.log(level, "audit     %s", audit.text().replace("\n", "\n          "))
    audit.raise_on_leak()
    return audit


def _find_near_duplicates(
    config: RunConfig, manifest: Manifest, split: Split, read: Callable[[int], Tensor]
) -> list[NearDuplicate]:
    """Find clips of the split that sound alike, if that is wanted."""
    wanted = config.data.near_duplicates
    if wanted == "ignore" or (wanted == "auto" and manifest.has_sources):
        return []
    clips = sorted(clip for part in split.parts.values() for clip in part.tolist())
    audio = config.audio
    return find_near_duplicates(clips, read, audio.sample_rate, n_threads=audio.decode_threads)


def _check_finetuning(config: RunConfig) -> None:
    """Refuse to keep as they are layers that were never trained."""
    finetune = config.finetune
    if wants_weights(config.model) or not (finetune.head_epochs or finetune.batch_norm == "frozen"):
        return
    key = "head_epochs" if finetune.head_epochs else "batch_norm"
    raise ConfigError(
        f"finetune.{key}={getattr(finetune, key)} keeps layers as they are, and model.name="
        f"{config.model.name} has no trained weights here; set model.weights, or leave it out"
    )


def _make_store(
    config: RunConfig,
    device: torch.device,
    manifest: Manifest,
    headers: Sequence[ClipHeader],
    clips: ClipFacts,
    place: Place,
    effects: Effects | None,
) -> ClipStore:
    """Make the store of clips that are decoded, or will be."""
    audio = config.audio
    if isinstance(clips, DecodedClips):
        return WaveformStore(clips, n_time=audio.n_time, pad=audio.pad, place=place, device=device)
    return StreamingStore(
        manifest,
        headers,
        clips,
        sample_rate=audio.sample_rate,
        n_time=audio.n_time,
        pad=audio.pad,
        device=device,
        n_threads=audio.decode_threads,
        effects=effects,
    )


def _make_effects(config: RunConfig, place: Place) -> Effects | None:
    """Make what ``augment.extra`` asks for."""
    if not config.augment.extra:
        return None
    if place != "stream":
        raise ConfigError(
            f"augment.extra changes clips while they are decoded, and audio.store={place} decodes "
            "them once; set audio.store=stream"
        )
    return Effects(
        config.augment.extra, sample_rate=config.audio.sample_rate, seed=config.train.seed
    )


def _log_cost(effects: Effects, store: ClipStore, split: Split) -> None:
    """Say what effects cost, measured on a few clips."""
    clip_index = torch.from_numpy(split.train[:_N_TIMED])
    waveforms = store.gather(clip_index, torch.zeros_like(clip_index)).cpu().numpy()
    cost_s = effects.cost_s(list(waveforms))
    log.info(
        "extra     %s: %.1f ms a clip on the CPU, one at a time: at most %.0f clips/s",
        ", ".join(effects.names),
        1000 * cost_s,
        1 / cost_s,
    )


def _build(
    config: RunConfig,
    device: torch.device,
    manifest: Manifest,
    split: Split,
    bad_files: pd.DataFrame,
    audit: AuditReport,
    store: ClipStore,
    model: Network,
    ranks: Ranks,
) -> Experiment:
    """Build front end and loaders over a checked split."""
    sample_rate = config.audio.sample_rate
    augment = Augment(
        config.augment, sample_rate=sample_rate, n_time=store.n_time, seed=config.train.seed
    ).to(device)
    frontend = build_frontend(config, device, max_semitones=augment.max_semitones)
    kind, transform = choose_kind(config.frontend.kind, device), config.frontend.transform
    trained = ", trained with the model" if frontend.trainable else ""
    log.info("frontend  log-%s by %s%s", transform, kind, trained)
    model = model.to(device)
    if frontend.trainable:
        model = WithFrontend(frontend, model)
    return Experiment(
        config=config,
        device=device,
        manifest=manifest,
        split=split,
        bad_files=bad_files,
        audit=audit,
        store=store,
        frontend=frontend,
        model=model,
        loaders=_make_loaders(config, manifest, split, store, frontend, augment, ranks),
    )


def _make_loaders(
    config: RunConfig,
    manifest: Manifest,
    split: Split,
    store: ClipStore,
    frontend: BandLevels,
    augment: Augment,
    ranks: Ranks,
) -> dict[str, Loader]:
    """Make a loader a part."""
    common: dict[str, Any] = {
        "store": store,
        "frontend": frontend,
        "targets": torch.from_numpy(manifest.has_class),
        "crop": config.audio.crop,
        "seed": config.train.seed,
    }
    batch_size, eval_batch_size = config.train.batch_size, config.train.eval_batch_size
    parts = {name: torch.from_numpy(clips) for name, clips in split.parts.items() if len(clips)}
    # A front end that is trained is part of the model, and batches hold waveforms.
    common["render"] = read_waveforms if frontend.trainable else frontend.render
    common["ranks"] = ranks
    n_crops = config.audio.eval_crops
    loaders = {
        name: Loader(clip_index=clips, batch_size=eval_batch_size, n_crops=n_crops, **common)
        for name, clips in parts.items()
    }
    loaders["train"] = Loader(
        clip_index=parts["train"],
        batch_size=batch_size,
        augment=augment,
        sampling=config.train.sampling,
        **common,
    )
    return loaders


def _set_statistics(x: Experiment, ranks: Ranks) -> None:
    """Give the front end the statistics of the training clips."""
    plain = Loader(
        store=x.store,
        frontend=x.frontend,
        clip_index=torch.from_numpy(x.split.train),
        targets=torch.from_numpy(x.manifest.has_class),
        batch_size=x.config.train.eval_batch_size,
        crop=x.config.audio.crop,
        ranks=ranks,
    )
    x.frontend.set_statistics(*training_statistics(plain))


def _log_split(manifest: Manifest, split: Split) -> None:
    fold = "" if split.fold is None else f", test fold {split.fold}"
    log.info("clips     %d of %d classes in %s", len(manifest), manifest.n_classes, manifest.root)
    if manifest.is_multi_label:
        n_labels = [len(clip.classes) for clip in manifest.clips]
        n_several = sum(n > 1 for n in n_labels)
        log.info("labels    several for %d clips, none for %d", n_several, n_labels.count(0))
    log.info(
        "split     %s%s: %d train, %d validation, %d test%s",
        split.protocol,
        fold,
        len(split.train),
        len(split.val),
        len(split.test),
        f", {len(split.dropped)} dropped" if len(split.dropped) else "",
    )

"""Trained models in files: what a run has kept, and what is passed on, read without trust."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from torch import Tensor

import audioml
from audioml.checkpoints import load_checkpoint, save_weights
from audioml.config import ConfigError, RunConfig, config_from_yaml, to_yaml
from audioml.errors import UserError
from audioml.tensor_files import TensorFileError, read_tensor_file

FILE_NAME: Final = "model.safetensors"  # in a run folder
FORMAT: Final = 2
_SINGLE_LABEL: Final = 1  # the format of models whose probabilities sum to 1
_FRONTEND: Final = "frontend."  # begins the names of the front end's statistics
_AVERAGED: Final = "module."  # begins the names of averaged weights
_STATISTICS: Final = ("mean_db", "std_db")


class ModelError(UserError):
    """A model that can't be used; the message names the file and the remedy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelContent:
    """A trained model as tensors and facts.

    Args:
        path: The file it was read from.
        config: The settings of its run.
        labels: Names of the classes, in the order of its outputs.
        is_multi_label: Whether a clip may have several classes, or none.
        weights: The network's tensors by name, those of a front end trained with it included.
        statistics: ``mean_db`` and ``std_db`` of the front end.
        train_sources: The recordings it was trained on.
    """

    path: Path
    config: RunConfig
    labels: tuple[str, ...]
    is_multi_label: bool
    weights: dict[str, Tensor]
    statistics: dict[str, Tensor]
    train_sources: frozenset[str]


def write_model(
    path: Path,
    *,
    config: RunConfig,
    labels: tuple[str, ...],
    is_multi_label: bool,
    weights: Mapping[str, Tensor],
    statistics: Mapping[str, Tensor],
    train_sources: list[str],
    chosen: str,
) -> None:
    """Write a model that needs nothing else to be used, as safetensors; see ``ModelContent``.

    Equal models make equal files.

    Args:
        path: The file.
        config: The settings of its run.
        labels: Names of the classes.
        is_multi_label: Whether a clip may have several classes, or none.
        weights: The network's tensors.
        statistics: State of the front end, of which the statistics are kept.
        train_sources: The recordings it was trained on, sorted.
        chosen: Whether these are the "best" or the "last" weights of the run.
    """
    # Cloned, because a front end that is trained has them among the weights as well.
    kept = {f"{_FRONTEND}{name}": statistics[name].clone() for name in _STATISTICS}
    facts = {
        "format": FORMAT if is_multi_label else _SINGLE_LABEL,
        "version": audioml.__version__,
        "labels": list(labels),
        "config": to_yaml(config),
        "weights": chosen,
        "train_sources": train_sources,
    }
    if is_multi_label:  # which older versions would take for single-label
        facts["is_multi_label"] = True
    save_weights(path, {**weights, **kept}, facts)


def read_model(path: Path) -> ModelContent:
    """Read a model; nothing in the file is run.

    Args:
        path: A finished run's folder, a checkpoint of a run (.pt), or a file of ``write_model``.

    Raises:
        ModelError: If it is none of these, damaged, or of a newer version.
        CheckpointError: If it is a checkpoint that is damaged or of another version.
    """
    if path.is_dir():
        path = _find_in(path)
    if not path.is_file():
        raise ModelError(
            f"{path}: no such file; give a run folder, a checkpoint (.pt) or {FILE_NAME}"
        )
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path)


def _find_in(folder: Path) -> Path:
    """Find the model that a run has kept."""
    if (folder / FILE_NAME).is_file():
        return folder / FILE_NAME
    folds = sorted(fold.name for fold in folder.glob("fold-*") if (fold / FILE_NAME).is_file())
    if folds:
        raise ModelError(
            f"{folder}: a cross-validation, with a model for each fold; give one of {folder}/"
            f"{{{','.join(folds)}}}"
        )
    if (folder / "checkpoints").is_dir():
        raise ModelError(
            f"{folder}: no {FILE_NAME} in it, for the run has not finished; go on with "
            f"resume={folder}, or give one of its checkpoints"
        )
    raise ModelError(f"{folder}: no {FILE_NAME} in it; give the folder of a finished run")


def _read_checkpoint(path: Path) -> ModelContent:
    state = load_checkpoint(path)
    try:
        ema, facts = state["ema"], {"labels": state["labels"], "config": state["config"]}
        weights = state["model"]
        if ema is not None:
            weights = {
                name.removeprefix(_AVERAGED): value
                for name, value in ema.items()
                if name.startswith(_AVERAGED)
            }
        statistics = {name: state["frontend"][name] for name in _STATISTICS}
        facts["train_sources"] = state["train_sources"]
        facts["is_multi_label"] = state.get("is_multi_label", False)
    except (AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not a checkpoint of a run ({error!r})") from error
    return _check(path, facts, weights, statistics)


def _read_safetensors(path: Path) -> ModelContent:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = read_tensor_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: damaged or another kind of file ({error})") from error
    except TensorFileError as error:
        raise ModelError(str(error)) from error
    try:
        facts = json.loads(metadata.get("audioml", "null"))
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or not isinstance(facts.get("format"), int):
        raise ModelError(
            f"{path}: its metadata are not audioml's, or an older version's; give a checkpoint of "
            f"its run, or the {FILE_NAME} of a new one"
        )
    if facts["format"] > FORMAT:
        raise ModelError(
            f"{path}: written by a newer audioml ({facts.get('version')}, format "
            f"{facts['format']}); this one reads up to format {FORMAT}: update audioml"
        )
    names = {f"{_FRONTEND}{name}": name for name in _STATISTICS}
    if lacking := [name for name in names if name not in tensors]:
        raise ModelError(f"{path}: no {', '.join(lacking)} in it; write it anew")
    statistics = {short: tensors.pop(name) for name, short in names.items()}
    return _check(path, facts, tensors, statistics)


def _check(
    path: Path, facts: Mapping[str, Any], weights: Any, statistics: dict[str, Any]
) -> ModelContent:
    """Refuse facts and tensors of other kinds than they should be."""
    labels, sources = facts.get("labels"), facts.get("train_sources")
    is_multi_label = facts.get("is_multi_label", False)
    is_whole = (
        _are_names(labels)
        and isinstance(is_multi_label, bool)
        and _are_names(sources)
        and isinstance(facts.get("config"), str)
        and isinstance(weights, dict)
        and all(isinstance(value, Tensor) for value in (*weights.values(), *statistics.values()))
    )
    if not is_whole:
        raise ModelError(f"{path}: labels, settings or weights are damaged; write it anew")
    try:
        config = config_from_yaml(facts["config"], f"{path}, its settings")
    except ConfigError as error:
        raise ModelError(f"{error}; it is of another version of audioml, or damaged") from error
    return ModelContent(
        path=path,
        config=config,
        labels=tuple(labels or ()),
        is_multi_label=is_multi_label,
        weights=weights,
        statistics=statistics,
        train_sources=frozenset(sources or ()),
    )


def _are_names(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)

"""From YAML files and ``section.key=value`` overrides to a checked configuration, and back."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from audioml.config.checks import ConfigError
from audioml.config.sections import RunConfig


def load_config(
    files: Sequence[Path] = (), overrides: Sequence[str] = (), *, base: RunConfig | None = None
) -> RunConfig:
    """Build a run configuration; later sources win over earlier ones, overrides over files.

    Args:
        files: YAML files, each part of the mapping in ``configs/default.yaml``.
        overrides: Assignments such as ``"optim.lr=3e-4"``.
        base: What they are laid over; None for the defaults.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: If a file can't be read, or a key or value does not fit ``RunConfig``.
    """
    node = OmegaConf.structured(base or RunConfig)
    for file in files:
        node = _merge(node, file)
    for override in overrides:
        node = _merge(node, override)
    try:
        return cast(RunConfig, OmegaConf.to_object(node))
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from error


def to_yaml(config: RunConfig) -> str:
    """Write a configuration as YAML that ``load_config`` reads back to an equal one."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def config_from_yaml(text: str, source: str) -> RunConfig:
    """Read what ``to_yaml`` has written.

    Args:
        text: A YAML mapping of sections.
        source: What to call it in messages.

    Raises:
        ConfigError: If it is not one, or a key or value does not fit ``RunConfig``.
    """
    try:
        loaded = OmegaConf.create(text)
        node = OmegaConf.merge(OmegaConf.structured(RunConfig), loaded)
        return cast(RunConfig, OmegaConf.to_object(node))
    except ConfigKeyError as error:
        raise ConfigError(f"{source}: {_unknown_key(error)}") from error
    except (OmegaConfBaseException, YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: {_first_line(error)}") from error


def flatten(config: object, prefix: str = "") -> dict[str, Any]:
    """List a configuration's values by their dotted keys, ``{"optim.lr": 0.001, ...}``."""
    flat: dict[str, Any] = {}
    for item in fields(cast(Any, config)):
        value, key = getattr(config, item.name), f"{prefix}{item.name}"
        flat |= flatten(value, f"{key}.") if is_dataclass(value) else {key: value}
    return flat


def _merge(node: DictConfig, addition: Path | str) -> DictConfig:
    source = f"{addition}" if isinstance(addition, Path) else f"override {addition!r}"
    if isinstance(addition, str) and "=" not in addition:
        raise ConfigError(f"{source}: expected section.key=value")
    try:
        loaded = (
            OmegaConf.load(addition)
            if isinstance(addition, Path)
            else OmegaConf.from_dotlist([addition])
        )
        if isinstance(loaded, DictConfig):
            return cast(DictConfig, OmegaConf.merge(node, loaded))
    except ConfigKeyError as error:
        raise ConfigError(f"{source}: {_unknown_key(error)}") from error
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{source}: {key}{_first_line(error)}{_meant(error)}") from error
    except (YAMLError, OSError, ValueError, RecursionError) as error:  # not UTF-8, nested deeply
        raise ConfigError(f"{source}: {' '.join(str(error).split())}") from error
    raise ConfigError(f"{source}: expected a mapping of sections")


def _unknown_key(error: ConfigKeyError) -> str:
    """Name a key that does not exist and the closest ones that do."""
    key = str(error.full_key)
    known = list(flatten(RunConfig()))
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    close = close or [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = f"did you mean {' or '.join(close)}?" if close else "see python train.py --help"
    return f"unknown key {key}; {hint}"


def _meant(error: OmegaConfBaseException) -> str:
    """Name the choice closest to an unknown one."""
    wrong, _, choices = _first_line(error).partition(", expected one of ")
    close = difflib.get_close_matches(wrong, re.findall(r"'([^']*)'", choices), n=1, cutoff=0.3)
    return f"; did you mean {close[0]}?" if close else ""


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]

"""What is to be looked at: the data that settings name, a folder of sounds, a list, or one file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from audioml.config import ConfigError, DataConfig, RunConfig, load_config
from audioml.datasets import load_manifest
from audioml.datasets.files import list_sounds
from audioml.datasets.folder import find_sources
from audioml.datasets.manifest import Clip, DataError, Manifest
from audioml.first_config import recognise_data

BESIDE: Final = "(no folder)"
"""Label of files that lie beside the folders of classes."""
_OVERRIDE: Final = re.compile(r"[a-z_.]+=")
_SETTINGS: Final = (".yaml", ".yml")
_LISTS: Final = (".csv", ".tsv", ".txt")
_OFFICIAL: Final = ("esc10", "esc50")


@dataclass(frozen=True, kw_only=True)
class Input:
    """What is to be looked at, and with which settings.

    Args:
        config: The settings: rate, front end and augmentation.
        manifest: The clips; files that are missing are among them.
        is_file: Whether it is one file alone.
    """

    config: RunConfig
    manifest: Manifest
    is_file: bool = False


def read_input(words: Sequence[str]) -> Input:
    """Make sense of the words on the command line.

    Args:
        words: YAML files, overrides, and at most one folder, list of clips or sound file.

    Raises:
        ConfigError: If a setting is wrong, or there are several folders or files.
        DataError: If there are no sounds.
    """
    overrides = [word for word in words if _OVERRIDE.match(word)]
    others = [Path(word) for word in words if not _OVERRIDE.match(word)]
    files = [path for path in others if path.suffix.lower() in _SETTINGS]
    paths = [path for path in others if path not in files]
    if len(paths) > 1:
        names = ", ".join(repr(str(path)) for path in paths)
        raise ConfigError(
            f"{len(paths)} folders or files ({names}), expected one; put them into one folder"
        )
    if not paths:
        config = load_config(files, overrides)
        return Input(config=config, manifest=_load(config.data))
    (path,) = paths
    if path.is_file() and path.suffix.lower() not in _LISTS:
        clip = Clip(path=path, label=path.name, target=0, source=path.name)
        manifest = _own(path.name, path.parent, (clip,), has_sources=False)
        return Input(config=load_config(files, overrides), manifest=manifest, is_file=True)
    config = _load_config_for(path, files, overrides)
    if config.data.name == "folder":
        return Input(config=config, manifest=_read_folder(path, config.data.source_pattern))
    return Input(config=config, manifest=_load(config.data))


def _load(data: DataConfig) -> Manifest:
    """Load a data set, missing files included.

    Raises:
        DataError: If its clips have several labels: they are shown class by class.
    """
    manifest = load_manifest(data, check_files=False)
    if manifest.is_multi_label:
        raise DataError(
            f"{data.manifest}: explore shows clips class by class, and here they have several "
            "labels; give the folder of the sounds"
        )
    return manifest


def _load_config_for(path: Path, files: Sequence[Path], overrides: Sequence[str]) -> RunConfig:
    """Load settings for the data that a folder or a list holds, whatever data files name."""
    for word in overrides:
        if word.startswith(("data.root=", "data.manifest=")):
            raise ConfigError(f"{word} beside {str(path)!r}: give one of them")
    found = recognise_data(path)
    config = load_config(files, overrides, base=RunConfig(data=found))
    data = config.data
    is_official = found.name in _OFFICIAL and data.name in _OFFICIAL
    if not is_official and f"data.name={data.name}" in overrides and data.name != found.name:
        raise ConfigError(
            f"data.name={data.name}: {str(path)!r} is read as data.name={found.name}; leave it out"
        )
    wanted = DataConfig(
        name=data.name if is_official else found.name,
        root=found.root,
        manifest=found.manifest,
        source_pattern=data.source_pattern if found.name == "folder" else None,
    )
    return replace(config, data=wanted)


def _read_folder(root: Path, source_pattern: str | None) -> Manifest:
    """Read every sound of a folder, whatever its layout; a run is stricter (``read_folder``).

    Returns:
        A clip a file in the order of their paths, labelled by the first folder on its way.

    Raises:
        DataError: If there are none.
    """
    sounds = list_sounds(root)
    names = [path.relative_to(root).as_posix() for path in sounds]
    folders = [name.partition("/")[0] if "/" in name else None for name in names]
    is_sorted = any(folders)
    labels = [folder or (BESIDE if is_sorted else root.resolve().name) for folder in folders]
    targets = {label: target for target, label in enumerate(sorted(set(labels)))}
    clips = tuple(
        Clip(path=path, label=label, target=targets[label], source=source, row=row)
        for row, (path, label, source) in enumerate(
            zip(sounds, labels, find_sources(names, source_pattern), strict=True), start=1
        )
    )
    name = f"{root.resolve().name}/"
    return _own(name, root, clips, has_sources=source_pattern is not None)


def _own(name: str, root: Path, clips: tuple[Clip, ...], *, has_sources: bool) -> Manifest:
    labels = {clip.target: clip.label for clip in clips}
    return Manifest(
        name=name,
        root=root,
        labels=tuple(labels[target] for target in sorted(labels)),
        clips=clips,
        in_esc50_layout=False,
        has_sources=has_sources,
    )

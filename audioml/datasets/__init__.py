"""Data sets by name; each becomes one manifest."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from audioml.config import DataConfig
from audioml.datasets.archive import unpack
from audioml.datasets.csv import read_csv
from audioml.datasets.esc50 import META, read_esc50
from audioml.datasets.folder import read_folder
from audioml.datasets.icbhi import read_icbhi
from audioml.datasets.manifest import DataError, Manifest
from audioml.datasets.physionet import read_physionet2016
from audioml.datasets.shards import has_shards, read_shards
from audioml.datasets.synthetic import prepare_synthetic
from audioml.download import DownloadError, fetch, one_at_a_time

# Sources whose clips the official folds place in two folds, always in different classes.
KNOWN_CROSSING_SOURCES: Final = frozenset({"131943", "134049", "209698", "234879"})

# Where they are under data/, unless data.root says otherwise.
_FOLDERS: Final = {
    "esc10": "ESC-50",  # the official archive holds both
    "esc50": "ESC-50",
    "icbhi": "ICBHI_final_database",
    "physionet2016": "physionet2016",
}


def load_manifest(data: DataConfig, *, check_files: bool = True) -> Manifest:
    """Load a data set's manifest, making or downloading the data if its root is not there.

    Args:
        data: Which data set. Without a root it is ``data/synthetic-SEED``, ``data/ESC-50`` for
            esc50 and esc10 (the official archive holds both), or the folder of a list of clips.
        check_files: Whether a missing audio file is an error.

    Returns:
        The manifest.

    Raises:
        DataError: If the name is unknown, or the data are missing or faulty.
    """
    if data.name not in _BUILDERS:
        raise DataError(f"data.name must be one of {', '.join(_BUILDERS)}, got {data.name!r}")
    return _BUILDERS[data.name](data, check_files)


def locate(data: DataConfig) -> Path:
    """Name the folder of a data set's files, whether it is there or not."""
    if data.root:
        return Path(data.root).expanduser()
    if data.name == "csv":
        return Path(data.manifest or "").expanduser().parent
    return Path("data", _FOLDERS.get(data.name, f"{data.name}-{data.seed}"))


def are_there(data: DataConfig) -> bool:
    """Say whether a data set's files can be found; nothing is downloaded or generated."""
    if data.name != "shards":
        return locate(data).exists()
    try:
        return has_shards(data.root or "")
    except DataError:
        return False


def load_configured(data: DataConfig) -> Manifest:
    """Load the data set that settings name; a missing file is no error if it may be skipped.

    Raises:
        DataError: If the data are missing or faulty.
    """
    return load_manifest(data, check_files=data.on_bad_file == "stop")


def _synthetic(data: DataConfig, check_files: bool) -> Manifest:
    root = locate(data)
    prepare_synthetic(root, seed=data.seed)
    manifest = read_esc50(root, name="synthetic", check_files=check_files)
    return replace(manifest, is_synthetic=True)


def _esc50(data: DataConfig, check_files: bool) -> Manifest:
    manifest = read_esc50(_ensure_esc50(locate(data), data.url), check_files=check_files)
    return replace(manifest, known_crossing_sources=KNOWN_CROSSING_SOURCES)


def _esc10(data: DataConfig, check_files: bool) -> Manifest:
    folder = _ensure_esc50(locate(data), data.url)
    return read_esc50(folder, name="esc10", esc10=True, check_files=check_files)


def _csv(data: DataConfig, check_files: bool) -> Manifest:
    file = Path(data.manifest or "").expanduser()
    return read_csv(file, locate(data), check_files=check_files)


def _folder(data: DataConfig, check_files: bool) -> Manifest:
    return read_folder(locate(data), data.source_pattern)


def _icbhi(data: DataConfig, check_files: bool) -> Manifest:
    return read_icbhi(locate(data))


def _physionet2016(data: DataConfig, check_files: bool) -> Manifest:
    return read_physionet2016(locate(data))


def _shards(data: DataConfig, check_files: bool) -> Manifest:
    return read_shards(data.root or "")


def _ensure_esc50(root: Path, url: str) -> Path:
    """Download and unpack ESC-50 unless its folder is there; the archive is kept beside it.

    Another process that is at it is waited for, and what it made is used.
    """
    if root.exists():
        return root
    archive = root.with_name(f"{root.name}.zip")
    try:
        with one_at_a_time(root):
            if not root.exists():
                fetch(url, archive, setting="data.url")
                unpack(archive, root)
    except (DownloadError, OSError) as error:
        raise DataError(
            f"{root}: no data here, and {error}. By hand: get {url} and save it as {archive}, or "
            f"unpack it so that {root / META} and {root / 'audio'}/*.wav are there, or set "
            "data.root. The built-in synthetic set needs no download: data.name=synthetic"
        ) from error
    return root


_BUILDERS: Final[dict[str, Callable[[DataConfig, bool], Manifest]]] = {
    "synthetic": _synthetic,
    "esc10": _esc10,
    "esc50": _esc50,
    "csv": _csv,
    "folder": _folder,
    "icbhi": _icbhi,
    "physionet2016": _physionet2016,
    "shards": _shards,
}

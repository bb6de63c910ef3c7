"""Sound files of a folder: all there are, or those that metadata name, and nothing outside."""

import logging
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path, PureWindowsPath
from typing import Final

from audioml.datasets.manifest import DataError, describe_examples

log = logging.getLogger("audioml")

SUFFIXES: Final = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"),
    *(".au", ".caf", ".w64", ".rf64"),
)


def list_sounds(folder: Path) -> list[Path]:
    """List the sound files of a folder and its folders, by their names' endings, in order.

    Other files are named in the log.

    Raises:
        DataError: If there are none.
    """
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    sounds = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not sounds:
        found = f"{len(files)} other files" if files else "nothing"
        raise DataError(
            f"{folder}: no sound files in it, {found}; expected names ending in "
            f"{', '.join(SUFFIXES)}"
        )
    if others := [f"{path}" for path in files if path.suffix.lower() not in SUFFIXES]:
        log.info(
            "left out  %d files that are no sounds by name: %s",
            len(others),
            describe_examples(others),
        )
    return sounds


class FileFinder:
    """Finds files in a data set's folder.

    Args:
        root: The folder that no file may leave, by its name or by a link.
    """

    def __init__(self, root: Path) -> None:
        inside = root.resolve()

        @cache
        def is_inside(path: Path) -> bool:  # of folders and links, which are fewer than files
            return path.resolve().is_relative_to(inside)

        self._is_inside = is_inside

    def find(
        self, where: str, folder: Path, name: str, suffixes: Sequence[str] = ()
    ) -> Path | None:
        """Find a file under its own name or another suffix.

        Args:
            where: What names it, for messages: a file and a row.
            folder: Where it is looked for; in the root.
            name: Its name, relative to the folder.
            suffixes: Others it may have.

        Returns:
            The file; None if it is not there.

        Raises:
            DataError: If the name or a link leads out of the root.
        """
        if _leaves_folder(name):
            raise DataError(
                f"{where}: {name!r} leaves the data root; name a file in {folder.name}/"
            )
        path = locate(folder, name, suffixes)
        if path is not None and not (
            self._is_inside(path.parent) and (not path.is_symlink() or self._is_inside(path))
        ):
            raise DataError(f"{where}: {path} is a link out of the data root; put the file itself")
        return path


def locate(folder: Path, name: str, suffixes: Sequence[str] = ()) -> Path | None:
    """Find a file under its own name or another suffix."""
    named = folder / name
    others = (named.with_suffix(suffix) for suffix in suffixes)
    try:
        return next((path for path in chain([named], others) if path.is_file()), None)
    except OSError:  # the name is too long for any file
        return None


def _leaves_folder(name: str) -> bool:
    """Whether a name is absolute, climbs or has no last part; Windows rules cover both worlds."""
    path = PureWindowsPath(name)
    return bool(path.anchor) or ".." in path.parts or not path.name

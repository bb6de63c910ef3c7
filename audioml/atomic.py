"""Files that are there whole or not at all, whatever happens while they are written."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[BufferedWriter]:
    """Open a temporary file beside ``path``; on success flush it and put it in ``path``'s place.

    Raises:
        OSError: With the file's name, also where the system gives none, as of a full disk.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # someone may have tidied up
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut, where the system can."""
    if os.name == "nt":  # folders can't be opened there
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # what some network drives say to it
            raise
    finally:
        os.close(folder)

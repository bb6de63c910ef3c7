"""The run folder: what is kept of a run, written so that an interruption leaves no half file."""

import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from logging.handlers import MemoryHandler
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any, Self, cast
from zipfile import is_zipfile

import pandas as pd
import torch
from matplotlib.figure import Figure

import audioml
from audioml.config import RunConfig, to_yaml

CHECKPOINT_VERSION = 1

log = logging.getLogger("audioml")


class RunError(ValueError):
    """A run folder that can't be used; the message names it and the remedy."""


class Folder:
    """A folder that keeps figures, tables and settings, each file written whole or not at all.

    Args:
        path: The folder; it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        (path / "plots").mkdir(exist_ok=True)

    @classmethod
    def create(cls, config: RunConfig, kind: str = "") -> Self:
        """Make a new folder: ``run.dir``, or one named after time, kind, model and data.

        Raises:
            RunError: If ``run.dir`` is there already and holds anything.
        """
        if config.run.dir is not None:
            path = Path(config.run.dir)
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise RunError(
                    f"{path}: already there; choose another run.dir, or continue what is in it "
                    f"with resume={path}"
                )
            path.mkdir(parents=True, exist_ok=True)
            return cls(path)
        now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        names = (now, kind, config.model.name, config.data.name)
        return cls(_make_unused(Path("runs") / "_".join(filter(None, names))))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the folder."""
        with _replacing(self.path / name) as file:
            file.write(text.encode())

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the folder; NaN becomes null."""
        self.write_text(name, json.dumps(_without_nan(content), indent=2) + "\n")

    def write_table(self, name: str, rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> None:
        """Write a CSV file of the folder."""
        self.write_text(name, pd.DataFrame(rows).to_csv(index=False))

    def write_figure(self, name: str, figure: Figure) -> None:
        """Write a figure to ``plots/``."""
        with _replacing(self.path / "plots" / name) as file:
            figure.savefig(file, format="png", dpi=110)


class RunFolder(Folder):
    """A folder with the name and place of everything a run keeps.

    Args:
        path: The folder; it exists.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.last = path / "checkpoints" / "last.pt"
        self.best = path / "checkpoints" / "best.pt"
        (path / "checkpoints").mkdir(exist_ok=True)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of a run that is to go on.

        Raises:
            RunError: If it is not a run folder, or has no checkpoint.
        """
        for file in (path / "config.yaml", path / "checkpoints" / "last.pt"):
            if not file.is_file():
                raise RunError(
                    f"{path}: no {file.relative_to(path)} in it, so there is nothing to resume; "
                    "give the folder of a run"
                )
        return cls(path)

    def write_start(self, config: RunConfig, split: pd.DataFrame) -> None:
        """Keep what the run depends on: configuration, environment and split."""
        self.write_text("config.yaml", to_yaml(config))
        self.write_json("env.json", describe_environment())
        self.write_table("split.csv", split)


@contextmanager
def log_to_file() -> Iterator[Callable[[Path], None]]:
    """Collect log lines and append them to a file as soon as it is named.

    Yields:
        A function that names the file; lines from before are written then, later ones at once.
    """
    lines = MemoryHandler(capacity=1)  # without a target it keeps everything
    log.addHandler(lines)

    def set_file(path: Path) -> None:
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        lines.setTarget(file)
        lines.flush()

    try:
        yield set_file
    finally:
        log.removeHandler(lines)
        if lines.target is not None:
            lines.target.close()
        lines.close()


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint to a temporary file, flush it to the disk and rename it into place."""
    with _replacing(path) as file:
        torch.save({"version": CHECKPOINT_VERSION, **state}, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; nothing in the file is executed.

    Raises:
        RunError: If the file is missing, damaged or holds anything but plain data and tensors.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such checkpoint")
    if not is_zipfile(path):
        raise RunError(f"{path}: not a readable checkpoint (cut short, or another kind of file)")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, EOFError, RuntimeError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{path}: not a readable checkpoint ({reason})") from error
    version = state.get("version") if isinstance(state, dict) else None
    if version != CHECKPOINT_VERSION:
        raise RunError(
            f"{path}: not a checkpoint of this version of audioml; expected format "
            f"{CHECKPOINT_VERSION}, found {version}"
        )
    return cast(dict[str, Any], state)


def describe_environment() -> dict[str, Any]:
    """List versions, devices, the commit and the command."""
    return {
        "audioml": audioml.__version__,
        "commit": describe_commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def describe_device(device: torch.device) -> str:
    """Name a device: the GPU's name, or the CPU with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.get_num_threads()} threads)"


def describe_commit() -> str | None:
    """Name the commit of the checkout the package runs from, ``-dirty`` if it was changed.

    Returns:
        None where there is no checkout or no git.
    """
    file = Path(audioml.__file__)

    def ask_git(*words: str) -> str:
        command = ["git", *words]
        done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        ask_git("ls-files", "--error-unmatch", file.name)  # not a checkout around an installation
        return ask_git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _make_unused(path: Path) -> Path:
    """Make a folder, numbered if another run took the name in the same second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    candidate, number = path, 2
    while True:
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            candidate, number = path.with_name(f"{path.name}_{number}"), number + 1


class _replacing:  # noqa: N801 - used as a function
    """Open a temporary file beside ``path``; on success flush it and put it in ``path``'s place."""

    def __init__(self, path: Path) -> None:
        self._path, self._temporary = path, path.with_name(f".{path.name}.part")

    def __enter__(self) -> IO[bytes]:
        self._file = self._temporary.open("wb")
        return self._file

    def __exit__(self, kind: object, *_: object) -> None:
        with self._file:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        if kind is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink()


def _without_nan(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _without_nan(value) for key, value in content.items()}
    return None if isinstance(content, float) and content != content else content

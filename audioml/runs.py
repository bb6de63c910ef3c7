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
from typing import Any, Self

import pandas as pd
import torch
from filelock import FileLock, Timeout
from matplotlib.figure import Figure

import audioml
from audioml.atomic import replacing
from audioml.checkpoints import Checkpoints
from audioml.config import RunConfig
from audioml.errors import UserError

log = logging.getLogger("audioml")

_DPI = 110
_MOST_PIXELS = 16_000  # of a side, which grows with the classes; older Matplotlib ends at 65,536


class RunError(UserError):
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
            if path.exists() and (not path.is_dir() or any(f.is_file() for f in path.rglob("*"))):
                raise RunError(
                    f"{path}: already there; choose another run.dir, or continue what is in it "
                    f"with resume={path}"
                )
            path.mkdir(parents=True, exist_ok=True)
            return cls(path)
        return cls.create_named(kind, config.model.name, config.data.name)

    @classmethod
    def create_named(cls, *names: str) -> Self:
        """Make a new folder in ``runs/``, named after the time and these."""
        now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        return cls(_make_unused(Path("runs") / "_".join(filter(None, (now, *names)))))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the folder."""
        with replacing(self.path / name) as file:
            file.write(text.encode())

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the folder; NaN becomes null."""
        self.write_text(name, to_json(content) + "\n")

    def write_table(self, name: str, rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> None:
        """Write a CSV file of the folder."""
        self.write_text(name, pd.DataFrame(rows).to_csv(index=False))

    def write_figure(self, name: str, figure: Figure) -> Path:
        """Write a figure to ``plots/``; returns the file."""
        path = self.path / "plots" / name
        with replacing(path) as file:
            dpi = min(_DPI, _MOST_PIXELS / max(figure.get_size_inches()))
            figure.savefig(file, format="png", dpi=dpi)
        return path


class RunFolder(Folder):
    """A folder with the name and place of everything a run keeps.

    Args:
        path: The folder; it exists.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.checkpoints = Checkpoints(path / "checkpoints")

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of a run that is to go on.

        Raises:
            RunError: If it is not a run folder.
        """
        if not cls.is_begun(path):
            raise RunError(
                f"{path}: no config.yaml and checkpoints/ in it, so there is nothing to resume; "
                "give the folder of a run"
            )
        return cls(path)

    @staticmethod
    def is_begun(path: Path) -> bool:
        """Whether a folder is that of a run, so that it can go on, if only from its beginning."""
        return (path / "config.yaml").is_file() and (path / "checkpoints").is_dir()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only process that writes to the folder; the system frees the lock of a dead one.

        Raises:
            RunError: If another process does.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise RunError(
                f"{self.path}: another process is at work in it; wait for it, stop it, or choose "
                "another run.dir"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def write_start(self, split: pd.DataFrame) -> None:
        """Keep what the run depends on besides its configuration: environment and split."""
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


def to_json(content: Any) -> str:
    """Write what is made of mappings, sequences, text and numbers as JSON; NaN becomes null."""
    return json.dumps(_without_nan(content), indent=2, allow_nan=False)


def _without_nan(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and content != content else content

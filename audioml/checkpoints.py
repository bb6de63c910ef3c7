"""A run's checkpoints: written so that a whole one is always there, read without trust.

A checkpoint is written beside the one it replaces, flushed, and renamed; the one before it is kept
as ``previous.pt``. Last of all its SHA-256 goes into ``manifest.json``, in the same manner. So
whatever is cut short, by a kill, a full disk or a power cut, one whole checkpoint is listed. What
is not as listed is not used.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from io import BufferedWriter, BytesIO
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor

from audioml.atomic import replacing
from audioml.errors import UserError
from audioml.tensor_files import TensorFileError, read_tensor_file

CHECKPOINT_VERSION = 2

log = logging.getLogger("audioml")


class CheckpointError(UserError):
    """A checkpoint that can't be used; the message names it and the remedy."""


class Checkpoints:
    """The checkpoints of a run.

    Args:
        path: Their folder; it is made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._manifest = path / "manifest.json"
        path.mkdir(exist_ok=True)

    @property
    def last(self) -> Path:
        """The newest."""
        return self.path / "last.pt"

    @property
    def previous(self) -> Path:
        """The one before the newest."""
        return self.path / "previous.pt"

    @property
    def best(self) -> Path:
        """That of the best epoch, if validation chose one."""
        return self.path / "best.pt"

    @property
    def are_there(self) -> bool:
        """Whether there is anything to go on from."""
        return self.last.exists() or self.previous.exists()

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Make ``state`` the newest checkpoint; the newest so far becomes the previous one."""
        with replacing(self.last) as file:
            digest = _write(state, file)
            if self.last.exists():
                self.last.replace(self.previous)
        self._list({"last.pt": digest})

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Make ``state`` the checkpoint of the best epoch."""
        with replacing(self.best) as file:
            digests = {"best.pt": _write(state, file)}
            if self.best.exists():
                digests["best.pt, replaced"] = _digest(self.best)
            self._list(digests)  # before it is in place, and with the one that is still there

    def load_last(self) -> dict[str, Any]:
        """Read the newest checkpoint that is whole; what is newer is reported and set aside.

        Raises:
            CheckpointError: If none is.
        """
        reasons = []
        for path in (self.last, self.previous):
            try:
                state = self._load(path)
            except CheckpointError as error:
                reasons.append(str(error))
                continue
            for reason in reasons:
                log.warning("not whole %s; going on from %s", reason, path.name)
            if reasons and self.last.exists():  # else the next one would put it in path's place
                self.last.replace(self.path / "last.damaged.pt")
            return state
        raise CheckpointError("; ".join(reasons) + "; start a new run")

    def load_best(self) -> dict[str, Any]:
        """Read the checkpoint of the best epoch.

        Raises:
            CheckpointError: If it is not there or not whole.
        """
        return self._load(self.best)

    def _load(self, path: Path) -> dict[str, Any]:
        listed = self._read_manifest()
        if path.name in listed and path.is_file() and _digest(path) not in listed.values():
            raise CheckpointError(f"{path}: its SHA-256 is not in {self._manifest.name}")
        return load_checkpoint(path)

    def _read_manifest(self) -> dict[str, str]:
        """Read the SHA-256 of each checkpoint; of none if there is no list."""
        try:
            listed = json.loads(self._manifest.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            listed = None
        if not isinstance(listed, dict):
            log.warning("damaged   %s: not a list of SHA-256; going on without it", self._manifest)
            return {}
        return listed

    def _list(self, digests: dict[str, str]) -> None:
        """Add to the manifest; a checkpoint that is replaced becomes the previous one."""
        listed = self._read_manifest()
        if "last.pt" in digests and "last.pt" in listed:
            listed["previous.pt"] = listed["last.pt"]
        with replacing(self._manifest) as file:
            file.write((json.dumps(listed | digests, indent=2) + "\n").encode())


def _write(state: Mapping[str, Any], file: BufferedWriter) -> str:
    """Write a checkpoint to an empty file, and to the disk: another one may go only after that.

    Returns:
        Its SHA-256.
    """
    content = BytesIO()  # of a full disk, torch.save would say that positions are unexpected
    torch.save({"version": CHECKPOINT_VERSION, **state}, content)
    file.write(content.getbuffer())
    file.flush()
    os.fsync(file.fileno())
    return hashlib.sha256(content.getbuffer()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; nothing in the file is executed.

    Raises:
        CheckpointError: If the file is missing, damaged or holds anything but plain data and
            tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        state = read_tensor_file(path)
    except TensorFileError as error:
        raise CheckpointError(str(error)) from error
    version = state.get("version") if isinstance(state, dict) else None
    if version != CHECKPOINT_VERSION:
        raise CheckpointError(
            f"{path}: not a checkpoint of this version of audioml; expected format "
            f"{CHECKPOINT_VERSION}, found {version}"
        )
    return cast(dict[str, Any], state)


def save_weights(path: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a model's weights alone as safetensors, with facts about them as JSON in its metadata.

    One entry of metadata holds them all: safetensors writes several in random order, and equal
    weights are to make equal files.
    """
    contiguous = {name: weight.cpu().contiguous() for name, weight in weights.items()}
    with replacing(path) as file:
        file.write(save(contiguous, {"audioml": json.dumps(facts)}))

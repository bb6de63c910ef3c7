"""A trained model ready for sounds: from a run folder to probabilities."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audioml.checkpoints import CheckpointError, load_checkpoint
from audioml.config import RunConfig, load_config
from audioml.frontend import BandLevels, choose_kind
from audioml.models import Network, build_model
from audioml.preparation import build_frontend


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A network behind its front end.

    Args:
        path: The run folder.
        config: The run's settings.
        labels: Names of the classes.
        frontend: From waveform to normalised levels.
        network: From those to logits.
        summary: What stands in the run's ``summary.json``; empty if it is not finished.
    """

    path: Path
    config: RunConfig
    labels: tuple[str, ...]
    frontend: BandLevels
    network: Network
    summary: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Load the weights that a run evaluated; those of its last epoch if it is not finished.

        Raises:
            CheckpointError: If there is no checkpoint, or it can't be used.
        """
        file = path / "summary.json"
        summary = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        state = load_checkpoint(path / "checkpoints" / f"{summary.get('weights', 'last')}.pt")
        config_file = path / "config.yaml"
        config = load_config([config_file])
        labels = tuple(state["labels"])
        frontend = build_frontend(config, choose_kind("torch", torch.device("cpu")), 0.0)
        network = build_model(
            config.model, n_classes=len(labels), input_size=config.input_size, trained=False
        )
        weights = _averaged(state)
        if frontend.trainable:
            raise CheckpointError(f"{path}: front ends that are trained are not supported here yet")
        frontend.load_state_dict(state["frontend"])
        network.load_state_dict(weights)
        return cls(
            path=path,
            config=config,
            labels=labels,
            frontend=frontend.eval(),
            network=network.eval(),
            summary=summary,
        )

    @property
    def n_time(self) -> int:
        """Samples of a window."""
        return self.config.audio.n_time

    def windows(self, waveform: NDArray[np.float32]) -> tuple[NDArray[np.int64], Tensor]:
        """Cut a sound into windows that overlap by half; the last ends with it.

        Returns:
            First sample of each [window], and the windows [window, time].
        """
        room = max(len(waveform) - self.n_time, 0)
        n_windows = 1 + round(2 * room / self.n_time + 0.4)  # a few samples more are left out
        begin = np.linspace(0, room, n_windows).round().astype(np.int64)
        wraps = self.config.audio.pad == "wrap"
        n_lacking = max(self.n_time - len(waveform), 0)
        padded = np.pad(waveform, (0, n_lacking), mode="wrap" if wraps else "constant")
        return begin, torch.from_numpy(np.stack([padded[b : b + self.n_time] for b in begin]))

    @torch.no_grad()
    def log_mels(self, windows: Tensor) -> Tensor:
        """Compute what the network is given [window, 1, mel, frame]."""
        levels: Tensor = self.frontend(windows)
        return levels[:, None].float()

    @torch.no_grad()
    def probabilities(self, log_mels: Tensor) -> NDArray[np.float64]:
        """Classify windows [window, class]."""
        logits = torch.cat([self.network(part) for part in log_mels.split(16)])
        probability: NDArray[np.float64] = nn.functional.softmax(logits.double(), dim=1).numpy()
        return probability


def _averaged(state: dict[str, Any]) -> dict[str, Tensor]:
    """Take the averaged weights from a checkpoint, if there are any."""
    if state["ema"] is None:
        return dict(state["model"])
    return {
        name.removeprefix("module."): weight
        for name, weight in state["ema"].items()
        if name.startswith("module.")
    }

"""A trained model as a thing that takes waveforms."""

from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audioml.checkpoints import load_checkpoint
from audioml.config import RunConfig, load_config
from audioml.frontend import BandLevels
from audioml.models import build_model
from audioml.preparation import _build_frontend


class Classifier(nn.Module):
    """Front end and network, from waveforms to probabilities."""

    def __init__(
        self,
        *,
        config: RunConfig,
        labels: tuple[str, ...],
        frontend: BandLevels,
        network: nn.Module,
    ) -> None:
        super().__init__()
        self.config, self.labels, self.frontend, self.network = config, labels, frontend, network
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> Self:
        """Read the model of a run's folder."""
        state = load_checkpoint(path / "checkpoints" / "last.pt")
        config = load_config([path / "config.yaml"])
        labels = tuple(state["labels"])
        frontend = _build_frontend(config, "torch", 0.0)
        network = build_model(
            config.model, n_classes=len(labels), input_size=config.input_size, trained=False
        )
        frontend.load_state_dict(state["frontend"])
        network.load_state_dict(_averaged(state))
        return cls(config=config, labels=labels, frontend=frontend, network=network)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.frontend.mean_db.device

    @property
    def sample_rate(self) -> int:
        """Rate of the waveforms it takes [Hz]."""
        return self.config.audio.sample_rate

    @property
    def n_time(self) -> int:
        """Samples of the clips it was trained on."""
        return self.config.audio.n_time

    @torch.inference_mode()
    def forward(self, waveform: Tensor) -> Tensor:
        """Classify waveforms [batch, time]: probabilities [batch, class], float64."""
        return F.softmax(self.network(self.frontend(waveform)[:, None]).double(), dim=1)


def _averaged(state: dict[str, Any]) -> dict[str, Tensor]:
    if state["ema"] is None:
        return dict(state["model"])
    prefix = "module."
    return {k.removeprefix(prefix): v for k, v in state["ema"].items() if k.startswith(prefix)}

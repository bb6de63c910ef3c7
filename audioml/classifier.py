"""A trained model as a thing that takes waveforms."""

from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from audioml.assembly import WithFrontend, build_frontend, choose_device
from audioml.config import ConfigError, RunConfig
from audioml.frontend import BandLevels
from audioml.model_files import ModelContent, ModelError, read_model
from audioml.models import build_model
from audioml.objective import probabilities
from audioml.precision import autocast, is_mixed


class Classifier(nn.Module):
    """Front end and network, from waveforms to probabilities, as a run's evaluation computes them.

    Args:
        config: The settings of the run.
        labels: Names of the classes.
        is_multi_label: Whether a sound may have several classes, or none: then each class has a
            probability of its own, and they need not sum to 1.
        frontend: The front end, with the statistics of the training clips.
        network: From the front end's output to logits; where the front end is trained, both, from
            waveforms.
        train_sources: The recordings it was trained on.
    """

    def __init__(
        self,
        *,
        config: RunConfig,
        labels: tuple[str, ...],
        frontend: BandLevels,
        network: nn.Module,
        is_multi_label: bool = False,
        train_sources: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.is_multi_label = is_multi_label
        self.config, self.labels, self.train_sources = config, labels, train_sources
        self.frontend, self.network = frontend, network
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> Self:
        """Read a model from a file; nothing in it is run.

        Args:
            path: A finished run's folder, its ``model.safetensors``, or a checkpoint (.pt).
            device: ``"auto"`` (CUDA where there is any), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

        Raises:
            UserError: If the file can't be used, or the device is not there; a subclass each.
        """
        return cls.from_content(read_model(Path(path)), device)

    @classmethod
    def from_content(cls, content: ModelContent, device: str = "auto") -> Self:
        """Build a model from what a file holds; see ``load``."""
        where = choose_device(device)
        config = _settle(content.config, where)
        try:
            frontend = build_frontend(config, where)
            network = build_model(
                config.model,
                n_classes=len(content.labels),
                input_size=config.input_size,
                trained=False,
            ).to(where)
            if frontend.trainable:
                network = WithFrontend(frontend, network)
            network.load_state_dict(content.weights)
            frontend.set_statistics(
                content.statistics["mean_db"][:, 0], content.statistics["std_db"][:, 0]
            )
        except ConfigError as error:
            raise ModelError(f"{content.path}: {error}") from error
        except (IndexError, RuntimeError) as error:  # of names and shapes
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"{content.path}: its weights do not fit its settings ({reason}); write it anew"
            ) from error
        frontend.dtype = getattr(torch, config.frontend.dtype)
        return cls(
            config=config,
            labels=content.labels,
            is_multi_label=content.is_multi_label,
            frontend=frontend,
            network=network,
            train_sources=content.train_sources,
        )

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

    def inputs(self, waveform: Tensor) -> Tensor:
        """Compute what the network is fed.

        Args:
            waveform: Samples [batch, time] at ``sample_rate``, full scale at 1.

        Returns:
            Log-mels [batch, 1, mel, frame], normalised; where the front end is part of the network,
            the waveforms [batch, 1, time].
        """
        return (waveform if self.frontend.trainable else self.frontend(waveform))[:, None]

    @torch.inference_mode()
    def forward(self, waveform: Tensor) -> Tensor:
        """Classify waveforms.

        Args:
            waveform: Samples [batch, time] at ``sample_rate``, full scale at 1, on its device.

        Returns:
            Probabilities [batch, class], float64.
        """
        with autocast(self.config.train.amp, self.device):
            logits = self.network(self.inputs(waveform))
        return probabilities(logits.double(), is_multi_label=self.is_multi_label)


def _settle(config: RunConfig, device: torch.device) -> RunConfig:
    """Take what can be had here in place of what only the training machine may have had.

    Kinds of front end agree within 0.05 dB, and half precision only spares memory.
    """
    frontend = config.frontend
    if frontend.kind == "triton":
        frontend = replace(frontend, kind="auto")
    if not is_mixed(config.train.amp, device):
        frontend = replace(frontend, dtype="float32")
    return replace(config, frontend=frontend)

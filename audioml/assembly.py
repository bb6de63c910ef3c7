"""Front end and network, put together as settings say."""

from typing import Any, cast

import torch
from torch import nn

from audioml.config import ConfigError, RunConfig
from audioml.frontend import (
    BandLevels,
    LogCqt,
    LogMel,
    MultiWindowLogMel,
    TrainableLogMel,
    choose_kind,
)
from audioml.frontend.backends import Kind
from audioml.models import Network
from audioml.precision import is_mixed
from audioml.ranks import ALONE, Ranks


class WithFrontend(nn.Sequential, Network):
    """A network behind the front end that is trained with it: [batch, 1, time] -> logits."""

    def __init__(self, frontend: BandLevels, network: Network) -> None:
        super().__init__(nn.Flatten(1), frontend, nn.Unflatten(1, (1, frontend.n_mels)), network)

    def stages(self) -> list[nn.Module]:
        """List the front end and the network's stages."""
        return [self[1], *cast(Network, self[3]).stages()]


def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """Turn ``train.device`` into a device; "auto" is CUDA where there is any.

    Args:
        name: The setting.
        ranks: Which of the processes this is; of several each takes a GPU of its own.

    Raises:
        ConfigError: If there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if ranks.are_several and name.startswith("cuda"):
        if name != "cuda":
            raise ConfigError(
                f"train.device={name}: each of several ranks takes a GPU of its own; set "
                "train.device=cuda"
            )
        name = f"cuda:{ranks.local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"train.device must be auto, cpu, cuda or cuda:N, got {name!r}; set train.device=auto"
        ) from error
    n_gpus = torch.cuda.device_count()
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"train.device must be auto, cpu, cuda or cuda:N, got {name!r}; set train.device=auto"
        )
    if device.type == "cuda" and (device.index or 0) >= n_gpus:
        raise ConfigError(
            f"train.device={name}: {n_gpus} CUDA devices here; set train.device=auto"
            + (", and start no more ranks than there are GPUs" if ranks.are_several else "")
        )
    return device


def build_frontend(
    config: RunConfig, device: torch.device, *, max_semitones: float = 0.0
) -> BandLevels:
    """Build the front end of the kind that is wanted, without statistics yet.

    Args:
        config: The run's settings.
        device: Where it computes.
        max_semitones: The largest pitch shift that it is to do.

    Raises:
        ConfigError: If that kind can't be had here.
    """
    try:
        kind = choose_kind(config.frontend.kind, device)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if config.frontend.dtype != "float32" and not is_mixed(config.train.amp, device):
        raise ConfigError(
            f"frontend.dtype={config.frontend.dtype} needs a model in mixed precision; set "
            "train.amp=bf16 or frontend.dtype=float32"
        )
    return _build(config, kind, max_semitones).to(device)


def _build(config: RunConfig, kind: Kind, max_semitones: float) -> BandLevels:
    f = config.frontend
    common: dict[str, Any] = {
        "sample_rate": config.audio.sample_rate,
        "hop_length": f.hop_length,
        "n_mels": f.n_mels,
        "f_min": f.f_min,
        "floor_db": f.floor_db,
    }
    if f.transform == "cqt":
        return LogCqt(bins_per_octave=f.bins_per_octave, trainable=f.trainable, **common)
    mel: dict[str, Any] = common | {
        "n_fft": f.n_fft,
        "f_max": f.f_max,
        "mel_scale": f.mel_scale,
        "mel_norm": f.mel_norm,
    }
    if f.trainable:
        return TrainableLogMel(win_length=f.win_length, **mel)
    mel |= {"kind": kind, "max_semitones": max_semitones}
    if f.windows:
        return MultiWindowLogMel(f.windows, **mel)
    return LogMel(win_length=f.win_length, **mel)

"""Operations that repeat to the bit, at some cost in speed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from audioml.config import ConfigError, RunConfig

_CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8"))


@contextmanager
def repeatable_operations(config: RunConfig, device: torch.device) -> Iterator[None]:
    """Run with deterministic operations alone, if ``train.deterministic`` asks for it.

    Raises:
        ConfigError: If another setting stands against it.

    Source: torch's notes on reproducibility.
    """
    if not config.train.deterministic:
        yield
        return
    _refuse_contradictions(config, device)
    name, values = _CUBLAS
    os.environ.setdefault(name, values[0])  # read when cuBLAS is first used
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(True)
        with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True):
            yield
    finally:
        torch.use_deterministic_algorithms(before)


def _refuse_contradictions(config: RunConfig, device: torch.device) -> None:
    name, values = _CUBLAS
    given = os.environ.get(name)
    if device.type == "cuda" and given not in (None, *values):
        raise ConfigError(
            f"train.deterministic=true needs the environment's {name} to be {' or '.join(values)}, "
            f"got {given}; unset it"
        )
    if config.train.compile:
        raise ConfigError(
            "train.deterministic=true and train.compile=true contradict each other: compiled "
            "kernels are chosen by their speed; set one of them to false"
        )
    if device.type == "cuda" and config.model.name == "alexnet":
        raise ConfigError(
            "train.deterministic=true: CUDA has no deterministic gradient of model.name=alexnet's "
            "adaptive pooling; set train.deterministic=false or another model"
        )

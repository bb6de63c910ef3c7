"""Networks from log-mel [batch, 1, mel, frame] to logits [batch, class], by name."""

from typing import Protocol

from audioml.config import ModelConfig
from audioml.models.cnn import Cnn
from audioml.models.network import Network


class Builder(Protocol):
    """Makes a network with random weights."""

    def __call__(
        self, config: ModelConfig, *, n_classes: int, input_size: tuple[int, int]
    ) -> Network:
        """See ``build_model``."""


def build_model(config: ModelConfig, *, n_classes: int, input_size: tuple[int, int]) -> Network:
    """Build a network, with its first weights.

    Args:
        config: Which, and its settings.
        n_classes: Number of classes.
        input_size: Bands and frames of the log-mels.
    """
    return MODELS[config.name](config, n_classes=n_classes, input_size=input_size)


def _build_cnn(config: ModelConfig, *, n_classes: int, input_size: tuple[int, int]) -> Network:
    return Cnn(
        n_classes=n_classes,
        width=config.width,
        dropout=config.dropout,
        attention=config.name == "cnn_attention",
    )


MODELS: dict[str, Builder] = {"cnn": _build_cnn, "cnn_attention": _build_cnn}
"""Builders, by ``model.name``."""

__all__ = ["MODELS", "Network", "build_model"]

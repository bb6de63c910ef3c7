"""Networks from log-mel [batch, 1, mel, frame] to logits [batch, class], by name."""

from typing import Protocol

from audioml.config import ConfigError, ModelConfig
from audioml.models.ast import Ast
from audioml.models.cnn import Cnn
from audioml.models.network import Network
from audioml.models.weights import load_weights, wants_weights


class Builder(Protocol):
    """Makes a network with random weights."""

    def __call__(
        self, config: ModelConfig, *, n_classes: int, input_size: tuple[int, int]
    ) -> Network:
        """See ``build_model``."""


def build_model(
    config: ModelConfig, *, n_classes: int, input_size: tuple[int, int], trained: bool = True
) -> Network:
    """Build a network, with its first weights.

    Args:
        config: Which, and its settings.
        n_classes: Number of classes.
        input_size: Bands and frames of the log-mels; of one window, where there are several.
        trained: Whether trained weights are loaded, if ``config`` has any; False where a checkpoint
            is loaded right after.

    Raises:
        ConfigError: If log-mels are too small for the network, or its weights can't be loaded.
    """
    model = MODELS[config.name](config, n_classes=n_classes, input_size=input_size)
    if trained:
        load_weights(model, config)
    return model


def _build_cnn(config: ModelConfig, *, n_classes: int, input_size: tuple[int, int]) -> Network:
    return Cnn(
        n_classes=n_classes,
        width=config.width,
        dropout=config.dropout,
        attention=config.name == "cnn_attention",
    )


def _build_alexnet(config: ModelConfig, *, n_classes: int, input_size: tuple[int, int]) -> Network:
    from audioml.models.imagenet import AlexNet  # here, because importing torchvision takes long

    _refuse_small(config, input_size, least=63)
    return AlexNet(n_classes=n_classes, dropout=config.dropout, channels=config.channels)


def _build_resnet50(config: ModelConfig, *, n_classes: int, input_size: tuple[int, int]) -> Network:
    from audioml.models.imagenet import ResNet50

    return ResNet50(
        n_classes=n_classes,
        dropout=config.dropout,
        channels=config.channels,
        attention=config.name == "resnet50_attention",
    )


def _build_ast(config: ModelConfig, *, n_classes: int, input_size: tuple[int, int]) -> Network:
    _refuse_small(config, input_size, least=config.ast.patch)
    return Ast(n_classes=n_classes, size=config.ast, dropout=config.dropout, input_size=input_size)


def _refuse_small(config: ModelConfig, input_size: tuple[int, int], least: int) -> None:
    if min(input_size) < least:
        raise ConfigError(
            f"model.name={config.name} needs log-mels of at least {least} bands x {least} frames, "
            f"got {input_size[0]} x {input_size[1]}; raise frontend.n_mels, lower "
            "frontend.hop_length or raise audio.clip_s"
        )


MODELS: dict[str, Builder] = {
    "cnn": _build_cnn,
    "cnn_attention": _build_cnn,
    "alexnet": _build_alexnet,
    "resnet50": _build_resnet50,
    "resnet50_attention": _build_resnet50,
    "ast": _build_ast,
}
"""Builders, by ``model.name``."""

__all__ = ["MODELS", "Network", "build_model", "wants_weights"]

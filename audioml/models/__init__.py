"""Networks from log-mel [batch, 1, mel, frame] to logits [batch, class], by name."""

from collections.abc import Callable

from torch import nn

from audioml.models.cnn import Cnn

MODELS: dict[str, Callable[..., nn.Module]] = {"cnn": Cnn}
"""Builders; each takes ``n_classes`` and the keys of the ``model`` section but ``name``."""

__all__ = ["MODELS", "Cnn"]

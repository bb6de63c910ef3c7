"""A model that learns from what all ranks see."""

import gc
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from audioml.ranks import Ranks


class Replica:
    """A rank's copy of a model: its gradients become the mean over the ranks, while it makes them.

    Buffers are each rank's own. None is read in training, and rank 0's are those that are kept.

    Args:
        model: The model, on its device; it gets rank 0's weights.
        ranks: Which copy this is.
        is_compiled: Whether it runs under ``torch.compile``.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, *, is_compiled: bool) -> None:
        self._model, self._ranks, self._is_compiled = model, ranks, is_compiled
        self._shared: DistributedDataParallel | None = None
        self._learning: list[bool] = []
        self._run: Callable[[Tensor], Any] = model
        if not ranks.are_several and is_compiled:
            self._run = torch.compile(model)
        if ranks.are_several:  # said of every gradient of one channel, and harmless
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")

    def follow(self) -> None:
        """Take note of what learns, before the first step and wherever that may have changed."""
        learning = [parameter.requires_grad for parameter in self._model.parameters()]
        if not self._ranks.are_several or learning == self._learning:
            return
        self._learning = learning
        self._run, self._shared = self._model, None
        gc.collect()  # the one before hooks into gradients until it is gone
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            self._shared = DistributedDataParallel(  # torch 2.11 has no newer name for this setting
                self._model, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        self._run = torch.compile(self._shared) if self._is_compiled else self._shared

    def sharing(self, *, is_last: bool) -> AbstractContextManager[object]:
        """Make the context for a forward and backward pass; only the step's last one waits."""
        return nullcontext() if is_last or self._shared is None else self._shared.no_sync()

    def __call__(self, batch: Tensor) -> Tensor:
        """Run the model."""
        return cast(Tensor, self._run(batch))

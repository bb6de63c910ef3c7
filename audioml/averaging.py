"""The moving average of a model's weights, updated without waiting for the device."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class WeightAverage:
    """A model's moving average, buffers included.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.state = AveragedModel(model, use_buffers=True)
        ours, theirs = ([*m.parameters(), *m.buffers()] for m in (self.state.module, model))
        pairs = list(zip(ours, theirs, strict=True))
        self._numbers = _unzip([p for p in pairs if p[0].is_floating_point()])
        self._counts = _unzip([p for p in pairs if not p[0].is_floating_point()])

    def update(self, decay: float) -> None:
        """Do what ``AveragedModel.update_parameters`` does, but never wait for the device."""
        decay = decay if self.state.n_averaged else 0.0  # it is on the CPU
        with torch.no_grad():
            torch._foreach_lerp_(*self._numbers, 1.0 - decay)
            if self._counts[0]:
                torch._foreach_copy_(*self._counts)
        self.state.n_averaged += 1


def _unzip(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]

"""What all networks have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A network from normalised log-mels [batch, 1, mel, frame] to logits [batch, class]."""

    @abstractmethod
    def stages(self) -> list[nn.Module]:
        """List its parts from the input to the head, which is the last; each parameter is in one.

        Fine-tuning frees them one after another, and gives each a learning rate of its own.
        """

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fit tensors of the same network for another kind of input to this one's.

        Args:
            state: Tensors by name.

        Returns:
            The same by name; those that depend on the input's size or channels in this one's shape.
        """
        return dict(state)

"""Attention for convolutional networks: which channels, where, and when."""

import torch
from torch import Tensor, nn

_REDUCTION = 16  # of channels, inside the channel gate
_KERNEL = 7  # of the spatial gate


class Cbam(nn.Module):
    """Weigh channels, then places, by gates computed from what they weigh.

    Where the original multiplies by ``sigmoid``, this does by ``2 * sigmoid``, and what the gates
    are computed by starts at 0: every gate starts as 1. So a network starts as if it had none of
    them, which one with trained weights must.

    Args:
        n_channels: Channels in and out.

    Source: Woo et al. 2018, "CBAM: Convolutional Block Attention Module".
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        n_hidden = max(n_channels // _REDUCTION, 4)
        last = nn.Conv2d(n_hidden, n_channels, 1)
        self.channel = nn.Sequential(
            nn.Conv2d(n_channels, n_hidden, 1), nn.ReLU(inplace=True), last
        )
        self.place = nn.Conv2d(2, 1, _KERNEL, padding=_KERNEL // 2)
        _start_at_zero(last)
        _start_at_zero(self.place)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channel, mel, frame] -> the same."""
        pooled = (x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True))
        x = x * (2.0 * torch.sigmoid(self.channel(pooled[0]) + self.channel(pooled[1])))
        profile = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)
        return x * (2.0 * torch.sigmoid(self.place(profile)))


class AttentionPool(nn.Module):
    """Average over the bands, and over time with learned weights; at first a plain mean.

    Args:
        n_channels: Channels in and out.

    Source: Kong et al. 2018, "Audio Set classification with attention model", with one weight a
        frame for all channels.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.score = nn.Conv1d(n_channels, 1, 1)
        _start_at_zero(self.score)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channel, mel, frame] -> [batch, channel]."""
        x = x.mean(dim=2)
        return (x * self.weights(x)).sum(dim=2)

    def weights(self, x: Tensor) -> Tensor:
        """[batch, channel, frame] -> how much each frame counts [batch, 1, frame], 1 in all."""
        return torch.softmax(self.score(x), dim=2)


def _start_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)

"""The baseline: a small residual CNN, with or without attention."""

import torch
from torch import Tensor, nn

from audioml.models.attention import AttentionPool, Cbam
from audioml.models.network import Network


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions that halve the resolution, beside a pooled 1 x 1 shortcut.

    Args:
        n_in: Channels in.
        n_out: Channels out.
        attention: Whether a CBAM follows the convolutions.
    """

    def __init__(self, n_in: int, n_out: int, *, attention: bool = False) -> None:
        super().__init__()
        last_norm = nn.BatchNorm2d(n_out)
        # A block starts as its shortcut (Goyal et al. 2017, section 5.1).
        nn.init.zeros_(last_norm.weight)
        self.convolve = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
            last_norm,
            *([Cbam(n_out)] if attention else []),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True),
            nn.Conv2d(n_in, n_out, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, n_in, mel, frame] -> [batch, n_out, mel / 2, frame / 2], sizes rounded up."""
        return torch.relu(self.convolve(x) + self.shortcut(x))


class MeanMaxPool(nn.Module):
    """What sounds throughout and what sounds once: mean and maximum over time, added."""

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channel, mel, frame] -> [batch, channel]."""
        x = x.mean(dim=2)
        return x.mean(dim=2) + x.amax(dim=2)


class Cnn(Network):
    """A residual CNN of 1.2 M parameters at width 32, for log-mels of any size.

    Args:
        n_classes: Number of classes.
        width: Channels of the stem; the three blocks have 2, 4 and 8 times as many.
        dropout: Dropout before the last layer.
        attention: Whether each block has a CBAM, and attention chooses the times that count.
    """

    def __init__(
        self, *, n_classes: int, width: int = 32, dropout: float = 0.2, attention: bool = False
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(width * factor, 2 * width * factor, attention=attention)
                for factor in (1, 2, 4)
            )
        )
        self.pool = AttentionPool(8 * width) if attention else MeanMaxPool()
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(8 * width, n_classes))

    def stages(self) -> list[nn.Module]:
        """List the stem, the blocks, and the pooling with the last layer."""
        return [self.stem, *self.blocks, nn.ModuleList([self.pool, self.head])]

    def forward(self, log_mel: Tensor) -> Tensor:
        """Classify log-mels.

        Args:
            log_mel: [batch, 1, mel, frame], normalised.

        Returns:
            Logits [batch, class].
        """
        logits: Tensor = self.head(self.pool(self.blocks(self.stem(log_mel))))
        return logits

"""A small audio spectrogram transformer."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audioml.config import AstConfig
from audioml.models.network import Network

_POSITIONS = "embed.positions"


class PatchEmbedding(nn.Module):
    """Cut a log-mel into patches: a token each, with its position, behind the class token.

    Args:
        patch: Bands and frames a patch.
        stride: Bands and frames between patches; below ``patch`` they overlap.
        dim: Width of a token.
        input_size: Bands and frames of the log-mels that positions are learned for.
    """

    def __init__(self, *, patch: int, stride: int, dim: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        n_mels, n_frames = (1 + (size - patch) // stride for size in input_size)
        self.project = nn.Conv2d(1, dim, patch, stride=stride)
        self.class_token = nn.Parameter(torch.empty(1, 1, dim))
        self.positions = nn.Parameter(torch.empty(1, dim, n_mels, n_frames))
        for parameter in (self.class_token, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, log_mel: Tensor) -> Tensor:
        """[batch, 1, mel, frame] -> [batch, 1 + patch, dim]."""
        patches = self.project(log_mel)
        patches = patches + interpolate_positions(self.positions, patches.shape[2:])
        tokens = patches.flatten(2).transpose(1, 2)
        return torch.cat((self.class_token.expand(tokens.shape[0], -1, -1), tokens), dim=1)


def interpolate_positions(positions: Tensor, size: tuple[int, ...]) -> Tensor:
    """Fit learned positions [1, dim, mel, frame] to another number of patches."""
    if positions.shape[2:] == size:
        return positions
    return F.interpolate(positions, size, mode="bicubic", align_corners=False)


class Ast(Network):
    """A transformer over the patches of a log-mel; 2.7 M parameters as configured by default.

    Args:
        n_classes: Number of classes.
        size: Patches and widths.
        dropout: Dropout before the last layer.
        input_size: Bands and frames of the log-mels; at least a patch.

    Source: Gong et al. 2021, "AST: Audio Spectrogram Transformer", arXiv:2104.01778, smaller and
        with one class token.
    """

    def __init__(
        self, *, n_classes: int, size: AstConfig, dropout: float, input_size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.embed = PatchEmbedding(
            patch=size.patch, stride=size.stride, dim=size.dim, input_size=input_size
        )
        self.blocks = nn.Sequential(*(_make_block(size) for _ in range(size.depth)))
        self.head = nn.Sequential(
            nn.LayerNorm(size.dim), nn.Dropout(dropout), nn.Linear(size.dim, n_classes)
        )

    def stages(self) -> list[nn.Module]:
        """List the embedding, the blocks and the head."""
        return [self.embed, *self.blocks, self.head]

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Interpolate positions that were learned for another input size."""
        own, positions = self.embed.positions, state.get(_POSITIONS)
        if (
            positions is None
            or positions.ndim != 4
            or positions.shape[:2] != own.shape[:2]
            or not positions.numel()
        ):
            return dict(state)
        return {**state, _POSITIONS: interpolate_positions(positions.float(), own.shape[2:])}

    def forward(self, log_mel: Tensor) -> Tensor:
        """Classify log-mels.

        Args:
            log_mel: [batch, 1, mel, frame], normalised; other sizes than ``input_size`` have their
                positions interpolated.

        Returns:
            Logits [batch, class].
        """
        logits: Tensor = self.head(self.blocks(self.embed(log_mel))[:, 0])
        return logits


def _make_block(size: AstConfig) -> nn.Module:
    return nn.TransformerEncoderLayer(
        size.dim,
        size.heads,
        4 * size.dim,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )

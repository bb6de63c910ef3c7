"""Log-mels as what ImageNet's networks were trained on: three normalised channels."""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A standardised log-mel z is taken for the grey image x = 0.449 + 0.226 z, whose mean and deviation
# are those of ImageNet's channels on average. Normalised as torchvision does it, channel c is
#
#     (x - mean[c]) / std[c] = scale[c] z + offset[c],
#
# near z in all three: the network sees a log-mel with the contrast of its own images.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_GREY_MEAN, _GREY_STD = 0.449, 0.226


def grey_to_rgb() -> tuple[Tensor, Tensor]:
    """Return scale and offset [3, 1, 1] that make a standardised plane a channel, float64."""
    mean, std = torch.tensor((_MEAN, _STD), dtype=torch.float64)[:, :, None, None]
    return _GREY_STD / std, (_GREY_MEAN - mean) / std


def fold_weight(weight: Tensor) -> Tensor:
    """Fold a convolution of three channels that show the same grey image.

    The sum over c of W[c] * (scale[c] z + offset[c]) is (sum scale[c] W[c]) * z plus (sum offset[c]
    W[c]) * 1, a convolution of the two planes z and 1. At the border the plane of ones is padded
    with zeros, as the offsets are in three real channels: there a bias would be wrong.

    Args:
        weight: [out, 3, mel, frame].

    Returns:
        [out, 2, mel, frame].
    """
    scale, offset = (factor.to(weight) for factor in grey_to_rgb())
    return torch.stack(((weight * scale).sum(1), (weight * offset).sum(1)), dim=1)


class MonoConv2d(nn.Conv2d):
    """A convolution of a log-mel and a plane of ones, made from one of three channels.

    Args:
        rgb: The convolution of three channels.
    """

    def __init__(self, rgb: nn.Conv2d) -> None:
        super().__init__(
            2,
            rgb.out_channels,
            (rgb.kernel_size[0], rgb.kernel_size[1]),
            stride=(rgb.stride[0], rgb.stride[1]),
            padding=cast(tuple[int, int], rgb.padding),
            bias=rgb.bias is not None,
        )
        self.load_state_dict({**rgb.state_dict(), "weight": fold_weight(rgb.weight.detach())})

    def forward(self, log_mel: Tensor) -> Tensor:
        """[batch, 1, mel, frame] -> [batch, out, mel / stride, frame / stride]."""
        return super().forward(torch.cat((log_mel, torch.ones_like(log_mel)), dim=1))


def repeat(log_mel: Tensor) -> Tensor:
    """[batch, 1, mel, frame] -> [batch, 3, mel, frame], three times the same."""
    return log_mel.expand(-1, 3, -1, -1)


def stack_deltas(log_mel: Tensor) -> Tensor:
    """[batch, 1, mel, frame] -> [batch, 3, mel, frame]: log-mel, delta, delta of the delta."""
    delta = compute_deltas(log_mel)
    return torch.cat((log_mel, delta, compute_deltas(delta)), dim=1)


def compute_deltas(x: Tensor) -> Tensor:
    """Compute the slope over time: a line's, fitted to five frames; ends are repeated.

    Args:
        x: [batch, channel, mel, frame].

    Returns:
        [batch, channel, mel, frame], per frame.

    Source: torchaudio.functional.compute_deltas with win_length 5; equal to 1e-6 in
        tests/test_imagenet.py.
    """
    x = F.pad(x, (2, 2, 0, 0), mode="replicate")
    return (2.0 * (x[..., 4:] - x[..., :-4]) + x[..., 3:-1] - x[..., 1:-3]) / 10.0


def split_windows(log_mel: Tensor) -> Tensor:
    """[batch, 1, 3 * mel, frame] -> [batch, 3, mel, frame]: the log-mel of each window."""
    return log_mel.reshape(log_mel.shape[0], 3, -1, log_mel.shape[3])


PLANES: dict[str, Callable[[Tensor], Tensor]] = {
    "repeated": repeat,
    "deltas": stack_deltas,
    "windows": split_windows,
}
"""Makers of three planes, by ``model.channels``."""


class ThreeChannels(nn.Module):
    """Make three channels of a log-mel, normalised as ImageNet's are.

    Args:
        channels: A key of ``PLANES``.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, channels: str) -> None:
        super().__init__()
        self.make_planes = PLANES[channels]
        for name, factor in zip(("scale", "offset"), grey_to_rgb(), strict=True):
            self.register_buffer(name, factor.float(), persistent=False)

    def forward(self, log_mel: Tensor) -> Tensor:
        """[batch, 1, mel, frame], with windows [batch, 1, 3 * mel, frame] -> [batch, 3, ...]."""
        return self.make_planes(log_mel) * self.scale + self.offset

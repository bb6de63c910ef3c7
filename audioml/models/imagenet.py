"""AlexNet and ResNet-50 for log-mels; tensors have torchvision's names, so that its weights fit."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn
from torchvision import models as torchvision_models
from torchvision.models.resnet import Bottleneck

from audioml.models.attention import AttentionPool, Cbam
from audioml.models.channels import MonoConv2d, ThreeChannels, fold_weight
from audioml.models.network import Network


class AlexNet(torchvision_models.AlexNet, Network):
    """AlexNet in torchvision's version, 57 M parameters; at least 63 x 63.

    Args:
        n_classes: Number of classes.
        dropout: Dropout before the two hidden linear layers.
        channels: What it sees: "mono", or a key of ``channels.PLANES``.

    Source: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks".
    """

    features: nn.Sequential
    classifier: nn.Sequential

    def __init__(self, *, n_classes: int, dropout: float, channels: str) -> None:
        super().__init__(num_classes=n_classes, dropout=dropout)
        self.features[0], self.planes = _fit_input(cast(nn.Conv2d, self.features[0]), channels)

    def stages(self) -> list[nn.Module]:
        """List the five convolutions and the three linear layers."""
        layers = (*self.features, *self.classifier)
        return [layer for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear)]

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fold the first convolution, if it is one of three channels and this one's is not."""
        return _fold(state, "features.0.weight", self.features[0])

    def forward(self, log_mel: Tensor) -> Tensor:
        """Classify log-mels.

        Args:
            log_mel: [batch, 1, mel, frame], normalised; with windows [batch, 1, 3 * mel, frame].

        Returns:
            Logits [batch, class].
        """
        logits: Tensor = super().forward(self.planes(log_mel))
        return logits


class ResNet50(torchvision_models.ResNet, Network):
    """ResNet-50 in torchvision's version, 24 M parameters, for log-mels of any size.

    With attention a CBAM follows each of the four layers, and attention chooses the times that
    count. Both start as if they were not there (``attention.py``): so does the network, with the
    weights of the plain one.

    Args:
        n_classes: Number of classes.
        dropout: Dropout before the last layer.
        channels: What it sees: "mono", or a key of ``channels.PLANES``.
        attention: Whether there is attention.

    Source: He et al. 2016, "Deep residual learning for image recognition".
    """

    conv1: nn.Conv2d
    bn1: nn.BatchNorm2d
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential
    avgpool: nn.Module
    fc: nn.Linear

    def __init__(self, *, n_classes: int, dropout: float, channels: str, attention: bool) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3], num_classes=n_classes)
        self.conv1, self.planes = _fit_input(self.conv1, channels)
        pool = self.avgpool
        if attention:
            for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
                layer.append(Cbam(cast(Bottleneck, layer[-1]).bn3.num_features))
            pool = AttentionPool(self.fc.in_features)
        self.avgpool = nn.Sequential(pool, nn.Dropout(dropout))

    def stages(self) -> list[nn.Module]:
        """List the first convolution with its norm, the four layers, and pooling with the last."""
        first, last = nn.ModuleList([self.conv1, self.bn1]), nn.ModuleList([self.avgpool, self.fc])
        return [first, self.layer1, self.layer2, self.layer3, self.layer4, last]

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fold the first convolution, if it is one of three channels and this one's is not."""
        return _fold(state, "conv1.weight", self.conv1)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Classify log-mels; see ``AlexNet.forward``."""
        logits: Tensor = super().forward(self.planes(log_mel))
        return logits


def _fit_input(first: nn.Conv2d, channels: str) -> tuple[nn.Conv2d, nn.Module]:
    """Return the first convolution and what goes before it."""
    if channels == "mono":
        return MonoConv2d(first), nn.Identity()
    return first, ThreeChannels(channels)


def _fold(state: Mapping[str, Tensor], key: str, first: nn.Module) -> dict[str, Tensor]:
    """Fold the tensor ``key`` if ``first``, where it belongs, is folded and it is not."""
    weight = state.get(key)
    is_rgb = weight is not None and weight.ndim == 4 and weight.shape[1] == 3
    if weight is None or not is_rgb or not isinstance(first, MonoConv2d):
        return dict(state)
    return {**state, key: fold_weight(weight)}

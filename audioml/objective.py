"""From logits to probabilities and to the loss: of one class a clip, or of any number of them."""

import torch
import torch.nn.functional as F
from torch import Tensor


def probabilities(logits: Tensor, *, is_multi_label: bool) -> Tensor:
    """Turn logits [batch, class] into probabilities.

    Args:
        logits: What a network gives each class.
        is_multi_label: Whether a clip may have several classes, or none: then each class has a
            probability of its own (sigmoid); else a clip's sum to 1 (softmax).
    """
    return torch.sigmoid(logits) if is_multi_label else torch.softmax(logits, dim=1)


def mean_loss(
    logits: Tensor,
    target: Tensor,
    *,
    is_multi_label: bool,
    weights: Tensor | None,
    label_smoothing: float,
) -> Tensor:
    """Average cross-entropy over clips, or binary cross-entropy over clips and classes.

    Args:
        logits: [batch, class].
        target: Probabilities [batch, class]; of mixed clips the mixture of both clips' targets.
        is_multi_label: Whether a clip may have several classes, or none.
        weights: Of each class [class] in the loss; for multi-label data of its positives.
        label_smoothing: 0 to 1: how much of a target is spread over all classes; for multi-label
            data, over yes and no.

    Source: for mixtures in multi-label data Kong et al. 2020, "PANNs", and Gong et al. 2021, "AST";
        for smoothing there Keras, ``BinaryCrossentropy``.
    """
    if not is_multi_label:
        return F.cross_entropy(logits, target, weight=weights, label_smoothing=label_smoothing)
    smooth = target * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights)

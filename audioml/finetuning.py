"""Which stages of a network learn when, and how fast."""

from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from audioml.config import FinetuneConfig
from audioml.models import Network


def parameter_groups(
    model: Network, *, weight_decay: float, lr_decay: float
) -> list[dict[str, Any]]:
    """Group the parameters of a network for the optimizer.

    Args:
        model: The network.
        weight_decay: Of weights; biases and normalisation do not decay.
        lr_decay: Learning rate of a stage as a share of the next one's.

    Returns:
        Groups with params, weight_decay and ``lr_share``: the share of the learning rate that they
        learn at, 1 for the head.

    Source: Howard & Ruder 2018, "Universal language model fine-tuning", section 3.2, for the
        rates.
    """
    groups = []
    for distance, stage in enumerate(reversed(model.stages())):
        parameters = [p for p in stage.parameters() if p.requires_grad]
        for decay, members in (
            (weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            group = {"params": members, "weight_decay": decay, "lr_share": lr_decay**distance}
            groups += [group] if members else []
    return groups


def n_frozen(epoch: int, n_stages: int, config: FinetuneConfig) -> int:
    """Say how many stages, from the input on, do not learn in an epoch.

    Args:
        epoch: Epoch number, from 0.
        n_stages: Stages of the network, the head included.
        config: ``head_epochs`` with the head alone (-1: all), then, with ``unfreeze_every``, one
            stage more at once and after every so many epochs; else all at once.
    """
    if config.head_epochs == -1 or epoch < config.head_epochs:
        return n_stages - 1
    if not config.unfreeze_every:
        return 0
    return max(n_stages - 2 - (epoch - config.head_epochs) // config.unfreeze_every, 0)


def set_learning(model: Network, epoch: int, config: FinetuneConfig) -> None:
    """Set what learns in an epoch: the rest keeps its weights and statistics, without dropout."""
    stages = model.stages()
    frozen = n_frozen(epoch, len(stages), config)
    model.train()
    for number, stage in enumerate(stages):
        stage.requires_grad_(number >= frozen)
        stage.train(number >= frozen)
    if config.batch_norm == "frozen":
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()

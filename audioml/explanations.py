"""Where in time and frequency a network finds its decision."""

from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from audioml.errors import UserError
from audioml.models import Network
from audioml.models.ast import Ast
from audioml.models.attention import AttentionPool

_N_STEPS: Final = 16  # of integrated gradients


class ExplanationError(UserError):
    """What explains decisions can't be had; the message says how to get it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """Where the evidence for a class lies.

    Args:
        method: How it was found.
        heat: Share of the strongest evidence [mel, frame], in 0..1; 0 everywhere if there is none.
        cells: Bands and frames of the map that ``heat`` is interpolated from.
        attention: Weight of each frame in the network's pooling over time [frame], 1 on average;
            None for a network that has no such pooling.
    """

    method: str
    heat: NDArray[Any]
    cells: tuple[int, int]
    attention: NDArray[Any] | None


def explain(network: Network, log_mel: Tensor, target: int, *, n_mels: int) -> Explanation:
    """Find the evidence for a class.

    Networks of convolutions get Grad-CAM on the output of the last; the transformer, whose last
    output has no places, gets integrated gradients, the mean of each patch.

    Args:
        network: A network of ``models``, in evaluation mode.
        log_mel: What it is given [1, 1, mel, frame], normalised; with windows [1, 1, 3 * mel,
            frame].
        target: The class.
        n_mels: Bands of the log-mel; of one window, where there are several.

    Raises:
        ExplanationError: If captum is not installed.

    Source: Selvaraju et al. 2017, "Grad-CAM"; Sundararajan et al. 2017, "Axiomatic attribution for
        deep networks"; both by captum.
    """
    log_mel = log_mel.detach().clone().float()  # a plain tensor, whatever it was made in
    size = (n_mels, log_mel.shape[3])
    with torch.enable_grad():
        if isinstance(network, Ast):
            method, cells = "integrated gradients", _integrate_gradients(network, log_mel, target)
        else:
            method, cells = "Grad-CAM", _grad_cam(network, log_mel, target)
    heat = F.interpolate(cells, size, mode="bilinear", align_corners=False)[0, 0]
    heat = heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)
    return Explanation(
        method=method,
        heat=heat.cpu().numpy(),
        cells=(cells.shape[2], cells.shape[3]),
        attention=_read_attention(network, log_mel),
    )


def _grad_cam(network: Network, log_mel: Tensor, target: int) -> Tensor:
    """Weigh the last convolution's channels by the class's mean gradient [1, 1, mel, frame]."""
    attr = _import_captum()
    last = next(s for s in reversed(network.stages()[:-1]) if not isinstance(s, nn.Linear))
    cam = attr.LayerGradCam(network, last)
    evidence: Tensor = cam.attribute(log_mel, target=target, relu_attributions=True)
    return evidence.detach()


def _integrate_gradients(network: Ast, log_mel: Tensor, target: int) -> Tensor:
    """Attribute the logit to each patch, from the mean log-mel on [1, 1, mel, frame]."""
    attr = _import_captum()
    evidence: Tensor = attr.IntegratedGradients(network).attribute(
        log_mel, target=target, n_steps=_N_STEPS
    )
    convolve = network.embed.project
    patch, stride = convolve.kernel_size[0], convolve.stride[0]
    return F.avg_pool2d(evidence.detach().float(), patch, stride).relu()


def _read_attention(network: Network, log_mel: Tensor) -> NDArray[Any] | None:
    """Read how much each frame counts in the pooling over time, 1 on average."""
    pool = next((m for m in network.modules() if isinstance(m, AttentionPool)), None)
    if pool is None:
        return None
    seen: list[Tensor] = []
    hook = pool.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        with torch.no_grad():
            network(log_mel)
            weights = pool.weights(seen[0].mean(dim=2))
    finally:
        hook.remove()
    size = log_mel.shape[3]
    weights = F.interpolate(weights, size, mode="linear", align_corners=False)[0, 0]
    return (weights / weights.mean()).cpu().numpy()


def _import_captum() -> Any:
    try:
        from captum import attr
    except ImportError as error:
        raise ExplanationError(
            "explaining a decision needs captum; python -m pip install 'audioml[demo]'"
        ) from error
    return attr

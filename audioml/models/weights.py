"""Trained weights: got, checked and put into a network; random ones never take their place."""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from audioml import download
from audioml.config import ConfigError, ModelConfig
from audioml.models.attention import AttentionPool, Cbam
from audioml.models.network import Network
from audioml.tensor_files import TensorFileError, read_tensor_file

log = logging.getLogger("audioml")

_HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+")  # in the file names of torchvision's weights
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64)
_COUNTER = ".num_batches_tracked"  # of batch norm; torchvision's older files lack it


def load_weights(model: Network, config: ModelConfig) -> None:
    """Put the weights that are asked for into a network, and say in the log which they are.

    Args:
        model: The network, freshly built.
        config: ``weights`` and ``load_head`` say what is loaded.

    Raises:
        ConfigError: If they can't be got or read, are another network's, or with ``load_head`` for
            another number of classes.
    """
    file = find_weights(config)
    if file is None:
        if config.load_head:
            raise ConfigError("model.load_head=true needs weights; set model.weights=FILE")
        log.info("weights   none: trained from scratch")
        return
    state = model.adapt(read_weights(file))
    head = _head_keys(model)
    if config.load_head:
        _refuse_other_classes(model, state, head, file)
    else:
        state = {key: tensor for key, tensor in state.items() if key not in head}
    optional = _optional_keys(model, state) | (set() if config.load_head else head)
    own = model.state_dict()
    if faults := _find_faults(own, state, optional):
        raise ConfigError(
            f"{file}: weights for another architecture than model.name={config.name}, "
            f"model.channels={config.channels}: {faults}; set model.name or model.weights"
        )
    model.load_state_dict({**own, **state})
    log.info(
        "weights   %d tensors from %s; the last layer is %s",
        len(state),
        file,
        "among them" if config.load_head else "new",
    )


def wants_weights(config: ModelConfig) -> bool:
    """Say whether the network is to begin with trained weights, without looking for them."""
    if config.weights == "auto":
        return bool(_torchvision_urls(config))
    return config.weights != "none"


def find_weights(config: ModelConfig) -> Path | None:
    """Find the file that ``config.weights`` names, and download it if that is what it takes.

    Returns:
        The file, its hash checked if its name holds one; None if none are wanted.

    Raises:
        ConfigError: If there is no such file or name, or the download fails.
    """
    if not wants_weights(config):
        return None
    urls = _torchvision_urls(config)
    wanted = "DEFAULT" if config.weights == "auto" else config.weights
    if wanted.startswith(("http://", "https://")):
        return fetch(wanted)
    if wanted in urls:
        return fetch(urls[wanted])
    file = Path(wanted).expanduser()
    if file.is_file():
        return file
    names = f"one of torchvision's ({', '.join(urls)})" if urls else "torchvision has none for it"
    raise ConfigError(
        f"model.weights={wanted}: no such file, and for model.name={config.name} {names}; set "
        "model.weights to none, FILE or URL"
    )


def fetch(url: str) -> Path:
    """Return a file in torch.hub's checkpoint folder, downloaded if it is not there.

    Args:
        url: Where from; the file name holds the beginning of the content's SHA-256, as in
            "resnet50-11ad3fa6.pth".

    Raises:
        ConfigError: If the name holds no hash, the file there is damaged, or the download fails.
    """
    name = PurePosixPath(urlsplit(url).path).name
    match = _HASH.search(name)
    if match is None:
        raise ConfigError(
            f"model.weights={url}: the file name must hold a hash to check it by, as in "
            "resnet50-11ad3fa6.pth; or download it yourself and set model.weights=FILE"
        )
    file = Path(torch.hub.get_dir(), "checkpoints", name)
    if not file.exists():
        _download(url, file, match[1])
    elif not download.has_hash(file, match[1]):
        raise ConfigError(
            f"{file}: damaged, its hash is not the one in its name; delete it, and it is "
            f"downloaded anew from {url}"
        )
    return file


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read tensors by name; no code in the file is run.

    Args:
        file: A state dict of torch, a safetensors file, or a checkpoint of a run, of which the
            averaged weights are taken if it has any.

    Raises:
        ConfigError: If it is damaged or another kind of file.
    """
    try:
        content = read_tensor_file(file)
    except TensorFileError as error:
        raise ConfigError(f"{error}; set model.weights") from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        ema = content.get("ema")
        content = content["model"] if ema is None else _averaged(ema)
    if isinstance(content, dict):  # the statistics that go with a model of a run
        content = {k: v for k, v in content.items() if not str(k).startswith("frontend.")}
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{file}: holds no weights; set model.weights")
    for key, value in content.items():
        if not isinstance(key, str) or not _is_plain(value):
            raise ConfigError(f"{file}: not dense tensors by name ({key!r}); set model.weights")
    return content


def _download(url: str, file: Path, sha256: str) -> None:
    log.info("weights   downloading %s", url)
    try:
        download.fetch(url, file, setting="model.weights", sha256=sha256)
    except download.DownloadError as error:
        raise ConfigError(
            f"{error}. By hand: get {url} and put it at {file}, or set model.weights=FILE"
        ) from error


def _torchvision_urls(config: ModelConfig) -> dict[str, str]:
    """Map the names of torchvision's weights for a network to their addresses."""
    if not config.is_imagenet:
        return {}
    from torchvision.models import get_model_weights

    weights = get_model_weights(config.name.removesuffix("_attention"))
    return {name: member.url for name, member in weights.__members__.items()}


def _averaged(ema: Any) -> dict[str, Any]:
    """Take the weights out of a state of torch's ``AveragedModel``; none if it is not one."""
    prefix = "module."
    state = ema.items() if isinstance(ema, dict) else ()
    return {key.removeprefix(prefix): value for key, value in state if str(key).startswith(prefix)}


def _is_plain(value: object) -> bool:
    """Say whether a value is a tensor whose numbers can be copied into a network's."""
    return (
        isinstance(value, Tensor)
        and value.dtype in _DTYPES
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_nested
    )


def _head_keys(model: Network) -> set[str]:
    """Name the tensors of the last linear layer, which gives the classes."""
    *_, last = (name for name, part in model.named_modules() if isinstance(part, nn.Linear))
    return {f"{last}.weight", f"{last}.bias"}


def _refuse_other_classes(
    model: Network, state: Mapping[str, Tensor], head: Iterable[str], file: Path
) -> None:
    own = model.state_dict()
    for key in head:
        if key in state and state[key].ndim and len(state[key]) != len(own[key]):
            raise ConfigError(
                f"{file}: its last layer has {len(state[key])} classes, the data have "
                f"{len(own[key])}; set model.load_head=false"
            )


def _optional_keys(model: Network, state: Mapping[str, Tensor]) -> set[str]:
    """Name what weights may lack: batch norm's counters, and attention if they have none at all."""
    counters = {key for key in model.state_dict() if key.endswith(_COUNTER)}
    attention = {
        f"{name}.{key}"
        for name, part in model.named_modules()
        if isinstance(part, Cbam | AttentionPool)
        for key in part.state_dict()
    }
    return counters if attention & state.keys() else counters | attention


def _find_faults(own: Mapping[str, Tensor], state: Mapping[str, Tensor], optional: set[str]) -> str:
    """Count what does not fit and name the first of each kind; "" if all does."""
    shapes = [
        f"{key} {list(state[key].shape)} for {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    faults = {
        "missing": [key for key in own if key not in state and key not in optional],
        "unexpected": [key for key in state if key not in own],
        "of another shape": shapes,
    }
    return ", ".join(
        f"{len(keys)} {kind} (first {keys[0]})" for kind, keys in faults.items() if keys
    )

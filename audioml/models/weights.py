"""Trained weights: got, checked and put into a network; random ones never take their place."""

import hashlib
import logging
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from audioml.config import ConfigError, ModelConfig
from audioml.models.attention import AttentionPool, Cbam
from audioml.models.network import Network

log = logging.getLogger("audioml")

_HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+")  # in the file names of torchvision's weights
_TIMEOUT_S = 30.0
_DAMAGES = (  # what torch.load raises of damaged files
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    AssertionError,
    struct.error,
)
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
        return file
    with file.open("rb") as content:
        if not hashlib.file_digest(content, "sha256").hexdigest().startswith(match[1]):
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
    content: Any = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = _averaged(content.get("ema") or {}) or content["model"]
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{file}: holds no weights; set model.weights")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ConfigError(f"{file}: not tensors by name ({key!r}); set model.weights")
    return content


def _download(url: str, file: Path, hash_prefix: str) -> None:
    remedy = f"download {url} elsewhere and put it at {file}, or set model.weights=FILE"
    log.info("weights   downloading %s", url)
    timeout_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)  # torch sets none, and waits for a silent server forever
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix)
    except RuntimeError as error:
        raise ConfigError(
            f"{url}: what arrived is not what the name says, but a part of it or a web page "
            f"({_first_line(error)}); run again, or {remedy}"
        ) from error
    except (OSError, HTTPException) as error:
        raise ConfigError(f"{url}: download failed ({_first_line(error)}); {remedy}") from error
    finally:
        socket.setdefaulttimeout(timeout_s)


def _torchvision_urls(config: ModelConfig) -> dict[str, str]:
    """Map the names of torchvision's weights for a network to their addresses."""
    if not config.is_imagenet:
        return {}
    from torchvision.models import get_model_weights

    weights = get_model_weights(config.name.removesuffix("_attention"))
    return {name: member.url for name, member in weights.__members__.items()}


def _read_torch(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ConfigError(
            f"{file}: not a file of weights, or one that holds more than tensors, which is never "
            "run; set model.weights"
        ) from error
    except _DAMAGES as error:
        raise ConfigError(
            f"{file}: damaged or not a file of weights ({_first_line(error)}); set model.weights"
        ) from error


def _averaged(ema: dict[str, Any]) -> dict[str, Any]:
    """Take the weights out of a state of torch's ``AveragedModel``."""
    prefix = "module."
    return {key.removeprefix(prefix): ema[key] for key in ema if key.startswith(prefix)}


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"{file}: damaged or not a safetensors file ({_first_line(error)}); set model.weights"
        ) from error


def _head_keys(model: Network) -> set[str]:
    """Name the tensors of the last linear layer, which gives the classes."""
    *_, last = (name for name, part in model.named_modules() if isinstance(part, nn.Linear))
    return {f"{last}.weight", f"{last}.bias"}


def _refuse_other_classes(
    model: Network, state: Mapping[str, Tensor], head: Iterable[str], file: Path
) -> None:
    own = model.state_dict()
    for key in head:
        if key in state and len(state[key]) != len(own[key]):
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


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

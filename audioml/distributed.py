"""Processes that train together: what they tell each other, and how they end together.

Of one process alone every function here returns at once. What ranks send each other is tensors and
plain data, and is read with ``weights_only``: nothing that arrives is run.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from audioml.errors import Interrupted, UserError
from audioml.ranks import LostRankError, RankError, Ranks

Result = TypeVar("Result")

# A rank that died is noticed at once; this is for one that hangs. Ranks wait for the slowest one's
# decoding, and for what rank 0 writes.
TIMEOUT: Final = timedelta(minutes=30)
_GLOO: Final = "gloo"  # in what it raises as plain RuntimeErrors


class SharedError(UserError):
    """What ends all ranks; each of them knows it."""


@contextmanager
def joined(ranks: Ranks) -> Iterator[None]:
    """Be connected with the other ranks: by gloo on the host, and by NCCL between GPUs.

    Raises:
        RankError: What ends this rank alone, with its number.
        LostRankError: If the connection to another one is lost.
    """
    if not ranks.are_several:
        yield
        return
    try:
        _connect(ranks)
        yield
    except (SharedError, Interrupted):
        dist.destroy_process_group()
        raise
    # From here on connections stay open: to close them could wait for a rank that is gone.
    except (UserError, OSError) as error:
        raise RankError(f"rank {ranks.rank}: {error}") from error
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or _GLOO in str(error)):
            raise
        raise LostRankError(
            f"rank {ranks.rank}: the connection to another rank is lost, or it has not answered "
            f"for {TIMEOUT.seconds // 60} minutes; what torchrun says names the one that failed"
        ) from error
    dist.destroy_process_group()


def _connect(ranks: Ranks) -> None:
    store, _, _ = next(dist.rendezvous("env://", timeout=TIMEOUT))  # type: ignore[attr-defined]
    # torchrun may keep its store through a restart, with the addresses of processes that are gone.
    store = dist.PrefixStore(f"restart {ranks.restart}", store)  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=TIMEOUT
    )


@contextmanager
def together(ranks: Ranks) -> Iterator[None]:
    """Go on once all ranks have done what they do here; if one of them can't, all end.

    Raises:
        SharedError: On all ranks, if a user can mend what any of them has met; names the ranks.
    """
    if not ranks.are_several:
        yield
        return
    failure, text = None, ""
    try:
        yield
    except SharedError:  # from within, and known to all
        raise
    except (UserError, OSError) as error:
        failure, text = error, str(error)
    texts = gather(ranks, text)
    if any(texts):
        raise SharedError(_join_texts(texts)) from failure


def _join_texts(texts: list[str]) -> str:
    """Say what each rank has met: once if all say the same."""
    if len(set(texts)) == 1:
        return texts[0]
    own = {text: [r for r, other in enumerate(texts) if other == text] for text in texts if text}
    return "; ".join(f"{describe_ranks(of)}: {text}" for text, of in own.items())


def describe_ranks(numbers: list[int]) -> str:
    """Name ranks: ``rank 1``, ``ranks 1, 2``."""
    return f"rank{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def from_main(ranks: Ranks, make: Callable[[], Result]) -> Result:
    """Let rank 0 make something, of tensors and plain data, and have it on all ranks.

    Raises:
        SharedError: On all ranks, if a user can mend what rank 0 has met.
    """
    if not ranks.are_several:
        return make()
    made: list[Result] = []
    with together(ranks):
        if ranks.is_main:
            made.append(make())
    message = _pack(made[0]) if made else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor(len(message))
    dist.broadcast(size, src=0)
    message = message if made else torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(message, src=0)
    return made[0] if made else cast(Result, _unpack(message))


def gather(ranks: Ranks, content: Result) -> list[Result]:
    """Have what each rank has, of tensors on the CPU and plain data, on all ranks, in order."""
    if not ranks.are_several:
        return [content]
    message = _pack(content)
    sizes = [torch.tensor(0) for _ in range(ranks.size)]
    dist.all_gather(sizes, torch.tensor(len(message)))
    longest = int(max(sizes))
    messages = [torch.empty(longest, dtype=torch.uint8) for _ in range(ranks.size)]
    dist.all_gather(messages, torch.nn.functional.pad(message, (0, longest - len(message))))
    received = zip(messages, sizes, strict=True)
    return [_unpack(message[: int(size)]) for message, size in received]


def _pack(content: object) -> Tensor:
    packed = io.BytesIO()
    torch.save(content, packed)
    return torch.frombuffer(packed.getbuffer(), dtype=torch.uint8)


def _unpack(message: Tensor) -> Any:
    content = io.BytesIO(message.numpy().tobytes())
    return torch.load(content, map_location="cpu", weights_only=True)


def any_rank(ranks: Ranks, *claims: bool) -> list[bool]:
    """Say of each claim whether any rank makes it; the hosts wait for each other, no GPU does."""
    if not ranks.are_several:
        return list(claims)
    made = torch.tensor(claims, dtype=torch.uint8)
    dist.all_reduce(made, dist.ReduceOp.MAX)
    return [bool(claim) for claim in made]


def sum_ranks(ranks: Ranks, numbers: Tensor) -> Tensor:
    """Add up the ranks' numbers, on their device and in place; no host waits for a GPU."""
    if ranks.are_several:
        dist.all_reduce(numbers)
    return numbers


def take_from_main(ranks: Ranks, tensors: Iterator[Tensor]) -> None:
    """Give tensors, on their device and in place, the values that they have on rank 0."""
    if ranks.are_several:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)

"""Which of the processes that train together this one is; torchrun says so in the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from audioml.errors import UserError


class RankError(UserError):
    """What only one of several processes can tell; the message names its rank."""


class LostRankError(RankError):
    """Another rank is gone, or does not answer."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """A process among those that train together.

    Args:
        rank: Its number, from 0.
        size: How many there are.
        local_rank: Its number among those of its machine: the GPU it takes.
        restart: How often torchrun has started the job anew.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    restart: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def are_several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def share(self, n: int) -> range:
        """Say which of n things in a row are this process's: each thing is one's, none is left."""
        return range(n * self.rank // self.size, n * (self.rank + 1) // self.size)


ALONE: Final = Ranks()


def read_ranks(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Read what torchrun, or another launcher that names things as it does, says.

    Args:
        environment: RANK, WORLD_SIZE, LOCAL_RANK and TORCHELASTIC_RESTART_COUNT.

    Raises:
        UserError: If they can't be.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
    given = {name: environment[name] for name in names if name in environment}
    said = " ".join(f"{name}={value}" for name, value in given.items())
    try:
        numbers = {name: int(value) for name, value in given.items()}
    except ValueError as error:
        raise UserError(f"the environment says {said}: expected numbers; use torchrun") from error
    rank, size = numbers.get("RANK", 0), numbers.get("WORLD_SIZE", 1)
    local_rank, restart = (numbers.get(name, 0) for name in names[2:])
    is_alone = size == 1 and rank == 0
    if not (is_alone or ("RANK" in given and "MASTER_ADDR" in environment and 0 <= rank < size)):
        raise UserError(
            f"the environment says {said}: expected RANK below WORLD_SIZE, and MASTER_ADDR; "
            "use torchrun, or unset them"
        )
    return Ranks(rank, size, local_rank, restart)

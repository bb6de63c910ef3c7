"""How many threads an operation of torch may take."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread_an_operation() -> Iterator[int]:
    """Let operations run in the thread that asks for them, where several threads ask.

    Otherwise each of them would wake as many threads again, which keep the cores busy with waiting
    for each other.

    Yields:
        How many threads there were, and will be again.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of this thread, and of all that have not used torch yet
    try:
        yield n_threads
    finally:
        torch.set_num_threads(n_threads)

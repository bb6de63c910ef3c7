"""What to say, and do, when memory runs out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from audioml.step_guard import TrainingError
from audioml.store import ClipStore

_SIGNS = (  # of errors that libraries raise as plain RuntimeErrors
    "CUFFT_ALLOC_FAILED",
    "CUFFT_INTERNAL_ERROR",  # what cuFFT says where it gets no work area
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # and cuBLAS, as its first call
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",  # of pinned memory, or of loading a kernel
    "DefaultCPUAllocator: can't allocate memory",
)


@contextmanager
def explained_memory(explain: Callable[[], str]) -> Iterator[None]:
    """Say what to change where memory runs out.

    Raises:
        TrainingError: With what ``explain`` returns.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(explain()) from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory ran out, the GPU's or the CPU's."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in _SIGNS)


def describe_memory(store: ClipStore, device: torch.device) -> str:
    """Say what takes the memory."""
    clips = f"the store: {store.describe()}"
    if device.type != "cuda":
        return clips
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info(device))
    kept = torch.cuda.max_memory_allocated(device) / 2**30
    return f"{free:.1f} of {total:.1f} GiB free, at most {kept:.1f} GiB taken by this run; {clips}"

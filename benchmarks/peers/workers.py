"""Cases whose work is done by a DataLoader's processes."""

import torch
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, Dataset

from harness import Workload
from material import Job


def run_epochs(dataset: Dataset[torch.Tensor], job: Job) -> Workload:
    """Measure whole epochs, copies to the device included.

    The processes stay, and their queues are empty before and after an epoch: nothing made in
    another case's time is counted, and nothing goes on beside another case.

    Args:
        dataset: One tensor a clip. For all workers to end together, its length should be a
            multiple of ``clips_a_turn``.
        job: Settings.
    """
    is_cuda = job.device.type == "cuda"
    loader = DataLoader(
        dataset,
        batch_size=job.worker_batch,
        num_workers=job.workers,
        persistent_workers=True,
        worker_init_fn=_limit_threads,
        pin_memory=is_cuda,
    )

    def step() -> None:
        for batch in loader:
            batch.to(job.device, non_blocking=True)

    return Workload(step=step, n_clips=len(dataset))


def _limit_threads(_: int) -> None:
    """Keep a worker to one core: torch does that by itself, NumPy's BLAS does not."""
    threadpool_limits(1)


def clips_a_turn(job: Job) -> int:
    """Clips in a batch of every worker."""
    return job.workers * job.worker_batch

"""Ranks as real processes: under torchrun, or forked from a server that has imported it all."""

import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

from tiny import SETTINGS

REPOSITORY = Path(__file__).parent.parent
CHANGES = ("noise", "pitch", "stretch", "shift", "gain", "filter", "mask", "mixup")
# Without batch norm and dropout, so that ranks make no difference; with all that changes clips.
EQUAL = [
    *SETTINGS,
    "model.name=ast",
    "model.ast.dim=16",
    "model.ast.depth=1",
    "model.ast.heads=2",
    "model.dropout=0",
    "optim.ema_decay=0.9",
    *(f"augment.{name}.probability=1" for name in CHANGES),
]


def run_ranks(n_ranks, function, *arguments, timeout_s=240):
    """Call ``function(rank, *arguments)`` in as many processes; returns their exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["audioml.experiment", "torch._dynamo", "jobs"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_enter, args=(rank, n_ranks, port, function, arguments))
        for rank in range(n_ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout_s)
    hung = [process for process in processes if process.exitcode is None]
    for process in hung:
        process.kill()
    assert not hung
    return [process.exitcode for process in processes]


def _enter(rank, n_ranks, port, function, arguments):
    import torch

    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n_ranks, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    function(rank, *arguments)


def train_rank(rank, place, settings):
    """Run ``audioml train`` on a rank; ``settings`` are all ranks', or each rank's own."""
    from audioml.cli import main

    own = settings[rank] if isinstance(settings[0], list) else settings
    os.chdir(place)
    with Path(f"out-{rank}").open("w") as out, Path(f"error-{rank}").open("w") as error:
        sys.stdout, sys.stderr = out, error
        sys.exit(main(["train", *own]))


def train(place, n_ranks, settings):
    """Train in ``place`` on ranks of one machine; returns exit codes, and what each rank said."""
    place.mkdir(exist_ok=True)
    codes = run_ranks(n_ranks, train_rank, place, settings)
    said = [
        [(place / f"{stream}-{rank}").read_text() for stream in ("out", "error")]
        for rank in range(n_ranks)
    ]
    return codes, said


def start_torchrun(place, n_ranks, *settings, options=()):
    """Start ``train.py`` under torchrun in ``place``."""
    place.mkdir(exist_ok=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={n_ranks}"]
    return subprocess.Popen(
        [*launcher, "--monitor-interval=0.1", *options, REPOSITORY / "train.py", *settings],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )

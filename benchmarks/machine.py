"""The machine a benchmark runs on: what it is, what it can move, what else it is doing."""

import ctypes
import multiprocessing
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from audioml.runs import describe_commit

PACKAGES = (
    "torch",
    "torchaudio",
    "torchvision",
    "numpy",
    "soundfile",
    "soxr",
    "librosa",
    "audiomentations",
    "python-stretch",
    "torch-audiomentations",
    "torch-pitch-shift",
    "nnAudio",
    "nvidia-dali-cuda130",
    "flashmel",
    "torchcodec",
    "pillow",
)
MALLOC_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
_MIB = 1 << 20
_PROC = Path("/proc")  # everything read from here is left out where there is none


def synchronize(device: torch.device) -> None:
    """Wait for everything on the device, whatever its stream."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """Name the GPU or the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    file = _PROC / "cpuinfo"
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe_machine(device: torch.device) -> dict[str, str]:
    """List what a result depends on."""
    cpu = torch.device("cpu")
    facts = {
        "CPU": f"{device_name(cpu)}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used"
    }
    if device.type == "cuda":
        capability = "{}.{}".format(*torch.cuda.get_device_capability(device))
        memory_gib = torch.cuda.get_device_properties(device).total_memory / 1024**3
        facts["GPU"] = (
            f"{device_name(device)}, {memory_gib:.0f} GiB, capability {capability}, "
            f"CUDA {torch.version.cuda}"
        )
    words = [re.sub("^(--[a-z-]+=)?/.*/", r"\1", word) for word in sys.argv]  # no one's folders
    malloc = [f"{name}={os.environ[name]}" for name in MALLOC_SETTINGS if name in os.environ]
    return facts | {
        "System": f"{platform.platform()}, Python {platform.python_version()}",
        "Packages": ", ".join(f"{name} {package_version(name)}" for name in PACKAGES),
        "Commit": describe_commit() or "unknown",
        "Command": " ".join(words),
        "malloc": ", ".join(malloc) or "as the C library has it",
    }


def package_version(name: str) -> str:
    """Say which version of a package is installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def copy_bandwidth(device: torch.device, n_bytes: int = 1 << 30) -> float:
    """Measure how fast a GPU copies within its memory; bytes read plus bytes written [B/s]."""
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rates = []
    for _ in range(10):
        synchronize(device)
        begin = time.perf_counter()
        for _ in range(8):
            target.copy_(source)
        synchronize(device)
        rates.append(8 * 2 * n_bytes / (time.perf_counter() - begin))
    return max(rates)


class PeakMemory:
    """How much memory is taken from now on: torch's on a GPU, resident memory on a CPU.

    On a CPU Linux is asked to forget the peak so far; worker processes count with what they do
    not share.

    Args:
        device: Whose memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before: float | None = torch.cuda.memory_allocated(device) / _MIB
            return
        self._workers = _workers_mib()
        self._before = _status_mib("VmRSS") if _forget_peak() else None

    def growth_mib(self) -> float | None:
        """Return the peak above what was taken before [MiB]; None where it can't be known."""
        if self._before is None:
            return None
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / _MIB - self._before
        return _status_mib("VmHWM") - self._before + _workers_mib() - self._workers


def _forget_peak() -> bool:
    """Give freed memory back and start the peak anew; False where that can't be done."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        (_PROC / "self" / "clear_refs").write_text("5")
    except (AttributeError, OSError):  # another C library, another system
        return False
    return True


def _status_mib(key: str) -> float:
    lines = (_PROC / "self" / "status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


def _workers_mib() -> float:
    """Add up what worker processes do not share [MiB]."""
    rollups = [_PROC / f"{p.pid}" / "smaps_rollup" for p in multiprocessing.active_children()]
    lines = [line for file in rollups if file.is_file() for line in file.read_text().splitlines()]
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Private_"))


def other_processes() -> Callable[[], float | None]:
    """Begin to watch what the rest of the machine does.

    Returns:
        A function that says how many cores other processes kept busy since; None if unknown.
    """
    begin, before = time.perf_counter(), _foreign_ticks()

    def cores() -> float | None:
        after, seconds = _foreign_ticks(), time.perf_counter() - begin
        if before is None or after is None:
            return None
        return max((after - before) / os.sysconf("SC_CLK_TCK") / seconds, 0.0)

    return cores


def _foreign_ticks() -> int | None:
    """Count the clock ticks that all cores spent, less this process's and its workers'."""
    if not (_PROC / "stat").is_file():
        return None
    user, nice, system, _, _, irq, softirq = map(
        int, (_PROC / "stat").read_text().split(maxsplit=8)[1:8]
    )
    total = user + nice + system + irq + softirq
    files = [_PROC / f"{p.pid}" / "stat" for p in multiprocessing.active_children()]
    for file in (_PROC / "self" / "stat", *files):
        words = file.read_text().rpartition(")")[2].split()
        total -= int(words[11]) + int(words[12])  # utime, stime; proc(5)
    return total

"""TensorBoard: scalars, pictures, sounds and hyperparameters of a run."""

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

_SCALARS = {
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "train_accuracy": "accuracy/train",
    "val_accuracy": "accuracy/val",
    "val_mean_average_precision": "map/val",
    "val_macro_auc": "auc/val",
    "val_macro_f1": "f1/val",
    "lr": "optim/lr",
    "clips_per_s": "throughput/clips_per_s",
    "times_real_time": "throughput/times_real_time",
    "data_wait": "throughput/data_wait",
}


class Tracker:
    """Write a run's events beside its other files.

    Args:
        folder: The run folder.
        first_epoch: Epochs finished before; later ones of an interrupted run are taken back.
    """

    def __init__(self, folder: Path, first_epoch: int = 0) -> None:
        purge_step = first_epoch + 1 if first_epoch else None
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Add an epoch's figures."""
        for name, tag in _SCALARS.items():
            if name in row:
                self._writer.add_scalar(tag, row[name], int(row["epoch"]))

    def log_progress(self, step: int, figures: Mapping[str, float]) -> None:
        """Add the throughput of an epoch that is running, by the steps done."""
        for name, value in figures.items():
            self._writer.add_scalar(f"live/{name}", value, step)

    def log_picture(self, tag: str, file: Path, epoch: int) -> None:
        """Add a PNG file as it is: SummaryWriter would draw a figure a second time."""
        png = file.read_bytes()
        width, height = struct.unpack(">II", png[16:24])  # where its header has them
        image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        self._writer._get_file_writer().add_summary(summary, epoch)

    def log_clip(self, tag: str, waveform: Tensor, sample_rate: int) -> None:
        """Add an audible clip [time], full scale at 1."""
        sound = waveform.detach().cpu().clamp(-1, 1)[None]
        self._writer.add_audio(tag, sound, sample_rate=sample_rate)

    def log_hparams(
        self, settings: Mapping[str, Any], figures: Mapping[str, float], part: str
    ) -> None:
        """Add the run to TensorBoard's table of hyperparameters, with the figures of a part."""
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in settings.items()
        }
        measured = {f"{part}/{key}": value for key, value in figures.items()}
        # SummaryWriter.add_hparams would open a second event file.
        for summary in hparams(plain, measured):
            self._writer._get_file_writer().add_summary(summary)
        for tag, value in measured.items():
            self._writer.add_scalar(tag, value)

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()


def peak_memory_gib(device: torch.device) -> float | None:
    """Tell the most memory taken so far [GiB]: of the GPU, or of the process on a CPU.

    Returns:
        None where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    peak_kib = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
    return None if peak_kib is None else int(peak_kib[1]) / 2**20

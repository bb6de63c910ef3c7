"""``train.deterministic``, and a loss curve that must repeat to the last digit.

The curve belongs to a version of torch. After a change that is meant to change it, or for another
version, write it anew: ``python tests/faults/test_determinism.py``.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from audioml.config import ConfigError, load_config
from audioml.determinism import repeatable_operations

REPOSITORY = Path(__file__).parent.parent.parent
CURVES = Path(__file__).parent / "loss_curves.json"
COLUMNS = ["train_loss", "train_accuracy", "val_loss", "val_accuracy"]
VERSION = ".".join(torch.__version__.split(".")[:2])
SETTINGS = [
    "train.deterministic=true",
    "train.device=cpu",
    "train.amp=fp32",
    "train.epochs=2",
    "model.width=4",
    "optim.ema_decay=0.9",
    "augment.filter.probability=0.5",
    "run.report=false",
]
# The instructions that every x86-64 has, in one order. Even so MKL goes other ways on Intel's CPUs
# than on AMD's (the last of eight digits), so each has its curve.
PLAIN = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}


def find_vendor() -> str:
    """Name the CPU's maker, as Linux does."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((x.split(":")[1].strip() for x in lines if x.startswith("vendor_id")), "unknown")


def train(folder: Path) -> dict[str, list[float]]:
    """Train on the built-in set and read the curve."""
    command = [sys.executable, str(REPOSITORY / "train.py"), *SETTINGS, f"run.dir={folder}"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | PLAIN)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in COLUMNS}


def test_the_loss_curve_is_the_committed_one(tmp_path):
    curves = json.loads(CURVES.read_text()).get(VERSION, {})
    if (vendor := find_vendor()) not in curves:
        pytest.skip(f"no curve of torch {VERSION} on {vendor}: run this file as a program")
    assert train(tmp_path / "run") == curves[vendor]


@pytest.fixture
def config():
    return load_config(overrides=["train.deterministic=true"])


def test_while_it_is_on_only_operations_that_repeat_are_allowed(config):
    with repeatable_operations(config, torch.device("cpu")):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic


def test_off_it_changes_nothing():
    with repeatable_operations(load_config(), torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("device", "overrides", "message"),
    [
        ("cpu", ["train.compile=true"], "train.compile=true contradict each other"),
        ("cuda", ["model.name=alexnet"], "no deterministic gradient of model.name=alexnet"),
        ("cuda", [], r"CUBLAS_WORKSPACE_CONFIG to be :4096:8 or :16:8, got :0:0; unset it"),
    ],
)
def test_settings_that_stand_against_it_are_refused(monkeypatch, device, overrides, message):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8" if overrides else ":0:0")
    config = load_config(overrides=["train.deterministic=true", *overrides])
    with (
        pytest.raises(ConfigError, match=r"\A[^\n]*" + message + r"[^\n]*\Z"),
        repeatable_operations(config, torch.device(device)),
    ):
        pass


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        known = json.loads(CURVES.read_text()) if CURVES.exists() else {}
        known[VERSION] = known.get(VERSION, {}) | {find_vendor(): train(Path(folder) / "run")}
    CURVES.write_text(json.dumps(dict(sorted(known.items())), indent=2) + "\n")

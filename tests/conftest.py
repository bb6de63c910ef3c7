import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes that share the cores
    os.environ["OMP_NUM_THREADS"] = "1"

import kernel_device  # noqa: F401 - first of all, for torchvision imports Triton
import numpy as np
import pandas as pd
import pytest
from esc50_like import make_table
from official import ESC10_FILES, OFFICIAL_TABLE
from sounds import partials

from audioml.config import DataConfig
from audioml.datasets import load_manifest
from audioml.datasets.manifest import Manifest
from audioml.decode import FULL_SCALE, decode_clip


@pytest.fixture(
    scope="session", params=["like", *(["official"] if OFFICIAL_TABLE.is_file() else [])]
)
def esc50_table(request: pytest.FixtureRequest) -> pd.DataFrame:
    """ESC-50's metadata, or a table of the same structure."""
    if request.param == "official":
        return pd.read_csv(OFFICIAL_TABLE, dtype={"src_file": str})
    return make_table()


@pytest.fixture(scope="session")
def esc50_manifest(esc50_table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The manifest of all 2,000 clips, without their sounds."""
    root = tmp_path_factory.mktemp("ESC-50")
    (root / "meta").mkdir()
    esc50_table.to_csv(root / "meta" / "esc50.csv", index=False)
    return load_manifest(DataConfig(name="esc50", root=str(root)), check_files=False)


def read_five_seconds(file: Path) -> np.ndarray:
    """Decode a clip to 5 s at 22,050 Hz, float32."""
    clip = decode_clip(file, 22_050)[: 5 * 22_050] / np.float32(FULL_SCALE)
    return np.pad(clip, (0, 5 * 22_050 - len(clip)))


@pytest.fixture(scope="session", params=["partials", *(["esc10"] if ESC10_FILES else [])])
def fidelity_clips(request: pytest.FixtureRequest) -> list[np.ndarray]:
    """Clips [time] of 5 s at 22,050 Hz: generated, and some of ESC-10 where it is there."""
    if request.param == "esc10":
        return [read_five_seconds(file) for file in ESC10_FILES]
    return [partials(seed) for seed in range(6)]

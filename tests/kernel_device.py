"""Where Triton kernels are tested: on CUDA, or in Triton's interpreter where there is none."""

import importlib.metadata
import importlib.util
import os

import numpy as np
import torch

KERNEL_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if KERNEL_DEVICE.type == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read as soon as the kernels are imported


def can_run_kernels() -> bool:
    """Whether Triton is there (it comes with torch for CUDA) and its interpreter works.

    That of Triton 3.6 makes numbers of arrays of one dimension, which NumPy 2.4 refuses.
    """
    if importlib.util.find_spec("triton") is None:
        return False
    versions = importlib.metadata.version("triton"), np.__version__
    triton, numpy = (tuple(map(int, version.split(".")[:2])) for version in versions)
    return KERNEL_DEVICE.type == "cuda" or triton >= (3, 7) or numpy < (2, 4)

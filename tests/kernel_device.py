"""Where Triton kernels are tested: on CUDA, or in Triton's interpreter where there is none."""

import os

import torch

KERNEL_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if KERNEL_DEVICE.type == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read as soon as the kernels are imported

"""Which precision a model runs in."""

import torch


def is_mixed(amp: str, device: torch.device) -> bool:
    """Say whether a model runs in bfloat16 where that is safe, and in float32 elsewhere.

    Args:
        amp: "bf16", "fp32", or "auto": on CUDA, and on CPUs with instructions for it (AVX-512 BF16
            or AMX), which are 1.7 times as fast with them (diary.md).
        device: Where the model runs.
    """
    if amp != "auto":
        return amp == "bf16"
    if device.type == "cuda":
        return True
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def autocast(amp: str, device: torch.device) -> torch.autocast:
    """Make the context in which a model runs."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_mixed(amp, device))

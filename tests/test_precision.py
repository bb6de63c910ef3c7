import pytest
import torch

from audioml.precision import autocast, is_mixed

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": False}, False),
        ({}, False),
    ],
)
def test_auto_is_mixed_where_the_cpu_computes_in_bfloat16(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert is_mixed("auto", CPU) is expected
    assert is_mixed("bf16", CPU)
    assert not is_mixed("fp32", CPU)


def test_auto_is_mixed_on_cuda():
    assert is_mixed("auto", torch.device("cuda"))


@pytest.mark.parametrize(("amp", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_models_run_in_it(amp, dtype):
    with autocast(amp, CPU):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype

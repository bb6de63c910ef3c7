import pytest
import torch

from audioml.config import ModelConfig, RunConfig
from audioml.models import MODELS


def test_every_model_of_the_configuration_has_a_builder():
    names = ModelConfig.__annotations__["name"].__args__
    assert set(names) == set(MODELS)


def test_the_baseline_has_about_a_million_parameters():
    model = MODELS["cnn"](n_classes=50, width=RunConfig().model.width)
    assert 0.9e6 < sum(p.numel() for p in model.parameters()) < 1.4e6


@pytest.mark.parametrize("size", [(128, 216), (64, 101), (40, 33), (16, 16), (1, 1)])
def test_cnn_takes_any_size_and_learns_everywhere(size):
    torch.manual_seed(0)
    model = MODELS["cnn"](n_classes=7, width=8)
    logits = model(torch.randn(3, 1, *size))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


def test_cnn_is_the_same_for_a_clip_in_any_batch():
    torch.manual_seed(0)
    model = MODELS["cnn"](n_classes=5, width=8).eval()
    log_mel = torch.randn(6, 1, 32, 40)
    torch.testing.assert_close(model(log_mel)[2:3], model(log_mel[2:3]), atol=1e-5, rtol=1e-5)


def test_memory_format_does_not_change_the_result():
    torch.manual_seed(0)
    model = MODELS["cnn"](n_classes=5, width=8).eval()
    log_mel = torch.randn(2, 1, 32, 40)
    plain = model(log_mel)
    nhwc = model.to(memory_format=torch.channels_last)(
        log_mel.to(memory_format=torch.channels_last)
    )
    torch.testing.assert_close(nhwc, plain, atol=1e-5, rtol=1e-4)

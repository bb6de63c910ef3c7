"""The maps lie where the sound is: worked out by hand, and in networks that had to find it."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from audioml.config import AstConfig, ModelConfig
from audioml.explanations import ExplanationError, explain
from audioml.models import Network, build_model

pytest.importorskip("captum")

N_MELS, N_FRAMES = 32, 48


class Signs(Network):
    """Class 0 is the sum of what is positive, class 1 of what is negative."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU())
        self.first[0].weight.data = torch.tensor([1.0, -1.0])[:, None, None, None]
        self.head = nn.Flatten()

    def stages(self):
        return [self.first, self.head]

    def forward(self, log_mel):
        return self.first(log_mel).sum(dim=(2, 3))


def test_grad_cam_worked_out_by_hand():
    log_mel = torch.zeros(1, 1, 8, 12)
    log_mel[..., 1:3, 2:5] = 2.0
    log_mel[..., 2, 3] = 4.0
    log_mel[..., 6:, 9:] = -3.0
    network = Signs().eval()
    up = explain(network, log_mel, 0, n_mels=8)
    # Each channel's gradient is 1 everywhere, so the map is the class's own channel.
    np.testing.assert_allclose(up.heat, log_mel[0, 0].clamp(min=0) / 4)
    np.testing.assert_allclose(explain(network, log_mel, 1, n_mels=8).heat, log_mel[0, 0] < 0)
    assert (up.method, up.cells, up.attention) == ("Grad-CAM", (8, 12), None)


def test_without_evidence_the_map_is_zero():
    assert not explain(Signs().eval(), torch.full((1, 1, 8, 12), -1.0), 0, n_mels=8).heat.any()


def draw(n, seed):
    """Log-mels of noise with a blob low (class 0) or high (class 1), at any time [n]."""
    generator = np.random.default_rng(seed)
    target = generator.integers(0, 2, n)
    frame = generator.integers(6, N_FRAMES - 6, n)
    log_mel = 0.3 * generator.standard_normal((n, 1, N_MELS, N_FRAMES))
    for i in range(n):
        band = 6 if target[i] == 0 else N_MELS - 6
        log_mel[i, 0, band - 4 : band + 4, frame[i] - 4 : frame[i] + 4] += 3.0
    return torch.tensor(log_mel, dtype=torch.float32), torch.tensor(target), frame


def train(name):
    """A network that tells low from high."""
    torch.manual_seed(0)
    size = AstConfig(patch=8, stride=8, dim=32, depth=2, heads=2)
    config = ModelConfig(name=name, width=4, weights="none", ast=size)
    network = build_model(config, n_classes=2, input_size=(N_MELS, N_FRAMES))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for step in range(60):
        log_mel, target, _ = draw(32, seed=step)
        optimizer.zero_grad()
        F.cross_entropy(network(log_mel), target).backward()
        optimizer.step()
    return network.eval()


NETWORKS = ("cnn", "cnn_attention", "ast")


@pytest.fixture(scope="module")
def trained(request):
    return request.param, train(request.param)


@pytest.mark.parametrize("trained", NETWORKS, indirect=True, scope="module")
def test_the_map_lies_on_the_sound(trained):
    name, network = trained
    log_mel, target, frame = draw(20, seed=1000)
    assert (network(log_mel).argmax(1) == target).all()
    n_hits = 0
    for i in range(20):
        found = explain(network, log_mel[i : i + 1], int(target[i]), n_mels=N_MELS)
        assert found.heat.shape == (N_MELS, N_FRAMES)
        assert found.heat.min() >= 0
        assert found.heat.max() == pytest.approx(1)
        assert (found.attention is not None) == (name == "cnn_attention")
        band, at = np.unravel_index(found.heat.argmax(), found.heat.shape)
        cell = N_FRAMES / found.cells[1]
        n_hits += (band >= N_MELS // 2) == target[i] and abs(at - frame[i]) <= cell
    assert n_hits >= 18


@pytest.mark.parametrize("trained", ["cnn_attention"], indirect=True, scope="module")
def test_attention_has_mean_one_and_follows_the_sound(trained):
    _, network = trained
    log_mel, target, frame = draw(20, seed=1000)
    weights = [
        explain(network, x[None], int(t), n_mels=N_MELS).attention
        for x, t in zip(log_mel, target, strict=True)
    ]
    assert all(w.mean() == pytest.approx(1) and w.min() >= 0 for w in weights)
    at = np.mean([w[f] for w, f in zip(weights, frame, strict=True)])
    assert at > 1.5


@pytest.mark.parametrize("name", ["alexnet", "resnet50", "resnet50_attention"])
def test_networks_for_pictures(name):
    torch.manual_seed(0)
    config = ModelConfig(name=name, weights="none")
    network = build_model(config, n_classes=3, input_size=(64, 80)).eval()
    found = explain(network, torch.randn(1, 1, 64, 80), 1, n_mels=64)
    assert found.heat.shape == (64, 80)
    assert np.isfinite(found.heat).all()
    assert (found.attention is None) == (name != "resnet50_attention")


def test_a_map_of_three_windows_has_the_bands_of_one():
    config = ModelConfig(name="alexnet", weights="none", channels="windows")
    network = build_model(config, n_classes=3, input_size=(64, 80)).eval()
    assert explain(network, torch.randn(1, 1, 192, 80), 0, n_mels=64).heat.shape == (64, 80)


def test_grad_cam_equals_autograd_by_hand():
    torch.manual_seed(0)
    network = build_model(ModelConfig(width=4), n_classes=6, input_size=(64, 80)).eval()
    log_mel = torch.randn(1, 1, 64, 80)
    n_found = 0
    for target in range(6):
        maps = network.blocks(network.stem(log_mel))
        logits = network.head(network.pool(maps))[0]
        (gradient,) = torch.autograd.grad(logits[target], maps)
        expected = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
        expected = F.interpolate(expected, (64, 80), mode="bilinear")[0, 0].detach()
        n_found += bool(expected.any())
        found = explain(network, log_mel, target, n_mels=64)
        np.testing.assert_allclose(found.heat * float(expected.max()), expected, atol=1e-5)
    assert n_found > 1


def test_inference_tensors_and_frozen_weights_are_taken():
    network = build_model(ModelConfig(width=4), n_classes=3, input_size=(64, 80)).eval()
    network.requires_grad_(False)
    with torch.inference_mode():
        log_mel = torch.randn(1, 1, 64, 80)
    assert explain(network, log_mel, 0, n_mels=64).heat.shape == (64, 80)


def test_without_captum_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(ExplanationError, match=r"pip install 'audioml\[demo\]'"):
        explain(Signs().eval(), torch.zeros(1, 1, 8, 12), 0, n_mels=8)

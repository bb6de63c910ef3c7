import pytest
import torch

from audioml.config import ConfigError, ModelConfig, load_config
from audioml.models import MODELS, build_model
from audioml.models.attention import AttentionPool, Cbam

SIZE = (64, 72)  # bands and frames that every model takes


def build(name, *, size=SIZE, **settings):
    torch.manual_seed(0)
    config = ModelConfig(name=name, width=8, weights="none", **settings)
    return build_model(config, n_classes=7, input_size=size)


def n_parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_every_model_of_the_configuration_has_a_builder():
    names = ModelConfig.__annotations__["name"].__args__
    assert set(names) == set(MODELS)


def test_an_unknown_model_is_refused_with_the_closest_one():
    with pytest.raises(ConfigError, match=r"\A.*did you mean cnn_attention\?\Z"):
        load_config(overrides=["model.name=cnn_atention"])


def test_the_baseline_has_about_a_million_parameters():
    model = build_model(ModelConfig(), n_classes=50, input_size=(128, 216))
    assert 0.9e6 < n_parameters(model) < 1.4e6


@pytest.mark.parametrize("name", ["cnn", "cnn_attention"])
@pytest.mark.parametrize("size", [(128, 216), (40, 33), (1, 1)])
def test_cnns_take_any_size(name, size):
    assert build(name, size=size)(torch.randn(3, 1, *size)).shape == (3, 7)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_learns_and_is_in_one_stage(name):
    model = build(name)
    logits = model(torch.randn(3, 1, *SIZE))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    staged = [id(p) for stage in model.stages() for p in stage.parameters()]
    assert sorted(staged) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_the_last_stage_is_what_gives_the_classes(name):
    shapes = [p.shape[0] for p in build(name).stages()[-1].parameters()]
    assert shapes[-2:] == [7, 7]


@pytest.mark.parametrize("name", MODELS)
def test_a_clip_is_the_same_in_any_batch_and_memory_format(name):
    model = build(name).eval()
    log_mel = torch.randn(4, 1, *SIZE)
    with torch.no_grad():
        logits = model(log_mel)
        torch.testing.assert_close(model(log_mel[2:3]), logits[2:3], atol=1e-5, rtol=1e-4)
        model.to(memory_format=torch.channels_last)
        nhwc = model(log_mel.to(memory_format=torch.channels_last))
    torch.testing.assert_close(nhwc, logits, atol=1e-5, rtol=1e-4)


def test_cbam_starts_as_identity_and_learns():
    torch.manual_seed(0)
    cbam, x = Cbam(32), torch.randn(2, 32, 5, 6)
    assert torch.equal(cbam(x), x)
    cbam(x).square().sum().backward()
    assert cbam.channel[2].weight.grad.abs().max() > 0
    assert cbam.place.weight.grad.abs().max() > 0


def test_cbam_weighs_as_the_paper_says_but_for_a_factor():
    """Against the paper's formulas, written out for one clip in float64."""
    torch.manual_seed(0)
    cbam, x = Cbam(16).double(), torch.randn(1, 16, 4, 5, dtype=torch.float64)
    for p in cbam.parameters():
        torch.nn.init.normal_(p, std=0.3)
    (w0, b0), (w1, b1) = ((c.weight[:, :, 0, 0], c.bias) for c in cbam.channel[::2])
    mlp = [w1 @ torch.relu(w0 @ v + b0) + b1 for v in (x[0].mean((1, 2)), x[0].amax((1, 2)))]
    x1 = x[0] * 2 * torch.sigmoid(sum(mlp))[:, None, None]
    profile = torch.stack((x1.mean(0), x1.amax(0)))[None]
    gate = torch.nn.functional.conv2d(profile, cbam.place.weight, cbam.place.bias, padding=3)
    torch.testing.assert_close(cbam(x)[0], x1 * 2 * torch.sigmoid(gate[0]))


def test_attention_pooling_starts_as_a_mean_and_can_choose_a_time():
    torch.manual_seed(0)
    pool, x = AttentionPool(8), torch.randn(2, 8, 3, 20)
    torch.testing.assert_close(pool(x), x.mean(dim=(2, 3)))
    x[:, 0, :, 13] = 50.0
    with torch.no_grad():
        pool.score.weight[0, 0] = 10.0
    torch.testing.assert_close(pool(x), x[..., 13].mean(dim=2))


def test_attention_starts_as_the_plain_blocks():
    plain, attentive = build("cnn").eval(), build("cnn_attention").eval()
    attentive.load_state_dict(plain.state_dict(), strict=False)
    log_mel = torch.randn(2, 1, *SIZE)
    assert torch.equal(attentive.blocks(attentive.stem(log_mel)), plain.blocks(plain.stem(log_mel)))

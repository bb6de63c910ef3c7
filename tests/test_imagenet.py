"""Log-mels as the input of torchvision's own networks."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torchaudio
import torchvision
from torchvision.transforms.functional import normalize

from audioml.config import ConfigError, ModelConfig, load_config
from audioml.frontend import LogMel, MultiWindowLogMel
from audioml.frontend.recipe import Reading, Recipe
from audioml.models import build_model
from audioml.models.channels import compute_deltas, fold_weight

CONFIGS = Path(__file__).parent.parent / "configs"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
FIRST = {"resnet50": "conv1", "alexnet": "features.0"}
MODES = ["mono", "repeated", "deltas", "windows"]


def build(name, channels, size=(64, 72), n_classes=5):
    torch.manual_seed(0)
    config = ModelConfig(name=name, channels=channels, weights="none")
    return build_model(config, n_classes=n_classes, input_size=size).eval()


def torchvision_network(name):
    torch.manual_seed(0)
    return getattr(torchvision.models, name)(weights=None, num_classes=5).eval()


@pytest.fixture(scope="module", params=FIRST)
def pair(request):
    """A network folded to mono, and torchvision's with the same weights."""
    model, reference = build(request.param, "mono"), torchvision_network(request.param)
    model.load_state_dict(model.adapt(reference.state_dict()))
    return model, reference, FIRST[request.param]


def grey_picture(log_mel):
    """What is folded, written out: a grey picture as torchvision normalises it."""
    return normalize((0.449 + 0.226 * log_mel).repeat(1, 3, 1, 1), MEAN, STD)


@torch.no_grad()
def test_the_folded_convolution_is_exact_at_the_border_too(pair):
    model, reference, first = pair
    rgb, mono = (deepcopy(network.get_submodule(first)).double() for network in (reference, model))
    mono.weight.copy_(fold_weight(rgb.weight))
    log_mel = torch.randn(2, 1, 64, 72, dtype=torch.float64)
    torch.testing.assert_close(mono(log_mel), rgb(grey_picture(log_mel)), rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_whole_folded_network_is_torchvisions(pair):
    model, reference, _ = pair
    log_mel = torch.randn(2, 1, 64, 72)
    expected = reference(grey_picture(log_mel))
    torch.testing.assert_close(model(log_mel), expected, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_three_repeated_channels_are_torchvisions_network():
    model, reference = build("resnet50", "repeated"), torchvision_network("resnet50")
    model.load_state_dict(reference.state_dict())
    log_mel = torch.randn(2, 1, 64, 72)
    torch.testing.assert_close(model(log_mel), reference(grey_picture(log_mel)))


@pytest.mark.parametrize("shape", [(2, 1, 8, 30), (1, 1, 3, 1)])
def test_deltas_equal_torchaudios(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = torchaudio.functional.compute_deltas(x, win_length=5)
    torch.testing.assert_close(compute_deltas(x), expected, rtol=0, atol=1e-6)


def planes(channels, log_mel):
    model = build("resnet50", channels)
    return (model.planes(log_mel) - model.planes.offset) / model.planes.scale


def test_the_three_channels_are_what_their_names_say():
    log_mel = torch.randn(2, 1, 9, 20)
    delta = torchaudio.functional.compute_deltas(log_mel)
    expected = torch.cat((log_mel, delta, torchaudio.functional.compute_deltas(delta)), 1)
    torch.testing.assert_close(planes("deltas", log_mel), expected)
    torch.testing.assert_close(planes("repeated", log_mel), log_mel.repeat(1, 3, 1, 1))
    torch.testing.assert_close(planes("windows", log_mel)[:, 1], log_mel[:, 0, 3:6])


@pytest.mark.parametrize("channels", MODES)
@torch.no_grad()
def test_every_kind_of_input_gives_logits(channels):
    log_mel = torch.randn(2, 1, 3 * 40 if channels == "windows" else 40, 33)
    assert build("resnet50", channels, size=(40, 33))(log_mel).shape == (2, 5)


@torch.no_grad()
def test_attention_starts_as_the_plain_network():
    plain, attentive = build("resnet50", "mono"), build("resnet50_attention", "mono")
    attentive.load_state_dict(plain.state_dict(), strict=False)
    log_mel = torch.randn(2, 1, 64, 72)
    torch.testing.assert_close(attentive(log_mel), plain(log_mel), rtol=1e-4, atol=1e-5)
    features = [torch.nn.Sequential(*list(m.children())[:8]) for m in (plain, attentive)]
    assert torch.equal(features[0](log_mel), features[1](log_mel))


@pytest.mark.parametrize("size", [(62, 216), (128, 62)])
def test_alexnet_refuses_what_is_too_small_for_it(size):
    with pytest.raises(ConfigError, match=r"\A.*at least 63 bands x 63 frames, got .*\Z") as error:
        build("alexnet", "mono", size=size)
    for key in ("frontend.n_mels", "frontend.hop_length", "audio.clip_s"):
        assert key in str(error.value)


@torch.no_grad()
def test_the_preset_for_pictures_computes_their_size():
    config = load_config([CONFIGS / "esc50_resnet50_224.yaml"], ["model.weights=none"])
    assert config.input_size == (224, 224)
    model = build_model(config.model, n_classes=50, input_size=config.input_size).eval()
    seen = []
    model.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    assert model(torch.randn(2, 1, 224, 224)).shape == (2, 50)
    assert seen == [(2, 3, 224, 224)]


@pytest.mark.parametrize("hop_length", [1, 494, 512])
def test_the_size_that_is_configured_is_the_front_ends(hop_length):
    config = load_config(overrides=[f"frontend.hop_length={hop_length}", "audio.clip_s=0.3"])
    frontend = LogMel(sample_rate=config.audio.sample_rate, hop_length=hop_length)
    shape = frontend(torch.zeros(1, config.audio.n_time)).shape
    assert shape[1:] == config.input_size


WINDOWS = (128, 256, 512)
SETTINGS = {"sample_rate": 8000, "n_fft": 512, "hop_length": 128, "n_mels": 20, "max_semitones": 2}


def multi_window():
    frontend = MultiWindowLogMel(WINDOWS, **SETTINGS)
    g = torch.Generator().manual_seed(1)
    statistics = -40 + torch.randn(60, generator=g), 5 + torch.rand(60, generator=g)
    frontend.set_statistics(*statistics)
    parts = [LogMel(win_length=window, **SETTINGS) for window in WINDOWS]
    for part, mean, std in zip(parts, *(s.split(20) for s in statistics), strict=True):
        part.set_statistics(mean, std)
    return frontend, parts


def test_windows_stand_one_above_the_other():
    frontend, parts = multi_window()
    waveform = 0.1 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    changes = {"rate": torch.tensor([0.9, 1.1]), "semitones": torch.tensor([-2.0, 1.0])}
    expected = torch.cat([part(waveform, **changes) for part in parts], dim=1)
    assert expected.shape == (2, 60, 32)
    assert torch.equal(frontend(waveform, **changes), expected)
    torch.testing.assert_close(frontend.reference(waveform, **changes), expected, rtol=0, atol=1e-3)
    frontend.dtype = torch.bfloat16
    assert torch.equal(frontend(waveform, **changes), expected.bfloat16())


def test_a_mask_hides_the_same_bands_of_each_window():
    frontend, _ = multi_window()
    reading = Reading.of_waveforms(torch.full((1, 1, 4000), 0.1))
    mask = torch.tensor([[4], [9], [30], [32]])
    log_mel = frontend.render(reading, Recipe(gain=torch.ones(1, 1), mask=mask), 4000)
    hidden = (log_mel.unflatten(1, (3, 20)) == 0)[0]
    assert hidden[:, 4:9].all()
    assert hidden[..., 30:].all()
    assert not hidden[:, :4, :30].any()
    assert not hidden[:, 9:, :30].any()


def test_statistics_travel_with_the_state():
    frontend, _ = multi_window()
    copy = MultiWindowLogMel(WINDOWS, **SETTINGS)
    copy.load_state_dict(frontend.state_dict())
    waveform = torch.full((1, 2000), 0.1)
    assert torch.equal(copy(waveform), frontend(waveform))

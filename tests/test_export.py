"""``audioml export``: every network and front end says in another form what it says here."""

import io
import json
import logging
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny import LABELS, SETTINGS, train_tiny

import audioml
from audioml.assembly import WithFrontend, build_frontend
from audioml.classifier import Classifier
from audioml.cli import main
from audioml.config import load_config
from audioml.export import FACTS_FILE, run_onnx, run_torch, to_onnx, to_torch, trace
from audioml.model_files import FILE_NAME
from audioml.models import build_model
from audioml.parity import compare_models, generate_sounds
from audioml.portable import AdaptiveAverage, HalvingAverage, PortableClassifier

WINDOWS = ["model.channels=windows", "frontend.windows=[64,101,256]"]
UNCHANGED = ["frontend.kind=nnaudio", "augment.preset=none"]
LONG = ["audio.clip_s=1.6", "frontend.n_mels=64"]  # frames enough for AlexNet to be dynamic
NETWORKS = {
    "cnn": [],
    "cnn_attention": ["model.name=cnn_attention"],
    "alexnet": ["model.name=alexnet", *LONG],
    "resnet50, deltas": ["model.name=resnet50", "model.channels=deltas", "audio.clip_s=0.6"],
    "resnet50_attention, windows": ["model.name=resnet50_attention", *WINDOWS, "audio.clip_s=0.6"],
    "ast": ["model.name=ast", "model.ast.dim=24", "model.ast.depth=2"],
    "trained": [*UNCHANGED, "frontend.trainable=true"],
    "cqt": [*UNCHANGED, "frontend.transform=cqt", "frontend.f_min=60", "frontend.hop_length=64"],
}
FRONTENDS = {
    "short window": ["frontend.win_length=161"],
    "odd transform": ["frontend.n_fft=255", "frontend.win_length=255"],
    "other mels": ["frontend.mel_scale=htk", "frontend.mel_norm=none", "frontend.f_max=3000"],
    "high floor": ["frontend.floor_db=-40"],
    "torchaudio": ["frontend.kind=torchaudio"],
    "nnaudio": ["frontend.kind=nnaudio"],
    "repeated": ["model.name=resnet50", "model.channels=repeated"],
    "trained cqt": [*NETWORKS["cqt"], "frontend.trainable=true"],
}


def make_classifier(words):
    """Build a classifier with random weights and statistics."""
    config = load_config(overrides=[*SETTINGS, "model.weights=none", *words])
    torch.manual_seed(0)
    frontend = build_frontend(config, torch.device("cpu"))
    network = build_model(config.model, n_classes=3, input_size=config.input_size)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):  # a network that has been trained
            part.weight.data.uniform_(0.5, 1.0)
            part.running_mean.uniform_(-0.1, 0.1)
    for parameter in network.parameters():  # attention starts at 0, where it does nothing
        if not parameter.any():
            parameter.data.normal_(std=0.05)
    if frontend.trainable:
        network = WithFrontend(frontend, network)
        for parameter in frontend.parameters():
            parameter.data.mul_(1 + 0.1 * torch.rand_like(parameter))
    n_bands = len(frontend.mean_db)
    frontend.set_statistics(-30 + 10 * torch.rand(n_bands), 10 + 5 * torch.rand(n_bands))
    return Classifier(config=config, labels=tuple(LABELS), frontend=frontend, network=network)


def batches(n_time, least_time):
    """Give batches of several sizes and lengths."""
    lengths = [n_time] if least_time is None else [n_time, n_time + 777, least_time]
    return [generate_sounds(n, length, n) for n in (1, 5) for length in lengths]


@pytest.mark.parametrize("name", [*NETWORKS, *FRONTENDS])
def test_plain_operations_give_the_same(name):
    classifier = make_classifier((NETWORKS | FRONTENDS)[name])
    portable = PortableClassifier(classifier)
    found = compare_models(classifier, portable, batches(classifier.n_time, portable.least_time))
    assert found.level_db < 0.01
    assert found.probability < 1e-5
    assert not found.n_other


SLOW = ("alexnet", "resnet50, deltas")  # tens of seconds; the other ResNet is not left out
POOLED = ("alexnet", "resnet50, deltas", "resnet50_attention, windows")  # by maxima
TRACES_POOLING = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 14)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NETWORKS],
)
def test_both_forms_give_the_same(name, request):
    if name in POOLED and not TRACES_POOLING:  # it runs at some lengths only
        request.applymarker(pytest.mark.xfail(raises=RuntimeError, strict=True))
    classifier = make_classifier(NETWORKS[name])
    portable = PortableClassifier(classifier)
    assert (portable.least_time is None) == (name == "ast")
    program = trace(portable, classifier.n_time)
    sounds = batches(classifier.n_time, portable.least_time)
    for model in (run_onnx(to_onnx(program, {})), run_torch(to_torch(program, {}))):
        found = compare_models(classifier, model, sounds)
        assert found.holds
        assert found.level_db < 0.01
        assert found.probability < 1e-5


def test_the_sounds_tell_models_apart():
    """Differences below the tolerance mean something: probabilities differ from sound to sound."""
    for name in ("cnn", "cnn_attention", "ast"):
        classifier = make_classifier(NETWORKS[name])
        probability = classifier(generate_sounds(16, classifier.n_time))
        assert float(probability.std(dim=0).max()) > 1e-3


def test_adaptive_averages_are_torchs():
    x = torch.randn(2, 3, 7, 20)
    expected = torch.nn.AdaptiveAvgPool2d((6, 6))(x)
    torch.testing.assert_close(AdaptiveAverage((6, 6))(x), expected)


@pytest.mark.parametrize("size", [(7, 20), (8, 21), (1, 1)])
def test_halving_averages_are_torchs(size):
    x = torch.randn(2, 3, *size)
    expected = torch.nn.AvgPool2d(2, ceil_mode=True)(x)
    torch.testing.assert_close(HalvingAverage()(x), expected)


def test_clips_too_short_for_any_length_get_one():
    classifier = make_classifier(["audio.clip_s=0.2"])  # 13 frames
    portable = PortableClassifier(classifier)
    assert portable.least_time is None
    model = run_torch(to_torch(trace(portable, classifier.n_time), {}))
    assert compare_models(classifier, model, [generate_sounds(2, 1600)]).holds


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run's folder, its data beside it."""
    return train_tiny(tmp_path_factory.mktemp("run"), "splits.protocol=fixed")


def export(*words):
    return main(["export", *map(str, words)])


def test_a_run_becomes_onnx(run, tmp_path, capfd):
    out = tmp_path / "model.onnx"
    assert export(run, "--format", "onnx", "--out", out) == 0
    shown = capfd.readouterr()
    assert "any length from 0.26 s" in shown.out
    assert "checked   on 9 test clips: levels within" in shown.out
    assert shown.err == ""
    onnx.checker.check_model(out, full_check=True)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(facts["labels"])) == Classifier.load(run, "cpu").labels
    assert facts["sample_rate"] == "8000"
    assert facts["n_time"] == "4000"
    assert facts["dynamic_time"] == "true"
    assert facts["version"] == audioml.__version__
    assert "n_mels: 24" in facts["config"]
    assert session.get_inputs()[0].shape == ["batch", "time"]
    waveform = generate_sounds(2, 5000)
    (probability,) = session.run(["probability"], {"waveform": waveform.numpy()})
    np.testing.assert_allclose(probability, Classifier.load(run, "cpu")(waveform), atol=1e-5)
    assert str(Path(audioml.__file__).parent).encode() not in out.read_bytes()


LOAD = f"""
import json, sys, torch
sys.modules["audioml"] = None  # importing it fails
files = {{"{FACTS_FILE}": ""}}
program = torch.export.load(sys.argv[1], extra_files=files)
probability, level_db = program.module()(torch.load(sys.argv[2]))
print(json.dumps([json.loads(files["{FACTS_FILE}"])["labels"], probability.tolist()]))
"""


def test_a_run_becomes_a_program_that_needs_no_audioml(run, tmp_path, capsys):
    out = tmp_path / "model.pt2"
    assert export(run / "checkpoints" / "last.pt", "--format", "torch", "--out", out, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["checked_on"] == "9 test clips"
    assert facts["level_difference_db"] < 0.01
    assert facts["least_time"] == 16 * 128
    waveform = generate_sounds(3, 4444)
    torch.save(waveform, tmp_path / "waveform.pt")
    words = [sys.executable, "-c", LOAD, out, tmp_path / "waveform.pt"]
    said = subprocess.run(words, capture_output=True, check=True, text=True, cwd=tmp_path)
    labels, probability = json.loads(said.stdout)
    classifier = Classifier.load(run, "cpu")
    assert tuple(labels) == classifier.labels
    np.testing.assert_allclose(probability, classifier(waveform), atol=1e-5)
    assert str(Path(audioml.__file__).parent).encode() not in out.read_bytes()


def test_copies_stand_alone(run, tmp_path, capsys):
    waveform = generate_sounds(2, 4000)
    expected = Classifier.load(run, "cpu")(waveform)
    for source in (run, run / "checkpoints" / "last.pt"):
        out = tmp_path / "copy.safetensors"
        assert export(source, "--format", "safetensors", "--out", out, "--force") == 0
        assert torch.equal(Classifier.load(out, "cpu")(waveform), expected)
    assert export(run / "checkpoints" / "last.pt", "--format", "safetensors") == 0
    assert (run / "checkpoints" / "last.safetensors").is_file()  # beside the model
    (run / "checkpoints" / "last.safetensors").unlink()


def test_without_its_data_sounds_are_generated(run, tmp_path, capsys):
    alone = tmp_path / "alone.safetensors"
    assert export(run, "--format", "safetensors", "--out", alone) == 0
    data = run.parent / "data"
    data.rename(run.parent / "elsewhere")
    try:
        assert export(alone, "--format", "torch") == 0
    finally:
        (run.parent / "elsewhere").rename(data)
    assert f"on 64 generated sounds (no data in {data})" in capsys.readouterr().out
    assert (tmp_path / "alone.pt2").is_file()


def test_what_differs_is_not_written(run, tmp_path, capsys, monkeypatch):
    def louder(frontend):
        bands = make(frontend)
        bands.kernels *= 1.02  # 0.17 dB
        return bands

    make = audioml.portable._make_bands
    monkeypatch.setattr("audioml.portable._make_bands", louder)
    assert export(run, "--format", "torch", "--out", tmp_path / "model.pt2") == 2
    message = capsys.readouterr().err
    assert "not written, for as torch it is not the same model (levels within 0.17 dB" in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), 1.0])
def test_parity_fails_on_other_classes_and_on_no_numbers(value):
    classifier = make_classifier([])
    portable = PortableClassifier(classifier)

    def other(waveform):
        probability, level_db = portable(waveform)
        return torch.full_like(probability, value), level_db

    assert not compare_models(classifier, other, [generate_sounds(4, 4000)]).holds


def test_a_missing_package_is_named(run, tmp_path, capsys, monkeypatch):
    find = audioml.export.importlib.util.find_spec
    lacking = "onnxscript"
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == lacking else find(name, *a)
    )
    assert export(run, "--format", "onnx", "--out", tmp_path / "model.onnx") == 2
    message = capsys.readouterr().err
    assert message.endswith("needs onnxscript: python -m pip install 'audioml[onnx]'\n")
    assert not list(tmp_path.iterdir())


def test_a_program_that_does_not_run_is_not_written(run, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise RuntimeError("Eq(Mod(s0, 2), 0)\nand more")

    monkeypatch.setattr("audioml.export._check", fail)
    assert export(run, "--format", "torch", "--out", tmp_path / "model.pt2") == 2
    message = capsys.readouterr().err
    assert "not written, for as torch it does not run (Eq(Mod(s0, 2), 0)); use --format" in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_changed():
    level = logging.root.manager.disable
    filters = list(warnings.filters)
    classifier = make_classifier(NETWORKS["ast"])
    trace(PortableClassifier(classifier), classifier.n_time)
    assert logging.root.manager.disable == level
    assert warnings.filters == filters
    assert torch.backends.mha.get_fastpath_enabled()


class Payload:
    """Makes a file if it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("it_ran",)


def test_bad_input(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Payload()))
    torch.save({"version": 2, "model": Payload()}, tmp_path / "evil2.pt")
    (tmp_path / "there.pt2").write_bytes(b"precious")
    for words, message in (
        (["none"], "none: no such file; give a run folder"),
        (["begun"], "has not finished; go on with resume=begun"),
        (["evil.pt"], "not a file of torch, or one that holds more than tensors"),
        (["evil2.pt"], "not a file of torch, or one that holds more than tensors"),
        ([run, "--out", "no/model.pt2"], "no/model.pt2: no folder no; make it"),
        ([run, "--out", "begun"], "begun: a folder; give the name of a file"),
        ([run, "--out", "there.pt2"], "there.pt2: it is there already; give --force"),
    ):
        assert export(*words, "--format", "torch") == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "it_ran").exists()
    assert not (tmp_path / "no").exists()
    assert (tmp_path / "there.pt2").read_bytes() == b"precious"
    assert export(run, "--format", "safetensors") == 2  # onto itself
    assert f"{run / FILE_NAME}: it is there already" in capsys.readouterr().err


def test_force_replaces(run, tmp_path, capsys):
    out = tmp_path / "model.pt2"
    out.write_bytes(b"old")
    assert export(run, "--format", "torch", "--out", out, "--force") == 0
    torch.export.load(io.BytesIO(out.read_bytes()))

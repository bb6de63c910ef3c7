"""A classifier gives what the run's evaluation gave, from whatever file it is read."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import SETTINGS, make_tiny, train_tiny

from audioml.checkpoints import CheckpointError, load_checkpoint
from audioml.classifier import Classifier
from audioml.clips import CPU, decode_all, scan_headers
from audioml.config import load_config
from audioml.datasets import load_configured
from audioml.experiment import run_experiment
from audioml.model_files import FILE_NAME, ModelError, read_model
from audioml.store import WaveformStore

SETUPS = {
    "last": ["splits.protocol=fixed"],
    "best and averaged": ["splits.protocol=nested", "optim.ema_decay=0.9"],
    "attention, bfloat16": [
        "model.name=cnn_attention",
        "train.amp=bf16",
        "frontend.dtype=bfloat16",
    ],
    "a trained front end": [
        "frontend.kind=nnaudio",
        "frontend.trainable=true",
        *(f"augment.{name}.probability=0" for name in ("pitch", "stretch", "filter", "mask")),
    ],
    "windows": [
        "model.name=resnet50",
        "model.weights=none",
        "model.channels=windows",
        "frontend.windows=[64,128,256]",
        "train.epochs=1",
    ],
}


@pytest.fixture(scope="module", params=SETUPS)
def run(request, tmp_path_factory):
    """A finished run's folder, and its settings."""
    root = tmp_path_factory.mktemp("run")
    data = make_tiny(root / "data")
    words = [*SETTINGS, *SETUPS[request.param], f"data.root={data}", f"run.dir={root / 'run'}"]
    config = load_config(overrides=words)
    run_experiment(config)
    return root / "run", config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of one small run."""
    return train_tiny(tmp_path_factory.mktemp("one"), "train.epochs=1", "optim.ema_decay=0.9")


def waveforms(config):
    """Every clip as evaluation reads it, and the manifest."""
    manifest = load_configured(config.data)
    headers = scan_headers(manifest, config.audio.sample_rate)
    clips = decode_all(manifest, headers, config.audio.sample_rate, 1, CPU)
    store = WaveformStore(clips, n_time=config.audio.n_time, pad="zero", place="host", device=CPU)
    index = torch.arange(len(manifest))
    return store.gather(index, store.crop_start(index, 0.5)), manifest


def test_probabilities_are_the_evaluations(run):
    path, config = run
    table = pd.read_csv(path / "predictions.csv").set_index("path")
    waveform, manifest = waveforms(config)
    names = [clip.path.relative_to(manifest.root).as_posix() for clip in manifest.clips]
    tested = [names.index(name) for name in table.index]
    classifier = Classifier.load(path, "cpu")
    assert classifier.labels == manifest.labels
    assert (classifier.sample_rate, classifier.n_time) == (8000, 4000)
    expected = table[[f"p_{label}" for label in manifest.labels]].to_numpy()
    # bfloat16 has three digits, and batches of other sizes are added up in another order.
    tolerance = 2e-2 if config.train.amp == "bf16" else 1e-5
    np.testing.assert_allclose(classifier(waveform[tested]), expected, atol=tolerance)


def test_a_checkpoint_and_the_file_alone_give_the_same(run, tmp_path):
    path, config = run
    alone = shutil.copy(path / FILE_NAME, tmp_path / "copy.safetensors")
    name = "best.pt" if (path / "checkpoints" / "best.pt").exists() else "last.pt"
    waveform = waveforms(config)[0][:5]
    expected = Classifier.load(path, "cpu")(waveform)
    assert torch.equal(Classifier.load(alone, "cpu")(waveform), expected)
    assert torch.equal(Classifier.load(path / "checkpoints" / name, "cpu")(waveform), expected)


def test_it_knows_what_it_was_trained_on(folder):
    split = pd.read_csv(folder / "split.csv", dtype=str)
    classifier = Classifier.load(folder, "cpu")
    assert classifier.train_sources == set(split[split["part"] == "train"]["source"])
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_the_weights_begin_another_run(folder, tmp_path):
    """The file still serves as model.weights."""
    words = [*SETTINGS, f"data.root={make_tiny(tmp_path / 'data')}", f"run.dir={tmp_path / 'run'}"]
    file = f"model.weights={folder / FILE_NAME}"
    run_experiment(load_config(overrides=[*words, "train.epochs=1", "model.load_head=true", file]))


def test_a_model_for_triton_works_without(folder):
    content = read_model(folder)
    object.__setattr__(content.config.frontend, "kind", "triton")
    assert Classifier.from_content(content, "cpu").frontend.kind == "torch"


def damaged(folder: Path, tmp_path: Path, **changes: object) -> Path:
    """Write the run's model with other facts."""
    facts = {
        "format": 1,
        "version": "0",
        "labels": list(read_model(folder).labels),
        "config": (folder / "config.yaml").read_text(),
        "train_sources": [],
    } | changes
    file = tmp_path / "changed.safetensors"
    save_file(load_file(folder / FILE_NAME), file, {"audioml": json.dumps(facts)})
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99, "version": "9.9"}, r"newer audioml \(9.9, format 99\).*update audioml"),
        ({"format": "x"}, "metadata are not audioml's"),
        ({"labels": 3}, "labels, settings or weights are damaged"),
        ({"labels": ["a", "b"]}, "weights do not fit its settings"),
        ({"config": "model: {name: resnet50, weights: none}"}, "weights do not fit its settings"),
        ({"config": "model: {nam: cnn}"}, "unknown key model.nam; did you mean model.name"),
        ({"config": "[1, 2"}, "its settings: "),
        ({"config": "!!python/object/apply:os.system ['touch it_ran']"}, "its settings: "),
        ({"train_sources": None}, "labels, settings or weights are damaged"),
    ],
)
def test_facts_that_can_not_be(folder, tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message) as refusal:
        Classifier.load(damaged(folder, tmp_path, **changes), "cpu")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "it_ran").exists()


def test_files_that_are_no_model(folder, tmp_path):
    (tmp_path / "runs" / "fold-1").mkdir(parents=True)
    shutil.copy(folder / FILE_NAME, tmp_path / "runs" / "fold-1")
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("hello")
    whole = (folder / FILE_NAME).read_bytes()
    (tmp_path / "short.safetensors").write_bytes(whole[: len(whole) // 2])
    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    for name, message in (
        ("none", "no such file; give a run folder"),
        ("runs", r"a cross-validation.*runs/\{fold-1\}"),
        ("begun", "has not finished; go on with resume="),
        ("empty", "give the folder of a finished run"),
        ("empty.safetensors", "damaged or another kind of file"),
        ("text.safetensors", "damaged or another kind of file"),
        ("short.safetensors", "damaged or another kind of file"),
        ("foreign.safetensors", "metadata are not audioml's"),
    ):
        with pytest.raises(ModelError, match=message):
            Classifier.load(tmp_path / name, "cpu")


def test_checkpoints_that_can_not_be_used(folder, tmp_path):
    state = load_checkpoint(folder / "checkpoints" / "last.pt")
    torch.save({**state, "version": 99}, tmp_path / "newer.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this version"):
        Classifier.load(tmp_path / "newer.pt", "cpu")
    del state["frontend"]
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="not a checkpoint of a run"):
        Classifier.load(tmp_path / "other.pt", "cpu")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text\.pt"):
        Classifier.load(tmp_path / "text.pt", "cpu")

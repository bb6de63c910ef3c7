"""Whole runs of networks with trained weights, on a data set of a few short tones."""

import shutil

import pytest
import torch
from tiny import SETTINGS, make_tiny

from audioml.cli import main


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("data") / "tiny")


def train(tiny, folder, *settings):
    return main(["train", *SETTINGS, f"data.root={tiny}", f"run.dir={folder}", *settings])


def test_a_resumed_run_needs_its_first_weights_no_more(tiny, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    assert train(tiny, tmp_path / "first") == 0
    file = shutil.copy(tmp_path / "first" / "checkpoints" / "best.pt", tmp_path / "weights.pt")
    monkeypatch.setattr("audioml.experiment.write_evaluation", interrupt)
    folder = tmp_path / "second"
    assert train(tiny, folder, f"model.weights={file}", "model.load_head=true") == 130
    monkeypatch.undo()
    (tmp_path / "weights.pt").unlink()
    assert main(["train", f"resume={folder}"]) == 0
    assert "weights.pt; the last layer is among them" in (folder / "log.txt").read_text()
    assert train(tiny, tmp_path / "third", f"model.weights={file}") == 2


def test_a_network_for_pictures_sees_three_windows(tiny, tmp_path):
    settings = ["model.name=resnet50", "model.weights=none", "model.channels=windows"]
    windows = ["frontend.windows=[64,128,256]", "train.epochs=1"]
    assert train(tiny, tmp_path / "run", *settings, *windows) == 0
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert state["frontend"]["mean_db"].shape == (3 * 24, 1)
    assert state["model"]["conv1.weight"].shape == (64, 3, 7, 7)


@pytest.mark.parametrize("setting", ["finetune.head_epochs=1", "finetune.batch_norm=frozen"])
def test_layers_that_were_never_trained_are_not_kept(tiny, tmp_path, capsys, setting):
    assert train(tiny, tmp_path / "run", setting) == 2
    error = capsys.readouterr().err
    assert f"error: {setting} keeps layers as they are" in error
    assert error.count("\n") == 1

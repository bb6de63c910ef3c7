"""Whole runs with front ends by nnAudio: constant Q, and trained with the model."""

import itertools
import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import SETTINGS, make_tiny

from audioml.cli import main
from audioml.config import load_config
from audioml.preparation import prepare
from audioml.training import Trainer

UNCHANGED = [f"augment.{name}.probability=0" for name in ("pitch", "stretch", "mask")]
CQT = ["frontend.transform=cqt", "frontend.f_min=100", "frontend.bins_per_octave=5"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("data") / "tiny")


def train(tiny, folder, *settings):
    nnaudio = ["frontend.kind=nnaudio", *UNCHANGED, *settings]
    return main(["train", *SETTINGS, f"data.root={tiny}", f"run.dir={folder}", *nnaudio])


def read_checkpoint(folder):
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)


@pytest.mark.parametrize("kind", ["auto", "torch", "torchaudio", "nnaudio"])
def test_the_kind_that_is_wanted_is_built(tiny, kind):
    config = load_config(overrides=[*SETTINGS, f"data.root={tiny}", f"frontend.kind={kind}"])
    frontend = prepare(config, torch.device("cpu")).frontend
    assert frontend.kind == ("torch" if kind == "auto" else kind)


@pytest.mark.parametrize("settings", [[], CQT])
def test_a_fixed_front_end_trains(tiny, tmp_path, settings, capsys):
    assert train(tiny, tmp_path / "run", *settings) == 0
    assert "by nnaudio\n" in capsys.readouterr().out
    assert set(read_checkpoint(tmp_path / "run")["frontend"]) == {"mean_db", "std_db"}


@pytest.mark.parametrize("transform", [[], CQT])
def test_a_front_end_is_trained_saved_and_resumed_to_the_same_end(
    tiny, tmp_path, transform, monkeypatch
):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    settings = [*transform, "frontend.trainable=true", "train.epochs=3", "optim.ema_decay=0.5"]
    assert train(tiny, whole, *settings) == 0
    step, count = Trainer._train_step, itertools.count(1)

    def stopping_step(self, batch):
        if next(count) == 6:  # of 4 an epoch
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_train_step", stopping_step)
    assert train(tiny, stopped, *settings) == 130
    monkeypatch.undo()
    first = read_checkpoint(stopped)
    assert main(["train", f"resume={stopped}"]) == 0
    ours, theirs = read_checkpoint(stopped), read_checkpoint(whole)
    for part in ("model", "ema"):
        for key, value in theirs[part].items():
            assert torch.equal(ours[part][key], value), (part, key)
    trained = [key for key in theirs["frontend"] if not key.endswith("_db")]
    assert trained
    for key in trained:
        assert not torch.equal(theirs["frontend"][key], first["frontend"][key])
    losses = pd.read_csv(whole / "metrics.csv")["train_loss"]
    assert np.isfinite(losses).all()
    assert losses.iloc[-1] < losses.iloc[0]

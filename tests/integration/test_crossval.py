"""Cross-validations through the command line, on a data set of a few short tones."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from tiny import LABELS, SETTINGS, make_tiny

from audioml import crossval
from audioml.cli import main
from audioml.cli.verbs import EXIT_STOPPED, EXIT_USAGE
from audioml.config import load_config
from audioml.datasets.manifest import Clip, Manifest
from audioml.errors import Interrupted
from audioml.splits import SplitError, official_folds


def run(data, folder, *settings):
    return main(["crossval", *SETTINGS, f"data.root={data}", f"run.dir={folder}", *settings])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "crossval"
    assert run(tiny, folder, "splits.protocol=fixed") == 0
    return folder


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_every_clip_is_tested_once_and_by_a_model_of_another_fold(finished):
    table = pd.read_csv(finished / "predictions.csv")
    assert len(table) == table["path"].nunique() == 45
    for fold in range(1, 6):
        split = pd.read_csv(finished / f"fold-{fold}" / "split.csv")
        tested = set(split.loc[split["part"] == "test", "path"])
        assert tested == set(table.loc[table["fold"] == fold, "path"])


def test_summary_is_of_the_folds(finished):
    summary = read_summary(finished)
    folds = [read_summary(finished / f"fold-{k}") for k in range(1, 6)]
    accuracies = [fold["accuracy"] for fold in folds]
    assert summary["accuracy"] == pytest.approx(np.mean(accuracies))
    assert summary["accuracy_sd"] == pytest.approx(np.std(accuracies, ddof=1))
    low, high = summary["accuracy_interval"]
    assert low <= summary["pooled_accuracy"] <= high
    assert summary["pooled_accuracy"] == pytest.approx(summary["accuracy"])  # folds of equal size
    assert (summary["protocol"], summary["n_test"], len(summary["folds"])) == ("fixed", 45, 5)
    assert summary["latency_ms"] > 0


def test_per_class_table_has_the_folds_spread(finished):
    table = pd.read_csv(finished / "per_class.csv")
    assert table["label"].tolist() == LABELS
    recalls = table[[f"recall_fold_{k}" for k in range(1, 6)]]
    np.testing.assert_allclose(table["recall"], recalls.mean(axis=1), atol=1e-3)
    np.testing.assert_allclose(table["recall_min"], recalls.min(axis=1))
    assert (finished / "plots" / "confusion_matrix.png").stat().st_size > 5000


def test_finished_folds_are_kept_and_interrupted_ones_go_on(tiny, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "crossval"
    real, seen = crossval.run_experiment, []

    def stop_in_fold_3(config):
        seen.append((config.splits.fold, config.resume))
        if config.splits.fold == 3 and len(seen) == 3:
            Path(config.run.dir).mkdir()  # stopped before its first checkpoint
            raise Interrupted("stopped")
        return real(config)

    monkeypatch.setattr(crossval, "run_experiment", stop_in_fold_3)
    assert run(tiny, folder) == EXIT_STOPPED
    assert f"continue with: audioml crossval resume={folder}" in capsys.readouterr().err
    assert main(["crossval", f"resume={folder}"]) == 0
    assert [fold for fold, _ in seen] == [1, 2, 3, 3, 4, 5]
    assert read_summary(folder)["protocol"] == "nested"


def test_a_fold_with_a_checkpoint_is_resumed(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "again")
    (folder / "fold-2" / "summary.json").unlink()
    assert main(["crossval", f"resume={folder}"]) == 0
    assert "resume    after epoch 2" in (folder / "fold-2" / "log.txt").read_text()
    assert read_summary(folder)["accuracy"] == read_summary(finished)["accuracy"]


def test_processes_share_the_folds(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "shared")
    for file in (folder / "summary.json", folder / "fold-2" / "summary.json"):
        file.unlink()
    with FileLock(folder / ".fold-2.lock"):  # as another process would
        assert main(["crossval", f"resume={folder}"]) == 0
        assert "another process runs the last folds" in capsys.readouterr().out
        assert not (folder / "summary.json").exists()
    assert main(["crossval", f"resume={folder}"]) == 0
    assert read_summary(folder)["n_test"] == 45


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["splits.protocol=holdout"], "set splits.protocol to nested or fixed"),
        (["resume=nowhere"], "goes on with that run's own settings"),
    ],
)
def test_bad_settings_are_refused_in_one_line(tiny, tmp_path, capsys, settings, message):
    assert run(tiny, tmp_path / "x", *settings) == EXIT_USAGE
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_is_not_a_crossval(finished, capsys):
    assert main(["crossval", f"resume={finished / 'fold-1'}"]) == EXIT_USAGE
    assert "not the folder of a cross-validation" in capsys.readouterr().err


def test_data_without_folds_is_refused():
    clip = Clip(path=Path("a.wav"), label="a", target=0, source="a", fold=1)
    manifest = Manifest(
        name="mine", root=Path(), labels=("a",), clips=(clip, replace(clip, fold=None))
    )
    with pytest.raises(SplitError, match="mine has no official folds"):
        official_folds(manifest, load_config().splits.protocol)

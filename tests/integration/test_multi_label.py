"""Whole runs over clips with any number of labels, and that no figure is made up."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from jobs import EQUAL, train
from several import LABELS, SETTINGS, make_several
from sklearn.metrics import average_precision_score

from audioml import experiment
from audioml.classifier import Classifier
from audioml.cli import main
from audioml.cli.verbs import EXIT_STOPPED, EXIT_USAGE
from audioml.errors import Interrupted
from audioml.model_files import read_model
from audioml.report.charts import calibration
from audioml.report.sounds import MOST_PICTURED
from audioml.results import Results

LEARNING = ["optim.lr=0.02", "train.epochs=8", "augment.preset=none"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_several(tmp_path_factory.mktemp("data") / "several")


def make_run(clips, folder, *settings):
    words = [*SETTINGS, *LEARNING, f"data.manifest={clips}", f"run.dir={folder}", *settings]
    assert main(["train", *words]) == 0
    return folder


@pytest.fixture(scope="module")
def run(clips, tmp_path_factory):
    return make_run(clips, tmp_path_factory.mktemp("runs") / "run", "run.report=true")


@pytest.fixture(scope="module")
def balanced(clips, tmp_path_factory):
    """Another run, with weights of positives, drawn classes and mixtures."""
    settings = ["augment.preset=ranges", "train.sampling=balanced", "train.epochs=2"]
    return make_run(clips, tmp_path_factory.mktemp("runs") / "balanced", *settings)


P = [f"p_{label}" for label in LABELS]


def read(run):
    return pd.read_csv(run / "predictions.csv", keep_default_na=False)


def has(cell):
    """Whether a clip's cell of labels has each."""
    return np.array([label in cell.split(";") for label in LABELS])


def test_it_learns(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["mean_average_precision"] > 0.9  # by chance 0.5
    table = read(run)
    expected = average_precision_score(np.stack(table["label"].map(has)), table[P])
    assert summary["mean_average_precision"] == pytest.approx(expected, abs=1e-6)
    assert summary["best"]["mean_average_precision"] == summary["mean_average_precision"]


def test_the_best_epoch_is_that_of_the_best_mean_average_precision(run):
    history = pd.read_csv(run / "metrics.csv")
    order = history.sort_values(["val_mean_average_precision", "val_loss"], ascending=[False, True])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["best_epoch"] == order["epoch"].iloc[0]


def test_figures_that_make_no_sense_are_nowhere(run):
    for name in ("summary.json", "metrics.csv", "per_class.csv", "log.txt", "model_card.md"):
        text = (run / name).read_text().replace('"mean_average_precision"', "")
        for word in ("accuracy", "macro_f1", "recall", "confusion"):
            assert word not in text.lower(), (name, word)
    assert not {"predicted", "is_right"} & set(pd.read_csv(run / "predictions.csv"))
    assert {file.name for file in (run / "plots").iterdir()} == {
        "average_precision.png",
        "curves.png",
        "train_batch.png",
    }


def test_the_report_shows_what_there_is(run):
    page = (run / "report.html").read_text()
    value = json.loads((run / "summary.json").read_text())["mean_average_precision"]
    assert f"<dt>Mean average precision</dt><dd>{value:.4f}</dd>" in page
    for part in ("curves", "classes", "split", "speed", "again"):
        assert f'<section id="{part}"' in page
    assert 'id="confusion"' not in page
    assert 'href="#confusion"' not in page
    assert "<dt>Accuracy</dt>" not in page
    table = read(run)
    probability = table[P].to_numpy().ravel()
    target = np.concatenate(table["label"].map(has).tolist())
    _, error = calibration(probability, target)
    assert f"expected calibration error {error:.1%}" in page


def test_the_report_lets_the_surest_mistakes_be_heard(balanced):
    """Two epochs: some classes are missed, others said to be there in vain."""
    assert main(["report", str(balanced)]) == 0
    page = (balanced / "report.html").read_text()
    table = read(balanced)
    target = np.array([has(cell) for cell in table["label"]])
    off = np.abs(target - table[P].to_numpy())
    wrong = off.max(axis=1) > 0.5
    assert 0 < wrong.sum() < len(table)
    section = page[page.index('<section id="mistakes"') :].partition("</section>")[0]
    assert f"of {wrong.sum()} mistakes" in section
    first = table.iloc[off.max(axis=1).argmax()]
    names = [
        ", ".join(label for label, there in zip(LABELS, which, strict=True) if there) or "none"
        for which in (has(first["label"]), first[P] >= 0.5)
    ]
    card = section[section.index("<figcaption>") :].partition("</figure>")[0]
    assert "<strong>{}</strong>, said to be <strong>{}</strong>".format(*names) in card
    assert first["path"] in card
    assert "<audio" in card
    assert section.count("<audio") == min(wrong.sum(), MOST_PICTURED)


def test_predictions_are_the_evaluations_and_sum_to_anything(run, clips, capsys):
    table = pd.read_csv(run / "predictions.csv", keep_default_na=False)
    files = [str(clips.parent / path) for path in table["path"]]
    assert main(["predict", str(run), *files, "--format", "csv"]) == 0
    (run / "predicted.csv").write_text(capsys.readouterr().out)
    predicted = pd.read_csv(run / "predicted.csv", keep_default_na=False)
    columns = [f"p_{label}" for label in LABELS]
    np.testing.assert_allclose(predicted[columns], table[columns], atol=1e-6)
    assert np.ptp(predicted[columns].sum(axis=1)) > 0.5
    even = [";".join(n for n in LABELS if row[f"p_{n}"] >= 0.5) for _, row in predicted.iterrows()]
    assert predicted["predicted"].tolist() == even
    assert "" in even
    assert any(";" in cell for cell in even)


def test_every_file_of_the_model_says_that_it_is_multi_label(run, tmp_path):
    waveform = torch.randn(3, 4000) * 0.1
    expected = Classifier.load(run, "cpu")(waveform)
    for file in (run / "checkpoints" / "best.pt", run / "model.safetensors"):
        content = read_model(file)
        assert content.is_multi_label
        torch.testing.assert_close(Classifier.from_content(content, "cpu")(waveform), expected)
    copy = tmp_path / "copy.safetensors"
    words = ["export", str(run / "checkpoints" / "best.pt"), "--format", "safetensors"]
    assert main([*words, "--out", str(copy)]) == 0
    assert copy.read_bytes() == (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("style", ["onnx", "torch"])
def test_exported_models_say_the_same(run, tmp_path, style, capsys):
    words = ["export", str(run), "--format", style, "--out", str(tmp_path / "model")]
    assert main([*words, "--json"]) == 0  # after a comparison on the test clips
    assert json.loads(capsys.readouterr().out)["is_multi_label"] is True


def test_two_runs_are_compared_by_mean_average_precision(run, balanced, capsys):
    assert main(["compare", str(run), str(balanced), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["runs"]
    scores = [Results.read(folder).score for folder in (run, balanced)]
    assert [row["mean_average_precision"] for row in (first, second)] == scores
    assert first["interval"][0] <= scores[0] <= first["interval"][1]
    assert second["difference"] == pytest.approx(scores[1] - scores[0])
    assert (
        second["difference_interval"][0] < second["difference"] < second["difference_interval"][1]
    )
    assert second["p_value"] is None
    assert "accuracy" not in first
    assert main(["compare", str(run), str(balanced)]) == 0
    header = capsys.readouterr().out.splitlines()[0]
    assert "| mAP |" in header
    assert "| p |" not in header


def test_a_cross_validation_averages_folds_and_never_ranks_their_scores_together(clips, tmp_path):
    words = [*SETTINGS, *LEARNING, f"data.manifest={clips}", f"run.dir={tmp_path / 'cv'}"]
    assert main(["crossval", *words, "train.epochs=1", "splits.protocol=fixed"]) == 0
    summary = json.loads((tmp_path / "cv" / "summary.json").read_text())
    folds = [fold["mean_average_precision"] for fold in summary["folds"]]
    assert summary["mean_average_precision"] == pytest.approx(np.mean(folds))
    assert summary["mean_average_precision_sd"] == pytest.approx(np.std(folds, ddof=1))
    low, high = summary["mean_average_precision_interval"]
    assert low < np.mean(folds) < high
    assert "pooled_accuracy" not in summary
    whole = Results.read(tmp_path / "cv")
    assert whole.score == pytest.approx(np.mean(folds), abs=1e-6)
    classes = pd.read_csv(tmp_path / "cv" / "per_class.csv")
    columns = [f"average_precision_fold_{fold}" for fold in range(1, 6)]
    np.testing.assert_allclose(
        classes["average_precision"], classes[columns].mean(axis=1), atol=1e-4
    )
    assert classes["n_clips"].tolist() == [80, 80, 80]


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(clips, tmp_path, balanced, monkeypatch):
    """With drawn classes and mixtures, within an epoch."""
    save, stopped = experiment._Run._save, []

    def save_and_stop(self):
        save(self)
        if self.trainer.progress.step == 5 and not stopped:
            stopped.append(self.trainer.progress.epoch)
            raise Interrupted("stopped")

    monkeypatch.setattr(experiment._Run, "_save", save_and_stop)
    words = [*SETTINGS, *LEARNING, f"data.manifest={clips}", f"run.dir={tmp_path / 'run'}"]
    words += ["augment.preset=ranges", "train.sampling=balanced", "train.epochs=2"]
    assert main(["train", *words, "run.save_every_steps=5"]) == EXIT_STOPPED
    assert stopped == [0]
    assert main(["train", f"resume={tmp_path / 'run'}"]) == 0
    ends = [read_model(folder).weights for folder in (tmp_path / "run", balanced)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_labels_that_became_several_are_not_the_data_the_run_began_with(clips, tmp_path, capsys):
    single = tmp_path / "clips.csv"
    rows = [line for line in clips.read_text().splitlines() if ";" not in line and ",," not in line]
    single.write_text("\n".join(rows) + "\n")
    words = [*SETTINGS, f"data.manifest={single}", f"data.root={clips.parent}", "train.epochs=1"]
    assert main(["train", *words, f"run.dir={tmp_path / 'run'}"]) == 0
    assert not read_model(tmp_path / "run").is_multi_label
    single.write_text(single.read_text().replace(",high,", ",high;low,", 1))
    capsys.readouterr()
    assert main(["train", f"resume={tmp_path / 'run'}"]) == EXIT_USAGE
    assert "not the data the run began with (labels changed)" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [["train.sampling=balanced"], ["train.class_weights=balanced"]])
def test_two_ranks_have_the_curve_of_one_process(clips, tmp_path, changes):
    own = {word.partition("=")[0] for word in SETTINGS}
    words = [*SETTINGS, *(word for word in EQUAL if word.partition("=")[0] not in own)]
    words += [f"data.manifest={clips}", "train.epochs=2", "run.dir=run", *changes]
    tables = []
    for n_ranks in (1, 2):
        codes, said = train(tmp_path / str(n_ranks), n_ranks, words)
        assert codes == [0] * n_ranks, said
        table = pd.read_csv(tmp_path / str(n_ranks) / "run" / "metrics.csv")
        tables.append(table[["train_loss", "val_loss", "val_mean_average_precision", "lr"]])
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-4)


def test_exploring_is_refused_in_one_line(clips, capsys):
    assert main(["explore", str(clips)]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert "here they have several labels; give the folder of the sounds" in said
    assert said.count("\n") == 1


def test_a_sweep_chooses_by_mean_average_precision(clips, tmp_path):
    words = [*SETTINGS, *LEARNING, f"data.manifest={clips}", "train.epochs=2"]
    words += ["--over", "optim.lr=1e-6,2e-2", "--dir", str(tmp_path / "sweep")]
    assert main(["sweep", *words]) == 0
    summary = json.loads((tmp_path / "sweep" / "summary.json").read_text())
    trials = pd.read_csv(tmp_path / "sweep" / "trials.csv", dtype={"optim.lr": str})
    best = trials.loc[trials["mean_average_precision"].idxmax()]
    assert summary["best"]["values"] == {"optim.lr": best["optim.lr"]} == {"optim.lr": "2e-2"}
    assert summary["best"]["mean_average_precision"] == best["mean_average_precision"]
    assert "validation mAP" in summary["objective"]
    assert "accuracy" not in trials
    assert (tmp_path / "sweep" / "plots" / "mean_average_precision.png").is_file()

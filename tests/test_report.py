"""The report and the model card of whole runs, their data hostile or gone."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tiny import SETTINGS, train_tiny

from audioml.cli import main
from audioml.report import write_report
from audioml.report.charts import calibration, chart_curves, chart_recall, recall_intervals
from audioml.report.content import read_content
from audioml.runs import RunError

HOSTILE = "<img src=x onerror=alert(1)></script><b>"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with its report."""
    return train_tiny(tmp_path_factory.mktemp("run"), "run.report=true")


def read_clips(page: str) -> dict:
    """Read the list that the page's script shows."""
    return json.loads(re.search(r'id="clip-data">(.*?)</script>', page, re.DOTALL)[1])


def test_every_run_has_one_with_all_its_parts(run):
    page = (run / "report.html").read_text()
    for part in ("curves", "confusion", "classes", "augmentation", "split", "speed", "again"):
        assert f'<section id="{part}"' in page
    accuracy = json.loads((run / "summary.json").read_text())["accuracy"]
    assert f"<dt>Accuracy</dt><dd>{accuracy:.1%}</dd>" in page
    assert "no leak" in page
    assert (run / "report.html").stat().st_size < 15e6


def test_it_lists_every_tested_clip_with_its_sound(run):
    content = read_clips((run / "report.html").read_text())
    table = pd.read_csv(run / "predictions.csv")
    assert [clip["path"] for clip in content["clips"]] == table["path"].tolist()
    said = [content["labels"][clip["said"]] for clip in content["clips"]]
    assert said == table["predicted"].tolist()
    assert all(clip["audio"].startswith("data:audio/mpeg;base64,") for clip in content["clips"])
    first = table.iloc[0]
    assert content["clips"][0]["top"][0][1] == pytest.approx(
        max(first[f"p_{label}"] for label in content["labels"]), abs=1e-4
    )


def test_nothing_outside_is_asked(run):
    page = (run / "report.html").read_text()
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # Plotly names its home
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", own)
    assert "default-src 'none'" in page


def test_augmentation_names_no_epoch_that_was_not(run):
    page = (run / "report.html").read_text()
    named = {int(number) for number in re.findall(r"\(epoch (\d+)\)", page)}
    assert named
    assert max(named) <= json.loads((run / "summary.json").read_text())["epochs"]
    assert "(were there more epochs)" in page


def test_the_card(run):
    card = (run / "model_card.md").read_text()
    assert card.startswith("---\nlibrary_name: audioml\n")
    facts = yaml.safe_load(card.split("---\n")[1])
    metrics = facts["model-index"][0]["results"][0]["metrics"]
    accuracy = json.loads((run / "summary.json").read_text())["accuracy"]
    assert metrics[0]["value"] == pytest.approx(accuracy, abs=1e-4)
    for words in (
        "license: cc-by-3.0",
        "| Accuracy |",
        "no leak",
        "## Limits",
        "low, middle, high",
    ):
        assert words in card


def test_it_can_be_left_out_also_by_a_resumed_run_and_made_later(run, tmp_path):
    folder = copy(run, tmp_path)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("report: true", "report: false"))
    (folder / "report.html").unlink()
    assert main(["train", f"resume={folder}"]) == 0
    assert not (folder / "report.html").exists()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").is_file()


def test_a_cross_validation_links_its_folds(run, tmp_path, monkeypatch):
    monkeypatch.setattr("audioml.report.page.MOST_PICTURED", 1)
    data = [f"data.root={run.parent / 'data'}", "splits.protocol=fixed", "augment.preset=none"]
    words = [*SETTINGS, *data, f"run.dir={tmp_path / 'run'}", "train.epochs=1", "run.report=true"]
    assert main(["crossval", *words]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    for fold in range(1, 6):
        assert f'href="fold-{fold}/report.html"' in page
        assert (tmp_path / "run" / f"fold-{fold}" / "report.html").is_file()
    assert len(read_clips(page)["clips"]) == 45
    clips = pd.DataFrame(read_clips(page)["clips"])
    is_right = clips["true"] == clips["said"]
    assert clips["audio"].notna().sum() == 40
    assert clips["audio"][~is_right].notna().all()
    heard = clips[is_right & clips["audio"].notna()]["true"].value_counts()
    unheard = clips[is_right & clips["audio"].isna()]["true"].value_counts()
    assert all(heard[n] >= heard.max() - 1 for n in unheard.index)  # spread over the classes
    assert "Deviation of folds" in page
    assert "mean ± deviation" in page
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert f"{summary['accuracy']:.1%} ± {summary['accuracy_sd']:.1%}" in page
    card = (tmp_path / "run" / "model_card.md").read_text()
    assert "audioml predict RUN_FOLDER/fold-1 sound.wav" in card
    assert "The weights\nare those of the last epoch." in card


def test_a_nested_cross_validation_says_what_was_chosen(run, tmp_path):
    folds = [{"fold": 1, "weights": "best", "best_epoch": 7}]
    content = replace(read_content(run), folds={1: run})
    content.summary["folds"] = folds
    assert content.chosen == "those of each fold's best epoch on validation"
    assert read_content(run).chosen.startswith("those of epoch ")


def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def test_without_the_data_it_says_so(run, tmp_path):
    folder = copy(run, tmp_path)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(str(run.parent / "data"), str(tmp_path / "gone")))
    write_report(folder)
    page = (folder / "report.html").read_text()
    assert f"the data are no longer at {tmp_path / 'gone'}" in page
    assert "data:audio" not in page


def test_it_downloads_and_generates_nothing(run, tmp_path, monkeypatch):
    folder = copy(run, tmp_path)
    config = folder / "config.yaml"
    config.write_text(
        re.sub(r"name: esc10\n  root: .*\n", "name: synthetic\n  root: null\n", config.read_text())
    )
    monkeypatch.chdir(tmp_path)
    write_report(folder)
    assert "no longer at data/synthetic-0" in (folder / "report.html").read_text()
    assert not (tmp_path / "data").exists()


def test_without_the_model_all_else_is_told(run, tmp_path, caplog):
    folder = copy(run, tmp_path)
    (folder / "model.safetensors").write_bytes(b"no weights")
    write_report(folder)
    page = (folder / "report.html").read_text()
    assert "It can't be shown: " in page
    assert "model.safetensors" in page
    assert "without what augmentation did" in caplog.text
    assert len(read_clips(page)["clips"]) == 9


def test_with_other_data_nothing_is_played(run, tmp_path):
    folder = copy(run, tmp_path)
    split = pd.read_csv(folder / "split.csv", dtype=str)
    split.iloc[::-1].to_csv(folder / "split.csv", index=False)
    write_report(folder)
    assert "are not those of the run" in (folder / "report.html").read_text()


def test_names_are_escaped(run, tmp_path):
    folder = copy(run, tmp_path)
    for name in ("predictions.csv", "per_class.csv", "split.csv"):
        table = pd.read_csv(folder / name, dtype={"source": str})
        for column in ("label", "predicted"):
            if column in table:
                table[column] = table[column].replace("low", HOSTILE)
        if "path" in table:
            table["path"] = [f"{HOSTILE}{path}" for path in table["path"]]
        table.rename(columns={"p_low": f"p_{HOSTILE}"}).to_csv(folder / name, index=False)
    write_report(folder)
    card = (folder / "model_card.md").read_text()
    assert "<img" not in card
    assert "&lt;img src=x onerror=alert(1)&gt;" in card
    page = (folder / "report.html").read_text()
    assert "<img src=x" not in page
    assert page.count("</script>") == page.count("<script")
    assert read_clips(page)["labels"][0] == HOSTILE


def test_numbers_and_none_are_names_of_classes(run, tmp_path):
    folder = copy(run, tmp_path)
    names = {"low": "7", "middle": "None", "high": "NA"}
    for name in ("predictions.csv", "split.csv"):
        table = pd.read_csv(folder / name, dtype={"source": str}).replace(names)
        table = table.rename(columns={f"p_{old}": f"p_{new}" for old, new in names.items()})
        table.to_csv(folder / name, index=False)
    write_report(folder)
    content = read_clips((folder / "report.html").read_text())
    assert content["labels"] == ["7", "None", "NA"]
    before = read_clips((run / "report.html").read_text())
    assert [clip["true"] for clip in content["clips"]] == [clip["true"] for clip in before["clips"]]
    card = (folder / "model_card.md").read_text()
    assert "| None | 3 |" in card


def test_classes_of_numbers_stay_in_order():
    chart = chart_recall(["10", "2"], [(0.9, 0.8, 1.0), (0.5, 0.4, 0.6)], [5, 5])
    assert chart["layout"]["yaxis"]["type"] == "category"  # Plotly would take them for a scale
    assert chart["data"][0]["y"] == ["10", "2"]


def test_the_card_says_what_the_audit_found_as_plain_words(run, tmp_path):
    folder = copy(run, tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    summary["audit"] += [f"near-duplicate sound: {HOSTILE}.wav"]
    (folder / "summary.json").write_text(json.dumps(summary | {"data": f"{HOSTILE}/"}))
    write_report(folder)
    card = (folder / "model_card.md").read_text()
    assert "<img" not in card.split("---")[2]
    assert "near-duplicate sound: &lt;img" in card


@pytest.mark.parametrize("name", ["summary.json", "metrics.csv", "split.csv", "env.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "a,b\n1,2\n1,2,3", "a,b\n1,2"])
def test_a_run_with_a_damaged_file(run, tmp_path, capsys, name, content):
    folder = copy(run, tmp_path)
    (folder / name).write_text(content)
    assert main(["report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert name in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["summary.json", "metrics.csv", "split.csv", "env.json"])
def test_a_run_without_a_file(run, tmp_path, capsys, name):
    folder = copy(run, tmp_path)
    (folder / name).unlink()
    assert main(["report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert name in error
    assert error.count("\n") == 1


def test_no_run(tmp_path):
    with pytest.raises(RunError, match="give the folder of a finished run"):
        write_report(tmp_path)


def test_calibration_by_hand():
    confidence = np.array([0.95, 0.95, 0.55, 1.0])
    table, error = calibration(confidence, np.array([True, False, True, True]))
    assert table["n_clips"].tolist() == [1, 3]
    assert table["accuracy"].tolist() == pytest.approx([1, 2 / 3])
    expected = (abs(0.55 - 1) + 3 * abs(2.9 / 3 - 2 / 3)) / 4
    assert error == pytest.approx(expected)


def test_recall_counts_recordings():
    target = np.array([0, 0, 0, 0])
    alone, together = (
        recall_intervals(target, np.ones(4, bool), np.array(sources), 2)
        for sources in (["a", "b", "c", "d"], ["a", "a", "a", "a"])
    )
    assert alone[0][0] == together[0][0] == 1.0
    assert alone[0][1] > together[0][1]
    assert np.isnan(alone[1][0])


def test_the_best_epoch_is_marked():
    history = pd.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.0]})
    (line,) = chart_curves(history, "loss", "Loss", 2)["layout"]["shapes"]
    assert line["x0"] == line["x1"] == 2
    assert chart_curves(history, "loss", "Loss")["layout"]["shapes"] == []

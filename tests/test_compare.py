import json

import numpy as np
import pandas as pd
import pytest

from audioml.cli import main
from audioml.cli.verbs import EXIT_USAGE
from audioml.compare import compare, make_rows
from audioml.results import Results
from audioml.runs import RunError

LABELS = ["bark", "rain"]


def write_run(folder, is_right, *, protocol="fixed", paths=None, folds=None, **summary):
    """Write what compare reads of a run in which these clips were right."""
    n = len(is_right)
    target = np.arange(n) % 2
    predicted = np.where(is_right, target, 1 - target)
    table = pd.DataFrame(
        {
            "path": paths or [f"audio/{i}.wav" for i in range(n)],
            "source": [f"00{i}" for i in range(n)],
            "label": [LABELS[t] for t in target],
            "predicted": [LABELS[p] for p in predicted],
            "is_right": is_right,
            "p_bark": np.where(predicted == 0, 0.9, 0.1),
            "p_rain": np.where(predicted == 1, 0.9, 0.1),
        }
    )
    if folds is not None:
        table["fold"] = folds
    folder.mkdir()
    table.to_csv(folder / "predictions.csv", index=False)
    figures = {
        "data": "esc10",
        "protocol": protocol,
        "model": "cnn",
        "accuracy": float(np.mean(is_right)),
        "macro_auc": 0.9,
        "n_parameters": 1234567,
        "train_time_s": 60.0,
        "clips_per_s": 100.0,
        "latency_ms": 5.0,
        "device": "cpu (2 threads)",
    }
    (folder / "summary.json").write_text(json.dumps(figures | summary))
    return folder


@pytest.fixture
def two(tmp_path):
    first = write_run(tmp_path / "first", np.arange(100) >= 20)  # 80 right
    second = write_run(
        tmp_path / "second", np.arange(100) >= 5, model="resnet50"
    )  # the same and 15
    return first, second


def test_figures_worked_by_hand(two):
    first, second = make_rows([Results.read(path) for path in two])
    assert (first.score, second.score) == (0.8, 0.95)
    assert np.isnan(first.p_value)
    assert second.difference == pytest.approx(0.15)
    assert 0.05 < second.difference_interval[0] < 0.15 < second.difference_interval[1] < 0.25
    assert second.p_value == pytest.approx(2 * 0.5**15)


def test_the_order_of_clips_does_not_matter(two, tmp_path):
    first, second = two
    shuffled = pd.read_csv(second / "predictions.csv", dtype=str).sample(frac=1, random_state=0)
    shuffled.to_csv(second / "predictions.csv", index=False)
    assert "| second | resnet50 | 95.0% |" in compare([first, second]).text()
    assert "+15.0%" in compare([first, second]).text()


def test_a_file_may_hold_several_clips(tmp_path):
    paths = [f"audio/{i // 4}.wav" for i in range(20)]
    first = write_run(tmp_path / "a", np.arange(20) >= 10, paths=paths)
    second = write_run(tmp_path / "b", np.arange(20) >= 5, paths=paths)
    (_, row) = compare([first, second]).rows
    assert (row.score, row.difference) == (0.75, 0.25)
    more = write_run(tmp_path / "c", np.ones(21, bool), paths=[*paths, paths[-1]])
    with pytest.raises(RunError, match=r"20 and 21; only one has audio/4\.wav"):
        compare([first, more])


def test_table_and_picture_are_written(two, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", *map(str, two), "--out", str(out)]) == 0
    assert capsys.readouterr().out == (out / "compare.md").read_text()
    assert (out / "plots" / "compare.png").stat().st_size > 5000
    assert pd.read_csv(out / "compare.csv")["name"].tolist() == ["first", "second"]


def test_several_comparisons_are_adjusted(two, tmp_path):
    third = write_run(tmp_path / "third", np.arange(100) >= 14)
    rows = make_rows([Results.read(path) for path in (*two, third)])
    assert rows[1].p_value == pytest.approx(2 * 2 * 0.5**15)
    assert rows[2].p_value == pytest.approx(2 * 0.5**6)


def test_other_devices_are_named(two, tmp_path):
    gpu = write_run(tmp_path / "gpu", np.ones(100, bool), device="NVIDIA X")
    assert (
        "on NVIDIA X and cpu (2 threads); they can't be compared" in compare([two[0], gpu]).text()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "nested"}, "protocol is fixed in one and nested in the other"),
        ({"data": "esc50"}, "data is esc10 in one and esc50 in the other"),
        ({"paths": [f"other/{i}.wav" for i in range(100)]}, "they tested different clips"),
        ({"paths": [f"audio/{i + 1}.wav" for i in range(100)]}, "only one has audio/0.wav"),
        ({"paths": [f"audio/{99 - i}.wav" for i in range(100)]}, "have other labels"),
    ],
)
def test_what_can_not_be_compared_is_refused_with_the_reason(two, tmp_path, changes, message):
    other = write_run(tmp_path / "other", np.ones(100, bool), **changes)
    with pytest.raises(RunError, match=r"\A[^\n]+\Z") as error:
        compare([two[0], other])
    assert message in str(error.value)


def test_another_assignment_to_folds_is_refused(tmp_path):
    is_right = np.ones(10, bool)
    first = write_run(tmp_path / "a", is_right, folds=[1] * 5 + [2] * 5)
    second = write_run(tmp_path / "b", is_right, folds=[1, 2] * 5)
    with pytest.raises(RunError, match="other label or folds"):
        compare([first, second])


def test_the_same_run_twice_is_refused(two, capsys):
    assert main(["compare", str(two[0]), str(two[0])]) == EXIT_USAGE
    assert "two or more runs" in capsys.readouterr().err


def test_an_unfinished_run_is_refused(two, tmp_path):
    (two[1] / "summary.json").unlink()
    with pytest.raises(RunError, match=r"second: no summary\.json in it"):
        compare(two)


@pytest.mark.parametrize("name", ["summary.json", "predictions.csv"])
@pytest.mark.parametrize("content", ["", "{", "{}", "a,b\n1"])
def test_a_damaged_file_is_named(two, name, content):
    (two[1] / name).write_text(content)
    with pytest.raises(RunError, match=r"second.*(damaged|run it again)"):
        compare(two)

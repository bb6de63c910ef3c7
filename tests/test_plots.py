import numpy as np
import pytest

from audioml import plots


def test_curves_show_validation_only_where_there_is_one():
    row = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "lr": 0.1}
    plain = plots.plot_curves([row, row | {"epoch": 2}])
    assert [len(axes.lines) for axes in plain.axes] == [1, 1, 1]
    both = plots.plot_curves([row | {"val_loss": 1.0, "val_accuracy": 0.4}])
    assert [len(axes.lines) for axes in both.axes] == [2, 2, 1]
    marked = plots.plot_curves([row, row | {"epoch": 2}], best_epoch=2)
    assert [axes.lines[-1].get_xdata() for axes in marked.axes] == [[2, 2]] * 3


@pytest.mark.parametrize("n", [2, 10, 50])
def test_confusion_matrix_prints_every_count(n):
    counts = np.diag(np.arange(1, n + 1))
    counts[0, 1] = 3
    axes = plots.plot_confusion_matrix(counts, [f"class {i}" for i in range(n)]).axes[0]
    assert sorted(int(text.get_text()) for text in axes.texts) == sorted([*range(1, n + 1), 3])
    right, total = n * (n + 1) // 2, n * (n + 1) // 2 + 3
    assert axes.get_title().startswith(f"{right} of {total} right")
    assert axes.get_ylabel() == "True"


def test_log_mels_have_a_picture_and_a_title_each():
    log_mels = np.random.default_rng(0).normal(size=(5, 16, 30)).astype(np.float32)
    frequencies = np.geomspace(50, 8000, 16)
    figure = plots.plot_log_mels(
        log_mels, ["a", "b", "c", "d", "e"], hop_s=0.1, mel_frequencies=frequencies
    )
    shown = [axes for axes in figure.axes if axes.get_visible() and axes.get_title()]
    assert [axes.get_title() for axes in shown] == ["a", "b", "c", "d", "e"]
    assert shown[0].images[0].get_extent() == [0, pytest.approx(3.0), -0.5, 15.5]

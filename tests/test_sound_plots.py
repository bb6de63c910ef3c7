import numpy as np
import pytest

from audioml.sound_plots import plot_course, plot_evidence, plot_sound, save_picture

FREQUENCIES = np.geomspace(100, 10_000, 32)
LEVEL_DB = np.random.default_rng(0).normal(-40, 10, (32, 50)).astype(np.float32)


def axes_of(figure, label):
    return next(axes for axes in figure.axes if axes.get_ylabel() == label)


@pytest.mark.parametrize("n_time", [1, 500, 50_000])
def test_a_sound_has_axes_in_hz_and_s(n_time, tmp_path):
    waveform = np.full(n_time, 0.25, np.float32)
    figure = plot_sound(waveform, 8000, LEVEL_DB, FREQUENCIES)
    mel = axes_of(figure, "Frequency [Hz]")
    assert mel.get_xlabel() == "Time [s]"
    assert mel.images[0].get_extent()[:2] == [0, n_time / 8000]
    places = dict(zip([t.get_text() for t in mel.get_yticklabels()], mel.get_yticks(), strict=True))
    assert np.interp(places["1k"], np.arange(32), FREQUENCIES) == pytest.approx(1000, rel=0.02)
    assert save_picture(figure, tmp_path / "x.png") == str(tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("attention", [None, np.linspace(0, 2, 50)])
def test_evidence_lies_over_the_log_mel(attention, tmp_path):
    heat = np.zeros((32, 50))
    heat[3, 20] = 1
    figure = plot_evidence(LEVEL_DB, FREQUENCIES, heat, (2.0, 4.5), attention)
    below, above = axes_of(figure, "Frequency [Hz]").images
    assert below.get_extent() == above.get_extent()
    assert above.get_extent()[:2] == [2.0, 4.5]
    colours = above.to_rgba(above.get_array())
    assert colours[0, 0, 3] == 0  # no evidence: the log-mel alone
    assert colours[3, 20, 3] > 0.8
    assert (len([a for a in figure.axes if a.get_ylabel() == "Attention"]) == 1) == (
        attention is not None
    )
    save_picture(figure, tmp_path / "x.png")


def test_a_label_is_no_formula(tmp_path):
    probability = {"a $x^{$": np.array([0.1, 0.9]), "b": np.array([0.9, 0.1])}
    figure = plot_course(np.array([0.0, 1.0]), 2.0, probability)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [1, 2])
    save_picture(figure, tmp_path / "x.png")

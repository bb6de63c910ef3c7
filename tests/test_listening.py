import numpy as np
import pytest
import soundfile
import torch
from tiny import RATE
from untrained import make_classifier

from audioml.decode import FULL_SCALE, decode_clip
from audioml.listening import ListeningError, listen
from audioml.predict import predict

pytest.importorskip("captum")


def write(path, duration_s, rate=RATE, n_channels=1):
    generator = np.random.default_rng(0)
    samples = 0.1 * generator.standard_normal((round(duration_s * rate), n_channels))
    soundfile.write(path, samples, rate)
    return path


def test_a_clip_gets_what_the_classifier_says(tmp_path):
    classifier = make_classifier()
    file = write(tmp_path / "clip.wav", 0.5)
    heard = listen(classifier, file, max_s=1)
    waveform = torch.from_numpy(decode_clip(file, RATE) / np.float32(FULL_SCALE))
    np.testing.assert_allclose(heard.probability, classifier(waveform[None]).numpy(), atol=1e-6)
    assert heard.top(2)[0][0] == classifier.labels[int(heard.mean_probability.argmax())]
    assert heard.level_db().shape == heard.level_db(0).shape == (24, 32)


@pytest.mark.parametrize(
    ("duration_s", "n_windows"), [(0.1, 1), (0.5, 1), (0.51, 1), (0.8, 3), (2.5, 9)]
)
def test_long_sounds_get_windows_that_cover_them(duration_s, n_windows, tmp_path):
    heard = listen(make_classifier(), write(tmp_path / "x.wav", duration_s), max_s=3)
    assert len(heard.windows) == len(heard.probability) == len(heard.begin) == n_windows
    np.testing.assert_allclose(heard.probability.sum(axis=1), 1)
    if n_windows > 1:
        assert heard.begin[0] == 0
        assert heard.begin[-1] + heard.windows.shape[1] == len(heard.waveform)
        assert np.diff(heard.begin).max() <= heard.windows.shape[1] / 2 + 1
    for target in range(3):
        assert heard.explain(target).heat.shape == (24, 32)


def test_any_rate_and_channels(tmp_path):
    file = write(tmp_path / "x.flac", 0.5, rate=44_100, n_channels=2)
    heard = listen(make_classifier(), file, max_s=1)
    assert (heard.layout.sample_rate, heard.layout.n_channels) == (44_100, 2)
    assert heard.duration_s == pytest.approx(0.5, abs=0.001)


@pytest.mark.parametrize(
    "settings",
    [
        ["model.name=ast", "model.ast.patch=8", "model.ast.stride=8"],
        ["model.name=cnn_attention"],
        ["frontend.kind=nnaudio", "frontend.trainable=true", "augment.preset=none"],
        ["frontend.windows=[64,128,256]", "model.channels=windows", "model.name=resnet50"],
    ],
)
def test_models_explain_themselves(settings, tmp_path):
    heard = listen(make_classifier(*settings), write(tmp_path / "x.wav", 0.5), max_s=1)
    assert heard.explain(0).heat.shape == heard.level_db(0).shape == (24, 32)


def test_it_hears_what_predict_says(tmp_path):
    classifier = make_classifier()
    for duration_s in (0.3, 0.6, 2.2):
        file = write(tmp_path / "x.wav", duration_s)
        heard, (said,) = listen(classifier, file, max_s=3), predict(classifier, [file])
        assert tuple(heard.begin) == said.begin
        np.testing.assert_allclose(heard.probability, said.probability, atol=1e-6)


def test_silence_is_seen(tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    assert listen(make_classifier(), tmp_path / "silence.wav", max_s=1).is_silent


def test_what_is_too_long_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("audioml.listening.decode_clip", lambda *args: 1 / 0)
    with pytest.raises(ListeningError, match=r"2\.0 s long; at most 1 s"):
        listen(make_classifier(), write(tmp_path / "x.wav", 2.0), max_s=1)


def test_what_is_no_sound_is_named_without_its_folder(tmp_path):
    file = tmp_path / "x.mp4"
    file.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(1000))
    with pytest.raises(ListeningError, match=r"can't be read as a sound: x\.mp4") as error:
        listen(make_classifier(), file, max_s=1)
    assert str(tmp_path) not in str(error.value)

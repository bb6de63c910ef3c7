"""What the demo refuses, and what it says of a run; the page itself is in browser/test_demo.py."""

import socket
import sys

import numpy as np
import pytest
import soundfile
from untrained import make_classifier

from audioml.cli import main
from audioml.cli.verbs import EXIT_USAGE
from audioml.demo import (
    DemoError,
    Limits,
    _plain,
    _warn_of_strangers,
    describe_model,
    find_examples,
)

pytest.importorskip("captum")
pytest.importorskip("gradio")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A demo whose model is there."""
    monkeypatch.setattr("audioml.demo.Classifier.load", lambda path: make_classifier())
    return tmp_path


def refusal(capsys, *words):
    """The one line with which the demo is refused."""
    assert main(["demo", *map(str, words), "--no-browser"]) == EXIT_USAGE
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    return line


def test_a_port_in_use(offline, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal(capsys, offline, "--port", port)
    assert f"127.0.0.1:{port} can't be listened at" in line
    assert "choose another --port" in line


def test_an_address_of_another_machine(offline, capsys):
    assert "choose another --port or --host" in refusal(capsys, offline, "--host", "192.0.2.1")


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_port_that_is_none(port, offline, capsys):
    assert "--port must be in 1..65535" in refusal(capsys, offline, "--port", port)


@pytest.mark.parametrize("name", ["gradio", "captum.attr"])
def test_without_a_package(name, offline, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    assert "python -m pip install 'audioml[demo]'" in refusal(capsys, offline)


def test_no_model(tmp_path, capsys):
    assert str(tmp_path / "none") in refusal(capsys, tmp_path / "none")


@pytest.mark.parametrize("option", ["--max-s", "--max-mb"])
@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_limits_that_are_none(option, value, offline, capsys):
    assert f"{option} must be above 0" in refusal(capsys, offline, option, value)


def test_limits_are_bounded_by_default():
    assert (Limits().max_s, Limits().max_mb) == (60, 20)
    with pytest.raises(DemoError):
        Limits(max_s=0)


@pytest.mark.parametrize(
    ("host", "warns"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("pc", True)],  # noqa: S104
)
def test_a_page_for_others_warns(host, warns, caplog):
    caplog.set_level("WARNING", "audioml")
    _warn_of_strangers(host)
    assert bool(caplog.messages) == warns


def test_examples_are_test_clips_that_are_there(tmp_path):
    (tmp_path / "split.csv").write_text(
        "path,label,source,fold,part\n"
        "a.wav,low,1,1,train\nb.wav,low,2,2,test\nc.wav,low,3,2,test\nd.wav,high,4,2,test\n"
        "e.wav,high,5,2,test\ne.wav,None,5,2,test\nf.wav,None,6,2,test\n"  # e: two stretches
    )
    for name in "abcef":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(9), 8000)
    classifier = make_classifier(f"data.root={tmp_path}")
    assert find_examples(classifier, tmp_path) == [
        (tmp_path / "b.wav", "low"),
        (tmp_path / "f.wav", "None"),
    ]
    assert find_examples(classifier, tmp_path / "elsewhere") == []


def test_a_model_that_was_not_tested_has_no_accuracy(tmp_path):
    text = describe_model(make_classifier(), tmp_path)
    assert text == "3 classes of esc10, windows of 0.5 s at 8,000 Hz."


def test_words_of_strangers_are_no_markup():
    assert _plain("<b>*x*</b> [a](http://b)") == ("\\<b\\>\\*x\\*\\</b\\> \\[a\\]\\(http://b\\)")

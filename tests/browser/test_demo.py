"""The demo in a real browser: give it sounds, good and bad, and look at what it shows."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import numpy as np
import pytest
import several
import soundfile
from tiny import LABELS, RATE, train_tiny

from audioml.cli import main
from audioml.cli.verbs import EXIT_STOPPED

pytest.importorskip("captum")
pytest.importorskip("gradio")

REPOSITORY = Path(__file__).parent.parent.parent
OPEN = build_opener(ProxyHandler({})).open
PROGRAM = [sys.executable, "-m", "audioml", "demo"]
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a few seconds."""
    return train_tiny(tmp_path_factory.mktemp("demo"), "model.name=cnn_attention")


class Demo:
    """The demo of a run in a process of its own."""

    def __init__(self, run, *options):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        port = self.url.rpartition(":")[2].strip("/")
        self.proxy = socket.create_server(("127.0.0.1", 0))
        self.proxy.settimeout(0)
        proxy = f"http://127.0.0.1:{self.proxy.getsockname()[1]}"
        self.process = subprocess.Popen(
            [*PROGRAM, str(run), "--port", port, "--no-browser", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ
            | {"PYTHONPATH": str(REPOSITORY), "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy},
        )
        self.first_line = self.process.stdout.readline()

    def stop(self, number=signal.SIGTERM):
        """End it; returns the exit code, if it never asked another host for anything."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        with self.proxy, pytest.raises(BlockingIOError):
            self.proxy.accept()
        return code


@pytest.fixture(scope="module")
def run_of_several(tmp_path_factory):
    """A run whose clips have several classes, or none."""
    folder = tmp_path_factory.mktemp("several")
    clips = several.make_several(folder / "data", n_takes=1)
    words = [*several.SETTINGS, f"data.manifest={clips}", f"run.dir={folder / 'run'}"]
    assert main(["train", *words]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def demo(request):
    run = "run_of_several" if getattr(request, "param", "") == "several" else "run"
    demo = Demo(request.getfixturevalue(run), "--max-s", "3", "--max-mb", "1")
    yield demo
    demo.stop()


@pytest.fixture
def page(chromium, demo, request):
    """The page, opened; at the end there was no error, and no request went elsewhere."""
    width, scheme = getattr(request, "param", (1400, "light"))
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, permissions=["microphone"]
    )
    faults = []
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("console", lambda line: line.type == "error" and faults.append(line.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    context.on(
        "request",
        lambda request: (
            request.url.startswith((demo.url, "data:", "blob:")) or faults.append(request.url)
        ),
    )
    page.goto(demo.url)
    page.wait_for_selector("#sound input[type=file]", state="attached")
    page.faults = faults
    yield page
    context.close()
    assert faults == []


def write_tone(path, duration_s=0.5, hz=400.0):
    time_s = np.arange(round(duration_s * RATE)) / RATE
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * hz * time_s), RATE)
    return path


def give(page, path):
    page.set_input_files("#sound input[type=file]", path)


def forgive(page, *words):
    """Forget the lines that gradio and the browser write about a file that is refused."""
    page.faults[:] = [fault for fault in page.faults if not any(word in fault for word in words)]


def picture(page, elem_id):
    """The picture's address, once it is loaded and not empty."""
    page.wait_for_function(
        "id => document.querySelector(`#${id} img`)?.naturalWidth > 300", arg=elem_id
    )
    return page.get_attribute(f"#{elem_id} img", "src")


@pytest.mark.parametrize(
    "page", [(1400, "light"), (1400, "dark"), (390, "light"), (390, "dark")], indirect=True
)
def test_a_sound_is_classified_and_explained(page, tmp_path):
    assert f"{len(LABELS)} classes of esc10" in page.inner_text("h1 ~ p")
    give(page, write_tone(tmp_path / "tone.wav"))
    picture(page, "picture")
    first = picture(page, "evidence")
    top = page.inner_text("#top")
    assert all(label in top for label in LABELS)
    assert sum(int(share) for share in re.findall(r"(\d+)%", top)) == pytest.approx(100, abs=2)
    assert "0.50 s, 8,000 Hz, mono." in page.inner_text("#facts")
    assert "Grad-CAM" in page.inner_text("#how")
    assert not page.is_visible("#course")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("#target input")
    page.click("[role=option] >> nth=2")
    page.wait_for_function("src => document.querySelector('#evidence img').src != src", arg=first)
    picture(page, "evidence")


def test_a_long_sound_has_a_time_course(page, tmp_path):
    give(page, write_tone(tmp_path / "long.flac", duration_s=2.5))
    picture(page, "course")
    assert "the mean of 9 windows" in page.inner_text("#facts")
    assert "of the window at" in page.inner_text("#how")


def test_test_clips_are_examples(page):
    page.click("button:has-text('middle')")
    picture(page, "evidence")


def test_a_recording_is_classified(page):
    page.click("#sound button[aria-label='Record audio']")
    page.click("#sound button.record-button")
    time.sleep(1.5)
    page.click("#sound button.stop-button")
    picture(page, "evidence")
    assert "Hz" in page.inner_text("#facts")


@pytest.mark.parametrize(
    ("name", "duration_s", "message"),
    [
        ("long.wav", 3.5, "This sound is 3.5 s long; at most 3 s are taken."),
        ("empty.wav", 0.0, "empty.wav: no samples"),
    ],
)
def test_what_is_not_taken_says_why(name, duration_s, message, page, tmp_path):
    give(page, write_tone(tmp_path / name, duration_s))
    page.wait_for_selector(f"#facts :text({message!r})")
    assert not page.is_visible("#evidence")
    forgive(page, "Waveform load error")


def test_a_file_that_is_no_sound_with_a_hostile_name(page, tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>.wav"
    path.write_text("no sound")
    give(page, path)
    page.wait_for_selector('#facts :text("This can\'t be read as a sound")')
    assert page.query_selector("#facts img") is None
    forgive(page, "Waveform load error")


def test_a_large_file_is_refused_on_the_page(page, tmp_path):
    give(page, write_tone(tmp_path / "large.wav", duration_s=80))
    page.wait_for_selector(":text('exceed the maximum allowed size')")
    assert not page.is_visible("#evidence")
    forgive(page, "404", "Response")


@pytest.mark.parametrize("demo", ["several"], indirect=True)
def test_of_several_classes_none_is_the_answer(page):
    page.click("button:has-text('none of them')")
    picture(page, "evidence")
    top = page.inner_text("#top")
    assert all(top.count(label) == 1 for label in LABELS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_leaves_nothing(number, run, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    demo = Demo(run)
    assert demo.url in demo.first_line
    assert OPEN(demo.url).status == 200
    assert list(tmp_path.glob("audioml-demo-*"))
    assert demo.stop(number) == EXIT_STOPPED
    assert demo.process.stdout.read() == "stopped\n"
    assert not list(tmp_path.glob("audioml-demo-*"))

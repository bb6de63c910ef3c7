import json
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from audioml import runs
from audioml.config import RunConfig, load_config
from audioml.runs import RunError, RunFolder


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_folder_is_named_after_time_model_and_data():
    folder = RunFolder.create(RunConfig())
    assert folder.path.parent == Path("runs")
    stamp, _, rest = folder.path.name.partition("_cnn_")
    assert rest == "synthetic"
    assert abs((datetime.now() - datetime.strptime(stamp, "%Y-%m-%d_%H-%M-%S")).seconds) < 10


def test_runs_started_in_the_same_second_get_their_own_folders(monkeypatch):
    class Frozen(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 11, 22, 16, 4, 5, tzinfo=tz)

    monkeypatch.setattr(runs, "datetime", Frozen)
    names = []
    threads = [
        threading.Thread(target=lambda: names.append(RunFolder.create(RunConfig()).path.name))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = "2026-11-22_16-04-05_cnn_synthetic"
    assert sorted(names) == sorted([first, *(f"{first}_{n}" for n in range(2, 9))])


def test_a_named_folder_is_never_written_over():
    config = load_config(overrides=["run.dir=mine"])
    folder = RunFolder.create(config)
    assert folder.path == Path("mine")
    assert RunFolder.create(config).path == folder.path  # nothing is in it yet
    folder.write_text("config.yaml", "")
    with pytest.raises(RunError, match=r"mine: already there.*resume=mine"):
        RunFolder.create(config)


def test_resuming_what_is_no_run_names_what_is_missing(tmp_path):
    with pytest.raises(RunError, match=r"absent: no config\.yaml"):
        RunFolder.open(tmp_path / "absent")
    folder = RunFolder.create(load_config(overrides=["run.dir=mine"]))
    with pytest.raises(RunError, match=r"mine: no config\.yaml"):
        RunFolder.open(Path("mine"))
    folder.write_text("config.yaml", "")
    assert RunFolder.open(Path("mine")).path == folder.path


def test_files_are_whole_or_absent(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_text("log.txt", "before")

    class Fails(Figure):
        def savefig(self, file, **_):
            file.write(b"half")
            raise OSError(28, "disk full")

    with pytest.raises(OSError, match=r"disk full: .*a\.png"):
        folder.write_figure("a.png", Fails())
    assert list((tmp_path / "plots").iterdir()) == []
    assert (tmp_path / "log.txt").read_text() == "before"


def test_json_and_tables(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_json("a.json", {"x": float("nan"), "y": {"z": 1.5}, "n": None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None, "y": {"z": 1.5}, "n": None}
    folder.write_table("a.csv", [{"epoch": 1, "loss": 0.5}])
    assert pd.read_csv(tmp_path / "a.csv").to_dict("records") == [{"epoch": 1, "loss": 0.5}]


def test_pictures_of_any_size_are_written():
    folder = RunFolder.create(RunConfig())
    folder.write_figure("small.png", Figure(figsize=(4, 3)))
    folder.write_figure("tall.png", Figure(figsize=(3, 700)))  # of some 2,000 classes
    for name, size in (("small.png", (440, 330)), ("tall.png", (68, 16_000))):
        with Image.open(folder.path / "plots" / name) as picture:
            assert picture.size == pytest.approx(size, abs=1)


def test_a_folder_has_one_writer_and_a_killed_one_leaves_no_lock(tmp_path):
    folder = RunFolder(tmp_path)
    program = (
        "import sys, time; from pathlib import Path; from audioml.runs import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).writing():\n    print('in', flush=True); time.sleep(99)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(RunError, match="another process is at work in it"), folder.writing():
            pass
    finally:
        other.kill()
        other.communicate()
    with folder.writing():
        pass
    with folder.writing():
        pass


def test_the_commit_is_audiomls_own_or_none(tmp_path, monkeypatch):
    """A package installed within someone's checkout must not take that one's commit for its own."""
    checkout = tmp_path / "project"
    package = checkout / ".venv" / "audioml"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (checkout / "own.py").touch()
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "own.py"], [*name, "commit", "-qm", "Start"]):
        subprocess.run(["git", *words], cwd=checkout, check=True)
    monkeypatch.setattr(runs.audioml, "__file__", str(package / "__init__.py"))
    assert runs.describe_commit() is None
    subprocess.run(["git", "add", "-f", ".venv"], cwd=checkout, check=True)
    assert runs.describe_commit().endswith("-dirty")


def test_environment_names_versions_and_device():
    environment = runs.describe_environment()
    assert environment["torch"] == torch.__version__
    assert environment["python"].startswith("3.")
    json.dumps(environment)

"""Code hidden in files: offered to every command through all that it reads, and never run."""

import contextlib
import hashlib
import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny import SETTINGS, make_tiny
from web import serve

from audioml.checkpoints import CHECKPOINT_VERSION, load_checkpoint
from audioml.cli import main
from audioml.cli.verbs import EXIT_DEFECT, EXIT_STOPPED, EXIT_USAGE
from audioml.config import load_config, to_yaml
from audioml.errors import Interrupted
from audioml.model_files import FILE_NAME

REPOSITORY = Path(__file__).parent.parent.parent
OVER = ("--over", "optim.lr=1e-2")


class Payload:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path):
    """The file that a payload would leave; at the end of a test it must not be there."""
    file = tmp_path / "ran"
    yield file
    assert not file.exists()


def as_zip(content, file):
    torch.save(content, file)


def as_legacy(content, file):
    torch.save(content, file, _use_new_zipfile_serialization=False)


def as_pickle(content, file):
    file.write_bytes(pickle.dumps(content, 2))


def as_checkpoint(content, file):
    as_zip({"version": CHECKPOINT_VERSION, **content}, file)


def plant(folder, name, marker, way=as_checkpoint):
    """Put a payload in a checkpoint's place, vouched for by the manifest, and name the file."""
    file = folder / "checkpoints" / name
    way({"model": Payload(marker)}, file)
    (folder / "checkpoints" / "previous.pt").unlink()
    manifest = folder / "checkpoints" / "manifest.json"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {name: digest}))
    return str(file)


def stop(*_, **__):
    raise Interrupted("stopped")


WAYS = (as_zip, as_legacy, as_pickle)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    words = [*SETTINGS, f"data.root={data}", "train.epochs=1", f"run.dir={folder}"]
    assert main(["train", *words]) == 0
    return folder


@pytest.fixture
def refusal(capsys):
    """Run a command that must end in one line of error, and return that line."""

    def run(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == EXIT_USAGE
        error = capsys.readouterr().err
        assert "Traceback" not in error
        last = re.split(r"[\r\n]", error.rstrip())[-1]  # behind the bars of progress
        assert last.startswith("error: ")
        return last

    return run


@pytest.mark.parametrize("way", WAYS)
def test_the_payload_runs_where_it_is_trusted(tmp_path, way):
    way({"model": Payload(tmp_path / "ran")}, tmp_path / "evil.pt")
    with contextlib.suppress(RuntimeError):  # of a plain pickle, once it has run
        torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_as_weights(data, tmp_path, marker, refusal, way, suffix):
    file = tmp_path / f"evil{suffix}"
    way({"stem.0.weight": Payload(marker)}, file)
    settings = (*SETTINGS, f"data.root={data}", f"run.dir={tmp_path / 'run'}")
    said = refusal("train", *settings, f"model.weights={file}")
    assert f"{file}: " in said
    assert "set model.weights" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["model", "ema", "optimizer"])
def test_as_weights_within_the_checkpoint_of_a_run(data, tmp_path, marker, refusal, place):
    torch.save({"model": {}, place: {"module.a": Payload(marker)}}, tmp_path / "evil.pt")
    settings = (*SETTINGS, f"data.root={data}", f"run.dir={tmp_path / 'run'}")
    said = refusal("train", *settings, f"model.weights={tmp_path / 'evil.pt'}")
    assert "more than tensors, which is never run" in said


def test_as_weights_from_an_address(data, tmp_path, marker, refusal, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    torch.save({"stem.0.weight": Payload(marker)}, tmp_path / "evil.pt")
    body = (tmp_path / "evil.pt").read_bytes()
    with serve(body) as site:  # the name has the content's hash, which says nothing of its author
        name = f"cnn-{hashlib.sha256(body).hexdigest()[:8]}.pth"
        settings = (*SETTINGS, f"data.root={data}", f"run.dir={tmp_path / 'run'}")
        said = refusal("train", *settings, f"model.weights={site.url}/{name}")
    assert "more than tensors, which is never run" in said


@pytest.mark.parametrize("verb", ["crossval", "sweep"])
def test_as_weights_of_many_runs(data, tmp_path, marker, verb, capsys):
    torch.save({"stem.0.weight": Payload(marker)}, tmp_path / "evil.pt")
    folder = tmp_path / "out"
    place = ["--dir", str(folder), *OVER] if verb == "sweep" else [f"run.dir={folder}"]
    words = [*SETTINGS, f"data.root={data}", f"model.weights={tmp_path / 'evil.pt'}"]
    assert main([verb, *words, *place]) == EXIT_USAGE
    assert "more than tensors, which is never run" in "".join(capsys.readouterr())


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
@pytest.mark.parametrize("way", [*WAYS, as_checkpoint])
def test_as_the_checkpoint_of_a_resumed_run(finished, tmp_path, marker, refusal, name, way):
    folder = shutil.copytree(finished, tmp_path / "run")
    assert plant(folder, name, marker, way) in refusal("train", f"resume={folder}")


def test_as_the_checkpoint_of_a_fold(data, finished, tmp_path, marker, refusal):
    folder = tmp_path / "crossval"
    fold = shutil.copytree(finished, folder / "fold-1")
    (fold / "summary.json").unlink()
    file = plant(fold, "last.pt", marker)
    config = load_config(overrides=[*SETTINGS, f"data.root={data}", "train.epochs=1"])
    (folder / "config.yaml").write_text(to_yaml(config))
    assert file in refusal("crossval", f"resume={folder}")


def test_as_the_checkpoint_of_a_trial(data, finished, tmp_path, marker, refusal, monkeypatch):
    folder = tmp_path / "sweep"
    words = ["sweep", *SETTINGS, f"data.root={data}", *OVER, "--dir", str(folder)]
    with monkeypatch.context() as patch:
        patch.setattr("audioml.sweep.run_experiment", stop)
        assert main(words) == EXIT_STOPPED
    trial = shutil.copytree(finished, folder / "trials" / "0000")
    file = plant(trial, "last.pt", marker)
    assert file in refusal(*words)


@pytest.mark.parametrize("head", [b"", b"SQLite format 3\0"])
def test_as_the_database_of_a_sweep(data, tmp_path, marker, refusal, head):
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "study.db").write_bytes(head + pickle.dumps(Payload(marker)) * 100)
    said = refusal("sweep", *SETTINGS, f"data.root={data}", *OVER, "--dir", folder)
    assert str(folder) in said
    assert "set another --dir" in said


def test_a_database_of_a_sweep_with_a_damaged_page(data, tmp_path, refusal, monkeypatch):
    words = ["sweep", *SETTINGS, f"data.root={data}", *OVER, "--dir", str(tmp_path / "sweep")]
    monkeypatch.setattr("audioml.sweep.run_experiment", stop)
    assert main(words) == EXIT_STOPPED
    database = tmp_path / "sweep" / "study.db"
    content = database.read_bytes()
    database.write_bytes(content[:4096] + bytes(8192) + content[12288:])
    assert f"{database}: damaged, or of another version of Optuna" in refusal(*words)


@pytest.mark.parametrize("name", ["summary.json", "predictions.csv"])
def test_as_the_results_that_are_compared(finished, tmp_path, marker, refusal, name):
    other = shutil.copytree(finished, tmp_path / "other")
    (other / name).write_bytes(pickle.dumps(Payload(marker)))
    assert f"{other}: summary.json or predictions.csv is damaged" in refusal(
        "compare", finished, other
    )


def test_as_the_checkpoints_of_runs_that_are_compared(finished, tmp_path, marker):
    """Comparing needs no weights, and so opens none."""
    other = shutil.copytree(finished, tmp_path / "other")
    for file in (other / "checkpoints").iterdir():
        as_zip({"model": Payload(marker)}, file)
    assert main(["compare", str(finished), str(other)]) == 0


@pytest.mark.parametrize("verb", ["train", "crossval", "sweep", "verify"])
def test_as_settings(tmp_path, marker, refusal, verb):
    (tmp_path / "evil.yaml").write_bytes(pickle.dumps(Payload(marker)))
    assert "evil.yaml" in refusal(verb, tmp_path / "evil.yaml")


@pytest.mark.parametrize("verb", ["train", "crossval", "sweep"])
def test_as_metadata(data, tmp_path, marker, refusal, verb):
    root = shutil.copytree(data, tmp_path / "data")
    (root / "meta" / "esc50.csv").write_bytes(pickle.dumps(Payload(marker)))
    place = ["--dir", tmp_path / "sweep"] if verb == "sweep" else [f"run.dir={tmp_path / 'run'}"]
    said = refusal(verb, *SETTINGS, f"data.root={root}", *place)
    assert "esc50.csv: not readable as CSV" in said


@pytest.mark.parametrize("suffix", [".wav", ".npy"])
def test_as_a_sound(data, tmp_path, marker, suffix, capsys):
    root = shutil.copytree(data, tmp_path / "data")
    meta = root / "meta" / "esc50.csv"
    name = sorted(path.name for path in (root / "audio").iterdir())[0]
    (root / "audio" / name).unlink()
    evil = root / "audio" / Path(name).with_suffix(suffix)
    if suffix == ".npy":
        np.save(evil, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    else:
        as_pickle(Payload(marker), evil)
    meta.write_text(meta.read_text().replace(name, evil.name))
    words = [*SETTINGS, f"data.root={root}"]
    assert main(["train", *words, f"run.dir={tmp_path / 'run'}"]) == EXIT_USAGE
    assert f"{evil}: not readable as audio" in capsys.readouterr().err
    assert main(["verify", *words]) == EXIT_DEFECT
    assert evil.name in capsys.readouterr().out


def test_as_a_split_file(tmp_path, marker, refusal):
    (tmp_path / "good.csv").write_text("path\na.wav\n")
    (tmp_path / "evil.csv").write_bytes(pickle.dumps(Payload(marker)))
    for files in (("good.csv", "evil.csv"), ("evil.csv", "good.csv")):
        said = refusal("audit", *(tmp_path / name for name in files))
        assert "evil.csv: not readable as CSV" in said


USES = {
    "predict": ("sound.wav",),
    "export": ("--format", "torch", "--out", "model.pt2"),
    "demo": ("--no-browser",),
}


@pytest.mark.parametrize("verb", USES)
@pytest.mark.parametrize("way", [*WAYS, as_checkpoint])
@pytest.mark.parametrize("name", ["evil.pt", "evil.safetensors"])
def test_as_a_model(tmp_path, marker, refusal, verb, way, name):
    way({"model": Payload(marker)}, tmp_path / name)
    assert f"{tmp_path / name}: " in refusal(verb, tmp_path / name, *USES[verb])


@pytest.mark.parametrize("verb", USES)
@pytest.mark.parametrize("key", ["config", "labels", "frontend", "ema", "train_sources"])
def test_within_the_checkpoint_that_is_a_model(finished, tmp_path, marker, refusal, verb, key):
    state = load_checkpoint(finished / "checkpoints" / "last.pt")
    as_zip({**state, key: Payload(marker)}, tmp_path / "evil.pt")
    said = refusal(verb, tmp_path / "evil.pt", *USES[verb])
    assert "more than tensors, which is never run" in said


@pytest.mark.parametrize("verb", USES)
def test_as_the_model_of_a_run(finished, tmp_path, marker, refusal, verb):
    folder = shutil.copytree(finished, tmp_path / "run")
    as_pickle(Payload(marker), folder / FILE_NAME)
    assert f"{folder / FILE_NAME}: damaged" in refusal(verb, folder, *USES[verb])


@pytest.mark.parametrize("verb", USES)
def test_as_the_settings_of_a_model(finished, tmp_path, marker, refusal, verb):
    state = load_checkpoint(finished / "checkpoints" / "last.pt")
    as_zip({**state, "config": TAGS[0].format(marker=marker)}, tmp_path / "evil.pt")
    said = refusal(verb, tmp_path / "evil.pt", *USES[verb])
    assert "could not determine a constructor" in said


@pytest.mark.parametrize("suffix", [".wav", ".npy", ".pt"])
def test_as_a_sound_to_predict(finished, tmp_path, marker, refusal, suffix):
    evil = tmp_path / f"evil{suffix}"
    as_pickle(Payload(marker), evil)
    assert f"{evil}: not readable as audio" in refusal("predict", finished, evil)


TAGS = (
    "!!python/object/apply:os.system ['touch {marker}']",
    "!!python/object/new:os.system ['touch {marker}']",
    "!!python/object/apply:pathlib.Path.touch [{marker}]",
    "!!python/name:os.system",
    "!!python/module:os",
)


def test_an_unsafe_tag_runs_where_it_is_trusted(tmp_path):
    yaml.unsafe_load(TAGS[0].format(marker=tmp_path / "ran"))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("text", ["{tag}", "optim: {tag}", "optim: {{lr: {tag} }}"])
def test_unsafe_tags_in_a_file(tmp_path, marker, refusal, tag, text):
    file = tmp_path / "evil.yaml"
    file.write_text(text.format(tag=tag.format(marker=marker)))
    said = refusal("train", file)
    assert f"{file}: could not determine a constructor for the tag" in said
    assert "line 1, column" in said


@pytest.mark.parametrize("verb", ["train", "crossval", "sweep", "verify"])
def test_unsafe_tags_in_an_override(marker, refusal, verb):
    said = refusal(verb, f"optim.lr={TAGS[0].format(marker=marker)}")
    assert "could not determine a constructor for the tag" in said


def test_unsafe_tags_in_what_a_sweep_varies(data, tmp_path, marker, refusal):
    words = ("sweep", *SETTINGS, f"data.root={data}", "--dir", tmp_path / "sweep", "--over")
    said = refusal(*words, f"optim.lr=1e-3,{TAGS[0].format(marker=marker)}")
    assert "could not determine a constructor for the tag" in said


@pytest.mark.parametrize("verb", ["train", "crossval"])
def test_unsafe_tags_in_a_resumed_folder(finished, tmp_path, marker, refusal, verb):
    folder = shutil.copytree(finished, tmp_path / "run")
    if verb == "crossval":
        shutil.rmtree(folder / "checkpoints")
    (folder / "config.yaml").write_text(f"optim: {TAGS[0].format(marker=marker)}")
    assert "could not determine a constructor" in refusal(verb, f"resume={folder}")


@pytest.mark.parametrize(
    "text",
    [
        "optim: " + "[" * 5000 + "]" * 5000,
        "a: &a [x, x, x]\n" + "".join(f"{n}: &{n} [*a, *a]\n" for n in "bc") + "optim: &d [*d]",
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n"
            for m, n in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "optim: {lr: 1\0}",
    ],
)
def test_settings_that_would_take_all_memory_or_the_stack(tmp_path, refusal, text):
    (tmp_path / "evil.yaml").write_text(text)
    assert f"{tmp_path / 'evil.yaml'}: " in refusal("train", tmp_path / "evil.yaml")


def test_nothing_in_the_program_unpickles():
    """Every ``torch.load`` has ``weights_only=True``, and nothing else reads pickles."""
    calls = []
    for folder in ("audioml", "benchmarks"):
        for file in sorted((REPOSITORY / folder).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            calls += re.findall(r"torch\.load\([^)]*", text)
            assert not re.search(r"pickle\.loads?\b|joblib|allow_pickle|\bdill\b|shelve", text), (
                file
            )
            assert not re.search(
                r"np\.load\(|yaml\.(unsafe_|full_)?load|read_pickle|hub\.load", text
            )
    assert calls
    assert all("weights_only=True" in call for call in calls), calls

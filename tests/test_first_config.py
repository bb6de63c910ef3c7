from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny import make_tiny

from audioml.cli import main
from audioml.config import load_config
from audioml.datasets import load_configured
from audioml.datasets.manifest import DataError
from audioml.first_config import propose_config

RATE = 16_000


def make(root: Path, *names: str, length_s: float = 0.1, rate: int = RATE) -> Path:
    noise = 0.1 * np.random.default_rng(0).standard_normal(round(length_s * rate))
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, noise, rate)
    return root


def own_folder(root: Path) -> Path:
    """3 takes of 4 recordings of each of 2 classes."""
    names = [
        f"{label}/{place}{n}_{take}.wav"
        for label in ("cough", "sneeze")
        for n, place in enumerate(("bed", "car", "lab", "hall"))
        for take in (1, 2, 3)
    ]
    return make(root, *names)


def load(tmp_path: Path, yaml: str):
    (tmp_path / "own.yaml").write_text(yaml)
    return load_config([tmp_path / "own.yaml"])


def test_a_folder_with_recordings_in_its_names(tmp_path):
    proposal = propose_config(own_folder(tmp_path / "data"))
    config = load(tmp_path, proposal.yaml)
    assert config.data.name == "folder"
    assert config.splits.protocol == "holdout"
    assert config.audio.sample_rate == RATE
    assert config.audio.clip_s == 0.5
    assert (config.frontend.n_fft, config.frontend.n_mels) == (1024, 64)
    manifest = load_configured(config.data)
    assert sorted(set(manifest.sources)) == ["bed0", "car1", "hall3", "lab2"]
    assert proposal.findings[:2] == (
        "24 clips of 2 classes: cough 12, sneeze 12",
        "4 recordings, at least 4 of each class",
    )
    assert "guessed from the names, such as 'bed0' (6 files)" in proposal.warnings[0]


def test_names_that_say_nothing(tmp_path):
    names = [f"{label}/{name}.wav" for label in "ab" for name in ("x", "y", "z")]
    proposal = propose_config(make(tmp_path / "data", *names))
    assert "source_pattern" not in proposal.yaml
    assert "nothing says which recording" in proposal.warnings[0]


def test_numbers_alone_say_nothing(tmp_path):
    names = [f"{label}/{n}{take}.wav" for label in "ab" for n in (10, 20, 30) for take in (1, 2)]
    assert "source_pattern" not in propose_config(make(tmp_path / "data", *names)).yaml


def test_a_guess_that_leaves_too_few_recordings_is_not_made(tmp_path):
    names = [f"{label}/take_{n}.wav" for label in "ab" for n in range(9)]
    assert "source_pattern" not in propose_config(make(tmp_path / "data", *names)).yaml


def test_two_recordings_a_class_leave_none_for_validation(tmp_path):
    names = [f"{label}/{name}.wav" for label in "ab" for name in ("x", "y")]
    config = load(tmp_path, propose_config(make(tmp_path / "data", *names)).yaml)
    assert config.splits.val_share == 0


@pytest.mark.parametrize(
    ("column", "protocol"),
    [("split", "given"), ("fold", "nested"), ("source", "holdout")],
)
def test_a_list(tmp_path, column, protocol):
    root = make(tmp_path / "data", *(f"{n}.wav" for n in range(6)))
    values = {"split": ["train", "val", "test"], "fold": [1, 2, 3], "source": ["u", "v", "w"]}
    lines = [f"{n}.wav,{'ab'[n // 3]},{values[column][n % 3]}\n" for n in range(6)]
    (root / "clips.csv").write_text(f"path,label,{column}\n" + "".join(lines))
    (root / "other.csv").write_text("weather\nrain\n")
    config = load(tmp_path, propose_config(root).yaml)
    assert config.data.manifest == str(root / "clips.csv")
    assert config.splits.protocol == protocol
    assert propose_config(root / "clips.csv").yaml == propose_config(root).yaml


def test_long_recordings_are_evaluated_in_crops(tmp_path):
    names = [f"{label}/{name}.wav" for label in "ab" for name in ("x", "y", "z")]
    root = make(tmp_path / "data", *names, length_s=25, rate=2000)
    config = load(tmp_path, propose_config(root).yaml)
    assert (config.audio.clip_s, config.audio.eval_crops) == (10.0, 3)
    assert config.frontend.n_fft == 128


def test_esc50s_layout(tmp_path):
    proposal = propose_config(make_tiny(tmp_path / "data"))
    assert 'name: "esc10"' in proposal.yaml  # all its rows are ESC-10's
    assert 'protocol: "nested"' in proposal.yaml


def test_uneven_classes_are_named(tmp_path):
    names = [f"a/{n}x.wav" for n in range(18)] + ["b/x.wav", "b/y.wav", "b/z.wav"]
    warnings = propose_config(make(tmp_path / "data", *names)).warnings
    assert any("classes are uneven (18 to 3 clips)" in warning for warning in warnings)


def test_several_lists(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("path,label\n")
    with pytest.raises(DataError, match=r"several lists of clips \(a.csv, b.csv\)"):
        propose_config(tmp_path)


def test_a_new_users_way(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own_folder(tmp_path / "data")
    assert main(["init", "data"]) == 0
    assert "wrote own.yaml. Next:\n  audioml verify own.yaml" in capsys.readouterr().out
    assert main(["init", "data"]) == 2
    assert "own.yaml: already there" in capsys.readouterr().err
    assert main(["init", "data", "--out", "own.yaml", "--force"]) == 0
    assert main(["verify", "own.yaml"]) == 1  # all clips are the same noise
    small = ["model.width=4", "train.epochs=1", "train.device=cpu", "run.report=false"]
    for n, file in enumerate(sorted((tmp_path / "data").rglob("*.wav"))):
        noise = 0.1 * np.random.default_rng(n).standard_normal(RATE // 4)
        soundfile.write(file, noise, RATE)
    assert main(["train", "own.yaml", *small, "run.dir=run"]) == 0
    assert (tmp_path / "run" / "summary.json").is_file()


def test_no_data(tmp_path, capsys):
    assert main(["init", str(tmp_path / "none")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    sound = make(tmp_path, "dog.wav") / "dog.wav"
    assert main(["init", str(sound)]) == 2
    assert f"{sound}: a sound; give the folder of the data" in capsys.readouterr().err

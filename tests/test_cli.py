import pandas as pd
import pytest

from audioml.cli import main
from audioml.config import RunConfig, load_config


def test_print_config_prints_what_would_run(capsys, tmp_path):
    assert main(["train", "optim.lr=0.5", "--print-config"]) == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert load_config([file]) == load_config(overrides=["optim.lr=0.5"]) != RunConfig()


def test_a_bad_setting_is_one_line_and_exit_2(capsys):
    assert main(["train", "optim.lrr=1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "did you mean optim.lr" in error
    assert error.count("\n") == 1


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="did you mean"):
        main(["--debug", "train", "optim.lrr=1"])


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("tpu9", "train.device must be auto"),
        ("meta", "train.device must be auto"),
        ("cuda:99", "CUDA devices here; set train.device=auto"),
    ],
)
def test_a_device_that_is_not_there_is_refused(device, message, capsys):
    assert main(["train", f"train.device={device}"]) == 2
    assert message in capsys.readouterr().err


def test_missing_data_says_where_to_put_it(capsys, tmp_path):
    settings = [f"data.root={tmp_path / 'ESC-50'}", "data.url=http://127.0.0.1:9/none.zip"]
    assert main(["train", "data.name=esc50", *settings]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "ESC-50") in error
    assert "data.name=synthetic" in error


@pytest.mark.parametrize("verb", [[], ["train"], ["verify"], ["audit"]])
def test_help_is_there(verb, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*verb, "--help"])
    assert "usage:" in capsys.readouterr().out


def write_list(path, names):
    pd.DataFrame({"path": names, "label": "dog"}).to_csv(path, index=False)
    return str(path)


def test_audit_exits_1_on_a_leak_and_0_without(tmp_path, capsys):
    train = write_list(tmp_path / "train.csv", ["1-7-A-0_orig.png", "1-9-A-0_noisy.png"])
    leaky = write_list(tmp_path / "leaky.csv", ["1-7-A-0_pitchUp2.png"])
    clean = write_list(tmp_path / "clean.csv", ["2-8-A-0_orig.png"])
    assert main(["audit", train, leaky]) == 1
    assert "1-7-A-0_pitchUp2.png" in capsys.readouterr().out
    assert main(["audit", train, clean]) == 0


def test_audit_knows_further_variants(tmp_path):
    train = write_list(tmp_path / "train.csv", ["barking~v1.png"])
    val = write_list(tmp_path / "val.csv", ["barking~v2.png"])
    assert main(["audit", train, val]) == 0
    assert main(["audit", train, val, "--variant", r"~v\d+"]) == 1

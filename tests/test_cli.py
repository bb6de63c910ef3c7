import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tiny import SETTINGS, make_tiny

import audioml
from audioml.cli import main
from audioml.cli.verbs import EXIT_CODES, EXIT_PIPE, EXIT_STOPPED
from audioml.config import RunConfig, load_config

REPOSITORY = Path(__file__).parent.parent
PROGRAM = [sys.executable, "-m", "audioml"]


def verbs():
    """The verbs that the help lists."""
    text = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    listed = text.partition("VERB\n")[2].partition("\n\n")[0]
    return [line.split()[0] for line in listed.splitlines() if line[4:5].strip()]


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


@pytest.mark.parametrize("verb", [[], *([verb] for verb in verbs())])
def test_help_has_examples_that_are_whole(verb, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*verb, "--help"])
    text = capsys.readouterr().out
    assert "usage:" in text
    examples = text.partition("examples:\n")[2].partition("\n\n")[0].splitlines()
    assert examples
    assert all(line.startswith("  ") for line in examples)
    assert all(f"audioml {verb[0] if verb else ''}" in line for line in examples[:1])


def test_help_documents_every_exit_code(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert EXIT_CODES in capsys.readouterr().out
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for code in (EXIT_STOPPED, EXIT_PIPE):
        assert f"\n  {code}  " in EXIT_CODES
        assert f"| {code} |" in readme


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "optim.lrr=1"]])
def test_what_needs_no_torch_imports_none(words):
    program = f"import sys; from audioml.cli import main\ntry: main({words})\n"
    program += "except SystemExit: pass\nsys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_the_version_is_named(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"audioml {audioml.__version__}\n"


@pytest.mark.parametrize("words", [[], ["trian"], ["audit", "one.csv"], ["verify", "--no"]])
def test_words_that_are_none_exit_2(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "error: " in capsys.readouterr().err


def test_stopped_exits_130(monkeypatch, capsys):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("audioml.audit.audit_files", stop)
    assert main(["audit", "a.csv", "b.csv"]) == EXIT_STOPPED
    assert capsys.readouterr().err == "stopped\n"


def run_without_a_reader(words, cwd):
    """Run with a stdout that nobody reads."""
    process = subprocess.Popen(
        [*PROGRAM, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": ""},
    )
    process.stdout.close()
    error = process.stderr.read()
    return process.wait(), error


@pytest.mark.parametrize("words", [["--help"], ["train", "--print-config"]])
def test_a_reader_that_goes_is_no_error(words, tmp_path):
    assert run_without_a_reader(words, tmp_path) == (EXIT_PIPE, b"")


def test_training_ends_with_its_reader(tmp_path):
    make_tiny(tmp_path / "data")
    settings = [*SETTINGS, "data.root=data", "run.dir=run"]
    assert run_without_a_reader(["train", *settings], tmp_path) == (EXIT_PIPE, b"")


def test_logs_hold_lines_and_json_stands_alone(tmp_path):
    make_tiny(tmp_path / "data")
    done = subprocess.run(
        [*PROGRAM, "train", *SETTINGS, "data.root=data", "run.dir=run", "--json"],
        capture_output=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    summary = json.loads(done.stdout)
    assert summary.pop("folder") == "run"
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert b"\r" not in done.stderr
    assert b"epoch   2/2" in done.stderr


def test_verify_as_json(tmp_path, capsys):
    root = make_tiny(tmp_path / "data")
    assert main(["verify", "data.name=esc50", f"data.root={root}", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["table"]["rows"] == "45"
    assert any("expected 2000" in defect for defect in report["defects"])


@pytest.fixture
def complete(tmp_path, capsys):
    """What bash completes a line with."""
    if not shutil.which("bash"):
        pytest.skip("no bash here")
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", "bash"])
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)

    def ask(line):
        # readline parts words at "=", too.
        words = [*line.replace("=", " = ").split(), *([""] if line.endswith(" ") else [])]
        program = (
            f"source {script}; compopt() {{ :; }}\n"  # there is no line to change
            'COMP_LINE="$1" COMP_POINT="${#1}" COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))\n'
            '_audioml; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        command = ["bash", "-c", program, "bash", line, *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=REPOSITORY
        ).stdout.split()

    return ask


def test_bash_completes_verbs_options_settings_and_files(complete):
    assert complete("audioml ") == verbs()
    assert complete("audioml train --pr") == ["--print-config"]
    assert complete("audioml train optim.l") == ["optim.lr=", "optim.label_smoothing="]
    assert complete("audioml train model.name=cnn") == ["cnn", "cnn_attention"]
    assert complete("audioml train model.ast.pa") == ["model.ast.patch="]
    assert complete("audioml train data.root=bench") == ["benchmarks"]
    assert complete("audioml train configs/esc10") == ["configs/esc10_cnn.yaml"]
    assert complete("audioml sweep --method ") == ["grid", "tpe"]
    assert complete("audioml audit LIC") == ["LICENSE"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_scripts_are_read_by_their_shells(shell, tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", shell])
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    subprocess.run([shell, "-n", str(script)], check=True, capture_output=True)


def write_list(path, names):
    pd.DataFrame({"path": names, "label": "dog"}).to_csv(path, index=False)
    return str(path)


def test_audit_exits_1_on_a_leak_and_0_without(tmp_path, capsys):
    train = write_list(tmp_path / "train.csv", ["1-7-A-0_orig.png", "1-9-A-0_noisy.png"])
    leaky = write_list(tmp_path / "leaky.csv", ["1-7-A-0_pitchUp2.png"])
    clean = write_list(tmp_path / "clean.csv", ["2-8-A-0_orig.png"])
    assert main(["audit", train, leaky]) == 1
    assert "1-7-A-0_pitchUp2.png" in capsys.readouterr().out
    assert main(["audit", train, leaky, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["is_clean"]
    assert report["overlaps"][0]["shared"] == "1-7-A-0"
    assert main(["audit", train, clean]) == 0


def test_audit_knows_further_variants(tmp_path):
    train = write_list(tmp_path / "train.csv", ["barking~v1.png"])
    val = write_list(tmp_path / "val.csv", ["barking~v2.png"])
    assert main(["audit", train, val]) == 0
    assert main(["audit", train, val, "--variant", r"~v\d+"]) == 1

"""What the README promises is there."""

import fnmatch
import re
from pathlib import Path

import pytest

from audioml.cli.settings import read_settings

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_architecture_has_a_line_for_every_module():
    tree = README.partition("## Architecture")[2]
    for file in (REPOSITORY / "audioml").rglob("*.py"):
        if file.name != "__init__.py":
            names = [re.escape(name) for name in file.relative_to(REPOSITORY).parts]
            folders = "".join(rf"^ *{name}/\n(?: .*\n)*?" for name in names[:-1])
            assert re.search(rf"{folders} +{names[-1]} ", tree, re.MULTILINE), file


def test_nothing_is_left_to_fill_in():
    for name in ("README.md", "diary.md"):
        assert "PLACEHOLDER" not in (REPOSITORY / name).read_text(encoding="utf-8")


def test_every_fault_is_shown_by_tests_that_exist():
    table = README.partition("## What can go wrong")[2].partition("</details>")[0]
    rows = re.findall(r"^\| (?!fault ).*\| (.*) \|$", table, re.MULTILINE)
    assert f"<summary>{len(rows)} faults" in table
    for cell in rows:
        file = None
        for name, _, test in re.findall(r"`([\w/]*\.py)?(::)?(test_[\w*]+)?(?=`)", cell):
            file = REPOSITORY / "tests" / name if name else file
            assert file is not None, cell
            tests = re.findall(r"^ *def (test_\w+)", file.read_text(), re.MULTILINE)
            assert fnmatch.filter(tests, test or "*"), f"{name}::{test} in {cell}"


def commands():
    return sorted(set(re.findall(r"^python train\.py .*$", README, re.MULTILINE)))


@pytest.mark.parametrize("command", commands())
def test_every_training_command_has_a_valid_configuration(command, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    words = command.partition("#")[0].split()[2:]
    assert not any(word.startswith("resume=") for word in words) or len(words) == 1
    read_settings(words)


@pytest.mark.parametrize("extra", ["-e .", "-e '.[test]'"])
def test_both_install_commands_are_named(extra):
    assert f"python -m pip install {extra}" in README

"""The lock file: whole, with hashes, from no particular index, and what pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (REPOSITORY / ".ci" / "requirements.lock").read_text(encoding="utf-8")
EXTRAS = PROJECT["optional-dependencies"]
ASKED = [
    Requirement(text)
    for text in (*PROJECT["dependencies"], *EXTRAS["backends"], *EXTRAS["test"])
    if not text.startswith("audioml[")
]


def locked():
    """Give the names, versions and hashes of the lock file."""
    found: dict[str, list[tuple[str, list[str]]]] = {}
    for entry in re.split(r"\n(?=[a-z0-9])", LOCK):
        if match := re.match(r"([a-z0-9-]+)==([^ \\]+)", entry):
            hashes = re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)
            found.setdefault(match[1], []).append((match[2], hashes))
    return found


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_the_lock_has_what_is_asked_for(asked):
    versions = [version for version, _ in locked()[canonicalize_name(asked.name)]]
    assert versions
    assert all(asked.specifier.contains(version) for version in versions)


def test_every_package_is_held_to_its_hashes():
    packages = [entry for entries in locked().values() for entry in entries]
    assert len(packages) > len(ASKED)
    assert all(hashes for _, hashes in packages)


def test_no_index_and_no_machine_stands_in_the_lock():
    assert not re.search(r"https?:|file:|(?m:^\s*-[^-])|--(?:extra-)?index-url|--find-links", LOCK)
    assert not re.search(r"(?m)^[^#\s]*\s@\s", LOCK)


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_every_dependency_has_a_lower_bound(asked):
    """``.ci/lowest`` runs the tests with these."""
    assert any(bound.operator == ">=" for bound in asked.specifier)

import json
import os
import resource
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from audioml.checkpoints import CheckpointError, Checkpoints, load_checkpoint, save_weights


class Payload:
    """A pickle that would write a file when loaded."""

    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


def state(number):
    return {"number": number, "weights": torch.full((1000,), float(number))}


def test_checkpoints_come_back_as_they_were(checkpoints):
    assert not checkpoints.are_there
    whole = {"weights": torch.randn(3), "progress": {"score": (0.5, -1.0), "history": [{"a": 1}]}}
    checkpoints.save_last(whole)
    loaded = checkpoints.load_last()
    assert torch.equal(loaded["weights"], whole["weights"])
    assert loaded["progress"] == whole["progress"]
    checkpoints.save_last(state(1))
    checkpoints.save_best(state(2))
    assert checkpoints.load_last()["number"] == 1
    assert checkpoints.load_best()["number"] == 2
    assert torch.equal(load_checkpoint(checkpoints.previous)["weights"], whole["weights"])
    names = {"last.pt", "previous.pt", "best.pt"}
    assert {file.name for file in checkpoints.path.iterdir()} == names | {"manifest.json"}
    assert json.loads((checkpoints.path / "manifest.json").read_text()).keys() == names


class KilledError(BaseException):
    """Stands for SIGKILL: after it, nothing that the program wants to do is done."""


def kill_at(monkeypatch, number):
    """Die at the n-th call that changes a disk, before or after it is done."""
    calls = count()

    def dying(function):
        def call(*arguments, **options):
            place = next(calls)
            if place == number:
                raise KilledError
            result = function(*arguments, **options)
            if place + 0.5 == number:
                raise KilledError
            return result

        return call

    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "open"), (torch, "save")):
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)


def test_killed_at_any_point_of_a_save_a_whole_checkpoint_is_there(tmp_path, monkeypatch):
    """And the next save, killed again or not, goes on from there."""
    outcomes = []
    for half in count():
        checkpoints = Checkpoints(tmp_path / str(half))
        for number in (1, 2):
            checkpoints.save_last(state(number))
        with monkeypatch.context() as patched:
            kill_at(patched, half / 2)
            try:
                checkpoints.save_last(state(3))
            except KilledError:
                outcomes.append(Checkpoints(checkpoints.path).load_last()["number"])
            else:
                break
        checkpoints.save_last(state(4))
        assert checkpoints.load_last()["number"] == 4
        assert load_checkpoint(checkpoints.previous)["number"] == outcomes[-1]
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {2, 3}
    assert len(outcomes) >= 18


def test_killed_at_any_point_of_saving_the_best_one_is_there(tmp_path, monkeypatch):
    outcomes = []
    for half in count():
        checkpoints = Checkpoints(tmp_path / str(half))
        checkpoints.save_best(state(1))
        with monkeypatch.context() as patched:
            kill_at(patched, half / 2)
            try:
                checkpoints.save_best(state(2))
            except KilledError:
                outcomes.append(checkpoints.load_best()["number"])
            else:
                break
        with monkeypatch.context() as patched:
            kill_at(patched, half / 2)
            with pytest.raises(KilledError):
                checkpoints.save_best(state(3))
        assert checkpoints.load_best()["number"] in {outcomes[-1], 3}
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {1, 2}


def test_killed_in_the_first_save_there_is_nothing_or_a_whole_one(tmp_path, monkeypatch):
    n_there = 0
    for half in count():
        checkpoints = Checkpoints(tmp_path / str(half))
        with monkeypatch.context() as patched:
            kill_at(patched, half / 2)
            try:
                checkpoints.save_last(state(1))
            except KilledError:
                pass
            else:
                break
        if checkpoints.are_there:
            assert checkpoints.load_last()["number"] == 1
            n_there += 1
    assert 0 < n_there < half


def damage(file, kind):
    content = bytearray(file.read_bytes())
    if isinstance(kind, int):
        del content[kind * len(content) // 16 :]
    else:
        content[int(kind * len(content))] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("kind", [*range(16), 0.01, 0.3, 0.5, 0.9, 0.99])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(checkpoints, kind, caplog):
    """Cut short at each sixteenth, or with one bit turned over."""
    for number in (1, 2, 3):
        checkpoints.save_last(state(number))
    damage(checkpoints.last, kind)
    assert checkpoints.load_last()["number"] == 2
    assert "last.pt" in caplog.text
    assert "going on from previous.pt" in caplog.text
    checkpoints.save_last(state(4))
    assert load_checkpoint(checkpoints.previous)["number"] == 2
    damage(checkpoints.last, kind)
    damage(checkpoints.previous, kind)
    with pytest.raises(CheckpointError, match=r"\A[^\n]*last\.pt[^\n]*previous\.pt[^\n]*\Z"):
        checkpoints.load_last()


def test_a_damaged_best_checkpoint_is_refused(checkpoints):
    checkpoints.save_best(state(1))
    damage(checkpoints.best, 0.5)
    with pytest.raises(CheckpointError, match=r"best\.pt: its SHA-256 is not in manifest\.json"):
        checkpoints.load_best()


@pytest.mark.parametrize("content", [None, b"", b'{"last.pt": "12', b"[]"])
def test_without_a_list_readable_checkpoints_are_used(checkpoints, content):
    checkpoints.save_best(state(0))
    checkpoints.save_last(state(0))
    checkpoints.save_last(state(1))
    manifest = checkpoints.path / "manifest.json"
    manifest.unlink() if content is None else manifest.write_bytes(content)
    assert checkpoints.load_last()["number"] == 1
    checkpoints.save_last(state(2))
    assert checkpoints.load_last()["number"] == 2
    assert checkpoints.load_best()["number"] == 0
    damage(checkpoints.last, 0.5)
    assert checkpoints.load_last()["number"] == 1


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(checkpoints):
    checkpoints.save_last(state(1))
    size, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, most))
    try:
        with pytest.raises(OSError, match=r"last\.pt"):
            checkpoints.save_last(state(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    assert checkpoints.load_last()["number"] == 1
    assert {file.name for file in checkpoints.path.iterdir()} == {"last.pt", "manifest.json"}


def test_weights_alone_hold_facts_and_nothing_else(tmp_path):
    weights = {"w": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)}
    save_weights(tmp_path / "a.safetensors", weights, {"labels": ["a"]})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert json.loads(file.metadata()["audioml"]) == {"labels": ["a"]}
        assert torch.equal(file.get_tensor("w"), weights["w"])


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "truncated", "text", "foreign", "list", "payload"]
)
def test_bad_checkpoints_are_refused_and_not_executed(tmp_path, kind):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last(state(0))
    file = checkpoints.last.rename(tmp_path / "bad.pt")
    content = file.read_bytes()
    if kind == "missing":
        file.unlink()
    elif kind == "foreign":
        torch.save({"state_dict": {}}, file)
    elif kind == "list":
        torch.save([1, 2], file)
    elif kind == "payload":
        torch.save({"weights": Payload()}, file)
    else:
        file.write_bytes({"empty": b"", "truncated": content[:900], "text": b"hello"}[kind])
    with pytest.raises(CheckpointError, match=r"bad\.pt: ") as error:
        load_checkpoint(file)
    assert "\n" not in str(error.value)
    assert not Path("executed").exists()

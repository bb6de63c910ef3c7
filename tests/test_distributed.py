import os

import pytest
import torch
from jobs import run_ranks

from audioml import distributed
from audioml.agreement import check_settings
from audioml.assembly import choose_device
from audioml.config import load_config
from audioml.distributed import (
    SharedError,
    any_rank,
    from_main,
    gather,
    joined,
    sum_ranks,
    take_from_main,
    together,
)
from audioml.errors import UserError
from audioml.ranks import ALONE, LostRankError, RankError, Ranks, read_ranks

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a"}


def test_ranks_are_what_torchrun_says():
    assert read_ranks({}) == ALONE
    assert read_ranks(TORCHRUN) == Ranks(rank=3, size=4, local_rank=1)
    assert read_ranks(TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "2"}).restart == 2
    assert [Ranks(r, 2).is_main for r in (0, 1)] == [True, False]


@pytest.mark.parametrize(
    "changes", [{"RANK": "4"}, {"RANK": "-1"}, {"RANK": "x"}, {"WORLD_SIZE": "1"}]
)
def test_ranks_that_can_not_be_are_refused(changes):
    with pytest.raises(UserError, match=r"\Athe environment says .*; use torchrun.*\Z"):
        read_ranks(TORCHRUN | changes)


def test_a_launcher_must_say_where_rank_0_is():
    with pytest.raises(UserError, match="expected RANK below WORLD_SIZE, and MASTER_ADDR"):
        read_ranks({"RANK": "0", "WORLD_SIZE": "2"})


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 2, 8, 100])
def test_every_thing_is_one_ranks(n, size):
    shares = [Ranks(rank, size).share(n) for rank in range(size)]
    assert [thing for share in shares for thing in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_sent():
    with joined(ALONE), together(ALONE):
        assert gather(ALONE, 5) == [5]
        assert from_main(ALONE, lambda: 6) == 6
        assert any_rank(ALONE, True, False) == [True, False]
        assert sum_ranks(ALONE, torch.ones(2)).tolist() == [1, 1]
        assert not torch.distributed.is_initialized()
    with pytest.raises(KeyError), joined(ALONE), together(ALONE):
        raise KeyError


def talk(rank):
    ranks = read_ranks()
    with joined(ranks):
        sent = {"rank": rank, "text": "ü" * rank, "numbers": torch.arange(rank)}
        received = gather(ranks, sent)
        assert [each["rank"] for each in received] == [0, 1, 2]
        assert [each["text"] for each in received] == ["", "ü", "üü"]
        assert [each["numbers"].tolist() for each in received] == [[], [0], [0, 1]]
        made = from_main(ranks, lambda: {"weight": torch.tensor([rank + 0.1]), "none": None})
        assert (made["weight"].item(), made["none"]) == (pytest.approx(0.1), None)
        assert any_rank(ranks, rank == 2, False, True) == [True, False, True]
        assert sum_ranks(ranks, torch.tensor([1.0, rank])).tolist() == [3, 3]
        own = torch.tensor([rank])
        take_from_main(ranks, iter([own]))
        assert own.item() == 0


def test_ranks_tell_each_other_tensors_and_plain_data():
    assert run_ranks(3, talk) == [0, 0, 0]


def end_together(rank):
    ranks = read_ranks()
    with joined(ranks):
        words = r"\Arank 0: no such; ranks 1, 2: no file\Z"
        with pytest.raises(SharedError, match=words), together(ranks):
            raise OSError("no file") if rank else UserError("no such")
        with pytest.raises(SharedError, match=r"\Athe same\Z"), together(ranks):
            raise UserError("the same")
        with pytest.raises(SharedError, match=r"\Arank 0: mine\Z"):
            from_main(ranks, lambda: fail("mine"))


def end_alone(rank):
    ranks = read_ranks()
    with pytest.raises(RankError, match=rf"\Arank {rank}: my own\Z"), joined(ranks):  # noqa: PT012
        gather(ranks, rank)
        raise UserError("my own")


def fail(text):
    raise UserError(text)


def test_what_one_rank_meets_ends_all_with_its_words():
    assert run_ranks(3, end_together) == [0, 0, 0]


def test_what_a_rank_meets_alone_has_its_number():
    assert run_ranks(2, end_alone) == [0, 0]


def lose(rank):
    ranks = read_ranks()
    words = f"rank {rank}: the connection to another rank is lost"
    with pytest.raises(LostRankError, match=words), joined(ranks):  # noqa: PT012
        gather(ranks, rank)
        if rank == 1:
            os._exit(7)
        gather(ranks, rank)


def test_a_rank_that_is_gone_is_noticed_at_once():
    assert run_ranks(3, lose, timeout_s=60) == [0, 7, 0]


def hang(rank):
    ranks = read_ranks()
    distributed.TIMEOUT = distributed.timedelta(seconds=2)
    with pytest.raises(LostRankError), joined(ranks):  # noqa: PT012
        gather(ranks, rank)
        if rank == 1:
            distributed.dist.distributed_c10d._get_default_store().wait(["never"], TEN_S)
        gather(ranks, rank)


TEN_S = distributed.timedelta(seconds=10)


def test_a_rank_that_hangs_is_given_up():
    assert run_ranks(2, hang, timeout_s=60) == [0, 0]


def test_each_rank_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    second = Ranks(rank=3, size=4, local_rank=1)
    assert choose_device("auto", second) == choose_device("cuda", second) == torch.device("cuda:1")
    assert choose_device("cpu", second) == torch.device("cpu")
    assert choose_device("auto") == torch.device("cuda")
    with pytest.raises(UserError, match=r"train\.device=cuda:1: each of several ranks takes a GPU"):
        choose_device("cuda:1", second)
    with pytest.raises(UserError, match="start no more ranks than there are GPUs"):
        choose_device("auto", Ranks(rank=2, size=4, local_rank=2))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.sync_batch_norm=true", "train.sync_batch_norm=true needs CUDA, got cpu"),
        ("train.auto_batch=true", "train.auto_batch=true is for one process"),
        ("train.batch_size=2", "train.batch_size=2 is what 3 ranks share, and gives none"),
    ],
)
def test_settings_that_ranks_can_not_have_are_refused(setting, message):
    with pytest.raises(UserError, match=rf"\A{message}[^\n]*\Z"):
        check_settings(load_config(overrides=[setting]), torch.device("cpu"), Ranks(1, 3))

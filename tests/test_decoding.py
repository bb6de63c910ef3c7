import pytest
import torch
from jobs import run_ranks
from tiny import make_tiny

from audioml import clips, decoding
from audioml.clips import DecodedClips, decode_all, scan_headers
from audioml.config import DataConfig
from audioml.datasets import load_manifest
from audioml.decoding import decode_together
from audioml.distributed import SharedError, joined, together
from audioml.errors import UserError
from audioml.ranks import read_ranks

RATE = 8000
CPU = torch.device("cpu")


def assert_as_alone(found, root, keeps):
    manifest = load_manifest(DataConfig(name="esc10", root=str(root)))
    alone = decode_all(manifest, scan_headers(manifest, RATE), RATE)
    assert torch.equal(found.length, alone.length)
    assert torch.equal(found.rms, alone.rms)
    assert found.digests == alone.digests
    assert isinstance(found, DecodedClips) == keeps
    if keeps:
        assert torch.equal(found.samples, alone.samples)


def decode(rank, root, other, bad):
    """Decode in several situations; each rank counts the clips that it decodes."""
    decode_clip, counts = clips._decode, []

    def counted(*arguments):
        counts[-1] += 1
        return decode_clip(*arguments)

    clips._decode = counted

    def run(folder, keeps=True):
        counts.append(0)
        manifest = load_manifest(DataConfig(name="esc10", root=str(folder)))
        headers = scan_headers(manifest, RATE)
        options = {"keeps": keeps, "skip_bad": False, "ranks": ranks}
        return decode_together(manifest, headers, RATE, 1, CPU, **options)

    ranks = read_ranks()
    with joined(ranks):
        for keeps in (True, False):
            found = run(root, keeps)
            assert counts[-1] == len(ranks.share(45)) < 45
            assert_as_alone(found, root, keeps)
        folder = other if rank else root
        found = run(folder)
        assert counts[-1] == 45
        assert_as_alone(found, folder, keeps=True)
        reserve, map_memory = decoding._reserve, decoding._map
        decoding._reserve = lambda n_bytes: None
        assert_as_alone(run(root), root, keeps=True)
        decoding._reserve = reserve
        decoding._map = lambda *_: map_memory("/nowhere", 1) if rank else map_memory(*_)
        assert_as_alone(run(root), root, keeps=True)
        decoding._map = map_memory
        failed = ""
        try:
            with together(ranks):
                run(bad)
        except SharedError as error:
            failed = str(error)
        assert failed.startswith("2 of 45 clips can't be decoded"), failed
        assert failed.count("not readable as audio") == 2, failed


def test_ranks_of_a_machine_decode_and_keep_every_clip_once(tmp_path):
    root, other, bad = (make_tiny(tmp_path / name) for name in ("root", "other", "bad"))
    files = sorted((bad / "audio").iterdir())
    for file in (files[2], files[-2]):
        file.write_bytes(b"no sound")
    assert run_ranks(2, decode, root, other, bad) == [0, 0]


def fail_early(rank, root):
    """A rank that fails before the others share anything ends them all."""
    ranks = read_ranks()
    words = r"\Arank 1: mine\Z"
    with joined(ranks), pytest.raises(SharedError, match=words), together(ranks):  # noqa: PT012
        if rank:
            raise UserError("mine")
        manifest = load_manifest(DataConfig(name="esc10", root=str(root)))
        headers = scan_headers(manifest, RATE)
        decode_together(manifest, headers, RATE, 1, CPU, keeps=True, skip_bad=False, ranks=ranks)


def test_a_rank_that_failed_before_ends_all(tmp_path):
    assert run_ranks(2, fail_early, make_tiny(tmp_path / "tiny")) == [0, 0]


def test_without_shared_memory_every_rank_keeps_all(monkeypatch, caplog):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoding.os, "posix_fallocate", refuse)
    assert decoding._reserve(11) is None
    assert "no shared memory ([Errno 28] No space left on device): every rank" in caplog.text
    assert decoding._map("/nowhere", 1) is None
    assert "memory can't be shared (" in caplog.text
    monkeypatch.delattr(decoding.os, "memfd_create")
    assert decoding._reserve(11) is None

from pathlib import Path

import torch
from jobs import run_ranks
from tiny import make_tiny

from audioml import clips, decoding
from audioml.clips import DecodedClips, decode_all, scan_headers
from audioml.config import DataConfig
from audioml.datasets import load_manifest
from audioml.decoding import decode_together
from audioml.distributed import SharedError, joined, together
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
    decoding._SHARED_MEMORY = root.parent / "memory"

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
        decoding._make_file = lambda n_bytes: ""
        assert_as_alone(run(root), root, keeps=True)
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
    (tmp_path / "memory").mkdir()
    assert run_ranks(2, decode, root, other, bad) == [0, 0]
    assert not list((tmp_path / "memory").iterdir())


def test_without_room_every_rank_keeps_all(monkeypatch, caplog):
    monkeypatch.setattr(decoding.shutil, "disk_usage", lambda _: type("", (), {"free": 10}))
    assert decoding._make_file(11) == ""
    assert "has no room for 0.00 GiB: every rank decodes and keeps all clips itself" in caplog.text
    monkeypatch.setattr(decoding, "_SHARED_MEMORY", Path("/nowhere"))
    assert decoding._make_file(1) == ""

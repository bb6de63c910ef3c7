import itertools
import json
import tarfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import fsspec
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import webdataset
from safetensors.torch import load_file
from several import make_several
from tiny import SETTINGS, make_tiny

from audioml.cli import main
from audioml.clips import decode_all, measure_all, scan_headers
from audioml.config import DataConfig
from audioml.datasets import load_manifest, shards
from audioml.datasets.manifest import DataError
from audioml.datasets.shards import read_shards
from audioml.sharding import write_shards

RATE = 8000
SMALL_MIB = 1 / 16  # some eight clips


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def manifest(tiny):
    return load_manifest(DataConfig(name="esc10", root=str(tiny)))


@pytest.fixture
def packed(manifest, tmp_path):
    out = tmp_path / "packed"
    write_shards(manifest, str(out), sample_rate=RATE, shard_mib=SMALL_MIB)
    return out


def on_shards(folder):
    settings = [word for word in SETTINGS if not word.startswith("data.name")]
    return [*settings, "data.name=shards", f"data.root={folder}"]


def names(folder):
    return sorted(f.name for f in folder.glob("*.tar"))


def test_a_data_set_comes_back_clip_for_clip(manifest, packed):
    found = read_shards(str(packed))
    assert len(names(packed)) >= 3
    assert (found.name, found.labels, found.root) == ("esc10", manifest.labels, str(packed))
    for ours, theirs in zip(found.clips, manifest.clips, strict=True):
        path = theirs.path.relative_to(manifest.root)
        assert replace(ours, packed=None) == replace(theirs, path=path)
        assert ours.contents() == theirs.path.read_bytes()
    headers = [scan_headers(m, RATE) for m in (found, manifest)]
    assert headers[0] == headers[1]
    told, measured = measure_all(found, headers[0], RATE), measure_all(manifest, headers[1], RATE)
    for name in ("length", "rms"):
        assert torch.equal(getattr(told, name), getattr(measured, name))
    assert told.digests == measured.digests


def test_another_rate_is_measured_anew(manifest, packed):
    pairs = [(m, scan_headers(m, 4000)) for m in (read_shards(str(packed)), manifest)]
    told, measured = (measure_all(*pair, 4000) for pair in pairs)
    assert told.digests == measured.digests
    assert torch.equal(decode_all(*pairs[0], 4000).samples, decode_all(*pairs[1], 4000).samples)


def assert_same_weights(*runs):
    ours, theirs = (load_file(run / "model.safetensors") for run in runs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("store", ["stream", "host"])
def test_a_run_on_shards_has_the_weights_of_one_on_files(store, tiny, packed, tmp_path):
    changes = [f"audio.store={store}", "augment.mixup.probability=1"]
    for name, data in (("shards", on_shards(packed)), ("files", [*SETTINGS, f"data.root={tiny}"])):
        assert main(["train", *data, *changes, f"run.dir={tmp_path / name}"]) == 0
    ours, theirs = (
        load_file(tmp_path / name / "model.safetensors") for name in ("shards", "files")
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    for table in ("predictions.csv", "split.csv"):
        texts = [(tmp_path / name / table).read_text() for name in ("shards", "files")]
        assert texts[0] == texts[1]


def test_a_stopped_run_on_shards_goes_on_at_its_step(packed, tmp_path, monkeypatch):
    settings = [*on_shards(packed), "audio.store=stream", "run.save_every_steps=1"]
    assert main(["train", *settings, f"run.dir={tmp_path / 'whole'}"]) == 0
    step, steps = shards.Packed.read, itertools.count()

    def stop(self):
        if next(steps) >= 65:  # in the first epoch, after statistics and preview
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(shards.Packed, "read", stop)
        assert main(["train", *settings, f"run.dir={tmp_path / 'stopped'}"]) == 130
    saved = torch.load(tmp_path / "stopped" / "checkpoints" / "last.pt", weights_only=True)
    assert (saved["progress"]["epoch"], saved["progress"]["step"] > 0) == (0, True)
    assert main(["train", f"resume={tmp_path / 'stopped'}"]) == 0
    assert_same_weights(tmp_path / "stopped", tmp_path / "whole")


def test_the_verb_says_what_it_wrote(tiny, tmp_path, capsys):
    words = ["shard", "data.name=esc10", f"data.root={tiny}", "audio.sample_rate=8000"]
    out = tmp_path / "out"
    assert main([*words, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "address": str(out),
        "n_clips": 45,
        "n_files": 45,
        "n_shards": 1,
        "n_bytes": (out / "shard-000000.tar").stat().st_size,
        "bad": {},
    }
    assert main([*words, "--out", str(out)]) == 2
    assert "holds shards already; give another --out, or remove" in capsys.readouterr().err


def test_webdataset_reads_them_too(manifest, packed):
    samples = webdataset.WebDataset([str(packed / name) for name in names(packed)], shardshuffle=0)
    for sample, clip in zip(samples, manifest.clips, strict=True):
        assert sample["wav"] == clip.path.read_bytes()
        (notes,) = json.loads(sample["json"])["clips"]
        assert (notes["label"], notes["source"], notes["fold"]) == (
            clip.label,
            clip.source,
            clip.fold,
        )


def test_they_are_the_same_bytes_every_time(manifest, packed, tmp_path):
    write_shards(manifest, str(tmp_path / "again"), sample_rate=RATE, shard_mib=SMALL_MIB)
    for file in packed.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_stretches_of_a_file_share_it(tmp_path):
    g = np.random.default_rng(0)
    for name in ("a.wav", "b.flac"):
        soundfile.write(tmp_path / name, 0.1 * g.standard_normal(4 * RATE), RATE)
    rows = [("a.wav", "x", "p1", 0, 1), ("b.flac", "y", "p2", 0.5, 2), ("a.wav", "y", "p1", 1, 3)]
    columns = ["path", "label", "source", "start_s", "end_s"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "clips.csv", index=False)
    settings = DataConfig(name="csv", manifest=str(tmp_path / "clips.csv"))
    manifest = load_manifest(settings)
    written = write_shards(manifest, str(tmp_path / "out"), sample_rate=RATE)
    assert (written.n_clips, written.n_files) == (3, 2)
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        assert [member.name for member in tar] == [
            "000000000.wav",
            "000000000.json",
            "000000001.flac",
            "000000001.json",
        ]
    found = read_shards(str(tmp_path / "out"))
    decoded = [decode_all(m, scan_headers(m, RATE), RATE).samples for m in (found, manifest)]
    assert torch.equal(*decoded)


def test_clips_keep_all_of_their_labels(tmp_path):
    listed = make_several(tmp_path / "several", n_takes=1, n_folds=2)
    manifest = load_manifest(DataConfig(name="csv", manifest=str(listed)))
    write_shards(manifest, str(tmp_path / "out"), sample_rate=RATE)
    found = read_shards(str(tmp_path / "out"))
    assert found.is_multi_label
    assert [clip.targets for clip in found.clips] == [clip.targets for clip in manifest.clips]
    assert {len(clip.targets) for clip in found.clips} == {0, 1, 2, 3}


def test_bad_files_are_named_or_left_out(tmp_path, capsys):
    root = make_tiny(tmp_path / "data")
    bad = sorted((root / "audio").iterdir())[3]
    bad.write_bytes(b"no sound")
    manifest = load_manifest(DataConfig(name="esc10", root=str(root)))
    with pytest.raises(DataError, match=r"1 of 45 clips can't be decoded"):
        write_shards(manifest, str(tmp_path / "out"), sample_rate=RATE)
    options = {"sample_rate": RATE, "skip_bad": True}
    with pytest.raises(DataError, match=r"more than data\.max_bad_share=0\.01 allows"):
        write_shards(manifest, str(tmp_path / "out"), **options)
    written = write_shards(manifest, str(tmp_path / "out"), **options, max_bad_share=0.1)
    assert written.n_clips == len(read_shards(str(tmp_path / "out"))) == 44
    words = ["data.name=esc10", f"data.root={root}", "data.on_bad_file=skip"]
    words += ["data.max_bad_share=0.1", "audio.sample_rate=8000"]
    assert main(["shard", *words, "--out", str(tmp_path / "again")]) == 0
    assert "1 clips left out, whose files are bad" in capsys.readouterr().out
    assert [name for name in written.bad if bad.name in name]


# Other stores


def test_any_file_system_will_do(manifest):
    write_shards(manifest, "memory://place/shards", sample_rate=RATE, shard_mib=SMALL_MIB)
    try:
        found = read_shards("memory://place/shards/")
        assert str(found.root) == "memory://place/shards"
        assert [c.contents() for c in found.clips] == [c.path.read_bytes() for c in manifest.clips]
    finally:
        fsspec.filesystem("memory").rm("/place", recursive=True)


class _Ranges(SimpleHTTPRequestHandler):
    """Serves parts of files, as object stores do."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        asked = self.headers["Range"]
        if asked is None:
            super().do_GET()
            return
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        body = open(self.translate_path(self.path), "rb").read()  # noqa: SIM115, PTH123
        part = body[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(body)}")
        self.end_headers()
        self.wfile.write(part)


def test_over_http(manifest, packed, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(_Ranges, directory=str(packed))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            clips = read_shards(url).clips
            assert [c.contents() for c in clips] == [c.path.read_bytes() for c in manifest.clips]
            (packed / names(packed)[1]).unlink()
            with pytest.raises(DataError, match=r"1 of \d+ shards are missing: shard-000001\.tar"):
                read_shards(url)
        finally:
            server.shutdown()
            thread.join()


def test_what_fails_for_a_moment_is_tried_again(packed, monkeypatch):
    monkeypatch.setattr(shards, "_PAUSE_S", 0.0)
    clip, calls = read_shards(str(packed)).clips[0], itertools.count()
    read = shards.Folder._read

    def falter(*arguments):
        if next(calls) < n_failures:
            raise TimeoutError("busy")
        return read(*arguments)

    monkeypatch.setattr(shards.Folder, "_read", falter)
    n_failures = 2
    assert clip.contents()
    calls, n_failures = itertools.count(), 3
    with pytest.raises(DataError, match=r"shard-000000\.tar: can't be read \(busy\); mend the con"):
        clip.contents()


def test_an_address_that_nobody_knows(manifest):
    for address, message in (("nowhere://a", "Protocol not known: nowhere"), ("s3://a", "s3fs")):
        with pytest.raises(DataError, match=rf"\A{address}: .*{message}"):
            read_shards(address)


def test_without_pyarrow_it_says_what_to_install(manifest, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(shards.importlib.util, "find_spec", lambda name: None)
    for attempt in (
        lambda: read_shards(str(packed)),
        lambda: write_shards(manifest, str(tmp_path / "out"), sample_rate=RATE),
    ):
        with pytest.raises(DataError, match=r"\Ashards need pyarrow: .*audioml\[stream\]'\Z"):
            attempt()
    assert not (tmp_path / "out").exists()


# Damage


def spoil(packed, change):
    """Change the summary."""
    file = packed / "index.json"
    summary = json.loads(file.read_text())
    change(summary)
    file.write_text(json.dumps(summary))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda f: (f / "shard-000001.tar").unlink(),
            r": 1 of \d shards are missing: shard-000001",
        ),
        (
            lambda f: (f / "shard-000001.tar").write_bytes(b"short"),
            r"/shard-000001\.tar: 5 bytes, and index\.json says \d+: cut short, or another file",
        ),
        (
            lambda f: (f / "index.json").unlink(),
            r"/index\.json: not there; write shards with aud",
        ),
        (
            lambda f: (f / "index.json").write_text("{}"),
            r"/index\.json: not what audioml shard w",
        ),
        (
            lambda f: (f / "index.json").write_text("no"),
            r"/index\.json: not what audioml shard w",
        ),
        (lambda f: (f / "index.parquet").unlink(), r"/index\.parquet: not there; restore it"),
        (lambda f: (f / "index.parquet").write_bytes(b"x"), r"/index\.parquet: not the index"),
        (
            lambda f: spoil(f, lambda summary: summary.pop("labels")),
            r"/index\.json: not what audioml shard writes; write the shards anew",
        ),
        (lambda f: (f / "index.json").write_text("[1]"), r"/index\.json: not what audioml shard w"),
        (
            lambda f: spoil(f, lambda summary: summary["labels"].pop()),
            r"/index\.parquet: not what audioml shard writes; write the shards anew",
        ),
        (
            lambda f: spoil(f, lambda summary: summary.update(format=2)),
            r"/index\.json: shards of format 2, and this program reads 1; write them anew",
        ),
    ],
    ids=[
        "missing",
        "cut",
        "unfinished",
        "empty",
        "no json",
        "no index",
        "other index",
        "no labels",
        "a list",
        "fewer labels",
        "newer",
    ],
)
def test_damage_is_found_before_training(harm, message, packed):
    harm(packed)
    with pytest.raises(DataError, match=rf"\A{packed}{message}[^\n]*\Z"):
        read_shards(str(packed))


def test_shards_that_changed_places_are_found_when_they_are_read(packed, tmp_path, capsys):
    first, second = (packed / name for name in names(packed)[:2])
    whole = [file.read_bytes() for file in (first, second)]
    size = max(map(len, whole))
    for file, contents in zip((first, second), reversed(whole), strict=True):
        file.write_bytes(contents.ljust(size, b"\0"))

    def fit(summary):
        for shard in summary["shards"][:2]:
            shard["size"] = size

    spoil(packed, fit)
    settings = [*on_shards(packed), "audio.store=stream"]
    assert main(["train", *settings, f"run.dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {packed}/shard-00000")
    assert "is another file than index.parquet says: changed, cut short, or another shard" in error
    assert error.count("\n") == 1


def test_an_index_can_not_ask_for_any_amount_of_memory(packed):
    file = packed / "index.parquet"
    frame = pd.read_parquet(file)
    for column, value, message in (
        ("n_frames", 1 << 40, "a clip of 1,099,511,627,776 samples"),
        ("rate", 1 << 30, "its header says 1073741824 Hz"),
        ("sample_format", "f128", "samples of format 'f128'"),
    ):
        spoiled = frame.copy()
        spoiled.loc[3, column] = value
        manifest = shards.make_manifest(
            read_shards(str(packed)).clips[0].packed.folder,
            json.loads((packed / "index.json").read_text()),
            spoiled,
        )
        with pytest.raises(DataError, match=message):
            scan_headers(manifest, RATE)


def test_an_interrupted_writing_is_not_taken_for_shards(manifest, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("audioml.sharding._write_index", lambda *_: 1 / 0)
        with pytest.raises(DataError, match=r"out: can't be written \(division by zero\); mend"):
            write_shards(manifest, str(out), sample_rate=RATE, shard_mib=SMALL_MIB)
    assert names(out)
    with pytest.raises(DataError, match=r"index\.json: not there"):
        read_shards(str(out))
    with pytest.raises(DataError, match=r"out: holds archives, of an interrupted writing or"):
        write_shards(manifest, str(out), sample_rate=RATE, shard_mib=SMALL_MIB)


def test_places_where_nothing_can_be_written(manifest, tmp_path):
    (tmp_path / "file").write_text("")
    for place, message in (("file", "Not a directory"), ("file/in", "Not a directory")):
        with pytest.raises(DataError, match=rf"\A{tmp_path / place}[^\n]*{message}[^\n]*\Z"):
            write_shards(manifest, str(tmp_path / place), sample_rate=RATE)


def test_names_do_not_depend_on_how_the_folder_is_called(packed, monkeypatch):
    monkeypatch.chdir(packed.parent)
    (packed.parent / "audio").symlink_to(packed)
    paths = [read_shards(name).relative_path(0) for name in (str(packed), "packed", "audio")]
    assert len(set(paths)) == 1
    assert paths[0].startswith("audio/")


def test_a_rate_too_far_away_is_a_bad_clip_as_in_a_file(packed):
    found = read_shards(str(packed))
    with pytest.raises(DataError, match=r"45 of 45 clips can't be decoded"):
        decode_all(found, scan_headers(found, 8000 * 200), 8000 * 200)

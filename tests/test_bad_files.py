"""data.on_bad_file: stop names the bad files, skip leaves them out and nothing else."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
from tiny import RATE, SETTINGS, make_tiny

from audioml import streaming
from audioml.bad_files import skip_bad_files
from audioml.cli import main
from audioml.config import DataConfig
from audioml.datasets import load_manifest
from audioml.datasets.manifest import Clip, DataError, Manifest
from audioml.splits import SplitError, make_split, split_digest, split_table

SKIP = ["data.on_bad_file=skip", "data.max_bad_share=0.1", "train.epochs=1"]
BAD = {  # of training, validation and test under nested, fold 1
    "3-30-A-0.wav": "not readable as audio",
    "2-1020-A-1.wav": "NaN or infinite",
    "1-2012-A-2.wav": "No such file",
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("data") / "clean")


@pytest.fixture(scope="module")
def damaged(clean):
    root = clean.with_name("damaged")
    shutil.copytree(clean, root)
    text, nan, missing = (root / "audio" / name for name in BAD)
    text.write_text("404: not found")
    soundfile.write(nan, np.full(3000, np.nan), RATE, subtype="FLOAT")
    missing.unlink()
    return root


@pytest.fixture(scope="module")
def skipped(damaged, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "skipped"
    assert run("train", damaged, folder, *SKIP) == 0
    return folder


def run(verb, data, folder, *settings):
    return main([verb, *SETTINGS, f"data.root={data}", f"run.dir={folder}", *settings])


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_every_bad_file_is_listed(skipped):
    table = pd.read_csv(skipped / "bad_files.csv")
    assert table["row"].tolist() == [7, 19, 33]
    assert table["path"].tolist() == [f"audio/{name}" for name in BAD]
    assert table["part"].tolist() == ["train", "val", "test"]
    for expected, reason in zip(BAD.values(), table["reason"], strict=True):
        assert expected in reason
    summary = read_summary(skipped)
    assert summary["bad_files"] == table[["path", "reason"]].to_dict("records")
    assert [summary[f"n_{part}"] for part in ("train", "val", "test", "dropped")] == [26, 8, 8, 3]
    log = (skipped / "log.txt").read_text()
    assert log.count("bad file  ") == 3
    assert "skipped   3 of 45 clips, listed in bad_files.csv" in log


def test_all_others_keep_their_parts(clean, skipped):
    manifest = load_manifest(DataConfig(name="esc10", root=str(clean)))
    whole = split_table(manifest, split_of(manifest)).astype({"source": int})
    rest = pd.read_csv(skipped / "split.csv")
    is_bad = whole["path"].isin([f"audio/{name}" for name in BAD])
    pd.testing.assert_frame_equal(rest[~is_bad], whole[~is_bad], check_dtype=False)
    assert set(rest.loc[is_bad, "part"]) == {"dropped"}


def test_streaming_leaves_out_the_same(damaged, skipped, tmp_path):
    assert run("train", damaged, tmp_path / "run", *SKIP, "audio.store=stream") == 0
    ours, resident = read_summary(tmp_path / "run"), read_summary(skipped)
    assert ours["bad_files"] == resident["bad_files"]
    assert ours["loss"] == pytest.approx(resident["loss"], abs=1e-5)


def test_a_file_that_turns_bad_while_it_is_streamed_stops_the_run(
    damaged, tmp_path, monkeypatch, capsys
):
    root = tmp_path / "data"
    shutil.copytree(damaged, root)
    begin = streaming.StreamingStore.__init__

    def remove_one(*arguments, **options):
        begin(*arguments, **options)
        (root / "audio" / "3-31-A-0.wav").unlink()

    monkeypatch.setattr(streaming.StreamingStore, "__init__", remove_one)
    assert run("train", root, tmp_path / "run", *SKIP, "audio.store=stream") == 2
    error = capsys.readouterr().err
    assert "3-31-A-0.wav" in error
    assert "No such file" in error


def test_a_resumed_run_needs_the_same_files(clean, damaged, skipped, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(skipped, folder)
    assert main(["train", f"resume={folder}"]) == 0
    assert read_summary(folder)["loss"] == read_summary(skipped)["loss"]
    mended = damaged / "audio" / "1-2012-A-2.wav"
    shutil.copy(clean / "audio" / mended.name, mended)
    assert main(["train", f"resume={folder}"]) == 2
    mended.unlink()
    assert "not the data the run began with (test changed)" in capsys.readouterr().err


def test_a_cross_validation_tests_all_that_is_left(damaged, tmp_path):
    root, folder = tmp_path / "data", tmp_path / "crossval"
    shutil.copytree(damaged, root)
    meta = root / "meta" / "esc50.csv"
    table = pd.read_csv(meta)
    table[table["fold"] <= 2].to_csv(meta, index=False)
    settings = "splits.protocol=fixed", "data.max_bad_share=0.2"
    assert run("crossval", root, folder, *SKIP, *settings) == 0
    paths = pd.read_csv(folder / "predictions.csv")["path"]
    assert len(paths) == paths.nunique() == 16
    assert not set(paths) & {f"audio/{name}" for name in BAD}
    assert [len(fold["bad_files"]) for fold in read_summary(folder)["folds"]] == [2, 2]


def test_stop_is_the_default(damaged, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(damaged, root)
    assert run("train", root, tmp_path / "run") == 2
    assert "1 of 45 files are not in" in capsys.readouterr().err
    (root / "audio" / "1-2012-A-2.wav").touch()
    assert run("train", root, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "3 of 45 clips can't be decoded; mend them, or leave them out with" in error
    assert all(name in error for name in BAD)
    assert not (tmp_path / "run").exists()


def test_more_than_the_share_is_refused(damaged, tmp_path, capsys):
    assert run("train", damaged, tmp_path / "run", *SKIP, "data.max_bad_share=0.05") == 2
    error = capsys.readouterr().err
    assert "error: 3 of 45 clips (6.7%) can't be decoded, more than data.max_bad_share=" in error
    assert error.splitlines()[-1].startswith("error: 3 of 45")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def manifest(tmp_path):
    """Clips of two classes, each in every of three folds."""
    clips = tuple(
        Clip(
            path=tmp_path / f"{number}.wav",
            label="ab"[number % 2],
            target=number % 2,
            source=f"{number}",
            fold=number // 2 % 3 + 1,
        )
        for number in range(60)
    )
    return Manifest(name="few", root=tmp_path, labels=("a", "b"), clips=clips)


def split_of(manifest, protocol="nested"):
    shares = {"test_share": 0.2, "val_share": 0.2}
    return make_split(manifest, protocol=protocol, fold=1, seed=0, strict_sources=False, **shares)


@pytest.mark.parametrize("protocol", ["nested", "fixed", "holdout"])
def test_parts_are_those_of_the_whole_without_the_bad(manifest, protocol):
    whole = split_of(manifest, protocol)
    split, table = skip_bad_files(manifest, whole, {8: "cut", 3: "text"}, max_share=0.05)
    for part, clips in split.parts.items():
        assert clips.tolist() == [clip for clip in whole.parts[part] if clip not in (3, 8)]
    assert split.dropped.tolist() == [3, 8]
    assert table["reason"].tolist() == ["text", "cut"]
    same, nothing = skip_bad_files(manifest, whole, {}, max_share=0)
    assert len(nothing) == 0
    for part, clips in same.parts.items():
        assert split_digest(manifest, clips) == split_digest(manifest, whole.parts[part])


def test_the_share_is_the_most_that_may_be_bad(manifest):
    split, bad = split_of(manifest), {8: "cut", 3: "text", 5: "text"}
    skip_bad_files(manifest, split, bad, max_share=0.05)
    with pytest.raises(
        DataError, match=r"^3 of 60 clips \(5\.0%\) .*such as row 4 \(3\.wav\): text"
    ):
        skip_bad_files(manifest, split, bad, max_share=0.049)


def test_many_bad_files_are_counted(manifest, caplog):
    bad = dict.fromkeys(range(2, 30), "cut")
    skip_bad_files(manifest, split_of(manifest), bad, max_share=0.5)
    assert len(caplog.records) == 22
    assert "bad file  and 8 more" in caplog.text


@pytest.mark.parametrize(("fold", "part"), [(1, "test"), (2, "val"), (3, "train")])
def test_no_part_may_lose_a_class(manifest, fold, part):
    clips = enumerate(manifest.clips)
    bad = {n: "cut" for n, clip in clips if (clip.fold, clip.label) == (fold, "b")}
    match = rf"few \(nested, fold 1\): without 10 bad files no clip of b is left in {part}; mend"
    with pytest.raises(SplitError, match=match):
        skip_bad_files(manifest, split_of(manifest), bad, max_share=0.5)

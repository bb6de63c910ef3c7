import json
from itertools import combinations
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audioml.datasets import synthetic
from audioml.datasets.manifest import DataError
from audioml.datasets.synthetic import (
    CLASSES,
    N_SAMPLES,
    SAMPLE_RATE,
    list_clips,
    prepare_synthetic,
    synthesize_clip,
)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "nested" / "synthetic"
    prepare_synthetic(root, seed=0)
    return root


@pytest.fixture(scope="session")
def clips(made: Path) -> pd.DataFrame:
    return pd.read_csv(made / "meta" / "esc50.csv")


@pytest.fixture(scope="session")
def waveforms(made: Path, clips: pd.DataFrame) -> NDArray[np.int16]:
    return np.stack(
        [soundfile.read(made / "audio" / name, dtype="int16")[0] for name in clips.filename]
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    rows = list_clips().iloc[::57]
    monkeypatch.setattr(synthetic, "list_clips", lambda: rows)
    return rows


def test_clips_and_folds_have_the_counts_of_esc10(clips: pd.DataFrame) -> None:
    assert len(clips) == 400
    assert (clips.groupby(["category", "fold"]).size() == 8).all()
    assert set(clips.fold) == {1, 2, 3, 4, 5}
    assert list(dict.fromkeys(clips.category)) == list(CLASSES)
    assert (clips.groupby("category").target.nunique() == 1).all()
    assert set(clips.target) == set(range(10))
    assert clips.esc10.all()


def test_sources_stay_in_one_fold_and_class_and_are_shared_as_in_esc10(clips: pd.DataFrame) -> None:
    sources = clips.groupby("src_file")
    assert (sources.fold.nunique() == 1).all()
    assert (sources.target.nunique() == 1).all()
    sizes = sources.size()
    assert set(sizes) == {1, 2, 3, 4}
    by_class = clips.src_file.map(sizes).gt(1).groupby(clips.category).mean()
    assert (by_class == 0.4).all()


def test_file_names_follow_esc50(made: Path, clips: pd.DataFrame) -> None:
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    assert list(clips.columns) == columns
    parts = clips.filename.str.extract(r"^(\d)-(\d+)-([A-D])-(\d)\.wav$")
    expected = clips[["fold", "src_file", "take", "target"]].astype(str)
    np.testing.assert_array_equal(parts, expected)
    assert {path.name for path in (made / "audio").iterdir()} == set(clips.filename)


def test_files_are_mono_16_bit_wav_of_5_s(made: Path) -> None:
    for path in sorted((made / "audio").iterdir()):
        info = soundfile.info(path)
        assert (info.format, info.subtype, info.channels) == ("WAV", "PCM_16", 1)
        assert (info.samplerate, info.frames) == (22_050, 110_250)


def test_files_hold_the_synthesized_clips(
    clips: pd.DataFrame, waveforms: NDArray[np.int16]
) -> None:
    for index in (0, 1, 399):
        row = clips.iloc[index]
        take = "ABCD".index(row["take"])
        clip = synthesize_clip(row.category, row.src_file, take, seed=0)
        np.testing.assert_array_equal(waveforms[index], np.rint(clip * 32_767))


def test_no_clip_is_silent_clipped_or_offset(waveforms: NDArray[np.int16]) -> None:
    scaled = waveforms / 32_768.0
    peak = np.abs(scaled).max(axis=1)
    assert peak.min() > 0.09
    assert peak.max() < 0.9
    assert np.sqrt(np.mean(scaled**2, axis=1)).min() > 1e-3
    assert np.abs(scaled.mean(axis=1)).max() < 0.02


def test_levels_vary(waveforms: NDArray[np.int16]) -> None:
    peak_db = 20 * np.log10(np.abs(waveforms.astype(np.int32)).max(axis=1))
    assert np.ptp(peak_db) > 15


def test_no_two_clips_are_identical(waveforms: NDArray[np.int16]) -> None:
    assert len({clip.tobytes() for clip in waveforms}) == 400


def test_clips_of_a_source_are_not_copies_of_each_other(
    clips: pd.DataFrame, waveforms: NDArray[np.int16]
) -> None:
    for siblings in clips.groupby("src_file").indices.values():
        scaled = waveforms[siblings] / np.linalg.norm(waveforms[siblings], axis=1, keepdims=True)
        spectra = np.fft.rfft(scaled)
        for first, second in combinations(spectra, 2):
            at_any_lag = np.fft.irfft(first * second.conj())
            assert np.abs(at_any_lag).max() < 0.8


@pytest.mark.parametrize("label", CLASSES)
def test_clip_is_finite_and_depends_on_every_part_of_its_key(label: str) -> None:
    clip = synthesize_clip(label, 3, 0, seed=0)
    assert clip.shape == (N_SAMPLES,)
    assert clip.dtype == np.float32
    assert np.isfinite(clip).all()
    np.testing.assert_array_equal(clip, synthesize_clip(label, 3, 0, seed=0))
    for source, take, seed in ((4, 0, 0), (3, 1, 0), (3, 0, 1)):
        other = synthesize_clip(label, source, take, seed=seed)
        assert abs(np.corrcoef(clip, other)[0, 1]) < 0.5


def _read_all(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path, small: pd.DataFrame) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        prepare_synthetic(tmp_path / name, seed=seed)
    a, b, c = (_read_all(tmp_path / name) for name in "abc")
    assert len(a) == len(small) + 2
    assert a == b
    assert all(a[name] != c[name] for name in a if name.endswith(".wav"))


def test_clips_do_not_depend_on_which_others_are_made(
    tmp_path: Path, made: Path, small: pd.DataFrame
) -> None:
    prepare_synthetic(tmp_path / "few", seed=0)
    for filename in small.filename:
        few, all_ = (root / "audio" / filename for root in (tmp_path / "few", made))
        assert few.read_bytes() == all_.read_bytes()


def test_existing_set_is_left_alone(tmp_path: Path, small: pd.DataFrame) -> None:
    root = tmp_path / "set"
    prepare_synthetic(root, seed=0)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    prepare_synthetic(root, seed=0)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_interrupted_set_leaves_nothing_and_can_be_made_again(
    tmp_path: Path, small: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "synthesize_clip", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare_synthetic(tmp_path / "set", seed=0)
    assert list(tmp_path.iterdir()) == []
    prepare_synthetic(tmp_path / "set", seed=0)
    assert len(list((tmp_path / "set" / "audio").iterdir())) == len(small)


@pytest.mark.parametrize("rival_seed", [0, 1])
def test_another_run_may_finish_first(
    tmp_path: Path, small: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, rival_seed: int
) -> None:
    root = tmp_path / "set"
    write = synthetic._write

    def lose(folder: Path, marker: dict[str, int]) -> None:
        write(folder, marker)
        write(root, marker | {"seed": rival_seed})

    monkeypatch.setattr(synthetic, "_write", lose)
    if rival_seed == 0:
        prepare_synthetic(root, seed=0)
    else:
        with pytest.raises(DataError, match="'seed': 1"):
            prepare_synthetic(root, seed=0)
    assert json.loads((root / "synthetic.json").read_text())["seed"] == rival_seed
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"version": 0}, {"n_clips": 3}])
def test_set_of_another_kind_is_refused(
    tmp_path: Path, small: pd.DataFrame, change: dict[str, int]
) -> None:
    prepare_synthetic(tmp_path / "set", seed=0)
    file = tmp_path / "set" / "synthetic.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    before = _read_all(tmp_path)
    with pytest.raises(DataError, match=r"set: expected .*'seed': 0.* found .*remove this one"):
        prepare_synthetic(tmp_path / "set", seed=0)
    assert _read_all(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"not json", b"\xff\xfe", b"[1]", None])
def test_foreign_folder_is_refused(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    if content is not None:
        (tmp_path / "synthetic.json").write_bytes(content)
    before = _read_all(tmp_path)
    with pytest.raises(DataError, match=r"found .*; name another folder as data\.root"):
        prepare_synthetic(tmp_path, seed=0)
    assert _read_all(tmp_path) == before


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "set"
    file.write_text("mine")
    with pytest.raises(DataError, match="something else"):
        prepare_synthetic(file, seed=0)
    assert file.read_text() == "mine"


@pytest.fixture(scope="session")
def log_mels(waveforms: NDArray[np.int16]) -> NDArray[np.float32]:
    mels = [
        librosa.feature.melspectrogram(y=clip, sr=SAMPLE_RATE, n_fft=2048, hop_length=512)
        for clip in waveforms / np.float32(32_768)
    ]
    return 10 * np.log10(np.stack(mels) + 1e-10)


@pytest.mark.parametrize("statistics", ["mean", "mean and std"])
def test_linear_model_on_pooled_log_mels_falls_short(
    clips: pd.DataFrame, log_mels: NDArray[np.float32], statistics: str
) -> None:
    features = log_mels.mean(axis=2)
    if statistics == "mean and std":
        features = np.concatenate([features, log_mels.std(axis=2)], axis=1)
    test = (clips.fold == 1).to_numpy()
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    probe.fit(features[~test], clips.target[~test])
    accuracy = probe.score(features[test], clips.target[test])
    assert 0.2 < accuracy < 0.9

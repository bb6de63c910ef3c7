from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from audioml.datasets.esc50 import read_esc50
from audioml.datasets.manifest import Clip, Manifest
from audioml.verify import OFFICIAL_SIZES, Report, verify

RATE = 8_000


def noise(seed: int, n_samples: int = RATE) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, n_samples)


def write_set(root: Path, n_classes: int = 2, n_folds: int = 2, n_clips: int = 1) -> Manifest:
    """Write ``n_clips`` clips a class and fold, each of its own noise."""
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for i, (target, fold, take) in enumerate(np.ndindex(n_classes, n_folds, n_clips)):
        name = f"{fold + 1}-{take}-A-{target}.wav"
        lines.append(f"{name},{fold + 1},{target},class{target},True,{i},A")
        soundfile.write(root / "audio" / name, noise(i), RATE, subtype="PCM_16")
    (root / "meta" / "esc50.csv").write_text("\n".join(lines))
    return load(root)


def load(root: Path) -> Manifest:
    return read_esc50(root, name="small", check_files=False)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_set(tmp_path / "set")


def value(report: Report, name: str) -> str:
    return dict(report.table)[name]


def matching(lines: Sequence[str], part: str) -> list[str]:
    return [line for line in lines if part in line]


def overwrite(clip: Clip, waveform: NDArray[np.float64], rate: int = RATE) -> None:
    soundfile.write(clip.path, waveform, rate, subtype="PCM_16")


def test_a_sound_set_has_no_defect_and_no_note(manifest: Manifest) -> None:
    report = verify(manifest)
    assert report.defects == ()
    assert report.notes == ()
    assert value(report, "rows") == value(report, "files") == "4"
    assert value(report, "classes") == "2 with 2 clips each"
    assert value(report, "folds") == "2 with 2 clips each"
    assert value(report, "class and fold") == "4 with 1 clips each"
    assert value(report, "sample rates") == "8000 Hz (4 clips)"
    assert value(report, "channels") == "1 (4 clips)"
    assert value(report, "lengths") == "1.00 s min, 1.00 s median, 1.00 s max"


def test_the_text_holds_every_finding(manifest: Manifest) -> None:
    manifest.clips[0].path.unlink()
    overwrite(manifest.clips[1], noise(9, 4_000))
    report = verify(manifest)
    text = report.text()
    assert text.startswith(f"small at {manifest.root}\n")
    assert all(f"{name} " in text and content in text for name, content in report.table)
    assert f"DEFECT: {report.defects[0]}" in text
    assert f"note: {report.notes[0]}" in text
    assert text.endswith("1 defects")


def test_missing_files(manifest: Manifest) -> None:
    manifest.clips[2].path.unlink()
    report = verify(load(manifest.root))
    assert report.defects == ("1 missing: row 3 (1-0-A-1.wav)",)
    assert value(report, "files") == "3"
    assert value(report, "missing files") == "1"


def test_an_empty_folder_is_reported(manifest: Manifest) -> None:
    for clip in manifest.clips:
        clip.path.unlink()
    report = verify(load(manifest.root))
    assert value(report, "missing files") == "4"
    assert len(report.defects) == 1


def test_files_without_a_row(manifest: Manifest) -> None:
    soundfile.write(manifest.root / "audio" / "stranger.flac", noise(9), RATE)
    report = verify(manifest)
    assert report.defects == ("1 without a row in the metadata: stranger.flac",)
    assert value(report, "files without a row") == "1"


def test_files_with_nan_are_unreadable(manifest: Manifest) -> None:
    soundfile.write(manifest.clips[1].path, np.full(RATE, np.nan), RATE, subtype="FLOAT")
    (defect,) = verify(manifest).defects
    assert defect.startswith("row 2 (2-0-A-0.wav)")
    assert "NaN" in defect


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"not audio at all", "not readable as audio")],
)
def test_unreadable_files(manifest: Manifest, content: bytes, reason: str) -> None:
    manifest.clips[1].path.write_bytes(content)
    report = verify(manifest)
    assert value(report, "unreadable files") == "1"
    (defect,) = report.defects
    assert defect.startswith("row 2 (2-0-A-0.wav)")
    assert reason in defect


def test_silent_clips(manifest: Manifest) -> None:
    overwrite(manifest.clips[3], np.zeros(RATE))
    report = verify(manifest)
    assert report.defects == ("1 nothing but zeros: row 4 (2-0-A-1.wav)",)
    assert value(report, "silent clips") == "1"


@pytest.mark.parametrize(("n_full", "is_clipped"), [(10, False), (11, True)])
@pytest.mark.parametrize("sign", [1, -1])
def test_clipped_clips_are_noted(
    manifest: Manifest, n_full: int, is_clipped: bool, sign: int
) -> None:
    waveform = noise(9)
    waveform[:n_full] = sign
    overwrite(manifest.clips[0], waveform)
    report = verify(manifest)
    assert report.defects == ()
    assert value(report, "clipped clips") == str(int(is_clipped))
    assert bool(matching(report.notes, "full scale: row 1 (1-0-A-0.wav)")) == is_clipped


def test_mixed_formats_are_noted(manifest: Manifest) -> None:
    overwrite(manifest.clips[0], noise(9, 2 * RATE), 2 * RATE)
    overwrite(manifest.clips[1], np.stack([noise(10, 4_000), noise(11, 4_000)], axis=1))
    report = verify(manifest)
    assert report.defects == ()
    assert value(report, "sample rates") == "8000 Hz (3 clips), 16000 Hz (1 clips)"
    assert value(report, "channels") == "1 (3 clips), 2 (1 clips)"
    assert value(report, "lengths") == "0.50 s min, 1.00 s median, 1.00 s max"
    assert report.notes == (
        "2 different sample rates",
        "2 different channel counts",
        "2 different lengths",
    )


def test_duplicates_across_folds(manifest: Manifest) -> None:
    manifest.clips[3].path.write_bytes(manifest.clips[0].path.read_bytes())
    report = verify(manifest)
    assert report.defects == (
        "2 files with the same bytes across folds 1, 2: row 1 (1-0-A-0.wav), row 4 (2-0-A-1.wav)",
    )
    assert value(report, "duplicates") == "1"


def test_duplicates_in_one_fold(manifest: Manifest) -> None:
    manifest.clips[2].path.write_bytes(manifest.clips[0].path.read_bytes())
    (defect,) = verify(manifest).defects
    assert defect.startswith("2 files with the same bytes: ")


def test_two_parts_of_one_file_are_no_duplicates(manifest: Manifest) -> None:
    whole = manifest.clips[0]
    halves = (replace(whole, end_s=0.5), replace(whole, start_s=0.5))
    report = verify(replace(manifest, clips=(*halves, *manifest.clips[1:])))
    assert report.defects == ()
    assert value(report, "lengths").startswith("0.50 s min")


def test_imbalance_shows_in_the_table(manifest: Manifest) -> None:
    report = verify(replace(manifest, clips=manifest.clips[:3]))
    assert value(report, "classes") == "2 with 1 to 2 clips each"
    assert value(report, "class and fold") == "4 with 0 to 1 clips each"
    assert report.defects == ()


def test_official_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert OFFICIAL_SIZES == {"esc50": (2000, 50, 5), "esc10": (400, 10, 5)}
    monkeypatch.setitem(OFFICIAL_SIZES, "esc10", (12, 3, 2))
    manifest = replace(write_set(tmp_path, n_classes=3, n_folds=2, n_clips=2), name="esc10")
    assert verify(manifest).defects == ()
    shortened = replace(manifest, clips=manifest.clips[:-1])
    assert verify(shortened).defects == (
        "11 rows, expected 12",
        "classes: 3 class2; expected 4 clips each",
        "folds: 5 fold 2; expected 6 clips each",
        "class and fold: 1 class2 in fold 2; expected 2 clips each",
    )
    moved = replace(manifest, clips=(replace(manifest.clips[0], fold=3), *manifest.clips[1:]))
    assert "folds: 3, expected 2" in verify(moved).defects


def plant_copy(manifest: Manifest) -> None:
    """Make the last clip a softer copy of the first one that comes 0.1 s later."""
    waveform, _ = soundfile.read(manifest.clips[0].path)
    later = np.concatenate((np.zeros(RATE // 10), 0.5 * waveform[: -RATE // 10]))
    overwrite(manifest.clips[3], later)


def test_one_sound_under_two_sources_is_a_warning(manifest: Manifest) -> None:
    plant_copy(manifest)
    report = verify(manifest)
    assert report.defects == ()
    assert value(report, "near-duplicates") == "1"
    (pair,) = report.near_duplicates or ()
    assert (pair.left, pair.right) == (manifest.describe(0), manifest.describe(3))
    assert pair.lag_s == pytest.approx(0.1, abs=1e-4)
    assert pair.score > 0.6
    assert f"WARNING: one sound under two sources: {pair.left} and {pair.right}" in report.text()
    assert report.content()["near_duplicates"][0]["score"] == pair.score


def test_one_sound_under_one_source_is_none(manifest: Manifest) -> None:
    plant_copy(manifest)
    clips = tuple(replace(clip, source="one") for clip in manifest.clips)
    assert verify(replace(manifest, clips=clips)).near_duplicates == ()


def test_near_duplicates_need_not_be_looked_for(manifest: Manifest) -> None:
    plant_copy(manifest)
    report = verify(manifest, finds_near_duplicates=False)
    assert report.near_duplicates is None
    assert value(report, "near-duplicates") == "not looked for"
    assert "WARNING" not in report.text()


def test_near_duplicates_among_damaged_files(manifest: Manifest) -> None:
    plant_copy(manifest)
    manifest.clips[1].path.write_bytes(b"no sound")
    manifest.clips[2].path.unlink()
    assert value(verify(manifest), "near-duplicates") == "1"

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_tiny
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

import frontend
import harness
import leakage
import ours
import pipeline
import report
import step_profile
import variants
from audioml.audit import LeakError
from audioml.clips import collect
from audioml.datasets.manifest import Clip, Manifest
from audioml.splits import SplitError
from audioml.store import WaveformStore
from harness import Case, Result, UnavailableError, Workload
from material import Chain

LEAKY = ["--epochs=2", "--batch=8", "--width=4", "--mels=16", "--clip-s=0.5", "--amp=fp32"]
CPU = torch.device("cpu")
TINY = ["--cases=ours", "--clips=8", "--batch=4", "--clip-s=0.5", "--min-time=0.01", "--rounds=1"]


def fake(name, rates=(), **settings):
    return Result(case=Case(name=name, build=lambda: None, **settings), rates=list(rates))


def build_counting(calls, name, n_clips=1):
    return lambda: Workload(step=lambda: calls.append(name), n_clips=n_clips)


def build_unavailable():
    raise UnavailableError("needs a | device")


def run(cases, rounds=4):
    return harness.measure(cases, device=CPU, rounds=rounds, min_time_s=0.001)


def test_median_and_spread():
    result = fake("a", [1, 2, 3, 4, 100])
    assert result.median == 3
    assert result.relative_iqr == pytest.approx(2 / 3)


def test_ratio_is_taken_within_rounds():
    # The machine slowed down tenfold in the second round: no ratio of medians would be 2.
    case, reference = fake("a", [20, 2, 30, 40]), fake("b", [10, 1, 15, 20])
    assert harness.ratio(case, reference) == 2


def test_the_fastest_reference_counts():
    slow, fast = fake("chunks of 1", [10, 10]), fake("chunks of 4", [20, 20])
    case = fake("a", [5, 5], reference=("chunks of 1", "chunks of 4", "not measured"))
    assert harness.find_reference(case, [case, slow, fast]) is fast
    assert harness.find_reference(slow, [case, slow, fast]) is None


def test_every_round_runs_every_case_in_an_order_of_its_own():
    calls = []

    def build(name):
        return Workload(step=lambda: None, n_clips=1, before=lambda: calls.append(name))

    names = "abcdef"
    results = run([Case(name=n, build=lambda n=n: build(n)) for n in names], rounds=5)
    rounds = [calls[start : start + 6] for start in range(len(calls) - 30, len(calls), 6)]
    assert all(sorted(part) == list(names) for part in rounds)
    assert len({tuple(part) for part in rounds}) > 1
    assert [len(result.rates) for result in results] == [5] * 6


def test_rate_counts_the_clips_of_a_step():
    calls = []
    one, ten = run(
        [
            Case(name="1", build=build_counting(calls, "one")),
            Case(name="10", build=build_counting(calls, "ten", n_clips=1000)),
        ]
    )
    assert ten.median > 10 * one.median


def test_a_missing_peer_stays_in_the_table():
    working = Case(name="works", build=build_counting([], ""))
    missing = Case(name="peer", build=build_unavailable, caveat="no stretch", reference=("works",))
    lines = report.table(run([missing, working])).splitlines()
    assert lines[2].startswith("| peer | missing: UnavailableError: needs a / device |")
    assert lines[2].endswith("| no stretch |")
    assert lines[3].startswith("| works | **")


def test_our_own_case_must_run():
    with pytest.raises(UnavailableError):
        run([Case(name="ours", build=build_unavailable, is_ours=True)])


def test_selection_by_parts_of_names():
    cases = [fake("ours, x", is_ours=True).case, fake("DALI").case, fake("librosa").case]
    assert [c.name for c in harness.select(cases, "ours, dali")] == ["ours, x", "DALI"]
    assert harness.select(cases, "") == cases
    with pytest.raises(ValueError, match=r"nnaudio fits no case; there are: ours, x; DALI"):
        harness.select(cases, "nnaudio")


def test_only_levels_that_stand_out_are_compared():
    reference = torch.tensor([[[0.0, -59.0, -61.0]]])
    off = harness.level_difference(reference + torch.tensor([0.5, 1.5, 40.0]), reference)
    assert off == (1.0, 1.5)


def test_rates_keep_three_digits():
    assert [report.format_rate(r) for r in (0.01234, 1.234, 12.34, 1234.5)] == [
        "0.0123",
        "1.23",
        "12.3",
        "1,234",
    ]


@pytest.mark.parametrize(
    ("main", "subject", "settings"),
    [
        (pipeline.main, "pipeline", ["--n-fft=512"]),
        (frontend.main, "frontend", ["--n-ffts", "512", "1024"]),
    ],
)
def test_runs_and_keeps_every_result(main, subject, settings, tmp_path, monkeypatch):
    n_threads = torch.get_num_threads()
    argv = [f"{subject}.py", *TINY, *settings, f"--results={tmp_path}", f"--threads={n_threads}"]
    monkeypatch.setattr(sys, "argv", argv)
    main()
    main()
    first, second = sorted(tmp_path.glob("*.md"), key=lambda file: len(file.name))
    assert first.name.startswith(f"{subject}_cpu_")
    assert second.stem == f"{first.stem}_2"
    rows = [line.split(" | ") for line in first.read_text().splitlines() if "| ours, " in line]
    assert all(float(row[1].strip("*").replace(",", "")) > 0 for row in rows)
    off = [float(number) for row in rows for number in row[4].split(", ") if number]
    assert off
    assert max(off) < 0.01


def test_kernels_belong_to_the_model_or_to_the_batch_by_their_stream():
    def on_cuda(name, stream, us, is_range=False):
        return FunctionEvent(
            0,
            name,
            0,
            0.0,
            us,
            device_type=DeviceType.CUDA,
            use_device="cuda",
            device_resource_id=stream,
            is_user_annotation=is_range,
        )

    events = [
        on_cuda(step_profile.MODEL, 7, 100.0, is_range=True),
        on_cuda("implicit_convolve_sgemm", 7, 60.0),
        on_cuda("frames_kernel", 20, 30.0),
        on_cuda("Memcpy HtoD (Pageable -> Device)", 20, 5.0),
    ]
    part_us = step_profile.split_cuda(events)
    frames = next(part for part, name in step_profile.KERNELS.items() if name == "frames_kernel")
    assert part_us == {step_profile.MODEL: 60.0, frames: 30.0, step_profile.PLAN: 5.0}


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch for CUDA")
def test_kernels_compile_for_gpus_that_are_not_here():
    script = Path(__file__).parent.parent / "benchmarks" / "kernels.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if "sm_" in line]
    assert {row[1].strip() for row in rows} == {"sm_80", "sm_90"}
    assert {row[0].strip() for row in rows} == {"frames_kernel", "log_mel_kernel"}
    assert all(int(row[-1]) == 0 for row in rows), "registers are spilled"


def make_pairs(n_pairs=5):
    """3 folds x 2 classes x ``n_pairs`` sources of two clips each."""
    clips = [
        Clip(path=Path(f"{s}-{take}.wav"), label="ab"[t], target=t, source=f"{s}", fold=s % 3 + 1)
        for t in range(2)
        for s in range(3 * n_pairs * t, 3 * n_pairs * (t + 1))
        for take in "AB"
    ]
    return Manifest(name="pairs", root=Path(), labels=("a", "b"), clips=tuple(clips))


def make_leak_splits(manifest, fold=2):
    listed = variants.list_variants(manifest)
    return listed, variants.make_splits(listed, fold=fold, batch_size=8, seed=0)


def test_leaks_are_what_the_splits_are_named_for():
    listed, splits = make_leak_splits(make_pairs())
    by = {unit: variants.count_leaks(listed, split) for unit, split in splits.items()}
    n_val = len(splits["variant"].val)
    assert by["variant"]["variants of one clip"] > 0.9 * n_val
    assert by["variant"]["same source"] > 0.9 * n_val
    assert by["clip"]["variants of one clip"] == 0
    assert by["clip"]["same source"] > 0
    assert set(by["source"].values()) == {0}


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_leak_splits_differ_in_nothing_else(fold):
    listed, splits = make_leak_splits(make_pairs(), fold)
    n_train = {len(split.train) for split in splits.values()}
    assert len(n_train) == 1
    assert n_train.pop() % 8 == 0
    for split in splits.values():
        covered = np.concatenate([*split.parts.values(), split.dropped])
        assert sorted(covered) == list(range(len(listed)))
        assert all(listed.clips[i].fold == fold for i in split.test)
        assert all(listed.clips[i].path.stem.endswith("_orig") for i in split.test)
        held_out = set(listed.sources[split.test])
        for part in (split.train, split.val):
            assert held_out.isdisjoint(listed.sources[part])
        counts = np.bincount(listed.targets[split.val])
        assert counts[0] == counts[1]


def test_a_leak_into_the_untouched_fold_is_refused():
    listed, splits = make_leak_splits(make_pairs())
    split = replace(splits["source"], test=splits["source"].val[:1])
    with pytest.raises(LeakError):
        variants.count_leaks(listed, split)


def test_leak_splits_need_their_fold():
    with pytest.raises(SplitError, match=r"pairs has no clip in fold 9; choose another fold"):
        make_leak_splits(make_pairs(), fold=9)


def test_variants_for_the_leak_are_the_clip_and_three_changes_of_it():
    chain = Chain(clip_s=0.5, n_mels=16)
    sound = np.random.default_rng(0).integers(-9000, 9000, (3, chain.n_time)).astype(np.int16)
    clips = collect(list(sound))
    store = WaveformStore(clips, n_time=chain.n_time, pad="zero", place="host", device=CPU)
    log_mel = variants.render_variants(store, chain, seed=0)
    assert torch.equal(log_mel, variants.render_variants(store, chain, seed=0))
    of_clip = log_mel.unflatten(0, (3, 4))
    plain = ours.make_log_mel(device=CPU, **chain.frontend)(torch.from_numpy(sound))
    torch.testing.assert_close(of_clip[:, 0], plain)
    for changed, least_db in ((1, 0.001), (2, 0.5), (3, 0.5)):
        assert (of_clip[:, changed] - plain).abs().mean(dim=(1, 2)).min() > least_db


def test_the_leak_experiment_repeats_to_the_digit(tmp_path, monkeypatch):
    data, n_threads = make_tiny(tmp_path / "data"), torch.get_num_threads()
    settings = [f"--data={data}", f"--results={tmp_path}", f"--threads={n_threads}", *LEAKY]
    monkeypatch.setattr(sys, "argv", ["leakage.py", *settings])
    leakage.main()
    leakage.main()
    first, second = sorted(tmp_path.glob("*.md"), key=lambda file: len(file.name))
    tables = [file.read_text().partition("## Where")[0] for file in (first, second)]
    assert tables[0] == tables[1]
    assert "| by variant | last |" in tables[0]
    assert "nan" not in tables[0]
    assert first.with_suffix(".png").is_file()
    assert second.with_suffix(".png").is_file()


def test_a_leak_experiment_that_cannot_be_says_why_in_a_line(tmp_path, monkeypatch, capsys):
    data = make_tiny(tmp_path / "data")
    settings = [f"--data={data}", "--clip-s=0.5", "--batch=999", f"--results={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["leakage.py", *settings])
    with pytest.raises(SystemExit):
        leakage.main()
    assert "fold 1 leaves no batch of 999 to train on" in capsys.readouterr().err.splitlines()[-1]

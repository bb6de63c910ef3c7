import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

import frontend
import harness
import pipeline
import report
import step_profile
from harness import Case, Result, UnavailableError, Workload

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

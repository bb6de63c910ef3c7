"""Where the time of a training step goes, as a table and a picture.

``python benchmarks/step_profile.py --device cpu`` trains the baseline CNN for some steps under
torch's profiler. On a CPU one thread does everything, so that parts add up; on CUDA the time of the
kernels counts, wherever they run.
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice

import torch
from matplotlib.figure import Figure
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

import ours
from machine import describe_machine, device_name, synchronize
from material import Chain, Job, open_job
from report import keep, list_facts, make_parser, parse
from training import Steps

INTRO = """Steps of the baseline CNN on batches that the loader makes, all its augmentation on. On a
CPU one thread does everything and operations are timed by torch's profiler, which makes the many
small ones of the loader dearer than they are; on CUDA the time of all kernels is added up."""

# The parts of a step, by the operations that a CPU does there and the kernels that CUDA runs.
OPERATIONS = {
    "read, mix, add noise": ("zero_", "mul", "add_"),
    "frame, window": ("index_select", "mul_"),
    "FFT": ("fft_rfft",),
    "power, pitch, mel": ("mm",),
    "level, normalise, mask": ("clamp", "log10_", "addcmul", "fill_"),
}
KERNELS = {
    "read, mix, add noise, frame, window": "frames_kernel",
    "FFT": "fft",
    "power, pitch, mel, level, normalise, mask": "log_mel_kernel",
}
PLAN, MODEL = "plan, targets", "model: forward, backward, optimizer"


def split_cpu(events: Iterable[FunctionEvent]) -> dict[str, float]:
    """Add up the time of operations by the part they belong to [us]."""
    part_of = {f"aten::{name}": part for part, names in OPERATIONS.items() for name in names}
    part_us: dict[str, float] = defaultdict(float)
    for event in events:
        ancestors = [event]
        while ancestors[-1].cpu_parent is not None:
            ancestors.append(ancestors[-1].cpu_parent)
        if ancestors[-1].name == MODEL:
            part = MODEL
        else:
            part = next((part_of[e.name] for e in ancestors if e.name in part_of), PLAN)
        part_us[part] += event.self_cpu_time_total
    return part_us


def split_cuda(events: Iterable[FunctionEvent]) -> dict[str, float]:
    """Add up the time of kernels by the part they belong to [us].

    The model's are those of the streams on which its range is marked; the loader has its own.
    """
    on_device = [event for event in events if event.device_type == DeviceType.CUDA]
    streams = {
        event.device_resource_id
        for event in on_device
        if event.is_user_annotation and event.name == MODEL
    }
    part_us: dict[str, float] = defaultdict(float)
    for event in on_device:
        if not event.is_user_annotation:
            parts = (part for part, name in KERNELS.items() if name in event.name)
            others = MODEL if event.device_resource_id in streams else PLAN
            part_us[next(parts, others)] += event.self_device_time_total
    return part_us


def profile_steps(job: Job, n_steps: int) -> dict[str, float]:
    """Train and tell how long each part of a step takes on average [ms]."""
    loader = ours.make_loader(
        job.samples,
        device=job.device,
        batch_size=job.batch_size,
        augment=ours.AugmentConfig(),
        **job.chain.frontend,
    )
    batches = (batch for epoch in ours.epochs(loader) for batch in epoch)
    steps = Steps(ours.make_models()["cnn"](), job.device)

    def run(n: int) -> None:
        for batch in islice(batches, n):
            with record_function(MODEL):
                steps.run([(batch.input, batch.target)])

    run(3)
    synchronize(job.device)
    is_cuda = job.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * is_cuda]
    with profile(activities=activities) as record:
        run(n_steps)
    part_us = (split_cuda if is_cuda else split_cpu)(record.events())
    order = [*(KERNELS if is_cuda else OPERATIONS), PLAN, MODEL]
    return {part: part_us[part] / n_steps / 1000 for part in order if part_us[part]}


def plot(part_ms: dict[str, float], title: str) -> Figure:
    """Draw a step as a bar, and above it the making of its batch, magnified."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    batch, step = figure.subplots(2)
    colours = {part: "0.75" if part == MODEL else f"C{n}" for n, part in enumerate(part_ms)}
    total_ms = sum(part_ms.values())
    batch_ms = {part: ms for part, ms in part_ms.items() if part != MODEL}
    for axes, shown_ms in ((batch, batch_ms), (step, part_ms)):
        begin_ms = 0.0
        for part, ms in shown_ms.items():
            label = f"{part}: {ms / total_ms:.1%}" if axes is step else None
            axes.barh(0, ms, left=begin_ms, color=colours[part], label=label)
            begin_ms += ms
        axes.set(yticks=[], xlim=(0, begin_ms))
        axes.spines[["top", "left", "right"]].set_visible(False)
    batch.set(title=title, xlabel="making the batch [ms]")
    step.set(xlabel="the whole step [ms]")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    return figure


def main() -> None:
    """Profile, print, draw."""
    parser = make_parser("Where the time of a training step goes.")
    parser.add_argument("--steps", type=int, default=20)
    options = parse(parser, cpu=(160, 16), cuda=(2048, 64))
    if options.device.type == "cpu":
        torch.set_num_threads(1)
    chain = Chain(clip_s=options.clip_s)
    with open_job(options, chain) as job:
        part_ms = profile_steps(job, options.steps)
    total_ms = sum(part_ms.values())
    rows = [f"| {part} | {ms:.2f} | {ms / total_ms:.1%} |" for part, ms in part_ms.items()]
    parts = [
        f"# Step profile on {device_name(options.device)}",
        INTRO,
        f"Batches of {options.batch} clips, {chain.describe()}; the mean of {options.steps} steps.",
        "\n".join(["| part | ms | share |", "|---|---:|---:|", *rows]),
        "## Where",
        list_facts(describe_machine(options.device)),
    ]
    file = keep("profile", parts, options)
    title = f"baseline CNN, {options.batch} clips a step, {device_name(options.device)}"
    plot(part_ms, title).savefig(file.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()

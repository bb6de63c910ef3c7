"""How the project's chain scales, one setting at a time.

``python benchmarks/scaling.py --device cpu``; the ratios are to the first row of each table.
"""

import argparse
from dataclasses import dataclass, replace

import torch

from harness import Case, Result, Workload
from material import Chain, load_samples
from pipeline import build_ours, changes_of
from report import Section, make_parser, measure_wanted, parse, publish, thread_counts

INTRO = """The project's loader with noise, pitch and stretch for every clip, as in pipeline.py. One
setting changes, the others stay."""

TITLES = {
    "batch": "Size of a batch",
    "length": "Length of a clip",
    "n_fft": "Length of the transform, the hop a quarter of it",
    "store": "Clips in the store",
    "threads": "Threads of torch",
}
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CLIP_LENGTHS_S = (1.0, 2.0, 5.0, 10.0, 30.0)
N_FFTS = (512, 1024, 2048, 4096)
STORE_SIZES = (250, 500, 1000, 2000)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A setting.

    Args:
        chain: The work on a clip.
        n_clips: Clips in the store, and in an epoch.
        batch_size: Clips a batch.
        n_threads: Threads of torch.
    """

    chain: Chain
    n_clips: int
    batch_size: int
    n_threads: int


def list_axes(options: argparse.Namespace) -> dict[str, dict[str, Point]]:
    """Vary the settings one at a time; point by name for each."""
    base = Point(
        chain=Chain(clip_s=options.clip_s),
        n_clips=options.clips,
        batch_size=options.batch,
        n_threads=options.threads,
    )

    def with_chain(n_clips: int = base.n_clips, **settings: float) -> Point:
        return replace(base, chain=replace(base.chain, **settings), n_clips=n_clips)

    audio_s = base.n_clips * base.chain.clip_s  # kept about equal where the length of clips varies
    return {
        "batch": {
            f"batch {n}": replace(base, batch_size=n) for n in BATCH_SIZES if n <= base.n_clips
        },
        "length": {
            f"clips of {s:g} s": with_chain(max(round(audio_s / s), base.batch_size), clip_s=s)
            for s in CLIP_LENGTHS_S
        },
        "n_fft": {f"n_fft {n}": with_chain(n_fft=n, hop_length=n // 4) for n in N_FFTS},
        "store": {f"{n:,} clips in the store": replace(base, n_clips=n) for n in STORE_SIZES},
        "threads": {f"threads {n}": replace(base, n_threads=n) for n in thread_counts(options)},
    }


def build(point: Point, options: argparse.Namespace) -> Workload:
    """Make epochs at a point; its threads are set before every sample."""
    torch.set_num_threads(point.n_threads)
    workload = build_ours(
        load_samples(options, point.chain, point.n_clips),
        point.chain,
        changes_of(point.chain),
        device=options.device,
        batch_size=point.batch_size,
    )
    return replace(workload, before=lambda: torch.set_num_threads(point.n_threads))


def measure_axis(points: dict[str, Point], options: argparse.Namespace) -> list[Result]:
    """Measure the points of an axis beside each other."""
    cases = [
        Case(
            name=name,
            build=lambda point=point: build(point, options),
            is_ours=True,
            reference=(next(iter(points)),),
        )
        for name, point in points.items()
    ]
    results = measure_wanted(cases, options)
    for result in results:
        audio_s = result.median * points[result.case.name].chain.clip_s
        result.extra["times real time"] = f"{audio_s:,.0f}"
    return results


def main() -> None:
    """Measure and publish."""
    parser = make_parser("Throughput of the project's chain over its settings.")
    parser.add_argument("--axes", nargs="+", choices=TITLES, default=list(TITLES))
    options = parse(parser)
    base = f"Otherwise batches of {options.batch} from {options.clips:,} clips of"
    axes = list_axes(options)
    sections = [
        Section(
            title=TITLES[name],
            text=f"{base} {Chain(clip_s=options.clip_s).describe()}, {options.threads} threads.",
            results=measure_axis(axes[name], options),
        )
        for name in options.axes
    ]
    torch.set_num_threads(options.threads)
    publish("scaling", INTRO, sections, options)


if __name__ == "__main__":
    main()

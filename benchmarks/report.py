"""The command line that all benchmarks share, and the Markdown they print and keep."""

import argparse
import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain, count
from pathlib import Path

import torch
from torch import Tensor

from audioml.markdown import markdown_table
from harness import Case, Result, find_reference, measure, ratio, select
from machine import MALLOC_SETTINGS, copy_bandwidth, describe_machine, device_name

_MALLOC_BYTES = str(8 << 30)
_CAVEAT = "caveat"
_SHOWN_REFERENCES = 3
_RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table with its title and a word on how to read it."""

    title: str
    text: str
    results: Sequence[Result]


def make_parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    cores = os.cpu_count() or 1
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=cores, help="threads of torch")
    parser.add_argument("--workers", type=int, default=cores, help="processes of a DataLoader")
    parser.add_argument("--rounds", type=int, default=5, help="samples a case")
    parser.add_argument("--min-time", type=float, default=0.5, help="least length of a sample [s]")
    parser.add_argument(
        "--quiet-cores",
        type=float,
        default=0.15,
        help="a sample is taken again, twice at most, if other processes keep more cores busy",
    )
    parser.add_argument("--cases", default="", help="parts of names, or ours; by comma")
    parser.add_argument("--clips", type=int, help="clips in memory; by device if not given")
    parser.add_argument("--batch", type=int, help="clips a batch; by device if not given")
    parser.add_argument("--clip-s", type=float, default=5.0, help="length of a clip [s]")
    parser.add_argument("--data", type=Path, help="data set in ESC-50's layout; else generated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder for the result")
    parser.add_argument(
        "--tuned-malloc", action="store_true", help="let glibc keep freed memory: helps the peers"
    )
    return parser


def thread_counts(options: argparse.Namespace) -> list[int]:
    """Powers of two below the threads asked for, and those."""
    return [*(1 << i for i in range((options.threads - 1).bit_length())), options.threads]


def measure_wanted(
    cases: Sequence[Case], options: argparse.Namespace, reference_db: Tensor | None = None
) -> list[Result]:
    """Measure the cases that the command line asks for, as it asks."""
    return measure(
        select(cases, options.cases),
        device=options.device,
        rounds=options.rounds,
        min_time_s=options.min_time,
        quiet_cores=options.quiet_cores,
        reference_db=reference_db,
        seed=options.seed,
    )


def parse(
    parser: argparse.ArgumentParser,
    *,
    cpu: tuple[int, int] = (256, 32),
    cuda: tuple[int, int] = (2000, 128),
) -> argparse.Namespace:
    """Read the command line and set threads and malloc.

    Args:
        parser: From ``make_parser``.
        cpu: Clips in memory and a batch on a CPU, unless the command line says otherwise.
        cuda: The same on a GPU.
    """
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no CUDA device here")
    if options.tuned_malloc and any(name not in os.environ for name in MALLOC_SETTINGS):
        os.environ.update(dict.fromkeys(MALLOC_SETTINGS, _MALLOC_BYTES))
        # malloc reads them when a process starts: this one again, with its own words.
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606
    is_cuda = options.device == "cuda"
    options.device = torch.device(options.device, 0) if is_cuda else torch.device("cpu")
    clips, batch = cuda if is_cuda else cpu
    options.clips, options.batch = options.clips or clips, options.batch or batch
    torch.set_num_threads(options.threads)
    return options


def table(results: Sequence[Result], bandwidth: float | None = None) -> str:
    """Write results as a Markdown table, without the columns that nothing has an entry for.

    Args:
        results: The results, in the order of the rows.
        bandwidth: What the GPU can copy [B/s], for the share of it that a case needs.
    """
    rows = [_cells(result, results, bandwidth) for result in results]
    used = {column for row in rows for column, cell in row.items() if cell}
    columns = [column for column in dict.fromkeys(c for row in rows for c in row) if column in used]
    columns = [column for column in columns if column != _CAVEAT] + [_CAVEAT] * (_CAVEAT in used)
    words = [place for place, column in enumerate(columns) if column in ("case", _CAVEAT)]
    cells = [[row.get(column, "") for column in columns] for row in rows]
    return markdown_table(columns, cells, words=words)


def _cells(result: Result, results: Sequence[Result], bandwidth: float | None) -> dict[str, str]:
    """Write a row, by column."""
    case = result.case
    if result.missing:
        reason = f"missing: {result.missing}".replace("|", "/")
        return {"case": case.name, "clips/s": reason, _CAVEAT: case.caveat}
    reference = find_reference(result, results)
    off, memory = result.difference_db, result.peak_mib
    share = result.median * case.bytes_per_clip / bandwidth if bandwidth else 0.0
    return {
        "case": case.name,
        "clips/s": f"**{format_rate(result.median)}**",
        "min..max": f"{format_rate(min(result.rates))}..{format_rate(max(result.rates))}",
        "rel. IQR": f"{result.relative_iqr:.0%}",
        "ratio": "" if reference is None else f"{ratio(result, reference):.3g}",
        "dB off: mean, max": "" if off is None else f"{off[0]:.1g}, {off[1]:.1g}",
        "memory MiB": "" if memory is None else f"{max(memory, 0):.0f}",
        "of copy bandwidth": f"{share:.2%}" if share else "",
        **result.extra,
        _CAVEAT: case.caveat,
    }


def format_rate(rate: float) -> str:
    """Write a rate with three significant digits or more."""
    return f"{rate:,.{max(2 - math.floor(math.log10(rate)), 0)}f}"


def describe_reading(results: Sequence[Result]) -> str:
    """Say what the ratios are taken to, and how quiet the machine was."""
    found = [(r, find_reference(r, results)) for r in results if r.rates]
    names = list(dict.fromkeys(base.case.name for _, base in found if base is not None))
    lines = []
    if len(names) <= _SHOWN_REFERENCES:
        lines.append(f"Ratio to: {'; '.join(names) or 'nothing in this run'}.")
    busy = [cores for result in results for cores in result.other_cores]
    if busy:
        lines.append(
            f"Other processes kept {statistics.median(busy):.2f} cores busy in the median sample "
            f"and {max(busy):.2f} in the most disturbed one."
        )
    return " ".join(lines)


def publish(
    subject: str, intro: str, sections: Sequence[Section], options: argparse.Namespace
) -> None:
    """Print the result and write it to ``SUBJECT_DEVICE_DATE.md``, never over an older one."""
    bandwidth = copy_bandwidth(options.device) if options.device.type == "cuda" else None
    facts = describe_machine(options.device)
    if bandwidth:
        facts["Copy bandwidth"] = (
            f"{bandwidth / 1e9:,.0f} GB/s read and written, measured in this run; a case's share "
            "of it counts what nothing can avoid to move: int16 clips in, float32 log-mels out, "
            "and the noise where it is kept"
        )
    parts = [
        f"# {subject.capitalize()} on {device_name(options.device)}",
        intro,
        f"Cases take turns in random order, anew in each of {options.rounds} rounds; a sample "
        f"lasts at least {options.min_time:g} s and is taken again, twice at most, if other "
        f"processes kept more than {options.quiet_cores:g} cores busy. The rate is the median; a "
        "ratio is the median of the ratios within rounds. dB off, where a case computes a plain "
        "log-mel, is the distance to librosa in float64 over levels within 60 dB of the peak. "
        "Memory is what building the case and its first step took. Compare ratios of one run, not "
        "rates of two.",
    ]
    for section in sections:
        parts += [f"## {section.title}", section.text, table(section.results, bandwidth)]
        parts += [describe_reading(section.results)]
    parts += ["## Where", list_facts(facts)]
    keep(subject, parts, options)


def keep(subject: str, parts: Sequence[str], options: argparse.Namespace) -> Path:
    """Print the paragraphs of a result and write them to ``SUBJECT_DEVICE_DATE.md``.

    Returns:
        The file.
    """
    text = "\n\n".join(part for part in parts if part) + "\n"
    print(text)
    file = _unused_path(subject, options)
    file.write_text(text, encoding="utf-8")
    return file


def list_facts(facts: Mapping[str, str]) -> str:
    """Write facts as a list."""
    return "\n".join(f"* {key}: {value}" for key, value in facts.items())


def _unused_path(subject: str, options: argparse.Namespace) -> Path:
    options.results.mkdir(parents=True, exist_ok=True)
    is_cuda = options.device.type == "cuda"
    device = device_name(options.device).replace("NVIDIA ", "") if is_cuda else "cpu"
    stem = f"{subject}_{device.replace(' ', '-')}_{date.today()}"
    endings = chain([""], (f"_{number}" for number in count(2)))
    paths = (options.results / f"{stem}{ending}.md" for ending in endings)
    return next(path for path in paths if not path.exists())

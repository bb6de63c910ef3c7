"""Memory of training on a data set that is streamed from its files.

``python benchmarks/streaming.py`` writes 20,000 WAV clips of 5 s (4.4 GB) to a temporary folder,
trains on them for an epoch with ``audio.store=stream``, as anybody would, and compares the memory
of that process at its peak with that of one that has only imported the program.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch

from machine import describe_machine, device_name
from report import keep, list_facts

REPOSITORY = Path(__file__).parent.parent
SAMPLE_RATE, CLIP_S, N_CLASSES, N_FOLDS = 22_050, 5, 10, 5
# As much of the program as any run takes, with the libraries it makes torch load and, on CUDA, the
# device's context.
IMPORTED = (
    "import audioml.experiment, torch; torch.fft.rfft(torch.randn(216, 2048, device='{device}'))"
)


def write_clips(root: Path, n_clips: int) -> float:
    """Write a data set in ESC-50's layout: each class a band of noise. Returns its size [MiB]."""
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    generator = np.random.default_rng(0)
    rows = []
    for clip in range(n_clips):
        target, fold, source = clip % N_CLASSES, clip // N_CLASSES % N_FOLDS + 1, str(clip)
        noise = generator.standard_normal(SAMPLE_RATE * CLIP_S, dtype=np.float32)
        sound = 0.05 * np.convolve(noise, np.ones(target + 1, dtype=np.float32), mode="same")
        name = f"{fold}-{source}-A-{target}.wav"
        soundfile.write(root / "audio" / name, sound.clip(-1, 1), SAMPLE_RATE)
        rows.append((name, fold, target, f"class{target}", True, source, "A"))
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "meta" / "esc50.csv", index=False)
    return n_clips * SAMPLE_RATE * CLIP_S * 2 / 2**20


def train(root: Path, run: Path, device: str, store: str) -> dict[str, float]:
    """Train an epoch in a process of its own; returns its summary."""
    settings = [
        "data.name=esc10",
        f"data.root={root}",
        f"run.dir={run}",
        f"audio.store={store}",
        f"train.device={device}",
        "train.epochs=1",
        "train.batch_size=32",
        "model.width=8",
    ]
    command = [sys.executable, str(REPOSITORY / "train.py"), *settings]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    summary: dict[str, float] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return summary


def peak_of_children_mib() -> float:
    """Tell the most memory that any finished process of ours had resident [MiB]."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    """Write clips, train, compare, keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--store", choices=("stream", "auto"), default="stream")
    parser.add_argument("--folder", type=Path, help="where the clips are written for a while")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    subprocess.run([sys.executable, "-c", IMPORTED.format(device=options.device)], check=True)
    own_mib = peak_of_children_mib()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        data, run = Path(folder) / "data", Path(folder) / "run"
        size_mib = write_clips(data, options.clips)
        begin = time.perf_counter()
        summary = train(data, run, options.device, options.store)
        total_s = time.perf_counter() - begin
    peak_mib, options.device = peak_of_children_mib(), torch.device(options.device)
    rows = [
        ("clips, each 5 s at 22,050 Hz", f"{options.clips:,}"),
        ("samples decoded, int16", f"{size_mib:,.0f} MiB"),
        ("resident at the peak, program imported", f"{own_mib:,.0f} MiB"),
        ("resident at the peak, trained", f"{peak_mib:,.0f} MiB"),
        ("difference", f"**{peak_mib - own_mib:,.0f} MiB**"),
        ("training", f"{summary['clips_per_s']:,.0f} clips/s"),
        ("of it waiting for data", f"{summary['data_wait']:.1%}"),
        ("test accuracy", f"{summary['accuracy']:.1%}"),
        ("all of it: scan, measure, train an epoch, evaluate", f"{total_s:,.0f} s"),
    ]
    table = "\n".join(["| what | |", "|---|---:|", *(f"| {a} | {b} |" for a, b in rows)])
    parts = [
        f"# Streaming on {device_name(options.device)}",
        "Training for an epoch on files too many to hold, in a process of its own "
        f"(audio.store={options.store}). Resident memory is that of the process as the system "
        "counts it; the files may stand in the page cache besides.",
        table,
        "## Where",
        list_facts(describe_machine(options.device)),
    ]
    keep("streaming", parts, options)


if __name__ == "__main__":
    main()

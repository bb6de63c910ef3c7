"""Clips from shards beside clips from files, and beside the libraries that read such shards.

``python benchmarks/shards.py`` packs a data set (generated, or ``--root`` in ESC-50's layout) with
``audioml shard`` and measures, several times in turn and in one process each:

* reading: every clip's bytes once, in random order;
* loading: an epoch of augmented log-mels with ``audio.store=stream``;
* starting: from the settings to the first batch;
* decoding: clips of 10 s at 32 kHz, as AudioSet has them, by format, on one core;
* the index of many clips: how long it takes to read, and how much memory.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch

from audioml.clips import clip_reader, scan_headers
from audioml.config import DataConfig, load_config
from audioml.datasets import load_manifest
from audioml.datasets.manifest import Manifest
from audioml.datasets.shards import make_manifest, open_folder
from audioml.markdown import markdown_table
from audioml.preparation import prepare
from audioml.rng import Stream, permutation
from audioml.sharding import write_shards
from audioml.threads import one_thread_an_operation
from decode import FORMATS
from machine import describe_machine, device_name, package_version
from material import make_clips
from report import keep, list_facts
from streaming import write_clips

CPU = torch.device("cpu")
N_THREADS = 4
BUFFER = 1_000  # clips that other readers shuffle
RATE = 22_050
LONG_S, LONG_RATE = 10, 32_000  # AudioSet's clips, at the rate that most train on
_N_LONG = 24
_INDEX_MEMORY = "import shards, sys; shards.measure_index(int(sys.argv[1]), sys.argv[2])"


def read_files(manifest: Manifest) -> Iterator[bytes]:
    """Read every file once, in random order."""
    order = np.random.default_rng(0).permutation(len(manifest)).tolist()

    def read(clip: int) -> bytes:
        with manifest.clips[clip].open() as file:
            return file.read()

    with ThreadPoolExecutor(N_THREADS) as pool:
        yield from pool.map(read, order)


def read_webdataset(folder: Path) -> Iterator[bytes]:
    """Read shards one after another through a buffer, with webdataset."""
    import webdataset

    urls = sorted(map(str, folder.glob("*.tar")))
    for sample in webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0).shuffle(BUFFER):
        yield next(value for key, value in sample.items() if key in ("wav", "ogg", "flac"))


def read_datasets(folder: Path) -> Iterator[bytes]:
    """Read shards one after another through a buffer, with Hugging Face's datasets."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets

    datasets.disable_progress_bars()
    files = sorted(map(str, folder.glob("*.tar")))
    streamed = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
    column = next(name for name in streamed.features if name in ("wav", "ogg", "flac"))
    streamed = streamed.cast_column(column, datasets.Audio(decode=False))
    for sample in streamed.shuffle(seed=0, buffer_size=BUFFER):
        yield sample[column]["bytes"]


def time_reading(
    readers: dict[str, Callable[[], Iterator[bytes]]], rounds: int
) -> list[tuple[str, ...]]:
    """Let every reader read all clips, in turn; each must give the same bytes."""
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    contents: dict[str, tuple[int, int]] = {}
    n_bytes = 0
    for _ in range(rounds):
        for name, read in readers.items():
            begin = time.perf_counter()
            sizes, sums = zip(*((len(data), zlib.crc32(data)) for data in read()), strict=True)
            seconds[name].append(time.perf_counter() - begin)
            contents[name] = (len(sums), sum(sums))
            n_bytes = sum(sizes)
    first, (n_clips, _) = next(iter(contents.items()))
    rows = []
    for name, taken in seconds.items():
        median = statistics.median(taken)
        rows.append(
            (
                name,
                f"{n_clips / median:,.0f}",
                f"{n_clips / max(taken):,.0f} to {n_clips / min(taken):,.0f}",
                f"{n_bytes / median / 2**20:,.0f}",
                f"{statistics.median(seconds[first]) / median:.2f}",
                "the same" if contents[name] == contents[first] else "OTHER BYTES",
            )
        )
    return rows


def time_loading(settings: dict[str, list[str]], rounds: int) -> list[tuple[str, ...]]:
    """Prepare runs and load an epoch from each, in turn; each must give the same batches."""
    starts: dict[str, list[float]] = {name: [] for name in settings}
    epochs: dict[str, list[float]] = {name: [] for name in settings}
    batches: dict[str, list[torch.Tensor]] = {}
    n_clips = 0
    for _ in range(rounds):
        for name, words in settings.items():
            begin = time.perf_counter()
            experiment = prepare(load_config(overrides=words), CPU)
            loader = experiment.loaders["train"]
            for number, batch in enumerate(loader.epoch(0)):
                if number == 0:
                    starts[name].append(time.perf_counter() - begin)
                    begin, batches[name] = time.perf_counter(), []
                batches[name].append(batch.input.mean(dim=(1, 2, 3)))
            epochs[name].append(time.perf_counter() - begin)
            n_clips = len(loader.clip_index) - loader.batch_size
    first = next(iter(settings))
    rows = []
    for name in settings:
        pairs = zip(batches[name], batches[first], strict=True)
        most = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
        median = statistics.median(epochs[name])
        rows.append(
            (
                name,
                f"{n_clips / median:,.0f}",
                f"{n_clips / max(epochs[name]):,.0f} to {n_clips / min(epochs[name]):,.0f}",
                f"{statistics.median(epochs[first]) / median:.2f}",
                f"{statistics.median(starts[name]):.1f}",
                f"{most:g}",
            )
        )
    return rows


def time_formats(place: Path, rounds: int) -> list[tuple[str, ...]]:
    """Decode clips as long as AudioSet's out of shards, on one core, in each format."""
    samples = make_clips(_N_LONG, LONG_RATE, LONG_S * LONG_RATE, seed=0)
    readers, sizes = {}, {}
    for form in FORMATS:
        folder = place / form.name
        folder.mkdir()
        for number, clip in enumerate(samples):
            file = folder / f"{number}.{form.suffix}"
            soundfile.write(file, clip, LONG_RATE, subtype=form.subtype)
        pd.DataFrame({"path": [f.name for f in folder.iterdir()], "label": "a"}).to_csv(
            folder / "clips.csv", index=False
        )
        listed = load_manifest(DataConfig(name="csv", manifest=str(folder / "clips.csv")))
        written = write_shards(listed, str(folder / "out"), sample_rate=LONG_RATE)
        packed = load_manifest(DataConfig(name="shards", root=str(folder / "out")))
        readers[form.name] = clip_reader(packed, scan_headers(packed, LONG_RATE), LONG_RATE)
        sizes[form.name] = written.n_bytes / _N_LONG
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, read in readers.items():
            begin = time.perf_counter()
            for clip in range(_N_LONG):
                read(clip)
            seconds[name].append((time.perf_counter() - begin) / _N_LONG)
    return [
        (
            name,
            f"{sizes[name] / 1000:,.0f}",
            f"{1 / statistics.median(taken):,.0f}",
            f"{1 / max(taken):,.0f} to {1 / min(taken):,.0f}",
        )
        for name, taken in seconds.items()
    ]


def measure_index(n_clips: int, place: str) -> None:
    """Read an index of so many clips, order an epoch, and print seconds and MiB."""
    begin = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summary = json.loads((Path(place) / "index.json").read_text(encoding="utf-8"))
    frame = pd.read_parquet(Path(place) / "many.parquet")
    manifest = make_manifest(open_folder(place), summary, frame)
    read_s = time.perf_counter() - begin
    del frame
    begin = time.perf_counter()
    permutation(0, 0, torch.arange(len(manifest)), Stream.ORDER)
    order_s = time.perf_counter() - begin
    mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"read_s": read_s, "order_s": order_s, "mib": mib}))


def repeat_index(folder: Path, n_clips: int) -> Path:
    """Write the index of a data set as if it were so many clips."""
    frame = pd.read_parquet(folder / "index.parquet")
    many = frame.iloc[np.arange(n_clips) % len(frame)].reset_index(drop=True)
    number = pd.Series(np.arange(n_clips)).astype(str)
    many["path"] = number + many["path"]
    many["source"] = number
    file = folder / "many.parquet"
    many.to_parquet(file, index=False)
    return file


def main() -> None:
    """Pack, read, load, keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="a data set in ESC-50's layout with ESC-10 in it")
    parser.add_argument("--clips", type=int, default=2_000, help="WAV clips to generate without it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--index-clips", type=int, default=2_000_000)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.device = CPU
    with tempfile.TemporaryDirectory() as place:
        root, folder = options.root or Path(place) / "data", Path(place) / "shards"
        if options.root is None:
            write_clips(root, options.clips)
        data = DataConfig(name="esc10", root=str(root))
        begin = time.perf_counter()
        written = write_shards(load_manifest(data), str(folder), sample_rate=RATE, shard_mib=64)
        write_s = time.perf_counter() - begin
        manifests = {
            "files": load_manifest(data),
            "shards": load_manifest(DataConfig(name="shards", root=str(folder))),
        }
        reading = time_reading(
            {
                "audioml, files": lambda: read_files(manifests["files"]),
                "audioml, shards": lambda: read_files(manifests["shards"]),
                f"webdataset {package_version('webdataset')}": lambda: read_webdataset(folder),
                f"datasets {package_version('datasets')}": lambda: read_datasets(folder),
            },
            options.rounds,
        )
        common = ["audio.store=stream", "train.batch_size=32", "train.device=cpu"]
        loading = time_loading(
            {
                "files": ["data.name=esc10", f"data.root={root}", *common],
                "shards": ["data.name=shards", f"data.root={folder}", *common],
            },
            options.rounds,
        )
        with one_thread_an_operation():
            formats = time_formats(Path(place), options.rounds)
        index = repeat_index(folder, options.index_clips)
        command = [sys.executable, "-c", _INDEX_MEMORY, str(options.index_clips), str(folder)]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent
        )
        facts, index_mib = json.loads(done.stdout), index.stat().st_size / 2**20
    mib = written.n_bytes / 2**20
    parts = [
        f"# Shards on {device_name(CPU)}",
        f"{written.n_clips:,} clips in {written.n_shards} shards of {mib:,.0f} MiB, packed in "
        f"{write_s:.1f} s, every clip decoded once. Medians of {options.rounds} rounds in turn, "
        "and the span; everything stands in the page cache.",
        "## Reading\n\nEvery clip's bytes once. audioml: in an order drawn over all clips, by "
        f"{N_THREADS} threads; the bytes of shards are compared with their CRC-32. The others: "
        f"shards one after another in one process, through a buffer of {BUFFER:,} clips.",
        markdown_table(("reader", "clips/s", "span", "MiB/s", "ratio to files", "bytes"), reading),
        "## Loading\n\nAn epoch of augmented log-mels, after the first batch, "
        "`audio.store=stream`; and the seconds from settings to the first batch.",
        markdown_table(
            ("from", "clips/s", "span", "ratio", "start [s]", "largest difference"), loading
        ),
        f"## Decoding\n\n{LONG_S} s at {LONG_RATE:,} Hz, mono, from shards to int16 at that rate, "
        "on one core.",
        markdown_table(("format", "kB a clip", "clips/s", "span"), formats),
        "## An index of many clips",
        f"{options.index_clips:,} clips: {index_mib:,.0f} MiB as a file, "
        f"{facts['read_s']:.1f} s to read, {facts['mib']:,.0f} MiB of memory at the peak, "
        f"{facts['order_s']:.2f} s to put an epoch in order.",
        "## Where",
        list_facts(describe_machine(CPU)),
    ]
    keep("shards", parts, options)


if __name__ == "__main__":
    main()

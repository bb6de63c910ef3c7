"""Decoding files, by format, rate and threads, and the time it takes to fill a store.

``python benchmarks/decode.py --device cpu``; everything is in the page cache: disks don't count.
"""

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

import ours
from harness import Case, Workload
from material import Chain, load_samples, write_wav_files
from report import Section, make_parser, measure_wanted, parse, publish, thread_counts

INTRO = """Mono clips as files become samples. The reference of the ratios is soundfile on the same
file with as many threads."""

TARGET_RATE = 22_050
RATES = (44_100, TARGET_RATE)
N_FILES = 16
_DISTINCT = 50  # clips that the files of a large data set repeat


class Format(NamedTuple):
    """A kind of file, as soundfile names it."""

    name: str
    suffix: str
    subtype: str


FORMATS = (
    Format("WAV 16", "wav", "PCM_16"),
    Format("WAV 24", "wav", "PCM_24"),
    Format("WAV float", "wav", "FLOAT"),
    Format("FLAC", "flac", "PCM_16"),
    Format("Ogg", "ogg", "VORBIS"),
    Format("MP3", "mp3", "MPEG_LAYER_III"),
)


class Decoder(NamedTuple):
    """A way to decode: its name, a function of a file, and what it leaves out."""

    name: str
    decode: Callable[[Path], object]
    caveat: str


def read_soundfile(file: Path) -> object:
    """Read samples as they are stored."""
    return soundfile.read(file, dtype="float32")


def read_and_resample(file: Path) -> object:
    """Read, resample if need be, round: what decoding for a store takes at least."""
    samples, rate = soundfile.read(file, dtype="float32")
    if rate != TARGET_RATE:
        samples = soxr.resample(samples, rate, TARGET_RATE, quality="HQ")
    return np.clip(np.rint(samples * 32_768), -32_768, 32_767).astype(np.int16)


def read_ours(file: Path) -> object:
    """Decode as the project does."""
    return ours.decode(file, TARGET_RATE)


def read_torchcodec(file: Path) -> object:
    """Read with torchcodec's general decoder."""
    from torchcodec.decoders import AudioDecoder

    return AudioDecoder(file).get_all_samples()


DECODERS = (
    Decoder("soundfile", read_soundfile, "float32 at the file's rate: not resampled, not checked"),
    Decoder(
        "soundfile + soxr HQ", read_and_resample, "int16 at 22,050 Hz; no check for damaged files"
    ),
    Decoder("ours", read_ours, "int16 at 22,050 Hz, mono, damaged files refused"),
    Decoder("torchcodec", read_torchcodec, "AudioDecoder, float32 at the file's rate"),
)


def write_files(folder: Path, form: Format, options: argparse.Namespace, rate: int) -> list[Path]:
    """Write clips in a format."""
    samples = load_samples(options, Chain(sample_rate=rate, clip_s=options.clip_s), N_FILES)
    stem = f"{form.name.replace(' ', '-')}-{rate}"
    files = [folder / f"{stem}-{index}.{form.suffix}" for index in range(len(samples))]
    for file, clip in zip(files, samples.numpy(), strict=True):
        soundfile.write(file, clip, rate, subtype=form.subtype)
    return files


def build(decoder: Decoder, files: Sequence[Path], n_threads: int) -> Workload:
    """Make passes over some files, in this thread or in several."""
    decoder.decode(files[0])
    run = map if n_threads == 1 else ThreadPoolExecutor(n_threads).map

    def step() -> None:
        with ours.one_thread_an_operation():  # as when a store is filled
            list(run(decoder.decode, files))

    return Workload(step=step, n_clips=len(files))


def list_cases(folder: Path, options: argparse.Namespace, rate: int) -> list[Case]:
    """All decoders of all formats, with one thread and with several."""
    has_torchcodec = find_spec("torchcodec") is not None
    cases = []
    for form in FORMATS:
        files = write_files(folder, form, options, rate)
        for n_threads in thread_counts(options):
            for decoder in DECODERS if has_torchcodec else DECODERS[:-1]:
                ending = f"{form.name}, threads {n_threads}"
                cases.append(
                    Case(
                        name=f"{decoder.name}, {ending}",
                        build=partial(build, decoder, files, n_threads),
                        is_ours=decoder.name == "ours",
                        caveat=decoder.caveat,
                        reference=(f"soundfile + soxr HQ, {ending}",),
                    )
                )
    return cases


def list_store_cases(folder: Path, options: argparse.Namespace) -> list[Case]:
    """Fill a store from a data set's files, with one thread and with several."""
    chain = Chain(sample_rate=44_100, clip_s=options.clip_s)
    samples = load_samples(options, chain, min(_DISTINCT, options.store_clips)).numpy()
    again = np.arange(options.store_clips) % len(samples)
    manifest = ours.make_manifest(write_wav_files(folder, samples[again], chain.sample_rate))
    n_time = round(options.clip_s * TARGET_RATE)

    def build(n_threads: int) -> Workload:
        def step() -> None:
            ours.fill_store(
                manifest,
                sample_rate=TARGET_RATE,
                n_time=n_time,
                n_threads=n_threads,
                device=options.device,
            )

        return Workload(step=step, n_clips=len(manifest))

    return [
        Case(
            name=f"filling a store, threads {n}",
            build=partial(build, n),
            is_ours=True,
            caveat=f"{len(manifest):,} WAV files of 44.1 kHz, hashed for the audit as well",
            reference=("filling a store, threads 1",),
        )
        for n in thread_counts(options)
    ]


def measure_store(folder: Path, options: argparse.Namespace) -> Section:
    """Measure how long a store takes to fill."""
    results = measure_wanted(list_store_cases(folder, options), options)
    for result in results:
        result.extra["seconds"] = f"{options.store_clips / result.median:.2f}"
    title = f"{options.store_clips:,} clips of {options.clip_s:g} s into memory"
    return Section(title=title, text="", results=results)


def main() -> None:
    """Measure and publish."""
    parser = make_parser("Decoding, by format, rate and threads.")
    parser.add_argument("--store-clips", type=int, default=2000, help="files of the data set")
    options = parse(parser)
    sections = []
    with TemporaryDirectory() as folder:
        for rate in RATES:
            results = measure_wanted(list_cases(Path(folder), options, rate), options)
            title = f"Files of {options.clip_s:g} s at {rate:,} Hz"
            text = "torchcodec, where it is installed, is a row as well."
            sections.append(Section(title=title, text=text, results=results))
        sections.append(measure_store(Path(folder, "wav"), options))
    publish("decode", INTRO, sections, options)


if __name__ == "__main__":
    main()

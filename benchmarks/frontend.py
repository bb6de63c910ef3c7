"""Log-mels alone, the project's against others', for several transform lengths.

``python benchmarks/frontend.py --device cpu``; a peer that is not installed is listed as missing.
"""

import argparse
from dataclasses import replace

import ours
from harness import Case
from material import Chain, Job, open_job, reference_db
from peers import dali, flashmel
from peers.mel import librosa_cases, nnaudio_case, plain_case, stft_cases, torchaudio_cases
from report import Section, make_parser, measure_wanted, parse, publish

INTRO = """Clips in memory as int16 become log-mels, without any augmentation. The reference of the
ratios is torchaudio's at its fastest chunking."""


def list_cases(job: Job) -> list[Case]:
    """All cases, in the order of the table."""
    plain = torchaudio_cases(job)
    cases = [
        plain_case(
            f"ours, batch {job.batch_size}",
            job,
            lambda: ours.make_log_mel(device=job.device, **job.chain.frontend),
            caveat="",
            convert=lambda samples: samples,
            is_ours=True,
        ),
        *plain,
        nnaudio_case(job),
        *stft_cases(job),
        *librosa_cases(job),
        dali.case(job),
        flashmel.case(job),
    ]
    names = tuple(case.name for case in plain)
    return [replace(case, reference=names) for case in cases]


def measure_length(job: Job, n_fft: int, options: argparse.Namespace) -> Section:
    """Measure all front ends with one transform length and a quarter of it as the hop."""
    job = replace(job, chain=replace(job.chain, n_fft=n_fft, hop_length=n_fft // 4))
    results = measure_wanted(list_cases(job), options, reference_db(job.samples, job.chain))
    return Section(title=job.chain.describe(), text="", results=results)


def main() -> None:
    """Measure and publish."""
    parser = make_parser("Throughput of log-mel front ends.")
    parser.add_argument("--n-ffts", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    options = parse(parser)
    with open_job(options, Chain(clip_s=options.clip_s)) as job:
        sections = [measure_length(job, n_fft, options) for n_fft in options.n_ffts]
    publish("frontend", INTRO, sections, options)


if __name__ == "__main__":
    main()

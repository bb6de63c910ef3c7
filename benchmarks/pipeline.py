"""The whole chain, from int16 clips to augmented log-mels, against other libraries' chains.

``python benchmarks/pipeline.py --device cpu``; a peer that is not installed is listed as missing.
"""

from dataclasses import replace

import torch
from torch import Tensor

import ours
from harness import Case, Workload
from material import N_COMPARED, Chain, Job, open_job, reference_db
from peers import audiomentations_chain, dali, flashmel, png, torch_chains
from peers.mel import librosa_cases, nnaudio_case, torchaudio_cases
from report import Section, make_parser, measure_wanted, parse, publish

INTRO = """Each clip gets noise, a pitch shift and a time stretch, every time and each anew, and
becomes a log-mel. Where a row does less, or otherwise, its caveat says so. All start from int16
clips in memory, but for PNG files and DALI, which read files from the page cache. The reference of
the ratios is torchaudio's plain log-mel, without any augmentation, at its fastest chunking."""


def our_cases(job: Job, bytes_per_clip: int | None) -> list[Case]:
    """The project's loader with and without augmentation."""
    chain, common = job.chain, {"device": job.device, "batch_size": job.batch_size}
    noise_bytes = 4 * chain.n_time  # a stretch of the noise bank, float32
    return [
        Case(
            name=f"ours, batch {job.batch_size}",
            build=lambda: build_ours(job.samples, chain, changes_of(chain), **common),
            is_ours=True,
            caveat="the full chain from clips kept in memory; pitch and tempo without phase, "
            "pitch in steps of 10 cents, noise from a bank of white, pink and brown",
            bytes_per_clip=bytes_per_clip or chain.least_bytes + noise_bytes,
        ),
        Case(
            name=f"ours, plain, batch {job.batch_size}",
            build=lambda: build_ours(job.samples, chain, None, **common),
            is_ours=True,
            caveat="the same loader, no augmentation",
            bytes_per_clip=chain.least_bytes,
        ),
    ]


def changes_of(chain: Chain) -> ours.AugmentConfig:
    """Configure the project's noise, pitch and stretch as the chain wants them."""
    return ours.three_changes(snr_db=chain.snr_db, semitones=chain.semitones, rate=chain.rate)


def build_ours(
    samples: Tensor,
    chain: Chain,
    augment: ours.AugmentConfig | None,
    *,
    device: torch.device,
    batch_size: int,
) -> Workload:
    """Make whole epochs of the loader over resident clips [clip, time]."""
    loader = ours.make_loader(
        samples, device=device, batch_size=batch_size, augment=augment, **chain.frontend
    )
    return Workload(
        step=ours.run_epochs(loader),
        n_clips=len(samples),
        log_mel_db=(lambda: ours.first_log_mels(loader, N_COMPARED)) if augment is None else None,
    )


def list_cases(job: Job, bytes_per_clip: int | None = None) -> list[Case]:
    """All cases, in the order of the table."""
    plain = torchaudio_cases(job)
    cases = [
        *our_cases(job, bytes_per_clip),
        *png.cases(job),
        *audiomentations_chain.cases(job),
        *torch_chains.cases(job),
        nnaudio_case(job),
        *plain,
        *librosa_cases(job),
        dali.case(job),
        flashmel.case(job),
    ]
    names = tuple(case.name for case in plain)
    return [replace(case, reference=names) for case in cases]


def main() -> None:
    """Measure and publish."""
    parser = make_parser("Throughput of whole chains, from int16 clips to log-mels.")
    parser.add_argument("--n-fft", type=int, default=2048)
    parser.add_argument("--hop-length", type=int, default=512)
    parser.add_argument(
        "--bytes-per-clip",
        type=int,
        help="what our full chain moves at least, for its share of a GPU's copy bandwidth; if not "
        "given, int16 clip and float32 noise in, float32 log-mel out",
    )
    options = parse(parser, cuda=(20_000, 128))  # with fewer, how epochs begin would count
    chain = Chain(clip_s=options.clip_s, n_fft=options.n_fft, hop_length=options.hop_length)
    with open_job(options, chain) as job:
        cases = list_cases(job, options.bytes_per_clip)
        results = measure_wanted(cases, options, reference_db(job.samples, chain))
    publish("pipeline", INTRO, [Section(title=chain.describe(), text="", results=results)], options)


if __name__ == "__main__":
    main()

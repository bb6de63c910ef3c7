"""The whole chain, from int16 clips to augmented log-mels, against other libraries' chains.

``python benchmarks/pipeline.py --device cpu``; a peer that is not installed is listed as missing.
"""

from dataclasses import replace

import ours
from harness import Case, Workload, measure, select
from material import N_COMPARED, Chain, Job, open_job, reference_db
from peers import audiomentations_chain, dali, flashmel, png, torch_chains
from peers.mel import librosa_cases, nnaudio_case, torchaudio_cases
from report import Section, make_parser, parse, publish

INTRO = """Each clip gets noise, a pitch shift and a time stretch, every time and each anew, and
becomes a log-mel. Where a row does less, or otherwise, its caveat says so. The reference of the
ratios is torchaudio's plain log-mel, without any augmentation, at its fastest chunking."""


def our_cases(job: Job) -> list[Case]:
    """The project's loader with and without augmentation."""
    chain = job.chain
    changes = ours.three_changes(snr_db=chain.snr_db, semitones=chain.semitones, rate=chain.rate)
    noise_bytes = 4 * chain.n_time  # a stretch of the noise bank, float32
    return [
        Case(
            name=f"ours, batch {job.batch_size}",
            build=lambda: build_ours(job, changes),
            is_ours=True,
            caveat="the full chain from clips kept in memory; pitch and tempo without phase, "
            "pitch in steps of 10 cents, noise from a bank of white, pink and brown",
            bytes_per_clip=chain.least_bytes + noise_bytes,
        ),
        Case(
            name=f"ours, plain, batch {job.batch_size}",
            build=lambda: build_ours(job, None),
            is_ours=True,
            caveat="the same loader, no augmentation",
            bytes_per_clip=chain.least_bytes,
        ),
    ]


def build_ours(job: Job, augment: ours.AugmentConfig | None) -> Workload:
    """Make whole epochs of the loader."""
    c = job.chain
    loader = ours.make_loader(
        job.samples,
        device=job.device,
        batch_size=job.batch_size,
        augment=augment,
        sample_rate=c.sample_rate,
        n_fft=c.n_fft,
        hop_length=c.hop_length,
        n_mels=c.n_mels,
    )
    return Workload(
        step=ours.run_epochs(loader),
        n_clips=len(job.samples),
        log_mel_db=(lambda: ours.first_log_mels(loader, N_COMPARED)) if augment is None else None,
    )


def list_cases(job: Job) -> list[Case]:
    """All cases, in the order of the table."""
    plain = torchaudio_cases(job)
    cases = [
        *our_cases(job),
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
    options = parse(parser)
    chain = Chain(clip_s=options.clip_s, n_fft=options.n_fft, hop_length=options.hop_length)
    with open_job(options, chain) as job:
        results = measure(
            select(list_cases(job), options.cases),
            device=job.device,
            rounds=options.rounds,
            min_time_s=options.min_time,
            reference_db=reference_db(job.samples, chain),
            seed=options.seed,
        )
    publish("pipeline", INTRO, [Section(title=chain.describe(), text="", results=results)], options)


if __name__ == "__main__":
    main()

"""Plain log-mels: torchaudio, nnAudio, torch.stft by hand, librosa; no augmentation at all."""

from collections.abc import Callable
from itertools import cycle

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

import ours
from harness import Case, UnavailableError, Workload
from material import N_COMPARED, Chain, Job, librosa_log_mel, to_float

PLAIN = "plain log-mel, no augmentation"
_CHUNKS = (8, 4, 2, 1)

LogMel = Callable[[Tensor], Tensor]  # [clip, time] to [clip, mel, frame]


def in_chunks(function: LogMel, waveform: Tensor, chunk: int) -> Tensor:
    """Apply a function to a few clips at a time; smaller spectra stay in a CPU's cache."""
    if chunk >= len(waveform):
        return function(waveform)
    return torch.cat([function(part) for part in waveform.split(chunk)])


def plain_case(
    name: str,
    job: Job,
    make: Callable[[], LogMel],
    *,
    chunk: int = 0,
    caveat: str = PLAIN,
    convert: LogMel = to_float,
    is_ours: bool = False,
) -> Case:
    """Make a case of a function from waveforms to log-mels in dB.

    Args:
        name: The case's name.
        job: Clips and settings.
        make: Makes the function.
        chunk: Clips it is given at a time, 0 for a whole batch.
        caveat: What it does otherwise.
        convert: From int16 to what the function takes; timed.
        is_ours: Whether it is this project's.
    """

    def build() -> Workload:
        function, batch = make(), job.batches()
        n_clips = len(batch())
        return Workload(
            step=lambda: in_chunks(function, convert(batch()), chunk or n_clips),
            n_clips=n_clips,
            log_mel_db=lambda: function(convert(job.resident[:N_COMPARED])),
        )

    return Case(
        name=name,
        build=build,
        is_ours=is_ours,
        caveat=caveat,
        bytes_per_clip=job.chain.least_bytes,
    )


def torchaudio_cases(job: Job) -> list[Case]:
    """Take whole batches and chunks, of which the fastest is torchaudio's best."""
    sizes = (job.batch_size, *(size for size in _CHUNKS if size < job.batch_size))
    return [
        plain_case(
            f"torchaudio log-mel, {'batch' if size == job.batch_size else 'chunks of'} {size}",
            job,
            lambda: torchaudio_log_mel(job.chain).to(job.device),
            chunk=size,
        )
        for size in sizes
    ]


def torchaudio_log_mel(chain: Chain) -> nn.Module:
    """Make torchaudio's log-mel with librosa's settings, which are not its defaults."""
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    mel = MelSpectrogram(
        chain.sample_rate,
        n_fft=chain.n_fft,
        hop_length=chain.hop_length,
        n_mels=chain.n_mels,
        norm="slaney",
        mel_scale="slaney",
        pad_mode="constant",
    )
    return nn.Sequential(mel, AmplitudeToDB("power"))


def nnaudio_case(job: Job) -> Case:
    """nnAudio's, whose spectrum is a convolution."""

    def make() -> LogMel:
        from nnAudio.features.mel import MelSpectrogram

        c = job.chain
        mel = MelSpectrogram(
            sr=c.sample_rate,
            n_fft=c.n_fft,
            hop_length=c.hop_length,
            n_mels=c.n_mels,
            pad_mode="constant",
            verbose=False,
        ).to(job.device)
        return lambda waveform: to_db(mel(waveform))

    return plain_case(f"nnAudio mel + log10, batch {job.batch_size}", job, make)


def to_db(power: Tensor) -> Tensor:
    """Turn power to decibels, in place, with librosa's floor."""
    return power.clamp_(min=1e-10).log10_().mul_(10.0)


def stft_cases(job: Job) -> list[Case]:
    """torch.stft and a matrix product, written by hand; and the transform alone, as a bound."""
    c, device = job.chain, job.device
    window = torch.hann_window(c.n_fft, device=device)
    filters = ours.mel_filters(**c.frontend).to(device)

    def spectrum(waveform: Tensor) -> Tensor:
        return torch.stft(
            waveform, c.n_fft, c.hop_length, window=window, pad_mode="constant", return_complex=True
        )

    def log_mel(waveform: Tensor) -> Tensor:
        return to_db(filters @ spectrum(waveform).abs().square())

    chunk = 2
    bound = "not a log-mel: a bound for all that take this transform of every frame"
    return [
        plain_case(f"torch.stft by hand, batch {job.batch_size}", job, lambda: log_mel),
        plain_case(f"torch.stft by hand, chunks of {chunk}", job, lambda: log_mel, chunk=chunk),
        Case(
            name=f"torch.stft alone, chunks of {chunk}",
            build=lambda: _without_levels(job, spectrum, chunk),
            caveat=bound,
        ),
    ]


def _without_levels(job: Job, function: LogMel, chunk: int) -> Workload:
    batch = job.batches()
    return Workload(
        step=lambda: [function(part) for part in to_float(batch()).split(chunk)],
        n_clips=len(batch()),
    )


def librosa_cases(job: Job) -> list[Case]:
    """librosa's, a clip and a batch at a time, in this process."""
    sizes = {"a clip at a time": 1, f"batch {job.batch_size}": job.batch_size}
    return [
        Case(
            name=f"librosa log-mel, {name}",
            build=lambda size=size: _build_librosa(job, size),
            caveat=f"{PLAIN}; on the CPU, one process",
        )
        for name, size in sizes.items()
    ]


def _build_librosa(job: Job, size: int) -> Workload:
    if job.device.type == "cuda":
        raise UnavailableError("librosa runs on the CPU only")
    parts = cycle(job.samples.split(size)[: len(job.samples) // size])

    def log_mel(samples: Tensor) -> Tensor:
        return torch.from_numpy(librosa_log_mel(to_float(samples).numpy(), job.chain))

    def step() -> None:
        with threadpool_limits(1):  # its products are too small for more
            log_mel(next(parts))

    return Workload(
        step=step,
        n_clips=size,
        log_mel_db=lambda: log_mel(job.samples[:N_COMPARED]),
    )

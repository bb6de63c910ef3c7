"""flashmel: a log-mel kernel fused by hand, for CUDA only."""

from harness import Case, UnavailableError
from material import Job
from peers.mel import PLAIN, LogMel, plain_case, to_db


def case(job: Job) -> Case:
    """The fused mel, with torch's logarithm after it."""

    def make() -> LogMel:
        if job.device.type != "cuda":
            raise UnavailableError("flashmel needs a CUDA device")
        from flashmel import MelSpectrogram

        c = job.chain
        mel = MelSpectrogram(
            sample_rate=c.sample_rate,
            n_fft=c.n_fft,
            hop_length=c.hop_length,
            n_mels=c.n_mels,
            norm="slaney",
            mel_scale="slaney",
            pad_mode="constant",
        )
        return lambda samples: to_db(mel(samples))

    return plain_case(
        f"flashmel mel + log10, batch {job.batch_size}",
        job,
        make,
        caveat=f"{PLAIN}; no gradients; takes int16 as it is; the logarithm is torch's",
        convert=lambda samples: samples,
    )

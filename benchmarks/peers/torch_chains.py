"""Chains of torchaudio and torch-audiomentations, a batch at a time on the device."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from harness import Case, Workload
from material import Chain, Job, to_float
from peers.mel import in_chunks, torchaudio_log_mel

_CHUNK = 4
_N_STEPS = 2


def cases(job: Job) -> list[Case]:
    """Chain torchaudio in one go and in chunks, and torch-audiomentations."""
    limits = (
        f"one pitch and one tempo a call is all its API can do: always +{_N_STEPS} semitones (its "
        "cheapest step; kernels of other steps take up to gigabytes), one random tempo for each"
    )
    return [
        Case(
            name=f"torchaudio noise + PitchShift + TimeStretch + mel, {name}",
            build=lambda chunk=chunk: _build(job, _torchaudio_chain, chunk),
            caveat=f"{limits} {per}; white noise only",
        )
        for name, per, chunk in (
            (f"batch {job.batch_size}", "batch", job.batch_size),
            (f"chunks of {_CHUNK}", "chunk", _CHUNK),
        )
    ] + [
        Case(
            name="torch-audiomentations noise + PitchShift + torchaudio mel, batch "
            f"{job.batch_size}",
            build=lambda: _build(job, _torch_audiomentations_chain, job.batch_size),
            caveat="no stretch, the library has none; a Python loop over the clips; only the few "
            "pitches whose ratios are cheap at the sample rate",
        )
    ]


def _build(job: Job, make: Callable[[Job], Callable[[Tensor], Tensor]], chunk: int) -> Workload:
    chain, batch = make(job), job.batches()
    return Workload(step=lambda: in_chunks(chain, to_float(batch()), chunk), n_clips=len(batch()))


def _uniform(bounds: tuple[float, float], n: int, device: torch.device) -> Tensor:
    return torch.empty(n, device=device).uniform_(*bounds)


def _torchaudio_chain(job: Job) -> Callable[[Tensor], Tensor]:
    """Noise, pitch by time domain, then tempo on the spectrum that the mel needs anyway."""
    from torchaudio import functional, transforms

    c: Chain = job.chain
    pitch = transforms.PitchShift(c.sample_rate, n_steps=_N_STEPS)
    pitch(torch.zeros(1, c.n_time))  # makes its kernel, which ``to`` moves with the rest
    spectrum = transforms.Spectrogram(c.n_fft, hop_length=c.hop_length, power=None)
    stretch = transforms.TimeStretch(c.hop_length, c.n_fft // 2 + 1)
    mel = transforms.MelScale(
        c.n_mels, c.sample_rate, n_stft=c.n_fft // 2 + 1, norm="slaney", mel_scale="slaney"
    )
    level = transforms.AmplitudeToDB("power")
    for module in (pitch, spectrum, stretch, mel, level):
        module.to(job.device)

    def run(waveform: Tensor) -> Tensor:
        snr_db = _uniform(c.snr_db, len(waveform), job.device)
        noisy = functional.add_noise(waveform, torch.randn_like(waveform), snr_db)
        rate = float(torch.empty(()).uniform_(*c.rate))
        stretched = stretch(spectrum(pitch(noisy)), rate).abs().square()
        missing = c.n_frames - stretched.shape[-1]  # cut or padded, as every clip must be
        return level(mel(torch.nn.functional.pad(stretched, (0, missing))))

    return run


def _torch_audiomentations_chain(job: Job) -> Callable[[Tensor], Tensor]:
    """Noise of its colours white to brown, pitch, plain log-mel."""
    from torch_audiomentations import AddColoredNoise, PitchShift

    c = job.chain
    common = {"p": 1.0, "mode": "per_example", "sample_rate": c.sample_rate, "output_type": "dict"}
    noise = AddColoredNoise(*c.snr_db, min_f_decay=0.0, max_f_decay=2.0, **common).to(job.device)
    pitch = PitchShift(*c.semitones, **common).to(job.device)
    log_mel = torchaudio_log_mel(c).to(job.device)

    def run(waveform: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its window, at every clip
            changed = pitch(noise(waveform[:, None]).samples).samples
        return log_mel(changed[:, 0])

    return run

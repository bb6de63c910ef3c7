"""NVIDIA DALI: decode WAV files, mel, decibels; it has neither pitch shift nor time stretch."""

import numpy as np
import torch
from torch import Tensor

from harness import Case, Workload
from material import N_COMPARED, Job, write_wav_files

_QUEUE = 2
_SETTLE_S = 0.2


def case(job: Job) -> Case:
    """DALI's plain chain."""
    return Case(
        name=f"DALI decode WAV + mel + dB, batch {job.batch_size}",
        build=lambda: _build(job),
        caveat="no augmentation: no pitch shift or time stretch in DALI; reads 16-bit WAV files "
        "from the page cache, decoded on the CPU on any device",
    )


def _build(job: Job) -> Workload:
    from nvidia.dali import fn, pipeline_def, types

    c, is_cuda = job.chain, job.device.type == "cuda"
    files = [
        f"{f}" for f in write_wav_files(job.folder / "wav", job.samples.numpy(), c.sample_rate)
    ]
    window = torch.hann_window(c.n_fft).tolist()  # its own differs from librosa's

    @pipeline_def(
        batch_size=job.batch_size,
        num_threads=torch.get_num_threads(),
        device_id=job.device.index if is_cuda else None,
        prefetch_queue_depth=_QUEUE,
    )
    def chain():
        encoded, _ = fn.readers.file(files=files, prefetch_queue_depth=_QUEUE)
        audio, _ = fn.decoders.audio(encoded, dtype=types.FLOAT, downmix=True)
        spectrum = fn.spectrogram(
            audio.gpu() if is_cuda else audio,
            nfft=c.n_fft,
            window_length=c.n_fft,
            window_step=c.hop_length,
            window_fn=window,
            reflect_padding=False,
        )
        mel = fn.mel_filter_bank(
            spectrum, sample_rate=c.sample_rate, nfilter=c.n_mels, mel_formula="slaney"
        )
        return fn.to_decibels(mel, multiplier=10.0, reference=1.0, cutoff_db=-100.0)

    pipeline = chain()
    pipeline.build()
    first = pipeline.run()[0]
    first_clips = np.asarray((first.as_cpu() if is_cuda else first).as_tensor())[:N_COMPARED]
    log_mel_db: Tensor = torch.from_numpy(first_clips.copy())

    def drain() -> None:  # what was prepared while others were timed must not count
        for _ in range(_QUEUE):
            pipeline.run()

    return Workload(
        step=lambda: pipeline.run()[0].as_tensor(),
        n_clips=job.batch_size,
        before=drain,
        settle_s=_SETTLE_S,
        log_mel_db=lambda: log_mel_db,
    )

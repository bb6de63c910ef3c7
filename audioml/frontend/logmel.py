"""The log-mel front end as a module, so that it travels with the model it feeds."""

import math

import torch
from torch import Tensor, nn

from audioml.frontend import functional as F
from audioml.frontend.functional import MelNorm, MelScale

SEMITONE_STEP = 0.1
"""Pitch shifts are rounded to the filter banks at hand, a bank every 10 cents."""

# On a CPU a few clips at a time keep frames and spectra in the cache: 2 clips were 1.8 times as
# fast as 32 (2 cores, 5 s clips, n_fft 2048; diary.md).
_CPU_CHUNK = 2


class LogMel(nn.Module):
    """Turn waveforms into normalised log-mel spectrograms, at another pitch and tempo if asked.

    Everything is computed in float32, also under autocast: the power of a loud clip overflows
    float16, and bfloat16 has steps of 0.03 dB at best.

    Args:
        sample_rate: Rate of the waveform [Hz].
        n_fft: Length of the transform.
        win_length: Length of the periodic Hann window, at most ``n_fft``, centred in the frame.
        hop_length: Samples between frames.
        n_mels: Number of mel bands.
        f_min: Lower edge of the first band [Hz].
        f_max: Upper edge of the last band [Hz]; None for half the sample rate.
        mel_scale: "slaney" or "htk".
        mel_norm: "slaney" or "none".
        floor_db: Least level kept [dB re 1].
        max_semitones: Largest pitch shift that will be asked for, up or down.

    Source: librosa.feature.melspectrogram and power_to_db; within 0.05 dB down to 60 dB below the
        peak in tests/test_frontend.py.
    """

    window: Tensor
    filters: Tensor
    mean_db: Tensor
    std_db: Tensor

    def __init__(
        self,
        *,
        sample_rate: int,
        n_fft: int = 2048,
        win_length: int = 2048,
        hop_length: int = 512,
        n_mels: int = 128,
        f_min: float = 0.0,
        f_max: float | None = None,
        mel_scale: MelScale = "slaney",
        mel_norm: MelNorm = "slaney",
        floor_db: float = -100.0,
        max_semitones: float = 0.0,
    ) -> None:
        super().__init__()
        self.n_fft, self.hop_length, self.n_mels = n_fft, hop_length, n_mels
        self.floor_db, self.max_semitones = floor_db, max_semitones
        self._n_steps = math.ceil(max_semitones / SEMITONE_STEP)
        margin = n_fft - win_length
        window = nn.functional.pad(
            torch.hann_window(win_length), (margin // 2, margin - margin // 2)
        )
        ratios = [2.0 ** (i * SEMITONE_STEP / 12) for i in range(-self._n_steps, self._n_steps + 1)]
        filters = [
            F.mel_filterbank(
                sample_rate=sample_rate,
                n_fft=n_fft,
                n_mels=n_mels,
                f_min=f_min,
                f_max=f_max,
                mel_scale=mel_scale,
                mel_norm=mel_norm,
                pitch_ratio=ratio,
            )
            for ratio in ratios
        ]
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", torch.stack(filters), persistent=False)
        self.register_buffer("mean_db", torch.zeros(n_mels, 1))
        self.register_buffer("std_db", torch.ones(n_mels, 1))

    def n_frames(self, n_time: int) -> int:
        """Frames of a waveform of ``n_time`` samples."""
        return 1 + n_time // self.hop_length

    def set_statistics(self, mean_db: Tensor, std_db: Tensor) -> None:
        """Normalise by these from now on.

        Args:
            mean_db: Mean level of each band over the training clips [n_mels].
            std_db: Standard deviation [n_mels]; bands below 1 dB are divided by 1 dB.
        """
        self.mean_db.copy_(mean_db[:, None])
        self.std_db.copy_(std_db.clamp(min=1.0)[:, None])

    def log_mel_db(
        self, waveform: Tensor, rate: Tensor | None = None, semitones: Tensor | None = None
    ) -> Tensor:
        """Compute levels in decibels, before normalisation; see ``forward``."""
        n_batch, n_time = waveform.shape
        log_mel = waveform.new_empty(n_batch, self.n_mels, self.n_frames(n_time))
        chunk = n_batch if waveform.is_cuda else _CPU_CHUNK
        for start in range(0, n_batch, chunk):
            part = slice(start, start + chunk)
            frames = F.frame_waveform(
                waveform[part], self.n_fft, self.hop_length, None if rate is None else rate[part]
            )
            power = F.power_spectrum(frames, self.window).transpose(1, 2)
            filters = self._filters(len(power), None if semitones is None else semitones[part])
            torch.bmm(filters, power, out=log_mel[part])
        return F.power_to_db(log_mel, self.floor_db)

    @torch.no_grad()
    def forward(
        self, waveform: Tensor, rate: Tensor | None = None, semitones: Tensor | None = None
    ) -> Tensor:
        """Compute normalised log-mel spectrograms.

        Args:
            waveform: Samples [batch, time], full scale at 1.
            rate: Tempo factors [batch], above 1 is faster; None for 1.
            semitones: Pitch shifts [batch], within ``max_semitones``, rounded to 0.1; None for 0.

        Returns:
            [batch, n_mels, 1 + time // hop_length], float32, mean 0 and deviation 1 a band over
            the training clips.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            log_mel = self.log_mel_db(waveform.float(), rate, semitones)
            return log_mel.sub_(self.mean_db).div_(self.std_db)

    def _filters(self, n_batch: int, semitones: Tensor | None) -> Tensor:
        """Pick each clip's filter bank [batch, n_mels, freq]."""
        if semitones is None:
            return self.filters[self._n_steps].expand(n_batch, -1, -1)
        step = torch.round(semitones / SEMITONE_STEP).long()
        return self.filters[step.clamp(-self._n_steps, self._n_steps) + self._n_steps]

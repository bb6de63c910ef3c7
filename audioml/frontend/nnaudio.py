"""Front ends that nnAudio makes possible: one that is trained, and constant-Q transforms.

Neither changes tempo or pitch on the way.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from audioml.frontend import functional as F
from audioml.frontend.backends import NnAudioPower, leave_unsaved, nnaudio_spectrum
from audioml.frontend.levels import BandLevels
from audioml.frontend.logmel import LogMel


class TrainableLogMel(LogMel):
    """A log-mel spectrogram whose Fourier kernels and mel filters are trained with the network.

    Args:
        n_fft: Length of the transform.
        win_length: Length of the window, at most ``n_fft``.
        settings: The others of ``LogMel``, but for kind and max_semitones.
    """

    def __init__(self, *, n_fft: int = 2048, win_length: int = 2048, **settings: Any) -> None:
        super().__init__(n_fft=n_fft, win_length=win_length, kind="nnaudio", **settings)
        self.trainable = True
        self.spectrum = leave_unsaved(nnaudio_spectrum(n_fft, win_length, trainable=True))
        # The peaks of Slaney's filters lie far below 1 and far apart. What is trained has a peak of
        # 1, as the kernels have, so that one learning rate suits all.
        self.triangles = nn.Parameter(self.filters[0] / self.height[:, None])

    def reference(
        self,
        waveform: Tensor,
        rate: Tensor | None = None,
        semitones: Tensor | None = None,
        response: Tensor | None = None,
    ) -> Tensor:
        """Compute what ``forward`` does, differentiably; see ``LogMel.forward``."""
        _refuse_changes(rate, semitones)
        frames = F.frame_waveform(waveform, self.n_fft, self.hop_length)
        mel = (self.triangles @ self.spectrum(frames)) * self.height[:, None]
        return self._normalise(mel, response).to(self.dtype)


class LogCqt(BandLevels):
    """Turn waveforms into normalised levels of a constant-Q transform.

    Args:
        sample_rate: Rate of the waveform [Hz].
        hop_length: Samples between frames.
        n_mels: Number of bins.
        f_min: Frequency of the first bin [Hz], above 0.
        bins_per_octave: Bins in an octave; the last one must lie below half the sample rate.
        floor_db: Least level kept [dB re 1].
        dtype: Of the result: float32, float16 or bfloat16.
        trainable: Whether the kernels are trained with the network.

    Source: Brown 1991, as nnAudio.features.cqt.CQT1992v2 has it: within 0.05 dB of the definition,
        and 0.5 dB on average of librosa.cqt, 40 dB down from the peak in tests/test_nnaudio.py.
    """

    scale: Tensor

    def __init__(
        self,
        *,
        sample_rate: int,
        hop_length: int = 512,
        n_mels: int = 128,
        f_min: float = 40.0,
        bins_per_octave: int = 16,
        floor_db: float = -100.0,
        dtype: torch.dtype = torch.float32,
        trainable: bool = False,
    ) -> None:
        from nnAudio.features.cqt import CQT1992v2

        octave = torch.arange(n_mels, dtype=torch.float64) / bins_per_octave
        super().__init__(
            sample_rate=sample_rate,
            frequencies=f_min * 2.0**octave,
            hop_length=hop_length,
            floor_db=floor_db,
            dtype=dtype,
            trainable=trainable,
        )
        cqt = CQT1992v2(
            sr=sample_rate,
            hop_length=hop_length,
            fmin=f_min,
            n_bins=n_mels,
            bins_per_octave=bins_per_octave,
            norm=math.inf,
            pad_mode="constant",
            trainable=trainable,
            output_format="Complex",
            verbose=False,
        )
        # Kernels with a peak of 1 can be trained at a network's learning rate; those with a sum of
        # 1 that librosa has, of which this makes up for the difference, can't.
        self.register_buffer("scale", (2.0 / cqt.lenghts).square()[:, None], persistent=False)
        self.spectrum = leave_unsaved(NnAudioPower(cqt))

    def reference(
        self,
        waveform: Tensor,
        rate: Tensor | None = None,
        semitones: Tensor | None = None,
        response: Tensor | None = None,
    ) -> Tensor:
        """Compute what ``forward`` does, differentiably."""
        _refuse_changes(rate, semitones)
        return self._normalise(self.spectrum(waveform) * self.scale, response).to(self.dtype)


def _refuse_changes(rate: Tensor | None, semitones: Tensor | None) -> None:
    if rate is not None or semitones is not None:
        raise ValueError(
            "this front end changes neither tempo nor pitch; set augment.stretch.probability=0 "
            "and augment.pitch.probability=0"
        )

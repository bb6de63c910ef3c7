"""What can compute log-mels: audioml itself, and libraries that are asked for spectra and filters.

No library cuts frames at another stride for every clip. But all of them transform frames that lie
end to end and don't overlap, and draw triangles on any frequency axis. That is all it takes to
change tempo and pitch; see ``functional``.
"""

import importlib.util
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from audioml.frontend import functional as F
from audioml.frontend.functional import MelNorm, MelScale

Kind = Literal["torch", "triton", "torchaudio", "nnaudio"]

_PACKAGES = {"triton": "triton", "torchaudio": "torchaudio", "nnaudio": "nnAudio"}
_LONGER_AXIS = 4096  # bins among which one near a whole number of Hz is looked for


def choose_kind(wanted: Kind | Literal["auto"], device: torch.device) -> Kind:
    """Choose what computes log-mels.

    Args:
        wanted: A kind, or "auto" for Triton on CUDA where it is installed, and torch elsewhere.
        device: Where the front end runs.

    Raises:
        ValueError: If a kind is wanted whose package is missing, or Triton where it can't run.
    """
    if wanted == "auto":
        return "triton" if _is_installed("triton") and device.type == "cuda" else "torch"
    if not _is_installed(wanted):
        remedy = "" if wanted == "triton" else "pip install 'audioml[backends]', or "
        raise ValueError(
            f"frontend.kind={wanted} needs the package {_PACKAGES[wanted]}; {remedy}"
            "set frontend.kind=torch"
        )
    if wanted == "triton" and device.type != "cuda":
        raise ValueError(
            f"frontend.kind=triton needs a CUDA device, got {device}; set frontend.kind=auto"
        )
    return wanted


def _is_installed(kind: str) -> bool:
    return kind not in _PACKAGES or importlib.util.find_spec(_PACKAGES[kind]) is not None


class TorchSpectrum(nn.Module):
    """Power spectra by ``torch.fft``.

    Args:
        n_fft: Length of the transform.
        win_length: Length of the periodic Hann window, at most ``n_fft``, centred in the frame.
    """

    window: Tensor

    def __init__(self, n_fft: int, win_length: int) -> None:
        super().__init__()
        self.register_buffer("window", F.hann_window(n_fft, win_length))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [batch, frame, n_fft] -> power [batch, freq, frame]."""
        return F.power_spectrum(frames, self.window).transpose(1, 2)


def torchaudio_spectrum(n_fft: int, win_length: int) -> nn.Module:
    """Make ``torchaudio.transforms.Spectrogram`` do what ``TorchSpectrum`` does."""
    from torchaudio.transforms import Spectrogram

    return nn.Sequential(
        nn.Flatten(1), Spectrogram(n_fft, win_length, hop_length=n_fft, power=2.0, center=False)
    )


class NnAudioPower(nn.Module):
    """Squared magnitudes of what an nnAudio transform returns as real and imaginary parts.

    nnAudio's own magnitudes have an infinite slope at 0 or, where they can be trained, a floor at
    -80 dB. And cuDNN is kept from rounding to TF32, whose errors begin 60 dB below a peak.

    Args:
        transform: From waveforms [batch, time] to parts [batch, freq, frame, 2].
    """

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveforms [batch, time] -> power [batch, freq, frame]."""
        cudnn = torch.backends.cudnn
        with cudnn.flags(
            enabled=cudnn.enabled,
            benchmark=cudnn.benchmark,
            deterministic=cudnn.deterministic,
            allow_tf32=False,
        ):
            parts: Tensor = self.transform(waveform)
        return parts.square().sum(-1)


def nnaudio_spectrum(n_fft: int, win_length: int, *, trainable: bool = False) -> nn.Module:
    """Make ``nnAudio.features.stft.STFT``, a convolution, do what ``TorchSpectrum`` does.

    Args:
        n_fft: Length of the transform.
        win_length: Length of the periodic Hann window, at most ``n_fft``, centred in the frame.
        trainable: Whether the windowed sines and cosines are parameters.
    """
    from nnAudio.features.stft import STFT

    stft = STFT(
        n_fft=n_fft,
        win_length=win_length,
        hop_length=n_fft,
        center=False,
        trainable=trainable,
        output_format="Complex",
        verbose=False,
    )
    return nn.Sequential(nn.Flatten(1), NnAudioPower(stft))


def torchaudio_filterbank(
    *,
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    mel_scale: MelScale = "slaney",
    mel_norm: MelNorm = "slaney",
    pitch_ratio: float = 1.0,
) -> Tensor:
    """Make ``mel_filterbank``'s filters by ``torchaudio.functional.melscale_fbanks``."""
    from torchaudio.functional import melscale_fbanks

    # torchaudio's frequencies end at a whole number of Hz. So its axis is made longer, to where a
    # bin comes closest to one, and cut to length again.
    n_freqs, bin_hz = n_fft // 2 + 1, pitch_ratio * sample_rate / n_fft
    f_max = sample_rate / 2 if f_max is None else f_max
    first = max(n_freqs - 1, math.ceil(f_max / bin_hz))
    last_hz = torch.arange(first, first + _LONGER_AXIS, dtype=torch.float64) * bin_hz
    n_more = int((last_hz - last_hz.round()).abs().argmin())
    filters: Tensor = melscale_fbanks(
        first + n_more + 1,
        f_min,
        f_max,
        n_mels,
        sample_rate=2 * round(float(last_hz[n_more])),
        norm="slaney" if mel_norm == "slaney" else None,
        mel_scale=mel_scale,
    )
    return filters[:n_freqs].t().contiguous()


def nnaudio_filterbank(
    *,
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    mel_scale: MelScale = "slaney",
    mel_norm: MelNorm = "slaney",
    pitch_ratio: float = 1.0,
) -> Tensor:
    """Make ``mel_filterbank``'s filters by ``nnAudio.librosa_functions.get_mel``."""
    from nnAudio.librosa_functions import get_mel

    with warnings.catch_warnings():  # of bands that a clip shifted down does not reach
        warnings.filterwarnings("ignore", "Empty filters")
        filters = get_mel(
            sr=2 * (n_fft // 2) * pitch_ratio * sample_rate / n_fft,  # its half is the last bin
            n_fft=n_fft,
            n_mels=n_mels,
            fmin=f_min,
            fmax=sample_rate / 2 if f_max is None else f_max,
            htk=mel_scale == "htk",
            norm=1 if mel_norm == "slaney" else None,
        )
    return torch.from_numpy(filters)


@dataclass(frozen=True, slots=True)
class Backend:
    """What makes a log-mel's two parts.

    Args:
        make_spectrum: From the lengths of transform and window to a module as ``TorchSpectrum``.
        make_filterbank: As ``functional.mel_filterbank``; equal to it to 1e-4 of the largest weight
            in tests/test_backends.py.
    """

    make_spectrum: Callable[[int, int], nn.Module]
    make_filterbank: Callable[..., Tensor]


BACKENDS: dict[Kind, Backend] = {
    "torch": Backend(TorchSpectrum, F.mel_filterbank),
    "triton": Backend(TorchSpectrum, F.mel_filterbank),  # where it is given waveforms
    "torchaudio": Backend(torchaudio_spectrum, torchaudio_filterbank),
    "nnaudio": Backend(nnaudio_spectrum, nnaudio_filterbank),
}


def leave_unsaved(module: nn.Module) -> nn.Module:
    """Keep the buffers of a module out of checkpoints, for its settings say all about them."""
    for part in module.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            part.register_buffer(name, buffer, persistent=False)
    return module

"""A trained model as plain operations in float32, which other programs know as well."""

import copy
import math
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audioml.assembly import WithFrontend
from audioml.classifier import Classifier
from audioml.frontend import BandLevels, LogCqt, LogMel, MultiWindowLogMel, TrainableLogMel
from audioml.models.cnn import ResidualBlock
from audioml.objective import probabilities

# Frames with which no size inside a network becomes 1, which exporters take for a constant. A
# transformer is not among them: it has positions for one length.
_LEAST_FRAMES: Final = {
    "cnn": 17,
    "cnn_attention": 17,
    "alexnet": 95,
    "resnet50": 33,
    "resnet50_attention": 33,
}


class BandPowers(nn.Module):
    """Powers of frequency bands, by one convolution.

    Args:
        kernels: Real parts, then imaginary parts of what waveforms are correlated with
            [2 * freq, time].
        filters: What makes bands of frequencies [band, freq]; None where those are the bands.
        pad: Zeros before and after a waveform [samples].
        hop_length: Samples between frames.
    """

    kernels: Tensor
    filters: Tensor | None

    def __init__(
        self, kernels: Tensor, filters: Tensor | None, *, pad: tuple[int, int], hop_length: int
    ) -> None:
        super().__init__()
        self.pad, self.hop_length = pad, hop_length
        self.register_buffer("kernels", kernels[:, None])
        self.register_buffer("filters", filters)

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveforms [batch, time] -> powers [batch, band, frame]."""
        padded = F.pad(waveform, self.pad)[:, None]
        real, imaginary = F.conv1d(padded, self.kernels, stride=self.hop_length).chunk(2, dim=1)
        power = real * real + imaginary * imaginary
        return power if self.filters is None else self.filters @ power


class AdaptiveAverage(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two products with matrices, which ONNX has for any input size.

    Args:
        size: Rows and columns of the result.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channel, mel, frame] -> [batch, channel, *size]."""
        rows, columns = (_averages(x.shape[2 + k], self.size[k], x) for k in range(2))
        return rows @ x @ columns.t()


class HalvingAverage(nn.Module):
    """``nn.AvgPool2d(2, ceil_mode=True)`` as a convolution.

    A pooling traced by older versions of PyTorch takes odd and even sizes for different programs.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channel, mel, frame] -> [batch, channel, mel / 2, frame / 2], rounded up."""
        # A last row or column that is alone is averaged with its copy.
        padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
        n_channels = x.shape[1]
        return F.conv2d(
            padded, x.new_full((n_channels, 1, 2, 2), 0.25), stride=2, groups=n_channels
        )


class PortableClassifier(nn.Module):
    """Front end and network of a ``Classifier`` without anything that only PyTorch can do.

    Args:
        classifier: The model, on the CPU. It is not changed.

    Attributes:
        least_time: Samples of the shortest waveform; None if all must be as long as a clip.
    """

    mean_db: Tensor
    std_db: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        frontend, config = classifier.frontend, classifier.config
        logmels = list(frontend.parts) if isinstance(frontend, MultiWindowLogMel) else [frontend]
        self.bands = nn.ModuleList(_make_bands(cast(BandLevels, part)) for part in logmels)
        self.floor_power = 10.0 ** (frontend.floor_db / 10.0)
        self.register_buffer("mean_db", frontend.mean_db)
        self.register_buffer("std_db", frontend.std_db)
        network = classifier.network
        network = network[3] if isinstance(network, WithFrontend) else network
        self.network = copy.deepcopy(network)
        self.is_multi_label = classifier.is_multi_label
        pool = getattr(self.network, "avgpool", None)
        if isinstance(pool, nn.AdaptiveAvgPool2d):
            self.network.avgpool = AdaptiveAverage(cast(tuple[int, int], pool.output_size))
        for block in self.network.modules():
            if isinstance(block, ResidualBlock):
                block.shortcut[0] = HalvingAverage()
        n_frames = _LEAST_FRAMES.get(config.model.name, config.input_size[1] + 1)
        fits = n_frames <= config.input_size[1]
        self.least_time = (n_frames - 1) * frontend.hop_length if fits else None
        self.eval()

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Classify waveforms.

        Args:
            waveform: Samples [batch, time], full scale at 1, float32.

        Returns:
            Probabilities [batch, class], and the levels that they are computed from [batch, band,
            frame] in dB re 1, both float32.
        """
        power = torch.cat([bands(waveform) for bands in self.bands], dim=1)
        level_db = 10.0 * torch.log10(power.clamp(min=self.floor_power))
        logits = self.network(((level_db - self.mean_db) / self.std_db)[:, None])
        return probabilities(logits, is_multi_label=self.is_multi_label), level_db


def _make_bands(frontend: BandLevels) -> BandPowers:
    """Turn a front end into a convolution."""
    if isinstance(frontend, LogCqt):
        return _bands_of_cqt(frontend)
    if isinstance(frontend, TrainableLogMel):
        return _bands_of_trained(frontend)
    return _bands_of_log_mel(cast(LogMel, frontend))


def _bands_of_log_mel(frontend: LogMel) -> BandPowers:
    """Make a discrete Fourier transform of what the window lets through, and mel filters."""
    n_fft, window = frontend.n_fft, frontend.window.double()
    heard = window.nonzero()
    first, end = int(heard[0]), int(heard[-1]) + 1
    time = torch.arange(first, end)
    # Whole turns are taken off while numbers are whole, or large angles would be rounded.
    turn = torch.outer(torch.arange(n_fft // 2 + 1), time) % n_fft
    angle = turn.double() * (2.0 * math.pi / n_fft)
    kernels = torch.cat((angle.cos(), angle.sin())) * window[first:end]
    before = n_fft // 2 - first
    return BandPowers(
        kernels.float(),
        frontend.filters[frontend.filters.shape[0] // 2],
        pad=(before, end - first - before),
        hop_length=frontend.hop_length,
    )


def _bands_of_trained(frontend: TrainableLogMel) -> BandPowers:
    """Take the kernels and filters that were trained."""
    stft = cast(Any, frontend.spectrum)[1].transform
    n_fft = frontend.n_fft
    return BandPowers(
        torch.cat((stft.wcos, stft.wsin)).detach()[:, 0],
        (frontend.triangles * frontend.height[:, None]).detach(),
        pad=(n_fft // 2, n_fft - n_fft // 2),
        hop_length=frontend.hop_length,
    )


def _bands_of_cqt(frontend: LogCqt) -> BandPowers:
    """Take the kernels of a constant-Q transform, and what they are multiplied with afterwards."""
    cqt = cast(Any, frontend.spectrum).transform
    gain = (cqt.lenghts[:, None] * frontend.scale).sqrt().repeat(2, 1)
    kernels = torch.cat((cqt.cqt_kernels_real, cqt.cqt_kernels_imag)).detach()[:, 0]
    margin = cqt.kernel_width // 2
    return BandPowers(kernels * gain, None, pad=(margin, margin), hop_length=frontend.hop_length)


def _averages(size: int, n_parts: int, like: Tensor) -> Tensor:
    """Make the matrix [part, size] that averages over parts as adaptive pooling cuts them."""
    part = torch.arange(n_parts, device=like.device)[:, None]
    place = torch.arange(size, device=like.device)
    first, end = part * size // n_parts, ((part + 1) * size + n_parts - 1) // n_parts
    weight = ((place >= first) & (place < end)).to(like.dtype)
    return weight / weight.sum(dim=1, keepdim=True)

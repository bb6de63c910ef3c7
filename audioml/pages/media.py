"""Sounds and pictures as data URIs."""

import io
from base64 import b64encode
from typing import Final

import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from audioml.decode import resample

_MP3_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def audio_uri(waveform: NDArray[np.float32], sample_rate: int) -> str:
    """Encode a waveform as MP3, which every browser plays.

    Args:
        waveform: Samples [time], full scale at 1; louder ones are clipped.
        sample_rate: Their rate [Hz].
    """
    rate = next((rate for rate in _MP3_RATES if rate >= sample_rate), _MP3_RATES[-1])
    if rate != sample_rate:
        waveform = resample(torch.from_numpy(waveform)[None], sample_rate, rate)[0].numpy()
    file = io.BytesIO()
    soundfile.write(
        file,
        np.clip(waveform, -1, 1),
        rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="VARIABLE",  # smaller and faster than a constant one
        compression_level=0.6,
    )
    return _data_uri("audio/mpeg", file.getvalue())


def picture_uri(figure: Figure, *, dpi: int = 110) -> str:
    """Encode a figure as WebP, a third of PNG's size."""
    file = io.BytesIO()
    figure.savefig(file, format="webp", dpi=dpi, pil_kwargs={"quality": 82, "method": 4})
    return _data_uri("image/webp", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"

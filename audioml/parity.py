"""Whether a model in another form says what the classifier says."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final, TypeAlias

import torch
from torch import Tensor

from audioml.classifier import Classifier
from audioml.clips import CPU, decode_all, scan_headers
from audioml.config import RunConfig
from audioml.datasets import are_there, load_configured, locate
from audioml.errors import UserError
from audioml.splits import make_split
from audioml.store import WaveformStore

Model: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Waveforms [batch, time] -> probabilities [batch, class], levels [batch, band, frame] in dB."""

LEVEL_TOLERANCE_DB: Final = 0.05
PROBABILITY_TOLERANCE: Final = 1e-3
_RANGE_DB: Final = 60.0  # below a clip's peak; what is softer is rounding in either form
_MOST_CLIPS: Final = 400
_BATCH_SIZE: Final = 32


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far two forms of a model are apart.

    Args:
        n_sounds: Sounds that both were given.
        level_db: Largest difference of their levels down to 60 dB below a sound's peak [dB].
        probability: Largest difference of their probabilities.
        n_other: Sounds that they take for different classes.
    """

    n_sounds: int
    level_db: float
    probability: float
    n_other: int

    @property
    def holds(self) -> bool:
        """Whether one may stand for the other."""
        return (
            self.level_db <= LEVEL_TOLERANCE_DB
            and self.probability <= PROBABILITY_TOLERANCE
            and not self.n_other
        )

    def text(self) -> str:
        """Say it in words."""
        same = "the same class for all"
        return (
            f"levels within {self.level_db:.2g} dB, probabilities within {self.probability:.1g}, "
            f"{f'another class for {self.n_other}' if self.n_other else same}"
        )


def compare_models(classifier: Classifier, model: Model, batches: Iterable[Tensor]) -> Parity:
    """Give the same waveforms [batch, time] to a classifier in float32 and to its other form."""
    apart = [_compare(classifier, model, batch) for batch in batches]
    return Parity(
        n_sounds=sum(one.n_sounds for one in apart),
        level_db=_largest(one.level_db for one in apart),
        probability=_largest(one.probability for one in apart),
        n_other=sum(one.n_other for one in apart),
    )


def read_test_clips(config: RunConfig) -> tuple[Tensor | None, str]:
    """Read the test clips of a run as its evaluation cuts them, where its data are there.

    Nothing is downloaded. Of more than 400 clips, some are taken at even distances.

    Returns:
        Waveforms [clip, time] or None, and what they are or why there are none.
    """
    root, audio = config.data.root or locate(config.data), config.audio
    if not are_there(config.data):
        return None, f"no data in {root}"
    try:
        manifest = load_configured(config.data)
        split = make_split(manifest, **asdict(config.splits))
        chosen = split.test[:: math.ceil(len(split.test) / _MOST_CLIPS)]
        part = replace(manifest, clips=tuple(manifest.clips[clip] for clip in chosen))
        headers = scan_headers(part, audio.sample_rate, audio.decode_threads)
        clips = decode_all(part, headers, audio.sample_rate, audio.decode_threads, skip_bad=True)
    except (UserError, OSError) as error:
        return None, f"its data can't be used: {error}".partition("\n")[0]
    index = torch.tensor([clip for clip in range(len(part)) if clip not in clips.bad])
    if not len(index):
        return None, f"no test clip in {root} can be decoded"
    store = WaveformStore(clips, n_time=audio.n_time, pad=audio.pad, place="host", device=CPU)
    place = 0.0 if audio.crop == "start" else 0.5
    return store.gather(index, store.crop_start(index, place)), f"{len(index)} test clips"


def generate_sounds(n_sounds: int, n_time: int, seed: int = 0) -> Tensor:
    """Make tones in noise, soft and loud [n_sounds, n_time], float32."""
    g = torch.Generator().manual_seed(seed)
    frequency, phase = torch.rand(2, n_sounds, 8, 1, generator=g)
    time = torch.arange(n_time)
    tones = torch.sin(2.0 * math.pi * (0.45 * frequency**2 * time + phase)).mean(dim=1)
    noise = torch.randn(n_sounds, n_time, generator=g)
    tone_gain, noise_gain = 10.0 ** (-2.5 * torch.rand(2, n_sounds, 1, generator=g) - 0.3)
    sounds: Tensor = tones * tone_gain + 0.3 * noise * noise_gain
    return sounds


def make_batches(sounds: Tensor, lengths: Iterable[int]) -> Iterator[Tensor]:
    """Yield sounds [sound, time] in batches, then a few generated ones of other lengths."""
    yield from sounds.split(_BATCH_SIZE)
    yield sounds[:1]
    for seed, length in enumerate(lengths):
        yield generate_sounds(3, length, seed + 1)


def _largest(numbers: Iterable[float]) -> float:
    """Return the largest number; NaN if one is not a number."""
    values = list(numbers)
    return math.nan if any(map(math.isnan, values)) else max(values)


@torch.inference_mode()
def _compare(classifier: Classifier, model: Model, waveform: Tensor) -> Parity:
    probability, level_db = model(waveform)
    frontend = classifier.frontend
    expected_db = frontend(waveform) * frontend.std_db + frontend.mean_db
    expected = classifier(waveform)
    if (probability.shape, level_db.shape) != (expected.shape, expected_db.shape):
        return Parity(n_sounds=len(waveform), level_db=math.nan, probability=math.nan, n_other=0)
    heard = expected_db >= expected_db.amax(dim=(1, 2), keepdim=True) - _RANGE_DB
    return Parity(
        n_sounds=len(waveform),
        level_db=float((level_db - expected_db).abs()[heard].max()),
        probability=float((probability - expected).abs().max()),
        n_other=int((probability.argmax(dim=1) != expected.argmax(dim=1)).sum()),
    )

"""Settings of augmentation."""

from dataclasses import dataclass, field
from typing import Any, Literal

from audioml.config.checks import check, check_range


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """White, pink or brown noise at a random signal-to-noise ratio."""

    probability: float = 0.3
    snr_db: tuple[float, float] = (15.0, 40.0)

    def __post_init__(self) -> None:
        check("augment.noise.probability", self.probability, 0, 1)
        check_range("augment.noise.snr_db", self.snr_db, -20, 120)


@dataclass(frozen=True, kw_only=True)
class PitchConfig:
    """A pitch shift that keeps the tempo."""

    probability: float = 0.5
    semitones: tuple[float, float] = (-2.0, 2.0)

    def __post_init__(self) -> None:
        check("augment.pitch.probability", self.probability, 0, 1)
        check_range("augment.pitch.semitones", self.semitones, -12, 12)


@dataclass(frozen=True, kw_only=True)
class StretchConfig:
    """A tempo change that keeps the pitch; a rate above 1 is faster."""

    probability: float = 0.5
    rate: tuple[float, float] = (0.9, 1.1)

    def __post_init__(self) -> None:
        check("augment.stretch.probability", self.probability, 0, 1)
        check_range("augment.stretch.rate", self.rate, 0.25, 4)


@dataclass(frozen=True, kw_only=True)
class ShiftConfig:
    """A circular shift in time."""

    probability: float = 1.0
    shift_s: tuple[float, float] = (-2.5, 2.5)

    def __post_init__(self) -> None:
        check("augment.shift.probability", self.probability, 0, 1)
        check_range("augment.shift.shift_s", self.shift_s, -3_600, 3_600)


@dataclass(frozen=True, kw_only=True)
class GainConfig:
    """A change of level."""

    probability: float = 0.5
    gain_db: tuple[float, float] = (-6.0, 6.0)

    def __post_init__(self) -> None:
        check("augment.gain.probability", self.probability, 0, 1)
        check_range("augment.gain.gain_db", self.gain_db, -60, 60)


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """FilterAugment: a frequency response as of another room or microphone."""

    probability: float = 0.0
    gain_db: tuple[float, float] = (-6.0, 6.0)

    def __post_init__(self) -> None:
        check("augment.filter.probability", self.probability, 0, 1)
        check_range("augment.filter.gain_db", self.gain_db, -60, 60)


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """SpecAugment: one band of mels and one stretch of time set to the training mean."""

    probability: float = 0.5
    freq_share: float = 0.15
    time_share: float = 0.15

    def __post_init__(self) -> None:
        check("augment.mask.probability", self.probability, 0, 1)
        check("augment.mask.freq_share", self.freq_share, 0, 1)
        check("augment.mask.time_share", self.time_share, 0, 1)


@dataclass(frozen=True, kw_only=True)
class MixupConfig:
    """Two clips mixed as waveforms, their labels in the same proportion."""

    probability: float = 0.3
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check("augment.mixup.probability", self.probability, 0, 1)
        check("augment.mixup.alpha", self.alpha, 0.01, 100)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is done to training clips, each clip and epoch anew."""

    preset: Literal["ranges", "four_variants", "none"] = "ranges"
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    pitch: PitchConfig = field(default_factory=PitchConfig)
    stretch: StretchConfig = field(default_factory=StretchConfig)
    shift: ShiftConfig = field(default_factory=ShiftConfig)
    gain: GainConfig = field(default_factory=GainConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    mixup: MixupConfig = field(default_factory=MixupConfig)
    extra: list[dict[str, Any]] = field(default_factory=list)

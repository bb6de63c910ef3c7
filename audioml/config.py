"""Run configuration: frozen dataclasses filled from YAML files and ``section.key=value`` overrides.

``configs/default.yaml`` lists every key with its unit; a test holds it equal to these defaults.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError


class ConfigError(ValueError):
    """A configuration that can't be run; the message names its source, the key and the remedy."""


def _check(key: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse a number outside low..high, and NaN."""
    if not low <= value <= high:
        bounds = f"at least {low:g}" if math.isinf(high) else f"in {low:g}..{high:g}"
        raise ConfigError(f"{key} must be {bounds}, got {value:g}; set {key}")


def _check_range(key: str, value: tuple[float, float], low: float, high: float) -> None:
    """Refuse a range [least, most] that is reversed or leaves low..high."""
    if not low <= value[0] <= value[1] <= high:
        raise ConfigError(
            f"{key} must be [least, most] with {low:g} <= least <= most <= {high:g}, "
            f"got [{value[0]:g}, {value[1]:g}]; set {key}"
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data set."""

    name: Literal["synthetic", "esc10", "esc50"] = "synthetic"
    root: str | None = None
    url: str = "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"
    seed: int = 0

    def __post_init__(self) -> None:
        _check("data.seed", self.seed, 0, 2**32 - 1)


@dataclass(frozen=True, kw_only=True)
class SplitsConfig:
    """Which clips train, choose and test."""

    protocol: Literal["nested", "fixed", "holdout"] = "nested"
    fold: int = 1
    test_share: float = 0.2
    val_share: float = 0.2
    seed: int = 0
    strict_sources: bool = False

    def __post_init__(self) -> None:
        _check("splits.fold", self.fold, 1)
        _check("splits.test_share", self.test_share, 0.01, 0.9)
        _check("splits.val_share", self.val_share, 0.0, 0.9)
        _check("splits.test_share + splits.val_share", self.test_share + self.val_share, 0.01, 0.95)
        _check("splits.seed", self.seed, 0, 2**32 - 1)


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """How clips are decoded, cut to length and kept."""

    sample_rate: int = 22_050
    clip_s: float = 5.0
    pad: Literal["zero", "wrap"] = "zero"
    crop: Literal["random", "center", "start"] = "random"
    store: Literal["auto", "device", "pinned", "host", "stream"] = "auto"
    device_budget_gib: float = 4.0
    host_budget_gib: float = 16.0
    decode_threads: int = 0

    def __post_init__(self) -> None:
        _check("audio.sample_rate", self.sample_rate, 1_000, 384_000)
        _check("audio.clip_s", self.clip_s, 0.01, 3_600)
        _check("audio.device_budget_gib", self.device_budget_gib, 0)
        _check("audio.host_budget_gib", self.host_budget_gib, 0)
        _check("audio.decode_threads", self.decode_threads, 0, 256)


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """White, pink or brown noise at a random signal-to-noise ratio."""

    probability: float = 0.3
    snr_db: tuple[float, float] = (15.0, 40.0)

    def __post_init__(self) -> None:
        _check("augment.noise.probability", self.probability, 0, 1)
        _check_range("augment.noise.snr_db", self.snr_db, -20, 120)


@dataclass(frozen=True, kw_only=True)
class PitchConfig:
    """A pitch shift that keeps the tempo."""

    probability: float = 0.5
    semitones: tuple[float, float] = (-2.0, 2.0)

    def __post_init__(self) -> None:
        _check("augment.pitch.probability", self.probability, 0, 1)
        _check_range("augment.pitch.semitones", self.semitones, -12, 12)


@dataclass(frozen=True, kw_only=True)
class StretchConfig:
    """A tempo change that keeps the pitch; a rate above 1 is faster."""

    probability: float = 0.5
    rate: tuple[float, float] = (0.9, 1.1)

    def __post_init__(self) -> None:
        _check("augment.stretch.probability", self.probability, 0, 1)
        _check_range("augment.stretch.rate", self.rate, 0.25, 4)


@dataclass(frozen=True, kw_only=True)
class ShiftConfig:
    """A circular shift in time."""

    probability: float = 1.0
    shift_s: tuple[float, float] = (-2.5, 2.5)

    def __post_init__(self) -> None:
        _check("augment.shift.probability", self.probability, 0, 1)
        _check_range("augment.shift.shift_s", self.shift_s, -3_600, 3_600)


@dataclass(frozen=True, kw_only=True)
class GainConfig:
    """A change of level."""

    probability: float = 0.5
    gain_db: tuple[float, float] = (-6.0, 6.0)

    def __post_init__(self) -> None:
        _check("augment.gain.probability", self.probability, 0, 1)
        _check_range("augment.gain.gain_db", self.gain_db, -60, 60)


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """SpecAugment: one band of mels and one stretch of time set to the training mean."""

    probability: float = 0.5
    freq_share: float = 0.15
    time_share: float = 0.15

    def __post_init__(self) -> None:
        _check("augment.mask.probability", self.probability, 0, 1)
        _check("augment.mask.freq_share", self.freq_share, 0, 1)
        _check("augment.mask.time_share", self.time_share, 0, 1)


@dataclass(frozen=True, kw_only=True)
class MixupConfig:
    """Two clips mixed as waveforms, their labels in the same proportion."""

    probability: float = 0.3
    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check("augment.mixup.probability", self.probability, 0, 1)
        _check("augment.mixup.alpha", self.alpha, 0.01, 100)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is done to training clips, each clip and epoch anew."""

    preset: Literal["ranges", "four_variants", "none"] = "ranges"
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    pitch: PitchConfig = field(default_factory=PitchConfig)
    stretch: StretchConfig = field(default_factory=StretchConfig)
    shift: ShiftConfig = field(default_factory=ShiftConfig)
    gain: GainConfig = field(default_factory=GainConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    mixup: MixupConfig = field(default_factory=MixupConfig)
    extra: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class FrontendConfig:
    """The front end: what turns waveforms into what the network sees."""

    kind: Literal["auto", "torch", "triton", "torchaudio", "nnaudio"] = "auto"
    transform: Literal["mel", "cqt"] = "mel"
    trainable: bool = False
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    n_fft: int = 2048
    win_length: int = 2048
    hop_length: int = 512
    n_mels: int = 128
    bins_per_octave: int = 16
    f_min: float = 0.0
    f_max: float | None = None
    mel_scale: Literal["slaney", "htk"] = "slaney"
    mel_norm: Literal["slaney", "none"] = "slaney"
    floor_db: float = -100.0

    def __post_init__(self) -> None:
        _check("frontend.n_fft", self.n_fft, 16, 1 << 20)
        _check("frontend.win_length", self.win_length, 1, self.n_fft)
        _check("frontend.hop_length", self.hop_length, 1, self.n_fft)
        _check("frontend.n_mels", self.n_mels, 1, 4096)
        _check("frontend.bins_per_octave", self.bins_per_octave, 1, 192)
        _check("frontend.f_min", self.f_min, 0)
        _check("frontend.floor_db", self.floor_db, -200, 0)
        if self.nnaudio_setting and self.kind != "nnaudio":
            raise ConfigError(
                f"{self.nnaudio_setting} needs nnAudio, got frontend.kind={self.kind}; set "
                "frontend.kind=nnaudio"
            )
        if self.transform == "cqt" and self.f_min < 10:
            raise ConfigError(
                "frontend.transform=cqt needs a first bin of at least 10 Hz, got "
                f"{self.f_min:g}; set frontend.f_min"
            )

    @property
    def nnaudio_setting(self) -> str:
        """The setting that asks for nnAudio and rules out changes of tempo and pitch, or ""."""
        if self.trainable:
            return "frontend.trainable=true"
        return "frontend.transform=cqt" if self.transform == "cqt" else ""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network."""

    name: Literal["cnn"] = "cnn"
    width: int = 32
    dropout: float = 0.2

    def __post_init__(self) -> None:
        _check("model.width", self.width, 4, 1024)
        _check("model.dropout", self.dropout, 0, 0.95)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer and its schedule."""

    lr: float = 2e-3
    weight_decay: float = 0.02
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    warmup_share: float = 0.1
    label_smoothing: float = 0.1
    grad_clip: float = 1.0
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        _check("optim.lr", self.lr, 1e-9, 1e3)
        _check("optim.weight_decay", self.weight_decay, 0)
        _check("optim.warmup_share", self.warmup_share, 0, 0.9)
        _check("optim.label_smoothing", self.label_smoothing, 0, 0.9)
        _check("optim.grad_clip", self.grad_clip, 0)
        _check("optim.ema_decay", self.ema_decay, 0, 0.99999)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training loop."""

    epochs: int = 30
    batch_size: int = 16
    eval_batch_size: int = 32
    seed: int = 0
    device: str = "auto"
    amp: Literal["auto", "bf16", "off"] = "auto"
    channels_last: bool = True
    compile: bool = False
    patience: int = 0

    def __post_init__(self) -> None:
        _check("train.epochs", self.epochs, 1)
        _check("train.batch_size", self.batch_size, 2)
        _check("train.eval_batch_size", self.eval_batch_size, 1)
        _check("train.seed", self.seed, 0, 2**63 - 1)
        _check("train.patience", self.patience, 0)

    def is_mixed(self, device_type: str) -> bool:
        """Whether the model runs in mixed precision: asked for, or by default on CUDA."""
        return self.amp == "bf16" or (self.amp == "auto" and device_type == "cuda")


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where a run is kept."""

    dir: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything a run depends on."""

    data: DataConfig = field(default_factory=DataConfig)
    splits: SplitsConfig = field(default_factory=SplitsConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: OutputConfig = field(default_factory=OutputConfig)
    resume: str | None = None

    def __post_init__(self) -> None:
        nyquist = self.audio.sample_rate / 2
        f_max = nyquist if self.frontend.f_max is None else self.frontend.f_max
        if not self.frontend.f_min < f_max <= nyquist:
            raise ConfigError(
                f"frontend.f_min < frontend.f_max <= audio.sample_rate / 2 ({nyquist:g} Hz) must "
                f"hold, got {self.frontend.f_min:g} and {f_max:g}; set frontend.f_max"
            )
        last_octave = (self.frontend.n_mels - 1) / self.frontend.bins_per_octave
        last_hz = self.frontend.f_min * 2.0**last_octave
        if self.frontend.transform == "cqt" and last_hz > f_max:
            raise ConfigError(
                f"the last of frontend.n_mels={self.frontend.n_mels} bins lies at {last_hz:g} Hz, "
                f"above {f_max:g} Hz; lower frontend.n_mels or frontend.f_min, or raise "
                "frontend.bins_per_octave"
            )
        self._check_changes()

    def _check_changes(self) -> None:
        """Refuse augmentation that the front end can't do."""
        setting, preset = self.frontend.nnaudio_setting, self.augment.preset
        if not setting or preset == "none":
            return
        if preset == "four_variants":
            raise ConfigError(
                f"{setting} changes neither pitch nor tempo, which augment.preset=four_variants "
                "does; set augment.preset=ranges or augment.preset=none"
            )
        names = ("pitch", "stretch", "mask") if self.frontend.trainable else ("pitch", "stretch")
        wanted = [name for name in names if getattr(self.augment, name).probability]
        if wanted:
            keys = " ".join(f"augment.{name}.probability=0" for name in wanted)
            raise ConfigError(f"{setting} can't do {', '.join(wanted)}; set {keys}")


def load_config(files: Sequence[Path] = (), overrides: Sequence[str] = ()) -> RunConfig:
    """Build a run configuration; later sources win over earlier ones, overrides over files.

    Args:
        files: YAML files, each part of the mapping in ``configs/default.yaml``.
        overrides: Assignments such as ``"optim.lr=3e-4"``.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: If a file can't be read, or a key or value does not fit ``RunConfig``.
    """
    node = OmegaConf.structured(RunConfig)
    for file in files:
        node = _merge(node, file)
    for override in overrides:
        node = _merge(node, override)
    try:
        return cast(RunConfig, OmegaConf.to_object(node))
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from error


def to_yaml(config: RunConfig) -> str:
    """Write a configuration as YAML that ``load_config`` reads back to an equal one."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def flatten(config: object, prefix: str = "") -> dict[str, Any]:
    """List a configuration's values by their dotted keys, ``{"optim.lr": 0.001, ...}``."""
    flat: dict[str, Any] = {}
    for item in fields(cast(Any, config)):
        value, key = getattr(config, item.name), f"{prefix}{item.name}"
        flat |= flatten(value, f"{key}.") if is_dataclass(value) else {key: value}
    return flat


def _merge(node: DictConfig, addition: Path | str) -> DictConfig:
    source = f"{addition}" if isinstance(addition, Path) else f"override {addition!r}"
    if isinstance(addition, str) and "=" not in addition:
        raise ConfigError(f"{source}: expected section.key=value")
    try:
        loaded = (
            OmegaConf.load(addition)
            if isinstance(addition, Path)
            else OmegaConf.from_dotlist([addition])
        )
        if not isinstance(loaded, DictConfig):
            raise ConfigError(f"{source}: expected a mapping of sections")
        return cast(DictConfig, OmegaConf.merge(node, loaded))
    except ConfigKeyError as error:
        raise ConfigError(f"{source}: {_unknown_key(error)}") from error
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{source}: {key}{_first_line(error)}") from error
    except (YAMLError, OSError) as error:
        raise ConfigError(f"{source}: {error}") from error


def _unknown_key(error: ConfigKeyError) -> str:
    """Name a key that does not exist and the closest ones that do."""
    key = str(error.full_key)
    known = list(flatten(RunConfig()))
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    close = close or [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = f"did you mean {' or '.join(close)}?" if close else "see python train.py --help"
    return f"unknown key {key}; {hint}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]

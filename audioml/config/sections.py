"""Settings by section: frozen dataclasses that refuse what can't be run.

``configs/default.yaml`` lists every key with its unit; a test holds it equal to these defaults.
"""

from dataclasses import dataclass, field
from typing import Literal

from audioml.config.augment import AugmentConfig
from audioml.config.checks import ConfigError, check


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data set."""

    name: Literal[
        "synthetic", "esc10", "esc50", "csv", "folder", "icbhi", "physionet2016", "shards"
    ] = "synthetic"
    root: str | None = None
    manifest: str | None = None
    source_pattern: str | None = None
    url: str = "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"
    seed: int = 0
    on_bad_file: Literal["stop", "skip"] = "stop"
    max_bad_share: float = 0.01
    near_duplicates: Literal["auto", "ignore", "warn", "stop"] = "auto"

    def __post_init__(self) -> None:
        check("data.seed", self.seed, 0, 2**32 - 1)
        check("data.max_bad_share", self.max_bad_share, 0, 0.5)
        for key, name in (("manifest", "csv"), ("source_pattern", "folder")):
            if getattr(self, key) is not None and self.name != name:
                raise ConfigError(
                    f"data.{key} is for data.name={name}, got data.name={self.name}; set "
                    f"data.name={name} or leave data.{key} out"
                )
        if self.name == "csv" and self.manifest is None:
            raise ConfigError("data.name=csv needs a list of clips; set data.manifest=FILE")
        if self.name in ("folder", "shards") and self.root is None:
            raise ConfigError(f"data.name={self.name} needs the folder; set data.root=FOLDER")


@dataclass(frozen=True, kw_only=True)
class SplitsConfig:
    """Which clips train, choose and test."""

    protocol: Literal["nested", "fixed", "holdout", "given"] = "nested"
    fold: int = 1
    test_share: float = 0.2
    val_share: float = 0.2
    seed: int = 0
    strict_sources: bool = False

    def __post_init__(self) -> None:
        check("splits.fold", self.fold, 1)
        check("splits.test_share", self.test_share, 0.01, 0.9)
        check("splits.val_share", self.val_share, 0.0, 0.9)
        check("splits.test_share + splits.val_share", self.test_share + self.val_share, 0.01, 0.95)
        check("splits.seed", self.seed, 0, 2**32 - 1)


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """How clips are decoded, cut to length and kept."""

    sample_rate: int = 22_050
    clip_s: float = 5.0
    pad: Literal["zero", "wrap"] = "zero"
    crop: Literal["random", "center", "start"] = "random"
    eval_crops: int = 1
    store: Literal["auto", "device", "pinned", "host", "stream"] = "auto"
    device_budget_gib: float = 4.0
    host_budget_gib: float = 16.0
    decode_threads: int = 0

    def __post_init__(self) -> None:
        check("audio.sample_rate", self.sample_rate, 1_000, 384_000)
        check("audio.clip_s", self.clip_s, 0.01, 3_600)
        check("audio.eval_crops", self.eval_crops, 1, 100)
        if self.eval_crops > 1 and self.crop == "start":
            raise ConfigError(
                f"audio.eval_crops={self.eval_crops} spreads crops over the clip, which "
                "audio.crop=start does not; set audio.crop=random or audio.eval_crops=1"
            )
        check("audio.device_budget_gib", self.device_budget_gib, 0)
        check("audio.host_budget_gib", self.host_budget_gib, 0)
        check("audio.decode_threads", self.decode_threads, 0, 256)

    @property
    def n_time(self) -> int:
        """Samples of a clip as models get it."""
        return round(self.clip_s * self.sample_rate)


@dataclass(frozen=True, kw_only=True)
class FrontendConfig:
    """The front end: what turns waveforms into what the network sees."""

    kind: Literal["auto", "torch", "triton", "torchaudio", "nnaudio"] = "auto"
    transform: Literal["mel", "cqt"] = "mel"
    trainable: bool = False
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    n_fft: int = 2048
    win_length: int = 2048
    windows: list[int] = field(default_factory=list)
    hop_length: int = 512
    n_mels: int = 128
    bins_per_octave: int = 16
    f_min: float = 0.0
    f_max: float | None = None
    mel_scale: Literal["slaney", "htk"] = "slaney"
    mel_norm: Literal["slaney", "none"] = "slaney"
    floor_db: float = -100.0

    def __post_init__(self) -> None:
        check("frontend.n_fft", self.n_fft, 16, 1 << 20)
        check("frontend.win_length", self.win_length, 1, self.n_fft)
        check("frontend.hop_length", self.hop_length, 1, self.n_fft)
        check("frontend.n_mels", self.n_mels, 1, 4096)
        check("frontend.bins_per_octave", self.bins_per_octave, 1, 192)
        check("frontend.f_min", self.f_min, 0)
        check("frontend.floor_db", self.floor_db, -200, 0)
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
        self._check_windows()

    def _check_windows(self) -> None:
        """Refuse what can't be three windows of a log-mel."""
        for window in self.windows:
            check("frontend.windows", window, 1, self.n_fft)
        if len(self.windows) not in (0, 3):
            raise ConfigError(
                f"frontend.windows must be three lengths, got {self.windows}; set frontend.windows"
            )
        if self.windows and self.nnaudio_setting:
            raise ConfigError(
                f"frontend.windows can't be had with {self.nnaudio_setting}; set "
                "frontend.windows=[]"
            )

    @property
    def nnaudio_setting(self) -> str:
        """The setting that asks for nnAudio and rules out changes of tempo and pitch, or ""."""
        if self.trainable:
            return "frontend.trainable=true"
        return "frontend.transform=cqt" if self.transform == "cqt" else ""


@dataclass(frozen=True, kw_only=True)
class AstConfig:
    """The audio spectrogram transformer's size."""

    patch: int = 16
    stride: int = 16
    dim: int = 192
    depth: int = 6
    heads: int = 3

    def __post_init__(self) -> None:
        check("model.ast.patch", self.patch, 1, 256)
        check("model.ast.stride", self.stride, 1, self.patch)
        check("model.ast.dim", self.dim, 8, 4096)
        check("model.ast.depth", self.depth, 1, 64)
        check("model.ast.heads", self.heads, 1, 64)
        if self.dim % self.heads:
            raise ConfigError(
                f"model.ast.dim must be a multiple of model.ast.heads ({self.heads}), got "
                f"{self.dim}; set model.ast.dim"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network."""

    name: Literal["cnn", "cnn_attention", "alexnet", "resnet50", "resnet50_attention", "ast"] = (
        "cnn"
    )
    width: int = 32
    dropout: float = 0.2
    weights: str = "auto"
    load_head: bool = False
    channels: Literal["mono", "repeated", "deltas", "windows"] = "mono"
    ast: AstConfig = field(default_factory=AstConfig)

    def __post_init__(self) -> None:
        check("model.width", self.width, 4, 1024)
        check("model.dropout", self.dropout, 0, 0.95)
        if self.channels != "mono" and not self.is_imagenet:
            raise ConfigError(
                f"model.channels={self.channels} is for alexnet, resnet50 and resnet50_attention, "
                f"got model.name={self.name}; set model.channels=mono"
            )

    @property
    def is_imagenet(self) -> bool:
        """Whether torchvision has weights for it, trained on ImageNet's three channels."""
        return self.name in ("alexnet", "resnet50", "resnet50_attention")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Which layers learn when, and how fast."""

    head_epochs: int = 0
    unfreeze_every: int = 0
    lr_decay: float = 1.0
    batch_norm: Literal["train", "frozen"] = "train"

    def __post_init__(self) -> None:
        check("finetune.head_epochs", self.head_epochs, -1)
        check("finetune.unfreeze_every", self.unfreeze_every, 0)
        check("finetune.lr_decay", self.lr_decay, 0.01, 1)
        if self.unfreeze_every and self.head_epochs < 1:
            raise ConfigError(
                "finetune.unfreeze_every unfreezes what finetune.head_epochs froze, got "
                f"finetune.head_epochs={self.head_epochs}; set finetune.head_epochs to 1 or more"
            )


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
        check("optim.lr", self.lr, 1e-9, 1e3)
        check("optim.weight_decay", self.weight_decay, 0)
        check("optim.warmup_share", self.warmup_share, 0, 0.9)
        check("optim.label_smoothing", self.label_smoothing, 0, 0.9)
        check("optim.grad_clip", self.grad_clip, 0)
        check("optim.ema_decay", self.ema_decay, 0, 0.99999)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training loop."""

    epochs: int = 30
    batch_size: int = 16
    accumulate: int = 1
    eval_batch_size: int = 32
    seed: int = 0
    device: str = "auto"
    amp: Literal["auto", "bf16", "fp32"] = "auto"
    channels_last: bool = True
    compile: bool = False
    sync_batch_norm: bool = False
    patience: int = 0
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    class_weights: Literal["equal", "balanced"] = "equal"
    on_bad_step: Literal["stop", "skip"] = "stop"
    auto_batch: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        check("train.epochs", self.epochs, 1)
        check("train.batch_size", self.batch_size, 2)
        check("train.accumulate", self.accumulate, 1)
        check("train.eval_batch_size", self.eval_batch_size, 1)
        check("train.seed", self.seed, 0, 2**63 - 1)
        check("train.patience", self.patience, 0)
        if self.sampling == self.class_weights == "balanced":
            raise ConfigError(
                "train.sampling=balanced and train.class_weights=balanced both make up for rare "
                "classes, and together do it twice; set one of them to its default"
            )


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where a run is kept, and how often it is saved within an epoch."""

    dir: str | None = None
    save_every_steps: int = 0
    save_every_min: float = 10.0
    report: bool = True

    def __post_init__(self) -> None:
        check("run.save_every_steps", self.save_every_steps, 0)
        check("run.save_every_min", self.save_every_min, 0)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything a run depends on."""

    data: DataConfig = field(default_factory=DataConfig)
    splits: SplitsConfig = field(default_factory=SplitsConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
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
        if bool(self.frontend.windows) != (self.model.channels == "windows"):
            raise ConfigError(
                "frontend.windows and model.channels=windows go together, got "
                f"frontend.windows={self.frontend.windows} and model.channels="
                f"{self.model.channels}; set both or neither"
            )
        if self.augment.extra and self.train.sampling == "balanced":
            raise ConfigError(
                "augment.extra draws once a clip and epoch, and train.sampling=balanced takes some "
                "clips several times; set augment.extra=[] or train.sampling=shuffled"
            )
        self._check_changes()

    @property
    def input_size(self) -> tuple[int, int]:
        """Bands and frames of a log-mel."""
        return self.frontend.n_mels, 1 + self.audio.n_time // self.frontend.hop_length

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
        names = ["pitch", "stretch", *(["filter", "mask"] if self.frontend.trainable else [])]
        wanted = [name for name in names if getattr(self.augment, name).probability]
        if wanted:
            keys = " ".join(f"augment.{name}.probability=0" for name in wanted)
            raise ConfigError(f"{setting} can't do {', '.join(wanted)}; set {keys}")

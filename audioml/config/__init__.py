"""Run configuration: frozen dataclasses filled from YAML files and overrides."""

from audioml.config.augment import (
    AugmentConfig,
    FilterConfig,
    GainConfig,
    MaskConfig,
    MixupConfig,
    NoiseConfig,
    PitchConfig,
    ShiftConfig,
    StretchConfig,
)
from audioml.config.checks import ConfigError
from audioml.config.loading import config_from_yaml, flatten, load_config, to_yaml
from audioml.config.sections import (
    AstConfig,
    AudioConfig,
    DataConfig,
    FinetuneConfig,
    FrontendConfig,
    ModelConfig,
    OptimConfig,
    OutputConfig,
    RunConfig,
    SplitsConfig,
    TrainConfig,
)

__all__ = [
    "AstConfig",
    "AudioConfig",
    "AugmentConfig",
    "ConfigError",
    "DataConfig",
    "FilterConfig",
    "FinetuneConfig",
    "FrontendConfig",
    "GainConfig",
    "MaskConfig",
    "MixupConfig",
    "ModelConfig",
    "NoiseConfig",
    "OptimConfig",
    "OutputConfig",
    "PitchConfig",
    "RunConfig",
    "ShiftConfig",
    "SplitsConfig",
    "StretchConfig",
    "TrainConfig",
    "config_from_yaml",
    "flatten",
    "load_config",
    "to_yaml",
]

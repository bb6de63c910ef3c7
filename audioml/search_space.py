"""What a sweep varies, read from ``KEY=V1,V2,...`` and, to be sampled, ``KEY=LOW..HIGH``."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from audioml.config import ConfigError, RunConfig, flatten, load_config

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
Space = dict[str, Distribution]

# Learning rate and batch size, as the project that this one replaces tried them.
DEFAULT_OVER = ("optim.lr=1e-4,5e-4,1e-3", "train.batch_size=32,64")
_DECADE = 10.0
_RANGE = re.compile(r"[-+.\deE]+?\.\.[-+.\deE]+")
_COMMA = re.compile(r",(?![^\[{]*[\]}])")  # not those inside [low, high]
_FIXED = {
    "data": "every trial must hear the same clips",
    "splits": "trials on other clips can't be compared",
    "run": "every trial has a folder of its own; set --dir for the sweep",
    "resume": "the same sweep command goes on with a sweep",
}


def read_space(words: Sequence[str], base: RunConfig) -> Space:
    """Read what is varied, and try every value.

    Args:
        words: Each ``KEY=V1,V2,...``, kept as they are written, or ``KEY=LOW..HIGH``: drawn
            uniformly, integers for a setting that is an integer, and uniformly in the logarithm
            if the ends are positive and more than a decade apart.
        base: The settings that are not varied.

    Returns:
        What a value is drawn from, by key.

    Raises:
        ConfigError: If a key or value can't be used, or stands there twice.
    """
    space: Space = {}
    for word in words:
        key, _, text = word.partition("=")
        section = key.partition(".")[0]
        if section in _FIXED:
            raise ConfigError(f"--over {key}: can't be varied; {_FIXED[section]}")
        if key in space:
            raise ConfigError(f"--over {key}: given twice; list all its values in one --over")
        read = _read_range if _RANGE.fullmatch(text) else _read_values
        space[key] = read(key, text, base)
    return space


def combinations(space: Space, base: RunConfig) -> list[dict[str, str]]:
    """List a grid's combinations, the last key changing fastest, and try each.

    Raises:
        ConfigError: If a key has a range, or a combination can't be run.
    """
    choices: dict[str, list[str]] = {}
    for key, listed in list_choices(space).items():
        if listed is None:
            raise ConfigError(
                f"--over {key}={describe(space[key])}: a grid needs values, such as {key}=V1,V2; "
                "or set --method tpe"
            )
        choices[key] = listed
    grid = [dict(zip(choices, row, strict=True)) for row in itertools.product(*choices.values())]
    for point in grid:
        load_config(overrides=assignments(point), base=base)
    return grid


def assignments(point: Mapping[str, Any]) -> list[str]:
    """Write a trial's values as overrides."""
    return [f"{key}={value}" for key, value in point.items()]


def describe(distribution: Distribution) -> str:
    """Write what a value is drawn from as it is written on the command line."""
    if isinstance(distribution, CategoricalDistribution):
        return ",".join(str(choice) for choice in distribution.choices)
    return f"{distribution.low}..{distribution.high}"


def list_choices(space: Space) -> dict[str, list[str] | None]:
    """Give the listed values by key; None for a range."""
    return {
        key: [str(choice) for choice in values.choices]
        if isinstance(values, CategoricalDistribution)
        else None
        for key, values in space.items()
    }


def _read_values(key: str, text: str, base: RunConfig) -> CategoricalDistribution:
    texts = [value.strip() for value in _COMMA.split(text)]
    if not all(texts):
        raise ConfigError(f"--over {key}={text}: expected KEY=V1,V2,... without empty values")
    values = [_read_value(key, value, base) for value in texts]
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ConfigError(f"--over {key}={text}: {texts[place]} is there twice; leave one out")
    return CategoricalDistribution(texts)


def _read_range(key: str, text: str, base: RunConfig) -> Distribution:
    low, high = (_read_value(key, end, base) for end in text.split("..", 1))
    if type(low) not in (int, float):
        raise ConfigError(f"--over {key}={text}: {key} is not a number; list its values")
    if not low < high:
        raise ConfigError(f"--over {key}={text}: the lower end must come first")
    log = low > 0 and high / low > _DECADE
    if isinstance(low, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _read_value(key: str, text: str, base: RunConfig) -> Any:
    """Read a value as the configuration does."""
    flat = flatten(load_config(overrides=[f"{key}={text}"], base=base))
    if key not in flat:
        raise ConfigError(f"--over {key}={text}: {key} is a section; name a setting in it")
    return flat[key]

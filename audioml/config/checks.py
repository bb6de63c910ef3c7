"""How settings are refused."""

import math

from audioml.errors import UserError


class ConfigError(UserError):
    """A configuration that can't be run; the message names its source, the key and the remedy."""


def check(key: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse a number outside low..high, and NaN."""
    if not low <= value <= high:
        bounds = f"at least {low:g}" if math.isinf(high) else f"in {low:g}..{high:g}"
        raise ConfigError(f"{key} must be {bounds}, got {value:g}; set {key}")


def check_range(key: str, value: tuple[float, float], low: float, high: float) -> None:
    """Refuse a range [least, most] that is reversed or leaves low..high."""
    if not low <= value[0] <= value[1] <= high:
        raise ConfigError(
            f"{key} must be [least, most] with {low:g} <= least <= most <= {high:g}, "
            f"got [{value[0]:g}, {value[1]:g}]; set {key}"
        )

"""Effects that the device path lacks, such as rooms and codecs: audiomentations, on the CPU."""

import difflib
import random
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audioml.config import ConfigError
from audioml.rng import Stream, random_words

_N_TRIED = 3  # clips on which a chain is tried before it is used


class Effects:
    """A chain of audiomentations transforms, a function of (seed, epoch, clip) like all else.

    The transforms draw from the interpreter's generators, which are seeded for every clip. So one
    clip is changed at a time, whatever the number of threads.

    Args:
        settings: What is applied in turn: a transform's ``name`` and its arguments.
        sample_rate: Rate of the clips [Hz].
        seed: The run's seed.

    Raises:
        ConfigError: If audiomentations or what a transform needs is missing, a transform or an
            argument is unknown, or the chain can't be repeated.
    """

    def __init__(
        self, settings: Sequence[Mapping[str, Any]], *, sample_rate: int, seed: int
    ) -> None:
        self.sample_rate, self.seed = sample_rate, seed
        self.names = [str(setting.get("name")) for setting in settings]
        self._transforms = [_make_transform(dict(setting)) for setting in settings]
        self._lock = threading.Lock()
        self._try()

    def __call__(self, waveform: NDArray[np.float32], epoch: int, clip: int) -> NDArray[np.float32]:
        """Change a clip.

        Args:
            waveform: Samples [time], full scale at 1.
            epoch: Epoch number, from 0.
            clip: The clip's number.

        Returns:
            [time], as long as before: cut, or followed by silence.

        Raises:
            ValueError: If a transform makes NaN or infinite samples; names it.
        """
        words = random_words(self.seed, epoch, torch.tensor(clip), Stream.EFFECTS).tolist()
        changed = waveform
        with self._lock, _seeded(words):
            for name, transform in zip(self.names, self._transforms, strict=True):
                changed = np.asarray(transform(changed, self.sample_rate), dtype=np.float32)
                if not np.isfinite(changed).all():
                    raise ValueError(
                        f"augment.extra: {name} made NaN or infinite samples; leave it out, or "
                        "narrow its arguments"
                    )
        changed = changed[: len(waveform)]
        return np.pad(changed, (0, len(waveform) - len(changed)))

    def _try(self) -> None:
        """Apply the chain: some transforms look for what they need, or for dice, only then."""
        noise = np.random.default_rng(0).standard_normal(self.sample_rate, dtype=np.float32)
        try:
            self(0.1 * noise, 0, 0)  # now all is imported that is to be seeded
            first, again = ([self(0.1 * noise, 0, n) for n in range(_N_TRIED)] for _ in range(2))
        except ImportError as error:
            raise ConfigError(
                f"augment.extra: {error}; python -m pip install 'audioml[effects]'"
            ) from error
        if not np.array_equal(first, again):
            raise ConfigError(
                f"augment.extra: {', '.join(self.names)}: not the same twice, with the same seed; "
                "leave out what draws from a generator of its own, or set its arguments so that "
                "it does not"
            )

    def cost_s(self, waveforms: Sequence[NDArray[np.float32]]) -> float:
        """Measure what a clip costs on average [s]."""
        begin = time.perf_counter()
        for clip, waveform in enumerate(waveforms):
            self(waveform, 0, clip)
        return (time.perf_counter() - begin) / len(waveforms)


class _seeded:  # noqa: N801 - used as a function
    """Seed the generators of the interpreter, NumPy and pyroomacoustics; put back the first two."""

    def __init__(self, words: list[int]) -> None:
        self._words = words

    def __enter__(self) -> None:
        self._states = random.getstate(), np.random.get_state()  # noqa: NPY002
        random.seed(self._words[0] << 32 | self._words[1])
        np.random.seed(self._words[2:])  # noqa: NPY002
        rooms = sys.modules.get("pyroomacoustics")
        if rooms is not None:
            rooms.random.seed(numpy=self._words[2], libroom=self._words[3])

    def __exit__(self, *_: object) -> None:
        random.setstate(self._states[0])
        np.random.set_state(self._states[1])  # noqa: NPY002


def _make_transform(setting: dict[str, Any]) -> Any:
    """Build a transform by its name."""
    try:
        import audiomentations
    except ImportError as error:
        raise ConfigError(
            "augment.extra needs the package audiomentations: python -m pip install "
            f"'audioml[effects]' ({error})"
        ) from error
    known = {
        name: kind
        for name, kind in vars(audiomentations).items()
        if isinstance(kind, type) and name[:1].isupper()
    }
    name = str(setting.pop("name", None))
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else "see audiomentations' documentation"
        raise ConfigError(f"augment.extra: unknown transform {name}; {hint}")
    try:
        return known[name](**setting)
    except (TypeError, ValueError, AssertionError, ImportError, OSError) as error:
        raise ConfigError(f"augment.extra: {name}: {error}") from error

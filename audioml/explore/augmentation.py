"""What each augmentation does to a clip: as a run would draw it, seen as a model gets it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audioml.augment import VARIANTS, Augment, Draws
from audioml.clips import collect
from audioml.config import AugmentConfig, RunConfig
from audioml.frontend import BandLevels
from audioml.frontend.functional import read_waveforms
from audioml.store import Request, WaveformStore

EXACT: Final = "You hear exactly what the front end reads."
BY_SIGNALSMITH: Final = (
    "You hear Signalsmith Stretch; the front end does it to the log-mel and makes no waveform."
)
UNHEARD: Final = "It is done to the log-mel: there is nothing to hear."
_N_DRAWS: Final = 8  # of an augmentation, of which the weakest and the strongest are shown
_MOST_EPOCHS: Final = 400  # that are looked through for them
_N_TOGETHER: Final = 3  # epochs shown with all at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """A clip, changed.

    Args:
        name: The augmentation: ``original``, ``noise`` and so on, ``all``, or one of ``VARIANTS``.
        value: What was drawn, in words.
        epoch: The first epoch, from 1, in which a run draws it; None where that is no draw.
        level_db: Levels as the model gets them, but not normalised [band, frame] in dB.
        waveform: What there is to hear [time], full scale at 1; None for nothing.
        heard: How that was made, or why there is nothing.
    """

    name: str
    value: str
    epoch: int | None
    level_db: NDArray[np.float32]
    waveform: NDArray[np.float32] | None
    heard: str


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """An augmentation.

    Args:
        fields: What it draws.
        strength: How much a draw does; 0 for nothing.
        words: A draw in words.
        heard: How it can be heard.
    """

    fields: tuple[str, ...]
    strength: Callable[[Draws], float]
    words: Callable[[Draws], str]
    heard: str


_KINDS: Final = {
    "noise": _Kind(
        fields=("snr_db",),
        strength=lambda d: 10 ** (-d.snr_db.item() / 20),
        words=lambda d: f"SNR {d.snr_db.item():.1f} dB",
        heard=EXACT,
    ),
    "gain": _Kind(
        fields=("gain_db",),
        strength=lambda d: d.gain_db.item(),
        words=lambda d: f"{d.gain_db.item():+.1f} dB",
        heard=EXACT,
    ),
    "mixup": _Kind(
        fields=("mix_ratio",),
        strength=lambda d: 1 - d.mix_ratio.item(),
        words=lambda d: f"{d.mix_ratio.item():.0%} this clip",
        heard=EXACT,
    ),
    "pitch": _Kind(
        fields=("semitones",),
        strength=lambda d: d.semitones.item(),
        words=lambda d: f"{d.semitones.item():+.1f} semitones",
        heard=BY_SIGNALSMITH,
    ),
    "stretch": _Kind(
        fields=("rate",),
        strength=lambda d: d.rate.item() - 1,
        words=lambda d: f"{d.rate.item():.2f} times as fast",
        heard=BY_SIGNALSMITH,
    ),
    "filter": _Kind(
        fields=("filter_db",),
        strength=lambda d: d.filter_db.std().item(),
        words=lambda d: " ".join(f"{gain + 0.0:+.1f}" for gain in d.filter_db[0]) + " dB",
        heard=UNHEARD,
    ),
    "mask": _Kind(
        fields=("freq_start", "freq_share", "time_start", "time_share"),
        strength=lambda d: (d.freq_share + d.time_share).item(),
        words=lambda d: f"{d.freq_share.item():.0%} of bands, {d.time_share.item():.0%} of time",
        heard=UNHEARD,
    ),
}


class Demonstration:
    """A clip and what a run's augmentation does to it.

    Args:
        config: The run's settings.
        frontend: A front end with statistics, so that masks are seen at the mean level; with room
            for the largest pitch shift.
        augment: The run's augmentation.
        clips: Numbers of the clip and, where there is one, of a partner to mix it with: what is
            drawn for them is what a run draws.
        waveforms: Their samples [time], full scale at 1.
    """

    def __init__(
        self,
        config: RunConfig,
        frontend: BandLevels,
        augment: Augment,
        clips: Sequence[int],
        waveforms: Sequence[NDArray[np.float32]],
    ) -> None:
        self.config, self.frontend, self.augment = config, frontend, augment
        self._numbers = torch.tensor(clips)
        samples = [np.clip(np.round(w * 32768), -32768, 32767).astype(np.int16) for w in waveforms]
        self._store = WaveformStore(
            collect(samples),
            n_time=config.audio.n_time,
            pad=config.audio.pad,
            place="host",
            device=torch.device("cpu"),
        )

    def changes(self) -> Iterator[Change]:
        """Show the clip as it is, each augmentation alone, and all of them together."""
        none = self.augment.draw(0, self._numbers[:1]).neutral()
        yield self._change("original", "as it is", none, EXACT, None)
        if self.config.augment.preset == "four_variants":
            for number, name in enumerate(VARIANTS[1:], start=1):
                draws = self.augment.draw_variant(number, self._numbers[:1])
                kind = next(k for k in ("noise", "pitch", "stretch") if _KINDS[k].strength(draws))
                yield self._change(name, _KINDS[kind].words(draws), draws, _KINDS[kind].heard, None)
        if self.config.augment.preset == "ranges":
            yield from self._each_alone(none)
            yield from self._together()

    def _each_alone(self, none: Draws) -> Iterator[Change]:
        """Show the weakest and the strongest of each augmentation's first draws."""
        wanted = [name for name in _KINDS if getattr(self.config.augment, name).probability > 0]
        if len(self._numbers) == 1 and "mixup" in wanted:
            wanted.remove("mixup")
        found: dict[str, list[tuple[int, Draws]]] = {name: [] for name in wanted}
        for epoch in range(_MOST_EPOCHS):
            if all(len(draws) >= _N_DRAWS for draws in found.values()):
                break
            drawn = self.augment.draw(epoch, self._numbers[:1])
            for name, draws in found.items():
                alone = replace(none, **{f: getattr(drawn, f) for f in _KINDS[name].fields})
                if _KINDS[name].strength(alone) and len(draws) < _N_DRAWS:
                    draws.append((epoch, replace(alone, noise_start=drawn.noise_start)))
        for name, draws in found.items():
            kind = _KINDS[name]
            ordered = sorted(draws, key=lambda drawn: _KINDS[name].strength(drawn[1]))
            for epoch, alone in ordered[:1] + ordered[1:][-1:]:
                yield self._change(name, kind.words(alone), alone, kind.heard, epoch)
        yield from self._shifts(none)

    def _shifts(self, none: Draws) -> Iterator[Change]:
        """Show the farthest of the first shifts to either side."""
        if not self.config.augment.shift.probability:
            return
        shifts = [
            (int(self.augment.draw_shift(epoch, self._numbers[:1])), epoch)
            for epoch in range(_N_DRAWS)
        ]
        for shift, epoch in sorted({min(shifts), max(shifts)}):
            if shift:
                value = f"{shift / self.frontend.sample_rate:+.2f} s"
                yield self._change("shift", value, none, EXACT, epoch, shift)

    def _together(self) -> Iterator[Change]:
        """Show what the model gets in the first epochs."""
        for epoch in range(_N_TOGETHER):
            draws = self.augment.draw(epoch, self._numbers[:1])
            if len(self._numbers) == 1:
                draws = replace(draws, mix_ratio=torch.ones(1))
            shift = self.augment.draw_shift(epoch, self._numbers[:, None])
            shift_s = shift[0].item() / self.frontend.sample_rate
            kinds = [(name, kind) for name, kind in _KINDS.items() if kind.strength(draws)]
            words = [f"{name} {kind.words(draws)}" for name, kind in kinds]
            words += [f"shift {shift_s:+.2f} s"] if shift_s else []
            yield self._change("all", "; ".join(words), draws, UNHEARD, epoch, shift)

    @torch.no_grad()
    def _change(
        self,
        name: str,
        value: str,
        draws: Draws,
        heard: str,
        epoch: int | None,
        shift: Tensor | int = 0,
    ) -> Change:
        """Render one change."""
        store = self._store
        n_voices = 2 if self.augment.mixes and draws.mix_ratio.item() < 1 else 1
        voices = torch.arange(n_voices)[:, None]
        shift = shift[:n_voices] if isinstance(shift, Tensor) else shift
        start = store.crop_start(voices, 0.5) + shift
        (reading,) = store.read([Request(voices, start, [slice(None)])])
        recipe = self.augment.recipe(
            draws,
            store.rms[voices],
            n_mels=self.frontend.n_mels,
            n_frames=self.frontend.n_frames(store.n_time),
        )
        level = self.frontend.render(reading, recipe, store.n_time)[0]
        level_db = level * self.frontend.std_db + self.frontend.mean_db
        waveform = read_waveforms(reading, recipe, store.n_time)[0].numpy()
        if heard == BY_SIGNALSMITH:
            rate, semitones = draws.rate.item(), draws.semitones.item()
            waveform = stretch(waveform, self.frontend.sample_rate, rate=rate, semitones=semitones)
        return Change(
            name=name,
            value=value,
            epoch=None if epoch is None else epoch + 1,
            level_db=level_db.numpy(),
            waveform=None if heard == UNHEARD else waveform,
            heard=heard,
        )


def describe_settings(config: AugmentConfig, name: str) -> str:
    """Say with which probability and from which range an augmentation is drawn."""
    values: dict[str, Any] = dict(vars(getattr(config, name)))
    probability = values.pop("probability")
    ranges = [
        f"{key} {' to '.join(f'{end:g}' for end in np.atleast_1d(value))}"
        for key, value in values.items()
    ]
    return f"probability {probability:g}, {', '.join(ranges)}"


def stretch(
    waveform: NDArray[np.float32], sample_rate: int, *, rate: float, semitones: float
) -> NDArray[np.float32]:
    """Change tempo and pitch of a waveform by Signalsmith Stretch, to listen to.

    Args:
        waveform: Samples [time].
        sample_rate: Their rate [Hz].
        rate: Tempo factor, above 1 is faster.
        semitones: Pitch shift.

    Returns:
        [time], as long as before: cut, or followed by silence.
    """
    import python_stretch

    engine = python_stretch.Signalsmith.Stretch()
    engine.preset(1, sample_rate)
    engine.setTransposeSemitones(semitones)
    engine.setTimeFactor(rate)
    changed = np.asarray(engine.process(waveform[None].astype(np.float32)))[0, : len(waveform)]
    return np.pad(changed, (0, len(waveform) - len(changed)))

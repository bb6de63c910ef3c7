"""What the front end is asked for: which samples make a waveform, and how they are changed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Reading:
    """Where the samples of a batch are; one voice a clip, or two where clips are mixed.

    A clip is read as a circle: after its ``length`` samples comes silence up to ``period``, and
    then its first sample again. So a shift in time is no more than another place to start.

    Args:
        samples: Clips one after another [sample], int16 where they are stored, on the device that
            works on them.
        begin: First sample of each clip in ``samples`` [voice, batch], int64.
        length: Samples of each clip [voice, batch], int64, at least 1.
        period: Samples once around its circle [voice, batch], int64, at least ``length``.
        start: Where on its circle reading starts [voice, batch], int64, 0 .. period - 1.
    """

    samples: Tensor
    begin: Tensor
    length: Tensor
    period: Tensor
    start: Tensor

    @classmethod
    def of_waveforms(cls, waveform: Tensor) -> "Reading":
        """Read waveforms [voice, batch, time] as they are; their samples may be of any type."""
        n_voices, n_batch, n_time = waveform.shape
        begin = torch.arange(n_voices * n_batch, device=waveform.device).mul_(n_time)
        begin = begin.view(n_voices, n_batch)
        length = torch.full_like(begin, n_time)
        return cls(waveform.reshape(-1), begin, length, length, torch.zeros_like(begin))

    @property
    def n_voices(self) -> int:
        """Clips in a waveform: 1, or 2 where they are mixed."""
        return self.begin.shape[0]

    @property
    def n_batch(self) -> int:
        """Number of waveforms."""
        return self.begin.shape[1]

    def part(self, clips: slice) -> "Reading":
        """Pick some of the clips."""
        return replace(
            self,
            begin=self.begin[:, clips],
            length=self.length[:, clips],
            period=self.period[:, clips],
            start=self.start[:, clips],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How the samples of a batch become log-mels; every field is on their device.

    The waveform is ``sum(gain[v] * voice[v]) + noise_gain * noise[noise_start:]``.

    Args:
        gain: Amplitude of an int16 step of each voice [voice, batch], float32.
        noise: Noises of RMS 1 one after another [sample], float32; None for no noise.
        noise_gain: Amplitude of the noise [batch], float32; 0 for none.
        noise_start: First sample of the noise [batch], int64.
        rate: Tempo factors [batch], float32, above 1 is faster; None for 1.
        semitones: Pitch shifts [batch], float32; None for 0.
        response: Gains of each mel band's power [n_mels, batch], float32; None for 1.
        mask: First and past-the-last mel band, first and past-the-last frame set to 0, the training
            mean [4, batch], int64; None for none.
    """

    gain: Tensor
    noise: Tensor | None = None
    noise_gain: Tensor | None = None
    noise_start: Tensor | None = None
    rate: Tensor | None = None
    semitones: Tensor | None = None
    response: Tensor | None = None
    mask: Tensor | None = None

    def part(self, clips: slice | Tensor) -> "Recipe":
        """Pick some of the clips."""
        of_clips = replace(self, noise=None)  # the noise is all clips' in common
        return replace(of_clips._changed(lambda p: p[..., clips]), noise=self.noise)

    def to(self, device: torch.device) -> "Recipe":
        """Move to a device."""
        return self._changed(lambda parameter: parameter.to(device))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "Recipe":
        parameters = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: change(p) for name, p in parameters.items() if p is not None}
        return replace(self, **changed)


def circle_pieces(
    n_time: int, length: int, period: int, start: int
) -> Iterator[tuple[slice, slice]]:
    """Cut a reading from a circle into straight pieces; between them is silence.

    Args:
        n_time: Samples wanted.
        length: Samples of the clip.
        period: Samples once around.
        start: Where on the circle reading starts, 0 .. period - 1.

    Yields:
        Where a piece stands in the waveform and where in the clip.
    """
    done, position = 0, start
    while done < n_time:
        n_heard = min(length - position, n_time - done)
        if n_heard > 0:
            yield slice(done, done + n_heard), slice(position, position + n_heard)
        done, position = done + period - position, 0

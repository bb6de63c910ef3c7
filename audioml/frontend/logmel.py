"""The log-mel front end as a module, so that it travels with the model it feeds."""

import math
from typing import Any

import torch
from torch import Tensor

from audioml.frontend import cpu
from audioml.frontend import functional as F
from audioml.frontend.backends import BACKENDS, Kind, leave_unsaved
from audioml.frontend.functional import MelNorm, MelScale
from audioml.frontend.levels import BandLevels
from audioml.frontend.recipe import Reading, Recipe
from audioml.threads import one_thread_an_operation

STEPS_A_SEMITONE = 10
"""Pitch shifts are rounded to the filter banks at hand, a bank every 10 cents."""


class LogMel(BandLevels):
    """Turn waveforms into normalised log-mel spectrograms, at another pitch and tempo if asked.

    Args:
        sample_rate: Rate of the waveform [Hz].
        n_fft: Length of the transform.
        win_length: Length of the periodic Hann window, at most ``n_fft``, centred in the frame.
        hop_length: Samples between frames.
        n_mels: Number of mel bands.
        f_min: Lower edge of the first band [Hz].
        f_max: Upper edge of the last band [Hz]; None for half the sample rate.
        mel_scale: "slaney" or "htk".
        mel_norm: "slaney" or "none".
        floor_db: Least level kept [dB re 1].
        max_semitones: Largest pitch shift that will be asked for, up or down.
        kind: What computes it, one of ``backends.BACKENDS``; all within 0.05 dB of "torch" down to
            60 dB below the peak in tests/test_backends.py.
        dtype: Of the result: float32, float16 or bfloat16.

    Source: librosa.feature.melspectrogram and power_to_db; within 0.05 dB down to 60 dB below the
        peak in tests/test_frontend.py.
    """

    window: Tensor
    filters: Tensor
    edges: Tensor
    height: Tensor

    def __init__(
        self,
        *,
        sample_rate: int,
        n_fft: int = 2048,
        win_length: int = 2048,
        hop_length: int = 512,
        n_mels: int = 128,
        f_min: float = 0.0,
        f_max: float | None = None,
        mel_scale: MelScale = "slaney",
        mel_norm: MelNorm = "slaney",
        floor_db: float = -100.0,
        max_semitones: float = 0.0,
        kind: Kind = "torch",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        mel: dict[str, Any] = {
            "sample_rate": sample_rate,
            "n_mels": n_mels,
            "f_min": f_min,
            "f_max": f_max,
            "mel_scale": mel_scale,
        }
        edges = F.mel_edges(**mel)
        super().__init__(
            sample_rate=sample_rate,
            frequencies=edges[1:-1],
            hop_length=hop_length,
            floor_db=floor_db,
            dtype=dtype,
        )
        self.n_fft, self.kind, self.max_semitones = n_fft, kind, max_semitones
        self._n_steps = math.ceil(max_semitones * STEPS_A_SEMITONE)
        filters = [
            BACKENDS[kind].make_filterbank(
                n_fft=n_fft,
                mel_norm=mel_norm,
                pitch_ratio=2.0 ** (step / STEPS_A_SEMITONE / 12),
                **mel,
            )
            for step in range(-self._n_steps, self._n_steps + 1)
        ]
        self.spectrum = leave_unsaved(BACKENDS[kind].make_spectrum(n_fft, win_length))
        self.register_buffer("window", F.hann_window(n_fft, win_length), persistent=False)
        self.register_buffer("filters", torch.stack(filters), persistent=False)
        self.register_buffer("edges", (edges * n_fft / sample_rate).float(), persistent=False)
        self.register_buffer("height", F.mel_heights(edges, mel_norm).float(), persistent=False)
        self._cut_filters: dict[int, list[cpu.Band]] = {}

    def forward(
        self,
        waveform: Tensor,
        rate: Tensor | None = None,
        semitones: Tensor | None = None,
        response: Tensor | None = None,
    ) -> Tensor:
        """Compute normalised log-mel spectrograms.

        Args:
            waveform: Samples [batch, time], full scale at 1.
            rate: Tempo factors [batch], above 1 is faster; None for 1.
            semitones: Pitch shifts [batch], within ``max_semitones``, rounded to 0.1; None for 0.
            response: Gains of each band's power [n_mels, batch]; None for 1.

        Returns:
            [batch, n_mels, 1 + time // hop_length], ``dtype``, mean 0 and deviation 1 a band over
            the training clips.
        """
        if not self._has_fast_path:
            return super().forward(waveform, rate, semitones, response)
        gain = torch.ones(1, len(waveform), device=waveform.device)
        recipe = Recipe(gain=gain, rate=rate, semitones=semitones, response=response)
        return self.render(Reading.of_waveforms(waveform[None].float()), recipe, waveform.shape[1])

    @torch.no_grad()
    def render(self, reading: Reading, recipe: Recipe, n_time: int) -> Tensor:
        """Compute normalised log-mel spectrograms of stored clips, changed on the way."""
        if not self._has_fast_path:
            return super().render(reading, recipe, n_time)
        compute = self._render_on_cuda if self.kind == "triton" else self._render_on_cpu
        with torch.autocast(self.window.device.type, enabled=False):
            return compute(reading, recipe, n_time)

    @property
    def _has_fast_path(self) -> bool:
        """Whether there is more for it than ``reference``."""
        return self.kind == "triton" or (self.kind == "torch" and not self.window.is_cuda)

    def reference(
        self,
        waveform: Tensor,
        rate: Tensor | None = None,
        semitones: Tensor | None = None,
        response: Tensor | None = None,
    ) -> Tensor:
        """Compute what ``forward`` does by plain operations on whole batches, on any device."""
        frames = F.frame_waveform(waveform, self.n_fft, self.hop_length, rate)
        filters = self.filters[self._pitch_steps(len(waveform), semitones)]
        return self._normalise(torch.bmm(filters, self.spectrum(frames)), response).to(self.dtype)

    def _render_on_cpu(self, reading: Reading, recipe: Recipe, n_time: int) -> Tensor:
        """Compute what ``reference`` does of what ``read_waveforms`` reads, a clip at a time."""
        n_batch, floor_power = reading.n_batch, 10.0 ** (self.floor_db / 10.0)
        scale, offset = 10.0 / self.std_db, -self.mean_db / self.std_db
        response = None if recipe.response is None else recipe.response.t()[..., None]

        def finish(clip: int, power: Tensor, level: Tensor) -> None:  # _normalise, in fewer steps
            if response is not None:
                power.mul_(response[clip])
            torch.clamp(power, min=floor_power, out=level)
            torch.addcmul(offset, level.log10_(), scale, out=level)

        with one_thread_an_operation() as n_threads:
            rate = torch.ones(n_batch) if recipe.rate is None else recipe.rate
            starts = F.frame_starts(self.n_frames(n_time), self.hop_length, rate)
            steps = self._pitch_steps(n_batch, recipe.semitones).tolist()
            log_mel = cpu.mel_spectrograms(
                cpu.reader(reading, recipe),
                finish,
                starts.clamp_(max=n_time + self.n_fft // 2),
                [self._filters_cut(step) for step in steps],
                n_time=n_time,
                window=self.window,
                n_threads=n_threads,
            )
            masks = [] if recipe.mask is None else recipe.mask.t().tolist()
            for level, (low, high, first, end) in zip(log_mel, masks, strict=False):
                level[low:high] = 0.0
                level[:, first:end] = 0.0
        return log_mel.to(self.dtype)

    def _render_on_cuda(self, reading: Reading, recipe: Recipe, n_time: int) -> Tensor:
        """Compute what ``reference`` does of what ``read_waveforms`` reads, in three launches."""
        from audioml.frontend import cuda  # here, because not every system has Triton

        bank = cuda.Bank(
            window=self.window,
            hop_length=self.hop_length,
            edges=self.edges,
            height=self.height,
            mean_db=self.mean_db,
            std_db=self.std_db,
            floor_power=10.0 ** (self.floor_db / 10.0),
            max_steps=self._n_steps,
            steps_a_semitone=STEPS_A_SEMITONE,
        )
        return cuda.render(reading, recipe, bank, n_time, self.dtype)

    def _pitch_steps(self, n_batch: int, semitones: Tensor | None) -> Tensor:
        """Choose each clip's filter bank [batch], int64."""
        if semitones is None:
            return torch.full((n_batch,), self._n_steps, device=self.filters.device)
        steps = torch.floor(semitones.double() * STEPS_A_SEMITONE + 0.5).long()
        return steps.clamp_(-self._n_steps, self._n_steps).add_(self._n_steps)

    def _filters_cut(self, step: int) -> list[cpu.Band]:
        if step not in self._cut_filters:
            self._cut_filters[step] = cpu.cut_filters(self.filters[step])
        return self._cut_filters[step]

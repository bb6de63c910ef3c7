"""Batches of log-mels, made on the device while the model is busy with the one before."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, pairwise, tee
from typing import Literal

import torch
from torch import Tensor

from audioml.augment import Augment
from audioml.augment.functional import audible_ratio
from audioml.decode import FULL_SCALE
from audioml.frontend import BandLevels
from audioml.frontend.recipe import Reading, Recipe
from audioml.ranks import ALONE, Ranks
from audioml.rng import Stream, clips_of, permutation, uniform
from audioml.sampling import draw_balanced, find_rarest
from audioml.store import ClipStore, Request
from audioml.threads import one_thread_an_operation

Crop = Literal["random", "center", "start"]
Sampling = Literal["shuffled", "balanced"]
_N_PLANNED = 2048  # clips decided at a time: some milliseconds beside a step, in any data set


@dataclass(frozen=True, slots=True)
class Batch:
    """What a model is fed, all on the device.

    Args:
        input: Log-mels [batch, 1, mel, frame], normalised; or, where the front end is part of the
            model, waveforms [batch, 1, time].
        target: Class probabilities [batch, class]; one-hot unless clips were mixed.
        clip_index: Clips [batch], int64.
        n_whole: Clips of the batch that all ranks get a share of; None where these are all.
        stands_in: Whether this rank gets none of them, and the one clip here counts for nothing.
    """

    input: Tensor
    target: Tensor
    clip_index: Tensor
    n_whole: int | None = None
    stands_in: bool = False

    @property
    def n_own(self) -> int:
        """Clips here that count."""
        return 0 if self.stands_in else len(self.clip_index)

    @property
    def size(self) -> int:
        """Clips of the batch on all ranks."""
        return len(self.clip_index) if self.n_whole is None else self.n_whole


@dataclass(frozen=True, slots=True)
class _Share:
    """What a rank gets of a batch: ``places`` in the epoch's order, of ``n_whole`` clips."""

    places: range
    n_whole: int
    stands_in: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    """Some batches decided beforehand: which clips, read from where, mixed and changed how.

    Args:
        shares: What this rank gets of each batch.
        request: The clips and, where they are mixed, their partners.
        index: Their numbers [voice, n], on the device.
        recipe: What is done to each clip, on the device.
        ratio: Share of each clip in its mixture [n, 1], on the device; None where none is mixed.
    """

    shares: list["_Share"]
    request: Request
    index: Tensor
    recipe: Recipe
    ratio: Tensor | None


Render = Callable[[Reading, Recipe, int], Tensor]
"""Makes a batch's input: of where its samples are, how they are changed, and how many it has."""

_Prepared = tuple[Batch, torch.cuda.Event | None]  # a batch, and when it is ready


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Make the stream that all loaders of a device share, and with it the memory kept for it."""
    return torch.cuda.Stream(device)


class Loader:
    """Epochs of batches over some of the clips.

    With augmentation the clips are shuffled, moved, mixed, changed and masked, each as a function
    of (seed, epoch, clip) alone: neither batch size nor device, nor what ran before, matters.
    Balanced, a clip may come several times in an epoch, each time changed in another way. Without
    augmentation clips come in order, each as it is.

    Of several ranks each gets, with augmentation, a share of every batch, and a clip that counts
    for nothing where there are fewer clips than ranks; without augmentation, whole batches in a
    row, so that what a model says of a clip does not depend on the number of ranks.

    On CUDA a side stream makes batch k + 1 while the model works on batch k. The two wait for
    each other: the model for its batch, the stream for the model's step on batch k - 1 before it
    may reuse memory which that step reads.

    Args:
        store: The clips.
        frontend: The front end, on the store's device.
        clip_index: The clips to use [n], int64.
        targets: Whether every clip of the manifest has each class [clip, class], bool.
        batch_size: Clips a batch; the last one may be smaller.
        crop: Where clips longer than the waveform are cut; "random" cuts the centre where nothing
            is augmented.
        n_crops: Where nothing is augmented: how many places long clips are cut at, evenly spread,
            one an epoch in turn, instead of the centre alone.
        seed: The run's seed.
        augment: Augmentation, for training; None for evaluation.
        sampling: With augmentation: "shuffled", every clip once an epoch, or "balanced", as many
            clips, drawn so that classes come equally often.
        render: What makes a batch's input; None for the front end.
        ranks: Which of the processes is served that share the batches.
    """

    def __init__(
        self,
        *,
        store: ClipStore,
        frontend: BandLevels,
        clip_index: Tensor,
        targets: Tensor,
        batch_size: int,
        crop: Crop = "random",
        n_crops: int = 1,
        seed: int = 0,
        augment: Augment | None = None,
        sampling: Sampling = "shuffled",
        render: Render | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.render, self.ranks = render or frontend.render, ranks
        self.store, self.frontend, self.augment = store, frontend, augment
        self.clip_index = clip_index.sort().values
        self.batch_size, self.crop, self.seed = batch_size, crop, seed
        self.sampling, self._has_class = sampling, targets[self.clip_index]
        self._rarest = find_rarest(self._has_class) if sampling == "balanced" else ()
        is_cut = bool((store.length[self.clip_index] > store.n_time).any())
        self.n_crops = n_crops if is_cut else 1  # else all were the same
        self.device = store.device
        self._targets = targets.to(self.device)
        self._stream = _side_stream(self.device) if self.device.type == "cuda" else None
        self._waits: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._idle: torch.cuda.Event | None = None
        self._wait_s = 0.0

    @property
    def clip_s(self) -> float:
        """Length of a clip as models get it [s]."""
        return self.store.n_time / self.frontend.sample_rate

    def class_weights(self) -> Tensor:
        """Weigh a class the less, the more of the clips it has: [class], mean 1 over the clips."""
        n_clips = self._has_class.sum(dim=0).float().to(self.device)
        return len(self.clip_index) / (len(n_clips) * n_clips)

    def positive_weights(self) -> Tensor:
        """Weigh a class's positives so that they count as much as its negatives: [class].

        Those of a class that all clips have keep their weight.
        """
        n_positive = self._has_class.sum(dim=0).float().to(self.device)
        n_negative = len(self.clip_index) - n_positive
        return torch.where(n_negative > 0, n_negative / n_positive, 1.0)

    def __len__(self) -> int:
        """Batches an epoch; a single clip left over joins the last one, for batch norm's sake."""
        n_full, n_left = divmod(len(self.clip_index), self.batch_size)
        return n_full + (n_left > 1 or (n_left == 1 and n_full == 0))

    @property
    def steps(self) -> range:
        """The batches of an epoch that this rank gets something of."""
        return range(len(self)) if self.augment is not None else self.ranks.share(len(self))

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield an epoch's batches.

        Args:
            epoch: Epoch number, from 0.
            first_step: Batches to leave out at the start, when resuming within an epoch.

        Yields:
            Batches on the device, safe to read on the stream that is current, and on CUDA only
            until the next one is asked for: then their memory is used again, unless
            ``Tensor.record_stream`` keeps it.
        """
        self._wait_s = 0.0
        self._waits.clear()
        if first_step >= self.steps.stop:
            return
        self._begin_wait()
        making = self._make(epoch, first_step)
        prepared = self._prepare(making, self._record())
        try:
            while prepared is not None:
                batch, ready = prepared
                begun = self._end_wait(ready)
                yield batch
                self._begin_wait()
                prepared = self._prepare(making, begun)
            self._end_wait(None)
        finally:
            making.close()
            if self._stream is not None:  # what it reads may change or go, once that is done
                torch.cuda.current_stream(self.device).wait_stream(self._stream)

    def wait_s(self, *, is_over: bool = True) -> float:
        """Return the time that the latest epoch's consumer waited for its batches [s].

        On a CPU that is the time it takes to make them. On CUDA it is the time between the end of
        the consumer's work on a batch and the start of its work on the next.

        Args:
            is_over: Whether the epoch is over: on CUDA this waits for all of its work. Else the
                waits that the device has behind it are counted, and nothing is waited for.
        """
        if self._stream is not None and is_over:
            torch.cuda.current_stream(self.device).synchronize()
        while self._waits and self._waits[0][1].query():
            begin, end = self._waits.popleft()
            self._wait_s += float(begin.elapsed_time(end)) / 1000.0
        return self._wait_s

    def _begin_wait(self) -> None:
        """Note that the consumer has nothing left to do."""
        if self._stream is None:
            self._wait_s -= time.perf_counter()
        self._idle = self._record()

    def _end_wait(self, ready: torch.cuda.Event | None) -> torch.cuda.Event | None:
        """Make the consumer's stream wait for a batch; returns when it can go on."""
        if self._stream is None:
            self._wait_s += time.perf_counter()
        if ready is not None:
            torch.cuda.current_stream(self.device).wait_event(ready)
        busy = self._record()
        if self._idle is not None and busy is not None:
            self._waits.append((self._idle, busy))
        return busy

    def _record(self) -> torch.cuda.Event | None:
        """Mark where the consumer's stream is."""
        if self._stream is None:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _plans(self, epoch: int, first_step: int) -> Iterator[_Plan]:
        """Decide an epoch, a piece of bounded size at a time.

        Everything is drawn on the CPU, where every machine draws the same numbers, and copied to
        the device a piece at a time.
        """
        with self._one_thread():
            voices = self._order_voices(epoch)
        n_steps, steps = max(_N_PLANNED // self.batch_size, 1), self.steps
        for first in range(max(first_step, steps.start), steps.stop, n_steps):
            some = range(first, min(first + n_steps, steps.stop))
            with self._one_thread():
                plan = self._plan(epoch, voices, [self._share(step) for step in some])
            yield plan

    def _share(self, step: int) -> _Share:
        """Say what this rank gets of a batch."""
        begin = step * self.batch_size
        end = len(self.clip_index) if step == len(self) - 1 else begin + self.batch_size
        if self.augment is None:
            return _Share(range(begin, end), end - begin, stands_in=False)
        own = self.ranks.share(end - begin)
        places = range(begin + own.start, begin + own.stop) if own else range(begin, begin + 1)
        return _Share(places, end - begin, stands_in=not own)

    def _one_thread(self) -> AbstractContextManager[object]:
        """Keep threads out of operations on a CPU, for log-mels' sake: see frontend/cpu.py."""
        return nullcontext() if self._stream else one_thread_an_operation()

    def _order_voices(self, epoch: int) -> Tensor:
        """Put an epoch's clips in order and, where they are mixed, their partners [voice, n].

        Of clips that come several times, occurrences.
        """
        clips = self.clip_index
        if self.augment is None:
            return clips[None]
        if self.sampling == "balanced":
            clips = draw_balanced(self.seed, epoch, clips, *self._rarest)
        voices = [clips]
        if self.augment.mixes:
            # Partners are a second shuffle of the same clips: each clip is partner once an epoch.
            voices.append(permutation(self.seed, epoch, clips, Stream.PARTNER))
        order = torch.searchsorted(clips, permutation(self.seed, epoch, clips, Stream.ORDER))
        return torch.stack(voices)[:, order]

    def _plan(self, epoch: int, voices: Tensor, shares: list[_Share]) -> _Plan:
        """Decide what is done to some of an epoch's clips and their partners [voice, n]."""
        voices = torch.cat([voices[:, s.places.start : s.places.stop] for s in shares], dim=1)
        bounds = pairwise(accumulate((len(s.places) for s in shares), initial=0))
        rms, ratio = self.store.rms, None
        recipe = Recipe(gain=torch.full(voices.shape, 1.0 / FULL_SCALE))
        if self.augment is not None:
            draws = self.augment.draw(epoch, voices[0])
            if len(voices) == 2:
                first, partner = voices
                ratio = audible_ratio(draws.mix_ratio, *rms[clips_of(voices)])
                draws = replace(draws, mix_ratio=ratio)
                voices = torch.stack((first, torch.where(ratio < 1, partner, first)))
            n_frames = self.frontend.n_frames(self.store.n_time)
            recipe = self.augment.recipe(
                draws, rms[clips_of(voices)], n_mels=self.frontend.n_mels, n_frames=n_frames
            )
        clips = clips_of(voices)
        return _Plan(
            shares=shares,
            request=Request(clips, self._start(epoch, voices), [slice(*b) for b in bounds]),
            index=clips.to(self.device),
            recipe=recipe.to(self.device),
            ratio=None if ratio is None else ratio[:, None].to(self.device),
        )

    def _start(self, epoch: int, voices: Tensor) -> Tensor:
        """Say where reading starts: where clips are cut, and how far they are moved."""
        if self.augment is None:
            return self.store.crop_start(voices, self._crop_place(epoch))
        place: Tensor | float = self._crop_place(0)
        if self.crop == "random":
            place = uniform(self.seed, epoch, voices, Stream.CROP)[..., 0]
        shift = self.augment.draw_shift(epoch, voices)
        return self.store.crop_start(clips_of(voices), place) + shift

    def _crop_place(self, epoch: int) -> float:
        """Say where in the room there is clips are cut where no random number decides."""
        return 0.0 if self.crop == "start" else (epoch % self.n_crops + 0.5) / self.n_crops

    def _prepare(self, making: Iterator[Batch], begun: torch.cuda.Event | None) -> _Prepared | None:
        """Make the next batch.

        On CUDA that happens on the side stream, beside the step that the consumer has just
        launched, and is not waited for. The memory it takes may be that of the batch before, so it
        waits for all up to ``begun``, where that step begins.
        """
        if self._stream is None or begun is None:
            batch = next(making, None)
            return None if batch is None else (batch, None)
        self._stream.wait_event(begun)
        with torch.cuda.stream(self._stream):
            batch = next(making, None)
            ready = torch.cuda.Event()
            ready.record(self._stream)
        return None if batch is None else (batch, ready)

    def _make(self, epoch: int, first_step: int) -> Generator[Batch]:
        """Read, change and transform one batch after the other."""
        plans, planned = tee(self._plans(epoch, first_step))  # a store may read ahead of its batch
        requests = (plan.request for plan in planned)
        read = self.store.read(requests, None if self.augment is None else epoch)
        with closing(read) as readings:
            for plan in plans:
                for share, part in zip(plan.shares, plan.request.batches, strict=True):
                    batch = self._make_batch(plan, part, next(readings))
                    yield replace(batch, n_whole=share.n_whole, stands_in=share.stands_in)

    def _make_batch(self, plan: _Plan, part: slice, reading: Reading) -> Batch:
        rendered = self.render(reading, plan.recipe.part(part), self.store.n_time)
        clip_index, *partner = plan.index[:, part]
        target = self._targets[clip_index].float()
        if plan.ratio is not None:
            other = self._targets[partner[0]].float()
            target = torch.lerp(other, target, plan.ratio[part])
        return Batch(rendered[:, None], target, clip_index)

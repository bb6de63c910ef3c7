"""Steps with a loss or gradient that is not finite: they are not taken, and named."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from audioml.distributed import describe_ranks, gather, together
from audioml.errors import UserError
from audioml.ranks import ALONE, Ranks

log = logging.getLogger("audioml")

OnBadStep = Literal["stop", "skip"]

_N_NAMED = 8  # clips


class TrainingError(UserError):
    """Training that can't go on; the message says where and what to change."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A step whose numbers the host has not read yet: ``judge``'s [3]."""

    epoch: int
    step: int
    numbers: Tensor
    clip_index: Tensor


class StepGuard:
    """Keeps steps with a loss or gradient that is not finite from changing the model.

    Nothing waits for the device: the fused optimizer reads there whether to leave the step out, and
    the host learns of it when it asks.

    Args:
        model: What is trained.
        optimizer: A fused one.
        clip_names: What to call the clips, by their index.
        policy: Whether such a step stops the training, or is skipped and counted; a weight average
            then takes the weights of the step before once more.
        ranks: Which of the processes that train together this is.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        clip_names: Callable[[int], str],
        policy: OnBadStep,
        ranks: Ranks = ALONE,
    ) -> None:
        self._model, self._optimizer, self._ranks = model, optimizer, ranks
        self._clip_names, self._policy = clip_names, policy
        self._unread: list[_Step] = []
        self._buffers: list[Tensor] = []

    def forget(self) -> None:
        """Forget the steps not read yet, of a training that is given up."""
        self._unread = []

    def remember(self) -> None:
        """Keep batch norm's statistics, which change before it is known whether they should."""
        if self._policy == "skip":
            self._buffers = [buffer.clone() for buffer in self._model.buffers()]

    def judge(self, numbers: Tensor, place: tuple[int, int], clip_index: Tensor) -> Tensor:
        """Tell the optimizer, before its step, whether to leave it out.

        Args:
            numbers: The batch's loss and the gradient's norm, over all ranks, and the loss of this
                rank's own clips [3].
            place: Epoch and step, from 0.
            clip_index: This rank's clips of the batch [batch].

        Returns:
            Whether the step is left out [], on the device.

        Raises:
            TrainingError: On a CPU, where nothing has to be waited for, under policy "stop".
        """
        is_bad = ~numbers[:2].isfinite().all()
        # Where torch.amp.GradScaler puts it too; no class declares it, fused optimizers read it.
        self._optimizer.found_inf = is_bad.float()  # type: ignore[attr-defined]
        self._unread.append(_Step(*place, numbers, clip_index))
        if numbers.device.type == "cpu" and self._policy == "stop":
            self.check()
        return is_bad

    def restore(self, is_bad: Tensor) -> None:
        """Take back what a step that was left out did to the statistics."""
        if self._policy == "skip":
            for buffer, before in zip(self._model.buffers(), self._buffers, strict=True):
                buffer.copy_(torch.where(is_bad, before, buffer))

    def check(self) -> int:
        """Read which of the latest steps were left out; all ranks must ask after the same step.

        Returns:
            How many.

        Raises:
            TrainingError: If there are any, under policy "stop".
        """
        steps, self._unread = self._unread, []
        numbers = torch.stack([step.numbers for step in steps]).tolist() if steps else []
        bad = [(s, n) for s, n in zip(steps, numbers, strict=True) if not _are_finite(n[:2])]
        if not bad:
            return 0
        text = self._describe(*bad[0])
        with together(self._ranks):
            if self._policy == "stop":
                raise TrainingError(
                    f"{text}; the step was not taken, and the last checkpoint is from before it. "
                    "Lower optim.lr or optim.grad_clip, or start with train.on_bad_step=skip"
                )
        if self._ranks.is_main:
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            log.warning("skipped   %s%s", text, more)
        return len(bad)

    def _describe(self, step: _Step, numbers: list[float]) -> str:
        loss, norm, own_loss = numbers
        what = f"the gradient's norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        clips, where = self._find_clips(step, own_loss)
        names = ", ".join(map(self._clip_names, clips[:_N_NAMED]))
        more = f" and {len(clips) - _N_NAMED} more" if len(clips) > _N_NAMED else ""
        return (
            f"epoch {step.epoch + 1}, step {step.step + 1}: {what}{where}, with the clips "
            f"{names}{more}"
        )

    def _find_clips(self, step: _Step, own_loss: float) -> tuple[list[int], str]:
        """List a step's clips of the ranks whose loss is not finite, of all if none's is."""
        clips = gather(self._ranks, (math.isfinite(own_loss), step.clip_index.tolist()))
        where = [rank for rank, (is_finite, _) in enumerate(clips) if not is_finite]
        of = where or range(len(clips))
        named = f" on {describe_ranks(where)}" if where and self._ranks.are_several else ""
        return [clip for rank in of for clip in clips[rank][1]], named


def _are_finite(numbers: list[float]) -> bool:
    return all(map(math.isfinite, numbers))

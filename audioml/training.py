"""The training loop: step, schedule, precision, averaging, early stop, interruption, resume."""

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from audioml.averaging import WeightAverage
from audioml.config import FinetuneConfig, OptimConfig, OutputConfig, TrainConfig
from audioml.distributed import any_rank, sum_ranks, take_from_main, together
from audioml.errors import Interrupted
from audioml.evaluation import Evaluation, evaluate
from audioml.finetuning import parameter_groups, set_learning
from audioml.loader import Batch, Loader
from audioml.metrics import main_figure
from audioml.models import Network
from audioml.objective import mean_loss
from audioml.precision import autocast
from audioml.progress import describe_throughput, progress_bar
from audioml.ranks import ALONE, Ranks
from audioml.replica import Replica
from audioml.rng import Stream, random_words
from audioml.schedule import averaging_decay, lr_factor
from audioml.signals import StopRequest
from audioml.step_guard import StepGuard, TrainingError

log = logging.getLogger("audioml")

_SHOWN_EVERY_S = 2.0  # the throughput, while an epoch is running
_STEP_BITS = 24  # an epoch's steps that are told apart where ranks draw numbers of their own


@dataclass
class Progress:
    """Where training stands; everything besides weights and optimizer that a resume needs.

    Args:
        epoch: Epochs finished.
        step: Steps finished of the epoch that is running.
        loss_sum: Sum of the losses of that epoch's clips so far.
        n_right: Clips of that epoch classified right so far.
        n_clips: Clips of that epoch in steps that were taken so far.
        epoch_s: Time spent training in that epoch so far [s].
        epoch_wait_s: Time of it spent waiting for data [s].
        train_s: Time spent training in the finished epochs [s].
        wait_s: Time of it spent waiting for data [s].
        n_bad_steps: Steps that were not taken, for a loss or gradient that is not finite.
        best_epoch: Epoch of the best validation score; 0 for none.
        best_score: Validation accuracy (of multi-label data, mean average precision) and negative
            loss of that epoch.
        history: A row of figures an epoch.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    n_right: float = 0.0
    n_clips: float = 0.0
    epoch_s: float = 0.0
    epoch_wait_s: float = 0.0
    train_s: float = 0.0
    wait_s: float = 0.0
    n_bad_steps: int = 0
    best_epoch: int = 0
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Train a model on a loader's batches.

    Args:
        model: From the loader's inputs to logits [batch, class], on the device.
        loader: Training clips, with augmentation.
        val_loader: Validation clips; None under a protocol that has none.
        optim: Optimizer and schedule.
        train: Epochs, precision, patience.
        finetune: Which of the model's stages learn when, and how fast.
        is_multi_label: Whether a clip may have several classes, or none.
        output: How often the state is to be saved within an epoch.
        clip_names: What to call the clips, by their index, where one has to be named.
        on_epoch: Called after every epoch, with the epoch's figures and whether it is the best.
        on_save: Called when the state is to be saved within an epoch.
        on_progress: Called every few seconds with the number of steps done and the throughput.
        ranks: Which of the processes that train together this is. Each calls what is to be called,
            at the same steps, with the same figures but those of time.
    """

    def __init__(
        self,
        *,
        model: Network,
        loader: Loader,
        val_loader: Loader | None,
        optim: OptimConfig,
        train: TrainConfig,
        finetune: FinetuneConfig | None = None,
        is_multi_label: bool = False,
        output: OutputConfig | None = None,
        clip_names: Callable[[int], str] = str,
        on_epoch: Callable[[dict[str, float], bool], None],
        on_save: Callable[[], None] = lambda: None,
        on_progress: Callable[[int, dict[str, float]], None] = lambda step, figures: None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.loader, self.val_loader = loader, val_loader
        self.optim, self.train, self.finetune = optim, train, finetune or FinetuneConfig()
        self.output, self.is_multi_label = output or OutputConfig(), is_multi_label
        self.on_epoch, self.on_save, self.on_progress = on_epoch, on_save, on_progress
        self.device, self.ranks = loader.device, ranks
        memory_format = torch.channels_last if train.channels_last else torch.contiguous_format
        if train.sync_batch_norm and ranks.are_several:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model.to(memory_format=memory_format)
        self.ema = WeightAverage(model) if optim.ema_decay else None
        self._replica = Replica(self.model, ranks, is_compiled=train.compile)
        groups = parameter_groups(
            model, weight_decay=optim.weight_decay, lr_decay=self.finetune.lr_decay
        )
        # Fused, because such an optimizer can be told on the device to leave a step out.
        self.optimizer = torch.optim.AdamW(groups, lr=optim.lr, fused=True)
        self.guard = StepGuard(
            model, self.optimizer, clip_names, policy=train.on_bad_step, ranks=ranks
        )
        self._class_weights: Tensor | None = None
        if train.class_weights == "balanced":
            weigh = loader.positive_weights if is_multi_label else loader.class_weights
            self._class_weights = weigh()
        self.progress = Progress()
        self._stop = StopRequest()

    @property
    def averaged_model(self) -> nn.Module:
        """The model to evaluate and keep: the moving average if there is one."""
        return self.model if self.ema is None else self.ema.state.module

    def autocast(self) -> torch.autocast:
        """Make the context in which the model runs in its precision."""
        return autocast(self.train.amp, self.device)

    def evaluate(self, loader: Loader) -> Evaluation:
        """Evaluate the averaged model, which has rank 0's statistics of batches on every rank."""
        take_from_main(self.ranks, self.averaged_model.buffers())
        return evaluate(
            self.averaged_model,
            loader,
            is_multi_label=self.is_multi_label,
            autocast=self.autocast(),
            ranks=self.ranks,
        )

    def fit(self) -> None:
        """Train to the end, from wherever ``progress`` stands.

        Raises:
            Interrupted: On the first Ctrl-C or SIGTERM, after the step that is running; the
                trainer's state is whole and can be saved. A second Ctrl-C stops at once.
            TrainingError: If a loss or gradient is not finite, unless such steps are skipped.
        """
        n_clips = len(self.loader.clip_index)
        bar = progress_bar(
            task="train",
            total=self.train.epochs * n_clips,
            n_done=self.progress.epoch * n_clips + self.progress.step * self.loader.batch_size,
            unit="clip",
        )
        with bar, self._stop.awaited():
            while self.progress.epoch < self.train.epochs and not self._is_patience_spent():
                bar.set_description(f"epoch {self.progress.epoch + 1}/{self.train.epochs}")
                self._train_epoch(bar)
                self._finish_epoch()
                if any(any_rank(self.ranks, self._stop.is_made)):
                    raise Interrupted(f"stopped after epoch {self.progress.epoch}")

    def _train_epoch(self, bar: "tqdm[Any]") -> None:
        """Run the epoch's remaining steps; sums stay on the device until they are needed."""
        p, n_clips, stops = self.progress, 0, False
        begin = shown = saved = time.perf_counter()
        before = (p.epoch_s - begin, p.epoch_wait_s)
        sums = torch.tensor(
            [p.loss_sum, p.n_right, p.n_clips], dtype=torch.float64, device=self.device
        )
        set_learning(self.model, p.epoch, self.finetune)
        self._replica.follow()
        # Dropout draws from a generator seeded by (seed, epoch, step): a resume needs no state.
        steps = torch.arange(len(self.loader)) + (self.ranks.rank << _STEP_BITS)
        seeds = random_words(self.train.seed, p.epoch, steps, Stream.DROPOUT)[:, 0].tolist()
        for batch in self.loader.epoch(p.epoch, first_step=p.step):
            torch.manual_seed(seeds[p.step])
            sums += self._train_step(batch)
            p.step += 1
            n_clips += batch.size
            bar.update(batch.size)
            now = time.perf_counter()
            is_show_due, is_save_due, stops = self._agree(now - shown, now - saved)
            if is_show_due:
                shown = now
                self._check_steps()
                self._show_throughput(bar, n_clips, now - begin, self.loader.wait_s(is_over=False))
            if stops:
                break
            if is_save_due:
                saved = now
                self._settle(sums, before)
                self.on_save()
        self._settle(sums, before)
        if stops:
            raise Interrupted(f"stopped in epoch {p.epoch + 1} after step {p.step}")

    def _agree(self, shown_s: float, saved_s: float) -> list[bool]:
        """Say whether figures are to be shown, the state saved, and training stopped.

        After every step, on all ranks alike: by rank 0's clock, and by the signals of any.

        Args:
            shown_s: Time since figures were shown [s].
            saved_s: Time since the state was saved [s].
        """
        is_show_due = shown_s > _SHOWN_EVERY_S and self.ranks.is_main
        is_save_due = self._is_save_due(saved_s) and self.ranks.is_main
        return any_rank(self.ranks, is_show_due, is_save_due, self._stop.is_made)

    def _is_save_due(self, since_s: float) -> bool:
        every_steps, every_min = self.output.save_every_steps, self.output.save_every_min
        is_due = every_steps and self.progress.step % every_steps == 0
        is_late = every_min and since_s > 60.0 * every_min
        is_over = self.progress.step == len(self.loader)  # then it is saved anyway
        return bool((is_due or is_late) and not is_over)

    def _settle(self, sums: Tensor, before: tuple[float, float]) -> None:
        """Bring ``progress`` up to the last step, so that it can be saved.

        Args:
            sums: Losses, clips classified right and clips of the epoch so far [3].
            before: What to add to the clock for the epoch's time, and to the loader's wait.
        """
        self._check_steps()
        p = self.progress
        p.loss_sum, p.n_right, p.n_clips = sums.tolist()
        p.epoch_s = before[0] + time.perf_counter()
        p.epoch_wait_s = before[1] + self.loader.wait_s()

    def _check_steps(self) -> None:
        """Learn from the device which steps were not taken."""
        self.progress.n_bad_steps += self.guard.check()

    def _show_throughput(
        self, bar: "tqdm[Any]", n_clips: int, elapsed_s: float, wait_s: float
    ) -> None:
        figures = self._throughput(n_clips, elapsed_s, wait_s)
        bar.set_postfix_str(describe_throughput(figures), refresh=False)
        p = self.progress
        self.on_progress(p.epoch * len(self.loader) + p.step, figures)

    def _throughput(self, n_clips: int, elapsed_s: float, wait_s: float) -> dict[str, float]:
        """Give clips a second, seconds of sound a second, and the share spent waiting for data."""
        return {
            "clips_per_s": n_clips / elapsed_s,
            "times_real_time": n_clips * self.loader.clip_s / elapsed_s,
            "data_wait": wait_s / elapsed_s,
        }

    def _train_step(self, batch: Batch) -> Tensor:
        """Do one optimizer step.

        Returns:
            Sum of the clips' losses, number of clips classified right, number of clips [3], of all
            ranks, on the device; zeros if the step was not taken.
        """
        p = self.progress
        step = p.epoch * len(self.loader) + p.step
        lr = self._lr(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_share"]
        self.guard.remember()
        self.optimizer.zero_grad(set_to_none=True)
        own = self._learn(batch)
        sums = sum_ranks(self.ranks, own.clone())
        most = self.optim.grad_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), most)
        numbers = torch.stack((sums[0], norm.double(), own[0]))
        is_bad = self.guard.judge(numbers, (p.epoch, p.step), batch.clip_index)
        self.optimizer.step()
        self.guard.restore(is_bad)
        if self.ema is not None:
            self.ema.update(averaging_decay(step, self.optim.ema_decay))
        return sums.masked_fill_(is_bad, 0.0)

    def _learn(self, batch: Batch) -> Tensor:
        """Make the gradient of a batch's mean loss, a part of this rank's clips after the other.

        Returns:
            Sum of its clips' losses, number of them classified right, number of them [3], float64.
        """
        n_parts = max(min(self.train.accumulate, batch.size // self.ranks.size), 1)
        parts = (whole.tensor_split(n_parts) for whole in (batch.input, batch.target))
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        for number, (log_mel, target) in enumerate(zip(*parts, strict=True), 1):
            n_clips = 0 if batch.stands_in else len(target)
            with self._replica.sharing(is_last=number == n_parts):
                with self.autocast():
                    logits = self._replica(log_mel)
                loss = self._loss(logits.float(), target)
                # The gradient is the mean over ranks that may have different numbers of clips.
                (loss * (n_clips * self.ranks.size / batch.size)).backward()
            with torch.no_grad():  # of several classes none is the right one
                is_right = (logits.argmax(1) == target.argmax(1)) & (not self.is_multi_label)
                n_right = is_right.sum() * bool(n_clips)
                numbers = (loss * n_clips, n_right, torch.full_like(loss, n_clips))
                sums += torch.stack(numbers)
        return sums

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return mean_loss(
            logits,
            target,
            is_multi_label=self.is_multi_label,
            weights=self._class_weights,
            label_smoothing=self.optim.label_smoothing,
        )

    def _lr(self, step: int) -> float:
        n_steps = self.train.epochs * len(self.loader)
        return self.optim.lr * lr_factor(
            step, n_steps, self.optim.schedule, self.optim.warmup_share
        )

    def _finish_epoch(self) -> None:
        """Validate, keep the figures and report them."""
        p, n_clips = self.progress, len(self.loader.clip_index)
        with together(self.ranks):
            if not p.n_clips:
                raise TrainingError(
                    f"epoch {p.epoch + 1}: no step had a finite loss; lower optim.lr"
                )
        row = {"epoch": p.epoch + 1, "train_loss": p.loss_sum / p.n_clips}
        if not self.is_multi_label:
            row["train_accuracy"] = p.n_right / p.n_clips
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        is_best = False
        if self.val_loader is not None:
            figures = self.evaluate(self.val_loader).figures()
            row |= {f"val_{name}": value for name, value in figures.items()}
            name = main_figure(is_multi_label=self.is_multi_label)
            score = (figures[name], -figures["loss"])
            if score > p.best_score:
                is_best, p.best_score, p.best_epoch = True, score, p.epoch + 1
        row |= self._throughput(n_clips, p.epoch_s, p.epoch_wait_s)
        p.train_s, p.wait_s = p.train_s + p.epoch_s, p.wait_s + p.epoch_wait_s
        p.epoch, p.step = p.epoch + 1, 0
        p.loss_sum = p.n_right = p.n_clips = p.epoch_s = p.epoch_wait_s = 0.0
        p.history.append(row)
        self.on_epoch(row, is_best)

    def _is_patience_spent(self) -> bool:
        p, patience = self.progress, self.train.patience
        spent = bool(patience and p.best_epoch and p.epoch - p.best_epoch >= patience)
        if spent:
            log.info("no better validation score for %d epochs: stopping early", patience)
        return spent

    def state(self) -> dict[str, Any]:
        """Collect what a resume needs, in types that ``weights_only`` loading accepts."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": copy.deepcopy(asdict(self.progress)),
        }

    def load_weights(self, state: dict[str, Any]) -> None:
        """Take up the weights, averaged ones included, of a state that ``state`` returned."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.state.load_state_dict(state["ema"])

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a whole state that ``state`` returned, to go on training."""
        self.guard.forget()
        self.load_weights(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])

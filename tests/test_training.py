import copy
import itertools
import math
import os
import signal

import pytest
import torch
from torch import nn

from audioml import training
from audioml.config import FinetuneConfig, OptimConfig, OutputConfig, TrainConfig
from audioml.loader import Batch
from audioml.models import Network
from audioml.rng import Stream, random_words
from audioml.step_guard import TrainingError
from audioml.training import (
    Interrupted,
    Trainer,
)

N_CLASSES = 3


class Toy:
    """A loader of made-up log-mels: each batch is a function of the epoch and step."""

    n_crops = 1

    def __init__(self, n_batches=5, bad=()):
        self.device, self.batch_size, self.clip_s = torch.device("cpu"), 4, 5.0
        self.clip_index = torch.arange(4 * n_batches)
        self.n_batches, self.bad = n_batches, bad

    def __len__(self):
        return self.n_batches

    def epoch(self, epoch, first_step=0):
        for step in range(first_step, self.n_batches):
            g = torch.Generator().manual_seed(1000 * epoch + step)
            log_mel = torch.randn(4, 1, 8, 8, generator=g)
            target = torch.eye(N_CLASSES)[torch.arange(4) % N_CLASSES]
            log_mel[:, 0, 0] += 3 * target.argmax(1)[:, None]
            if (epoch, step) in self.bad:
                log_mel[0] = math.nan
            yield Batch(log_mel, target, self.clip_index[4 * step : 4 * step + 4])

    def wait_s(self, *, is_over=True):
        return 0.0


class Small(nn.Sequential, Network):
    def stages(self):
        return [nn.ModuleList(self[:4]), self[-1]]


def make_model():
    torch.manual_seed(0)
    return Small(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, N_CLASSES),
    )


def make_trainer(
    *,
    epochs=4,
    val=False,
    patience=0,
    on_epoch=lambda row, is_best: None,
    bad=(),
    finetune=None,
    output=None,
    on_bad_step="stop",
    on_save=lambda: None,
    **optim,
):
    return Trainer(
        model=make_model(),
        loader=Toy(bad=bad),
        val_loader=Toy(2) if val else None,
        optim=OptimConfig(**{"lr": 0.01, **optim}),
        train=TrainConfig(epochs=epochs, patience=patience, amp="fp32", on_bad_step=on_bad_step),
        finetune=finetune,
        output=output,
        clip_names="clip-{}.wav".format,
        on_epoch=on_epoch,
        on_save=on_save,
    )


class StoppedError(Exception):
    pass


def stop_after(n_epochs):
    def on_epoch(row, is_best):
        if row["epoch"] == n_epochs:
            raise StoppedError

    return on_epoch


def weights(trainer):
    return torch.cat(
        [value.double().flatten() for value in trainer.averaged_model.state_dict().values()]
    )


def test_the_loss_falls_and_figures_are_kept():
    trainer = make_trainer(epochs=10, val=True)
    trainer.fit()
    history = trainer.progress.history
    assert [row["epoch"] for row in history] == list(range(1, 11))
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert history[-1]["val_accuracy"] >= 0.75


def test_throughput_is_shown_while_an_epoch_runs(monkeypatch):
    monkeypatch.setattr(training, "_SHOWN_EVERY_S", 0.0)
    trainer, shown = make_trainer(epochs=2), []
    trainer.on_progress = lambda step, figures: shown.append((step, figures))
    trainer.fit()
    assert [step for step, _ in shown] == list(range(1, 11))
    for _, figures in shown:
        assert figures["times_real_time"] == pytest.approx(5 * figures["clips_per_s"])
        assert figures["data_wait"] == 0
    row = trainer.progress.history[0]
    assert training.describe_throughput({**row, "clips_per_s": 100, "times_real_time": 500}) == (
        "100 clips/s (500 x real time), data wait 0.0%"
    )


def test_the_same_seed_gives_the_same_losses():
    curves = []
    for _ in range(2):
        trainer = make_trainer(ema_decay=0.9)
        trainer.fit()
        curves.append([row["train_loss"] for row in trainer.progress.history])
    assert curves[0] == curves[1]


def test_each_step_has_a_seed_of_its_own():
    trainer, seeds = make_trainer(epochs=2), []
    step = trainer._train_step

    def noted(batch):
        seeds.append(torch.initial_seed())
        return step(batch)

    trainer._train_step = noted
    trainer.fit()
    drawn = [
        int(random_words(0, epoch, torch.tensor(step), Stream.DROPOUT)[0])
        for epoch in range(2)
        for step in range(5)
    ]
    assert seeds == drawn
    assert len(set(seeds)) == 10


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("stop_at", [1, 5, 7, 12])
def test_a_resumed_run_ends_in_the_same_weights(stop_at, ema_decay):
    """Stopped after any step, within an epoch or between two, and taken up by another trainer."""
    whole = make_trainer(val=True, ema_decay=ema_decay)
    whole.fit()
    stopped = make_trainer(val=True, ema_decay=ema_decay)
    count = itertools.count(1)
    step = stopped._train_step

    def stopping_step(batch):
        if next(count) == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return step(batch)

    stopped._train_step = stopping_step
    with pytest.raises(Interrupted, match="stopped in epoch"):
        stopped.fit()
    state = stopped.state()
    resumed = make_trainer(val=True, ema_decay=ema_decay)
    resumed.load_state(state)
    resumed.fit()
    assert torch.equal(weights(resumed), weights(whole))
    for a, b in zip(resumed.progress.history, whole.progress.history, strict=True):
        assert {k: a[k] for k in ("train_loss", "val_loss", "lr")} == {
            k: b[k] for k in ("train_loss", "val_loss", "lr")
        }


def test_a_second_interrupt_stops_at_once():
    trainer = make_trainer()

    def step(batch):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second interrupt did not stop")

    trainer._train_step = step
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_best_epoch_is_reported_once_it_is_better():
    reports = []
    trainer = make_trainer(
        epochs=6, val=True, on_epoch=lambda row, best: reports.append((row, best))
    )
    trainer.fit()
    scores = [(row["val_accuracy"], -row["val_loss"]) for row, _ in reports]
    expected = [score > max(scores[:i], default=(-1, -99)) for i, score in enumerate(scores)]
    assert [best for _, best in reports] == expected
    assert trainer.progress.best_epoch == 1 + scores.index(max(scores))


def test_patience_stops_a_run_that_gets_no_better():
    trainer = make_trainer(epochs=50, val=True, patience=3)
    trainer.fit()
    p = trainer.progress
    assert p.epoch < 50
    assert p.epoch == p.best_epoch + 3


def test_without_validation_nothing_is_selected():
    reports = []
    trainer = make_trainer(on_epoch=lambda row, best: reports.append((row, best)))
    trainer.fit()
    assert not any(best for _, best in reports)
    assert all("val_loss" not in row for row, _ in reports)
    assert trainer.progress.best_epoch == 0


def test_a_loss_that_is_not_finite_stops_before_the_step():
    stopped, whole = make_trainer(bad={(1, 3)}), make_trainer()
    with pytest.raises(TrainingError, match=r"epoch 2, step 4: the loss is nan, with the clips c"):
        stopped.fit()
    count, step = itertools.count(), whole._train_step

    def stopping_step(batch):
        if next(count) == 8:
            raise StoppedError
        return step(batch)

    whole._train_step = stopping_step
    with pytest.raises(StoppedError):
        whole.fit()
    for ours, theirs in zip(stopped.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_huge_learning_rate_stops_and_names_step_and_clips():
    with pytest.raises(TrainingError, match=r"\A[^\n]*clip-\d+\.wav[^\n]*Lower optim\.lr[^\n]*\Z"):
        make_trainer(epochs=30, lr=1e3, grad_clip=0.0, warmup_share=0.0, weight_decay=1e5).fit()


def test_a_gradient_that_is_not_finite_is_told_from_a_loss(monkeypatch):
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    with pytest.raises(TrainingError, match=r"step 1: the gradient's norm is inf, with the clips"):
        make_trainer().fit()


def test_a_skipped_step_changes_nothing_and_is_counted(caplog):
    bad = {(0, 0), (1, 3), (1, 4)}
    trainer = make_trainer(bad=bad, on_bad_step="skip")
    count, step = itertools.count(), trainer._train_step

    def noted_step(batch):
        before = weights(trainer)
        sums = step(batch)
        is_bad = divmod(next(count), 5) in bad
        assert torch.equal(weights(trainer), before) == is_bad
        assert bool(sums[2] == 0) == is_bad
        return sums

    trainer._train_step = noted_step
    trainer.fit()
    assert trainer.progress.n_bad_steps == 3
    assert "epoch 2, step 4: the loss is nan, with the clips clip-12.wav" in caplog.text
    assert all(math.isfinite(row["train_loss"]) for row in trainer.progress.history)


def test_an_epoch_without_a_good_step_stops():
    with pytest.raises(TrainingError, match="epoch 1: no step had a finite loss"):
        make_trainer(bad={(0, step) for step in range(5)}, on_bad_step="skip").fit()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (OutputConfig(save_every_steps=2, save_every_min=0), [2, 4]),
        (OutputConfig(save_every_steps=5, save_every_min=0), []),
        (OutputConfig(save_every_min=1e-9), [1, 2, 3, 4]),
        (OutputConfig(), []),
    ],
)
def test_within_an_epoch_it_is_saved_as_often_as_asked(output, expected):
    """And a trainer that goes on from there ends in the same weights and figures."""
    saved = []
    whole = make_trainer(
        epochs=2,
        output=output,
        ema_decay=0.9,
        on_save=lambda: saved.append(copy.deepcopy(whole.state())),
    )
    whole.fit()
    assert [state["progress"]["step"] for state in saved] == 2 * expected
    for state in saved:
        resumed = make_trainer(epochs=2, ema_decay=0.9)
        resumed.load_state(state)
        resumed.fit()
        assert torch.equal(weights(resumed), weights(whole))
        for ours, theirs in zip(resumed.progress.history, whole.progress.history, strict=True):
            assert ours["train_loss"] == theirs["train_loss"]
            assert ours["train_accuracy"] == theirs["train_accuracy"]


def test_averaged_weights_worked_step_by_step():
    trainer = make_trainer(ema_decay=0.5)
    steps = []

    def keep(*_):
        steps.append(trainer.model[0].weight.detach().clone())

    trainer.optimizer.register_step_post_hook(keep)
    trainer.fit()
    average = steps[0]
    for number, weight in enumerate(steps[1:], start=1):
        decay = min(0.5, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * weight
    assert len(steps) == 20
    torch.testing.assert_close(trainer.averaged_model[0].weight, average)


def test_weight_decay_spares_biases_and_normalisation():
    groups = make_trainer(weight_decay=0.1).optimizer.param_groups
    decay = {p.ndim: group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {4: 0.1, 2: 0.1, 1: 0}
    assert sum(len(group["params"]) for group in groups) == 6


def test_a_frozen_backbone_stays_as_it_is_and_resumes():
    finetune = FinetuneConfig(head_epochs=2)
    trainer = make_trainer(epochs=2, finetune=finetune)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.fit()
    after = trainer.model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "6.weight",
        "6.bias",
    }
    state = trainer.state()
    whole, resumed = (make_trainer(epochs=4, finetune=finetune) for _ in range(2))
    whole.fit()
    half = make_trainer(epochs=4, finetune=finetune, on_epoch=stop_after(2))
    with pytest.raises(StoppedError):
        half.fit()
    resumed.load_state(half.state())
    resumed.fit()
    assert torch.equal(weights(resumed), weights(whole))
    assert not torch.equal(whole.model[0].weight, before["0.weight"])
    assert state["progress"]["epoch"] == 2


def test_earlier_stages_learn_at_a_share_of_the_rate():
    trainer = make_trainer(finetune=FinetuneConfig(lr_decay=0.1), schedule="constant", epochs=1)
    trainer.fit()
    rates = {
        p.ndim: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]
    }
    assert rates[2] == pytest.approx(0.01)
    assert rates[4] == pytest.approx(0.001)
    assert trainer.progress.history[0]["lr"] == pytest.approx(0.01)


def test_label_smoothing_equals_torchs():
    trainer = make_trainer(label_smoothing=0.2)
    batch = next(Toy().epoch(0))
    torch.manual_seed(1)
    trainer.model.eval()
    expected = nn.functional.cross_entropy(
        trainer.model(batch.input), batch.target, label_smoothing=0.2
    )
    total, n_right, n_clips = trainer._train_step(batch).tolist()
    assert total == pytest.approx(4 * expected.item(), rel=1e-6)
    assert n_right in range(5)
    assert n_clips == 4


def test_class_weights_weigh_each_clips_loss():
    trainer = make_trainer(label_smoothing=0.0)
    trainer._class_weights = weights = torch.linspace(0.5, 1.5, N_CLASSES)
    batch = next(Toy().epoch(0))
    trainer.model.eval()
    own = nn.functional.cross_entropy(
        trainer.model(batch.input), batch.target.argmax(1), reduction="none"
    )
    expected = (own * weights[batch.target.argmax(1)]).sum().item()
    assert trainer._train_step(batch)[0].item() == pytest.approx(expected, rel=1e-6)

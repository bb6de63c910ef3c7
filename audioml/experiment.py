"""One run from its configuration to its finished folder."""

import logging
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, TypeVar, cast

import torch

from audioml import plots
from audioml.agreement import check_settings, compare_data, compare_settings
from audioml.assembly import choose_device
from audioml.challenges import challenge_figures
from audioml.checkpoints import CheckpointError, Checkpoints
from audioml.config import RunConfig, flatten, to_yaml
from audioml.determinism import repeatable_operations
from audioml.distributed import from_main, joined, take_from_main, together
from audioml.errors import Interrupted
from audioml.evaluation import (
    Evaluation,
    describe_figures,
    measure_latency,
    refuse_seen,
    write_evaluation,
)
from audioml.memory import describe_memory, explained_memory, is_out_of_memory
from audioml.model_files import FILE_NAME, write_model
from audioml.opening import begin_run, greet, open_run
from audioml.preparation import Experiment, prepare
from audioml.preview import show_batch
from audioml.progress import describe_epoch
from audioml.ranks import ALONE, Ranks
from audioml.runs import RunError, RunFolder, describe_commit, describe_device, log_to_file
from audioml.splits import split_digest, split_table
from audioml.tracking import Tracker, peak_memory_gib
from audioml.training import Progress, Trainer

log = logging.getLogger("audioml")

Result = TypeVar("Result")

_BEFORE_TRAINING = (
    "out of memory before training began; lower train.eval_batch_size, or keep the clips elsewhere "
    "with audio.store=pinned or stream"
)


def run_experiment(
    config: RunConfig,
    *,
    evaluate_test: bool = True,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Train, evaluate and write the run folder.

    Args:
        config: The run; with ``resume`` set, an interrupted one goes on with its own settings.
        evaluate_test: Whether the test clips are evaluated; if not, the figures are those of the
            validation clips, which the protocol must have.
        on_epoch: Called with every epoch's figures, once they are saved; what it raises ends the
            run.
        ranks: Which of the processes that train together this is; rank 0 writes the folder.

    Returns:
        The run folder, and what stands in its ``summary.json``.

    Raises:
        ValueError: If configuration, data, split or run folder can't be used; a subclass each.
        LeakError: If the split leaks.
        Interrupted: If it was stopped and can be resumed; the message says how.
    """
    with ExitStack() as stack:
        stack.enter_context(joined(ranks))
        config, folder, resumes = open_run(config, ranks, stack)
        with together(ranks):
            device = choose_device(config.train.device, ranks)
            check_settings(config, device, ranks)
            stack.enter_context(repeatable_operations(config, device))
        compare_settings(ranks, config)
        if ranks.are_several and device.type == "cuda":
            torch.cuda.set_device(device)
        set_log_file = stack.enter_context(log_to_file())
        greet(config, device, ranks)
        with together(ranks), explained_memory(lambda: _BEFORE_TRAINING):
            experiment = prepare(config, device, resumes=resumes, ranks=ranks)
        compare_data(ranks, experiment.manifest, experiment.split, experiment.store)
        take_from_main(ranks, experiment.frontend.buffers())
        with together(ranks):
            if ranks.is_main:
                folder = folder or begin_run(config, stack)
                set_log_file(folder.path / "log.txt")
        part = "test" if evaluate_test else "val"
        run = _Run(experiment, folder, ranks, resumes=resumes, part=part, on_epoch=on_epoch)
        return run.finish()


class _Run:
    """A prepared experiment on its way to a finished folder; ``part`` is evaluated in the end.

    Every rank goes the same way, and rank 0, which alone has folder and tracker, writes.
    """

    folder: RunFolder
    tracker: Tracker

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder | None,
        ranks: Ranks,
        *,
        resumes: bool,
        part: str,
        on_epoch: Callable[[dict[str, float]], None],
    ) -> None:
        self.x, self.ranks = experiment, ranks
        if folder is not None:
            self.folder = folder
        self.path = from_main(ranks, lambda: str(self.folder.path))
        self.part, self.on_epoch = part, on_epoch
        self.trainer = Trainer(
            model=experiment.model,
            loader=experiment.loaders["train"],
            val_loader=experiment.loaders.get("val"),
            optim=experiment.config.optim,
            train=experiment.config.train,
            finetune=experiment.config.finetune,
            is_multi_label=experiment.manifest.is_multi_label,
            output=experiment.config.run,
            clip_names=lambda index: experiment.manifest.clips[index].path.name,
            on_epoch=self._on_epoch,
            on_save=self._save,
            on_progress=self._on_progress,
            ranks=ranks,
        )
        self.commit = describe_commit()
        if resumes:
            self._take_up(self._load(Checkpoints.load_last))
        elif ranks.is_main:
            self.folder.write_start(split_table(experiment.manifest, experiment.split))
            if len(experiment.bad_files):
                self.folder.write_table("bad_files.csv", experiment.bad_files)
            self._save()
        if ranks.is_main:
            self.tracker = Tracker(self.folder.path, self.trainer.progress.epoch)

    def finish(self) -> dict[str, Any]:
        """Train, evaluate, write."""
        log.info("run       %s", self.path)
        resume = f"python train.py {shlex.quote(f'resume={self.path}')}"
        try:
            with explained_memory(self._explain_memory):
                if self.ranks.is_main:
                    show_batch(self.x, self.folder, self.tracker)
                self._fit()
                log.info("trained   in %.0f s", self.trainer.progress.train_s)
                return self._evaluate()
        except Interrupted as stop:
            self._save()
            raise Interrupted(f"{stop}; everything is saved. Continue with: {resume}") from stop
        except KeyboardInterrupt as stop:  # at once, wherever it was
            raise Interrupted(
                f"stopped; the last checkpoint is kept. Continue with: {resume}"
            ) from stop
        finally:
            if self.ranks.is_main:
                self.tracker.close()

    def _on_epoch(self, row: dict[str, float], is_best: bool) -> None:
        log.info("%s", describe_epoch(row, self.x.config.train.epochs, is_best))
        if self.ranks.is_main:
            self.folder.write_table("metrics.csv", self.trainer.progress.history)
            self.tracker.log_epoch(row)
            checkpoint = self._checkpoint()
            if is_best:  # first, so that last.pt never names a best epoch that best.pt lacks
                self.folder.checkpoints.save_best(checkpoint)
            self.folder.checkpoints.save_last(checkpoint)
        self.on_epoch(row)

    def _on_progress(self, step: int, figures: dict[str, float]) -> None:
        if self.ranks.is_main:
            self.tracker.log_progress(step, figures)

    def _fit(self) -> None:
        """Train to the end; where memory runs out, with smaller batches if that is allowed."""
        while True:
            try:
                return self.trainer.fit()
            except RuntimeError as error:
                config = self.x.config
                n_clips = config.train.batch_size // 2
                trains = self.trainer.progress.step < len(self.trainer.loader)  # not validates
                may_halve = config.train.auto_batch and n_clips >= 2 and trains
                if not (is_out_of_memory(error) and may_halve):
                    raise
            log.warning("memory    %s", self._explain_memory())
            log.warning("          going on with train.batch_size=%d", n_clips)
            config = replace(config, train=replace(config.train, batch_size=n_clips))
            self.x = replace(self.x, config=config)
            self.trainer.loader.batch_size = n_clips
            if self.x.device.type == "cuda":
                torch.cuda.empty_cache()
            self.folder.write_text("config.yaml", to_yaml(config))
            self._take_up(self._load(Checkpoints.load_last))
            self._save()

    def _explain_memory(self) -> str:
        train, x = self.x.config.train, self.x
        remedy = "lower them" if train.auto_batch else "lower them, set train.auto_batch=true"
        return (
            f"out of memory with train.batch_size={train.batch_size} and train.eval_batch_size="
            f"{train.eval_batch_size} ({describe_memory(x.store, x.device)}); {remedy}, or keep "
            "the clips elsewhere with audio.store=pinned or stream"
        )

    def _save(self) -> None:
        if self.ranks.is_main:
            self.folder.checkpoints.save_last(self._checkpoint())

    def _load(self, read: Callable[[Checkpoints], Result]) -> Result:
        """Read something of the checkpoints, on rank 0, and have it on all ranks."""
        return from_main(self.ranks, lambda: read(self.folder.checkpoints))

    def _checkpoint(self) -> dict[str, Any]:
        """Collect a checkpoint: what a resume needs, and what a stranger must know to use it."""
        x = self.x
        return {
            "config": to_yaml(x.config),
            "labels": list(x.manifest.labels),
            "is_multi_label": x.manifest.is_multi_label,
            "frontend": x.frontend.state_dict(),
            "batch_size": self.trainer.loader.batch_size,
            **self._split_facts,
            **self.trainer.state(),
        }

    @cached_property
    def _split_facts(self) -> dict[str, Any]:
        """What a checkpoint says of the split, to refuse another one and clips it trained on."""
        manifest, split = self.x.manifest, self.x.split
        digests = {part: split_digest(manifest, clips) for part, clips in split.parts.items()}
        sources = sorted(set(manifest.sources[split.train].tolist()))
        return {"split_digests": digests, "train_sources": sources}

    def _take_up(self, checkpoint: dict[str, Any]) -> None:
        """Continue from a checkpoint, if classes and split are still the same."""
        digests = self._split_facts["split_digests"]
        changed = [part for part in digests if digests[part] != checkpoint["split_digests"][part]]
        if (list(self.x.manifest.labels), self.x.manifest.is_multi_label) != (
            checkpoint["labels"],
            checkpoint.get("is_multi_label", False),
        ):
            changed.append("labels")
        if changed:
            raise RunError(
                f"resume={self.path}: not the data the run began with ({', '.join(changed)} "
                "changed); restore them, or start a new run"
            )
        self.x.frontend.load_state_dict(checkpoint["frontend"])
        self.trainer.load_state(checkpoint)
        p = self.trainer.progress
        p.step = p.step * checkpoint["batch_size"] // self.trainer.loader.batch_size
        self._take_up_best()
        log.info("resume    after epoch %d, step %d", p.epoch, p.step)

    def _take_up_best(self) -> None:
        """Keep to the best epoch that is there: it may be newer than the last checkpoint."""
        p = self.trainer.progress
        best = Progress(**self._load(_read_best))
        if p.best_epoch and not best.epoch and self.ranks.is_main:
            log.warning("lost      the best epoch so far, %d: no best.pt", p.best_epoch)
        p.best_epoch, p.best_score = best.best_epoch, best.best_score

    def _evaluate(self) -> dict[str, Any]:
        """Evaluate the last and, where validation chose one, the best weights."""
        loader, clips = self.x.loaders[self.part], self.x.split.parts[self.part]
        evaluations = {"last": self.trainer.evaluate(loader)}
        if self.trainer.progress.best_epoch:
            best = self._load(Checkpoints.load_best)
            refuse_seen(self.x.manifest, clips, best["train_sources"])
            self.trainer.load_weights(best)
            evaluations["best"] = self.trainer.evaluate(loader)
        weights = "best" if "best" in evaluations else "last"
        for name, evaluation in evaluations.items():
            log.info("%-9s %s weights: %s", self.part, name, describe_figures(evaluation.figures()))
        summary = from_main(self.ranks, lambda: self._write(evaluations, weights))
        log.info("finished  %s", self.path)
        return {"folder": self.path, **summary}

    def _write(self, evaluations: dict[str, Evaluation], weights: str) -> dict[str, Any]:
        """Write weights, figures and plots; returns what stands in ``summary.json``."""
        chosen = evaluations[weights]
        challenge = challenge_figures(self.x.manifest, chosen.clip_index, chosen.probability)
        if challenge:
            figures = ", ".join(f"{name} {value:.1%}" for name, value in challenge.items())
            log.info("challenge %s", figures.replace("_", " "))
        self._save_weights(weights)
        summary = challenge | self._summarise(evaluations, weights)
        self._write_results(chosen, summary)
        return summary

    def _save_weights(self, weights: str) -> None:
        """Write the weights that were evaluated in a format that can hold nothing else."""
        x = self.x
        write_model(
            self.folder.path / FILE_NAME,
            config=x.config,
            labels=x.manifest.labels,
            is_multi_label=x.manifest.is_multi_label,
            weights=self.trainer.averaged_model.state_dict(),
            statistics=x.frontend.state_dict(),
            train_sources=self._split_facts["train_sources"],
            chosen=weights,
        )

    def _summarise(self, evaluations: dict[str, Evaluation], weights: str) -> dict[str, Any]:
        x, p = self.x, self.trainer.progress
        n_trained = p.epoch * len(x.split.train)
        return {
            **evaluations[weights].figures(),
            "evaluated_on": self.part,
            "weights": weights,
            **{name: evaluation.figures() for name, evaluation in evaluations.items()},
            "data": x.manifest.name,
            "is_synthetic": x.manifest.is_synthetic,
            "model": x.config.model.name,
            "n_parameters": sum(weight.numel() for weight in x.model.parameters()),
            "protocol": x.split.protocol,
            "fold": x.split.fold,
            **{f"n_{part}": len(clips) for part, clips in x.split.parts.items()},
            "n_dropped": len(x.split.dropped),
            "bad_files": x.bad_files[["path", "reason"]].to_dict("records"),
            "audit": [line.strip() for line in x.audit.text().splitlines()],
            "seed": x.config.train.seed,
            "epochs": p.epoch,
            "best_epoch": p.best_epoch or None,
            "n_bad_steps": p.n_bad_steps,
            "clips_per_s": n_trained / p.train_s,
            "times_real_time": n_trained * self.trainer.loader.clip_s / p.train_s,
            "data_wait": p.wait_s / p.train_s,
            "train_time_s": p.train_s,
            "latency_ms": 1000 * self._latency_s(),
            "peak_memory_gib": peak_memory_gib(x.device),
            "store": x.store.place,
            "device": describe_device(x.device),
            "n_ranks": self.ranks.size,
            "commit": self.commit,
        }

    def _latency_s(self) -> float:
        x, trainer = self.x, self.trainer
        return measure_latency(
            trainer.averaged_model,
            x.frontend,
            x.store.n_time,
            device=x.device,
            autocast=trainer.autocast(),
        )

    def _write_results(self, evaluation: Evaluation, summary: dict[str, Any]) -> None:
        history = self.trainer.progress.history
        self.folder.write_figure(
            "curves.png", plots.plot_curves(history, self.trainer.progress.best_epoch or None)
        )
        if self.part == "test":
            picture = write_evaluation(self.folder, evaluation, self.x.manifest)
            self.tracker.log_picture(f"{picture.stem}/test", picture, len(history))
        self.tracker.log_hparams(flatten(self.x.config), evaluation.figures(), self.part)
        self.folder.write_json("summary.json", summary)


def _read_best(checkpoints: Checkpoints) -> dict[str, Any]:
    """Read where training stood at its best epoch, if there was one."""
    if not checkpoints.best.exists():
        return asdict(Progress())
    try:
        return cast(dict[str, Any], checkpoints.load_best()["progress"])
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; delete the file to go on with the best of the epochs to come"
        ) from error

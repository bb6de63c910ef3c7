"""Several ranks train what one process trains, and end together."""

import hashlib
import json
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from jobs import EQUAL, run_ranks, start_torchrun, train
from official import DATA, ESC10_FILES
from tiny import SETTINGS, make_tiny
from torch import nn

from audioml.config import FinetuneConfig, load_config
from audioml.distributed import joined
from audioml.errors import UserError
from audioml.loader import Loader
from audioml.preparation import prepare
from audioml.ranks import Ranks, read_ranks
from audioml.runs import RunFolder
from audioml.training import Trainer

FIGURES = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("data") / "tiny")


# The trainer alone: equal curves, steps and evaluations


def make_trainer(settings, ranks):
    config = load_config(overrides=settings)
    # It would not keep layers as they are that nothing was trained on.
    x = prepare(replace(config, finetune=FinetuneConfig()), CPU, ranks=ranks)
    return Trainer(
        model=x.model,
        loader=x.loaders["train"],
        val_loader=x.loaders["val"],
        optim=config.optim,
        train=config.train,
        finetune=config.finetune,
        clip_names="clip {}".format,
        on_epoch=lambda row, is_best: None,
        ranks=ranks,
    )


def fit(rank, file, settings, start=None):
    """Train on a rank, perhaps from another run's state, and keep what came of it."""
    ranks = read_ranks()
    with joined(ranks):
        trainer = make_trainer(settings, ranks)
        if start is not None:
            trainer.load_state(torch.load(start, weights_only=True))
        try:
            trainer.fit()
            error = ""
        except UserError as end:
            error = str(end)
        evaluation = trainer.evaluate(trainer.val_loader)
        rows = [{name: row[name] for name in FIGURES} for row in trainer.progress.history]
        torch.save(
            {
                "rows": rows,
                "clip_index": evaluation.clip_index.tolist(),
                "probability": evaluation.probability.tolist(),
                "state": trainer.state(),
                "error": error,
            },
            file.with_name(f"{file.name}-{rank}"),
        )


@pytest.fixture(scope="module")
def fitted(tiny, tmp_path_factory):
    """Makes what each of some ranks has in the end: [rank]."""
    place, known = tmp_path_factory.mktemp("fitted"), {}

    def make(n_ranks, *changes, start=None, settings=EQUAL, root=tiny):
        key = (n_ranks, changes, start, tuple(settings), root)
        if key not in known:
            file = place / str(len(known))
            words = [*settings, f"data.root={root}", *changes]
            assert run_ranks(n_ranks, fit, file, words, start) == [0] * n_ranks
            files = [file.with_name(f"{file.name}-{rank}") for rank in range(n_ranks)]
            known[key] = [torch.load(each, weights_only=True) for each in files]
        return known[key]

    return make


def assert_same_curves(ours, theirs, atol):
    for rank in ours:
        assert rank["rows"] == ours[0]["rows"]
    tables = [pd.DataFrame(run[0]["rows"]) for run in (ours, theirs)]
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=atol)
    probabilities = [torch.tensor(run[0]["probability"]) for run in (ours, theirs)]
    torch.testing.assert_close(*probabilities, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("n_ranks", "changes"),
    [
        (2, ()),
        (3, ("train.batch_size=5",)),  # the last of 27 clips are 2, fewer than ranks
        (2, ("finetune.head_epochs=1", "finetune.unfreeze_every=1", "train.epochs=3")),
        (2, ("train.accumulate=3", "train.class_weights=balanced")),
        (2, ("audio.store=stream",)),
    ],
    ids=["two", "uneven", "unfreezing", "accumulating", "streaming"],
)
def test_ranks_have_the_curve_of_one_process(n_ranks, changes, fitted):
    alone = tuple(word for word in changes if "accumulate" not in word and "stream" not in word)
    assert_same_curves(fitted(n_ranks, *changes), fitted(1, *alone), atol=1e-4)


@pytest.mark.skipif(not ESC10_FILES, reason="needs ESC-10 in AUDIOML_DATA")
def test_ranks_have_the_curve_of_one_process_on_esc10(fitted):
    settings = ("audio.clip_s=5", "train.batch_size=32", "frontend.n_mels=32")
    keys = [word.partition("=")[0] for word in settings]
    common = [word for word in EQUAL if word.partition("=")[0] not in keys]
    two, one = (fitted(n, *settings, settings=common, root=DATA / "ESC-10") for n in (2, 1))
    assert len(one[0]["clip_index"]) == 80
    assert one[0]["rows"][-1]["train_loss"] < one[0]["rows"][0]["train_loss"]
    assert_same_curves(two, one, atol=1e-4)
    assert two[0]["clip_index"] == one[0]["clip_index"]


def measure(rank, file, settings):
    """Keep the statistics that a rank normalises by, and how many batches it took them from."""
    ranks = read_ranks()
    steps = []
    epoch = Loader.epoch

    def counted(self, *numbers):
        for batch in epoch(self, *numbers):
            steps.append(batch)
            yield batch

    with joined(ranks), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "epoch", counted)
        frontend = prepare(load_config(overrides=settings), CPU, ranks=ranks).frontend
    statistics = (frontend.mean_db, frontend.std_db, len(steps))
    torch.save(statistics, file.with_name(f"{file.name}-{rank}"))


def test_statistics_are_taken_together(tiny, tmp_path):
    """27 clips are 7 batches of 4: each rank takes some."""
    settings = [*EQUAL, "train.eval_batch_size=4", f"data.root={tiny}"]
    assert run_ranks(3, measure, tmp_path / "three", settings) == [0, 0, 0]
    assert run_ranks(1, measure, tmp_path / "one", settings) == [0]
    mean_db, std_db, n_batches = torch.load(tmp_path / "one-0")
    assert n_batches == 7
    ours = [torch.load(tmp_path / f"three-{rank}") for rank in range(3)]
    assert sorted(part[2] for part in ours) == [2, 2, 3]
    for part in ours:
        torch.testing.assert_close(part[0], mean_db, rtol=1e-6, atol=0)
        torch.testing.assert_close(part[1], std_db, rtol=1e-6, atol=0)


def test_accumulated_gradients_are_one_batchs(fitted):
    assert_same_curves(fitted(1, "train.accumulate=3"), fitted(1), atol=1e-5)


def test_all_ranks_know_every_clip_of_an_evaluation_once_and_in_order(fitted):
    two, alone = fitted(2), fitted(1)
    for rank in two:
        assert rank["clip_index"] == alone[0]["clip_index"]
        assert rank["probability"] == two[0]["probability"]


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_an_evaluation_of_the_same_weights_is_the_same_to_the_bit(n_ranks, fitted, tmp_path, tiny):
    """With batch norm, whose statistics every rank has its own of: rank 0's are evaluated."""
    settings = [*SETTINGS, "train.eval_batch_size=4", "train.epochs=1", f"data.root={tiny}"]
    trained = fitted(2, settings=settings)
    file = tmp_path / "state"
    torch.save(trained[0]["state"], file)  # of a training that is over: it is evaluated alone
    alone, several = (fitted(n, start=file, settings=settings) for n in (1, n_ranks))
    for rank in (*several, *trained):
        assert rank["probability"] == alone[0]["probability"]


def test_checkpoints_do_not_tell_the_number_of_ranks(fitted):
    two, alone = fitted(2)[0]["state"], fitted(1)[0]["state"]
    for part in ("model", "ema"):
        assert {k: v.shape for k, v in two[part].items()} == {
            k: v.shape for k, v in alone[part].items()
        }


def test_ranks_draw_dropout_of_their_own(fitted):
    """So two ranks differ from one process, and repeat themselves."""
    one, two, again = (
        fitted(n, "model.dropout=0.5", f"train.eval_batch_size={size}")
        for n, size in ((1, 32), (2, 32), (2, 64))
    )
    assert two[0]["rows"] == again[0]["rows"]
    assert one[0]["rows"][0]["train_loss"] != pytest.approx(two[0]["rows"][0]["train_loss"], 1e-4)


def fit_with_a_bad_clip(rank, file, settings):
    """Every rank meets it in the same step; only one has the clip."""
    forward = nn.Linear.forward

    def spoiled(self, x):
        out = forward(self, x)
        is_late = trainer_steps.step == 2 and self.training and rank == 1
        return out * float("nan") if is_late and out.shape[-1] == 3 else out

    trainer_steps = _Steps()
    nn.Linear.forward = spoiled
    step = Trainer._train_step

    def counted(self, batch):
        trainer_steps.step = self.progress.step
        trainer_steps.clips[self.progress.step] = batch.clip_index.tolist()
        return step(self, batch)

    Trainer._train_step = counted
    fit(rank, file, settings)
    if rank == 1:
        file.with_name("clips").write_text(json.dumps(trainer_steps.clips[2]))


class _Steps:
    step = -1

    def __init__(self):
        self.clips = {}


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_bad_step_on_one_rank_is_bad_on_all_and_names_its_clips(policy, tiny, tmp_path):
    file = tmp_path / policy
    words = [*EQUAL, f"data.root={tiny}", "train.epochs=1", f"train.on_bad_step={policy}"]
    assert run_ranks(2, fit_with_a_bad_clip, file, words) == [0, 0]
    ends = [torch.load(tmp_path / f"{policy}-{rank}", weights_only=True) for rank in range(2)]
    clips = ", ".join(f"clip {clip}" for clip in json.loads((tmp_path / "clips").read_text()))
    if policy == "stop":
        text = f"epoch 1, step 3: the loss is nan on rank 1, with the clips {clips}; the step was"
        assert all(end["error"].startswith(text) for end in ends)
    assert [end["state"]["progress"]["n_bad_steps"] for end in ends] == [policy == "skip"] * 2
    for weight in zip(*(end["state"]["model"].values() for end in ends), strict=True):
        assert torch.equal(*weight)


# Whole runs


def run(place, n_ranks, settings):
    """Run to the end; returns the run folder and what each rank said."""
    codes, said = train(place, n_ranks, settings)
    assert codes == [0] * n_ranks, said
    name = next(word.partition("=")[2] for word in settings if word.startswith(("run.dir", "res")))
    return place / name, said


@pytest.fixture(scope="module")
def by_two(tiny, tmp_path_factory):
    """The folder of a run by two ranks, and what each of them said."""
    settings = [*EQUAL, f"data.root={tiny}", "run.dir=run", "run.save_every_steps=1"]
    return run(tmp_path_factory.mktemp("whole"), 2, settings)


def test_rank_0_alone_writes_and_speaks(by_two):
    folder, said = by_two
    assert said[1] == ["", ""]
    assert "device    cpu (1 threads), each of 2 ranks" in said[0][0]
    names = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert len([name for name in names if name.startswith("events")]) == 1
    assert {"summary.json", "model.safetensors", "checkpoints/best.pt", "log.txt"} <= names
    lines = (folder / "log.txt").read_text().splitlines()
    assert len(lines) == len(set(lines))
    assert json.loads((folder / "summary.json").read_text())["n_ranks"] == 2
    assert {f.name for f in folder.parent.iterdir()} == {
        "run",
        *(f"{stream}-{rank}" for stream in ("out", "error") for rank in range(2)),
    }


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (["optim.lr=0.1"], "the ranks disagree on optim.lr: 0.002 on rank 0, 0.1 on rank 1; start"),
        (["data.root=relabelled"], r"the ranks disagree on row 1 \(1-10-A-0\.wav\): another name"),
        (["data.root=louder"], r"the ranks disagree on row 4 \(2-20-A-0\.wav\): another name, "),
        (["data.root=nowhere"], "rank 1: nowhere"),
    ],
    ids=["settings", "labels", "sounds", "none"],
)
def test_ranks_that_disagree_end_all_in_one_line(second, message, tiny, tmp_path):
    for name in ("relabelled", "louder"):
        make_tiny(tmp_path / name)
    table = tmp_path / "relabelled" / "meta" / "esc50.csv"
    text = table.read_text()
    table.write_text(text.replace("1-10-A-0.wav,1,0,low", "1-10-A-0.wav,1,1,middle"))
    sound = tmp_path / "louder" / "audio" / "2-20-A-0.wav"
    data = sound.read_bytes()
    sound.write_bytes(data[:200] + bytes(len(data) - 200))
    first = [*EQUAL, f"data.root={tiny}", "run.dir=run"]
    codes, said = train(tmp_path, 2, [first, [*first, *second]])
    assert codes == [2, 2]
    assert re.fullmatch(rf"error: {message}[^\n]*\n", said[0][1]), said
    assert said[1] == ["", ""]
    assert not (tmp_path / "run").exists()


def test_other_verbs_are_for_one_process(tmp_path, capsys, monkeypatch):
    from audioml.cli import main

    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, str(value))
    assert main(["crossval"]) == 2
    assert capsys.readouterr().err == (
        "error: of all verbs only train runs on several ranks; start without torchrun\n"
    )


# Under torchrun

LONG = ["train.epochs=12", "run.save_every_steps=1", "run.dir=run"]


@pytest.fixture(scope="module")
def long(tiny, tmp_path_factory):
    """The folder of a longer run by two ranks that nothing happened to."""
    return run(tmp_path_factory.mktemp("long"), 2, [*EQUAL, f"data.root={tiny}", *LONG])[0]


def wait_for_saves(process, folder, n_saves):
    """Wait until a running process has saved so often."""
    manifest, seen = folder / "checkpoints" / "manifest.json", None
    end = time.monotonic() + 120
    while n_saves >= 0:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        at = manifest.stat().st_mtime_ns if manifest.exists() else None
        n_saves, seen = n_saves - (at != seen), at
        time.sleep(0.001)


def find_rank(process, rank):
    """Find the process of a rank among torchrun's children."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        if f"\0RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text():
            return int(child)
    raise AssertionError("no such rank")


def assert_equal_ends(folder, whole):
    """The weights in every byte, and all figures but those of time."""
    digests = [
        hashlib.sha256((f / "model.safetensors").read_bytes()).hexdigest() for f in (folder, whole)
    ]
    assert digests[0] == digests[1]
    tables = [pd.read_csv(f / "metrics.csv")[FIGURES] for f in (folder, whole)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")
def test_killed_ranks_end_the_job_and_a_restart_goes_on(tiny, long, tmp_path):
    """Killed twice with one restart allowed; then resumed, to the same bytes."""
    settings = [*EQUAL, f"data.root={tiny}", *LONG]
    process = start_torchrun(tmp_path, 2, *settings, options=["--max-restarts=1"])
    wait_for_saves(process, tmp_path / "run", 5)
    os.kill(find_rank(process, 1), signal.SIGKILL)
    wait_for_saves(process, tmp_path / "run", 7)  # by ranks that were started anew
    os.kill(find_rank(process, 1), signal.SIGKILL)
    killed = time.monotonic()
    out, error = process.communicate(timeout=120)
    assert time.monotonic() - killed < 30
    assert process.returncode == 1
    cause = error.partition("Root Cause")[2]
    assert re.search(r"rank +: 1 .*\n +exitcode +: -9 ", cause), error
    assert "error: rank 0: the connection to another rank is lost" in error
    assert "Traceback" not in error.partition("torch/distributed/elastic")[0]
    assert re.search(r"resume    after epoch \d+, step \d+", out)
    folder, _ = run(tmp_path, 2, ["resume=run"])
    assert_equal_ends(folder, long)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_asked_to_stop_all_ranks_stop_after_the_same_step_and_go_on_as_others(
    number, tiny, long, tmp_path
):
    settings = [*EQUAL, f"data.root={tiny}", *LONG]
    process = start_torchrun(tmp_path, 2, *settings)
    wait_for_saves(process, tmp_path / "run", 5)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert error.count("everything is saved. Continue with: python train.py resume=run") == 1
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    p = state["progress"]
    stopped = re.search(r"^stopped in epoch (\d+) after step (\d+);", error, re.MULTILINE)
    assert stopped is None or (p["epoch"] + 1, p["step"]) == tuple(map(int, stopped.groups()))
    folder, _ = run(tmp_path, 3, ["resume=run"])  # the same clips and steps
    tables = [pd.read_csv(f / "metrics.csv")[FIGURES] for f in (folder, long)]
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-4)


def test_a_restart_without_a_folder_says_so(tiny, tmp_path, monkeypatch):
    from audioml.experiment import run_experiment

    config = load_config(overrides=[*SETTINGS, f"data.root={tiny}"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"this is restart 1, and without run\.dir nothing says"):
        run_experiment(config, ranks=Ranks(restart=1))
    assert not RunFolder.is_begun(tmp_path)

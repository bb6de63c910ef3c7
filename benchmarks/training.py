"""Training steps fed by the loader against steps on one batch that is there already.

``python benchmarks/training.py --device cpu``; the ratio says what on-the-fly data cost.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ours
from harness import Case, Result, Workload
from material import Chain, Job, open_job
from report import Section, make_parser, measure_wanted, parse, publish

INTRO = """A step is forward, backward and AdamW; channels_last, bf16 autocast on CUDA. "loader"
takes its batches from the project's loader with its default augmentation, whole epochs at a time;
"resident" takes one synthetic batch that stays on the device. The ratio of the two is the share of
the possible speed that training reaches; data_wait is the loader's own measure of what is missing.
"""

Batches = Iterable[tuple[Tensor, Tensor]]  # log-mels [batch, 1, mel, frame], targets [batch, class]


class Steps:
    """Training steps of one model.

    Args:
        model: From log-mels to logits.
        device: Where it runs.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.device, self.is_cuda = device, device.type == "cuda"
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=self.is_cuda)

    @torch.enable_grad()
    def run(self, batches: Batches) -> None:
        """Do a step a batch."""
        for log_mel, target in batches:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_cuda):
                logits = self.model(log_mel.to(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), target)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()


@dataclass
class Waiting:
    """Shares of epochs that were spent waiting for data."""

    shares: list[float] = field(default_factory=list)

    def columns(self) -> dict[str, str]:
        """Write the median as a column."""
        return {"data_wait": f"{torch.tensor(self.shares).median():.0%}"}


def build_loader(job: Job, make_model: Callable[[], nn.Module]) -> Workload:
    """Make epochs fed by the loader."""
    loader = ours.make_loader(
        job.samples,
        device=job.device,
        batch_size=job.batch_size,
        augment=ours.AugmentConfig(),
        **job.chain.frontend,
    )
    steps, batches, waiting = Steps(make_model(), job.device), ours.epochs(loader), Waiting()

    def step() -> None:
        begin = time.perf_counter()
        steps.run((batch.input, batch.target) for batch in next(batches))
        wait_s = loader.wait_s()  # synchronises
        waiting.shares.append(wait_s / (time.perf_counter() - begin))

    return Workload(step=step, n_clips=len(job.samples), extra=waiting.columns)


def build_resident(job: Job, make_model: Callable[[], nn.Module]) -> Workload:
    """Make as many steps as an epoch has, on one batch."""
    c, steps = job.chain, Steps(make_model(), job.device)
    shape = (job.batch_size, 1, c.n_mels, c.n_frames)
    log_mel = torch.randn(shape, device=job.device)
    target = torch.rand(job.batch_size, ours.N_CLASSES, device=job.device).softmax(dim=1)
    n_steps = len(job.samples) // job.batch_size
    return Workload(
        step=lambda: steps.run([(log_mel, target)] * n_steps), n_clips=n_steps * job.batch_size
    )


def model_cases(job: Job, name: str, make_model: Callable[[], nn.Module]) -> list[Case]:
    """List a model's two cases."""
    resident = f"{name}, resident"
    return [
        Case(
            name=f"{name}, loader",
            build=lambda: build_loader(job, make_model),
            is_ours=True,
            reference=(resident,),
        ),
        Case(name=resident, build=lambda: build_resident(job, make_model), is_ours=True),
    ]


def list_cases(job: Job) -> list[Case]:
    """All models of the project."""
    models = ours.make_models()
    return [case for name, make in models.items() for case in model_cases(job, name, make)]


def add_step_time(results: list[Result], options: argparse.Namespace) -> None:
    """Add the time of a step as a column."""
    for result in results:
        if result.rates:
            result.extra["step ms"] = f"{1000 * options.batch / result.median:.1f}"


def main() -> None:
    """Measure and publish."""
    options = parse(
        make_parser("Training steps with the loader and without."), cpu=(32, 16), cuda=(2048, 64)
    )
    options.clips -= options.clips % options.batch
    chain = Chain(clip_s=options.clip_s)
    with open_job(options, chain) as job:
        results = measure_wanted(list_cases(job), options)
    add_step_time(results, options)
    title = f"Batches of {options.batch} clips, {chain.describe()}"
    publish("training", INTRO, [Section(title=title, text="", results=results)], options)


if __name__ == "__main__":
    main()

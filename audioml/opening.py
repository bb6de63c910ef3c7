"""How a run begins or goes on: its folder, and its first lines."""

import logging
from contextlib import ExitStack
from pathlib import Path

import torch

from audioml.config import RunConfig, config_from_yaml, load_config, to_yaml
from audioml.distributed import from_main
from audioml.ranks import Ranks
from audioml.runs import RunError, RunFolder, describe_device

log = logging.getLogger("audioml")


def open_run(
    config: RunConfig, ranks: Ranks, stack: ExitStack
) -> tuple[RunConfig, RunFolder | None, bool]:
    """Open the folder of a run that is to go on.

    Args:
        config: The settings; ``resume`` names the folder, or ``run.dir`` does in a job that
            torchrun has started anew.
        ranks: Which of the processes this is; rank 0 alone opens it.
        stack: What keeps other processes from writing to the folder until it is closed.

    Returns:
        The run's own settings; the folder, None on other ranks and where there is none yet; and
        whether it holds a checkpoint.

    Raises:
        RunError: If there is nothing to go on with, or another process writes to it.
    """
    folders: list[RunFolder] = []

    def open_folder() -> tuple[str, bool] | None:
        path = config.resume or _find_begun(config, ranks)
        if path is None:
            return None
        folder = RunFolder.open(Path(path))
        stack.enter_context(folder.writing())
        folders.append(folder)
        return to_yaml(load_config([folder.config])), folder.checkpoints.are_there

    opened = from_main(ranks, open_folder)
    if opened is None:
        return config, None, False
    return config_from_yaml(opened[0], "rank 0"), folders[0] if folders else None, opened[1]


def _find_begun(config: RunConfig, ranks: Ranks) -> str | None:
    """Name the folder that a job goes on with after torchrun has started it anew."""
    if not ranks.restart:
        return None
    if config.run.dir is None:
        raise RunError(
            f"this is restart {ranks.restart}, and without run.dir nothing says which run to go on "
            "with; set run.dir, or go on with resume=FOLDER"
        )
    return config.run.dir if RunFolder.is_begun(Path(config.run.dir)) else None


def begin_run(config: RunConfig, stack: ExitStack) -> RunFolder:
    """Make a new folder, which can be resumed from here on.

    Args:
        config: The settings.
        stack: As in ``open_run``.
    """
    folder = RunFolder.create(config)
    folder.write_text("config.yaml", to_yaml(config))
    stack.enter_context(folder.writing())
    return folder


def greet(config: RunConfig, device: torch.device, ranks: Ranks) -> None:
    """Say in the first lines where the run runs, on what data, and what else there is."""
    each = f", each of {ranks.size} ranks" if ranks.are_several else ""
    log.info("device    %s%s", describe_device(device), each)
    if config.data.name != "synthetic":
        log.info("data      %s", config.data.name)
        return
    log.info(
        "data      the built-in synthetic set: generated sounds, no recordings; its figures say "
        "that the program works, not how well it hears"
    )
    log.info(
        "          to train on ESC-50:  python train.py configs/esc50_cnn.yaml  (downloads it), or "
        "add data.root=FOLDER"
    )

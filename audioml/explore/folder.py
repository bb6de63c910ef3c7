"""From words on the command line to a folder with a page, pictures and a table."""

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from audioml.config import ConfigError
from audioml.explore import figures
from audioml.explore.exploration import Exploration, look
from audioml.explore.inputs import read_input
from audioml.explore.page import render_page
from audioml.explore.survey import readable
from audioml.progress import track
from audioml.runs import Folder, RunError

log = logging.getLogger("audioml")


def explore(
    words: Sequence[str], out: Path | None = None, n_examples: int = 2
) -> tuple[Exploration, Path]:
    """Look at sounds and write a folder with ``explore.html``, ``clips.csv`` and ``plots/``.

    Args:
        words: Settings; or a folder, a list of clips or a sound file, and settings.
        out: The folder; None for one in ``runs/`` named after time and data.
        n_examples: Examples a class.

    Returns:
        What was found, and the folder.

    Raises:
        ConfigError: If settings are wrong.
        DataError: If there are no sounds, or the one file can't be read.
        RunError: If ``out`` is there already and holds anything.
    """
    if n_examples < 0:
        raise ConfigError(f"--examples must be 0 or more, got {n_examples}")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: already there; choose another --out")
    exploration = look(read_input(words), n_examples)
    if out is None:
        name = re.sub(r"[^\w.-]+", "_", exploration.input.manifest.name).strip("_")[:40]
        folder = Folder.create_named("explore", name)
    else:
        out.mkdir(parents=True, exist_ok=True)
        folder = Folder(out)
    folder.write_table("clips.csv", exploration.survey.clips)
    for name, figure in track(_draw(exploration), task="pictures", unit="picture"):
        folder.write_figure(name, figure)
    folder.write_text("explore.html", render_page(exploration, words))
    log.info("wrote     %s", readable(str(folder.path)))
    return exploration, folder.path


def _draw(exploration: Exploration) -> Iterator[tuple[str, Figure]]:
    """Draw the pictures that the data have something for."""
    told, labels, frontend = exploration.survey, exploration.labels, exploration.frontend
    if exploration.examples:
        yield "waveforms.png", figures.plot_waveforms(exploration.examples, frontend)
        yield "log_mels.png", figures.plot_log_mels(exploration.examples, frontend)
        yield (
            "mel_and_log_mel.png",
            figures.plot_mel_and_log_mel(exploration.examples, frontend),
        )
        yield "spectra.png", figures.plot_spectra(told.spectra, labels, frontend)
    if len(told.usable) > 1:
        yield "lengths_levels.png", figures.plot_lengths_and_levels(told.usable, labels)
    if len(labels) > 1 and len(told.usable):
        yield "balance.png", figures.plot_balance(told.usable, labels)
    if len(exploration.changes) > 1:
        yield "augmentation.png", figures.plot_augmentation(exploration.changes, frontend)

"""``report.html`` and ``model_card.md`` of a run's folder."""

import logging
from pathlib import Path

from audioml.report.card import render_card
from audioml.report.content import read_content
from audioml.report.page import render_report
from audioml.runs import Folder

log = logging.getLogger("audioml")


def write_report(path: Path) -> Path:
    """Write the report and the model card of a finished run or cross-validation, beside its data.

    Args:
        path: Its folder.

    Returns:
        The report.

    Raises:
        RunError: If it is not a finished run, or a file in it is missing or damaged.
    """
    content = read_content(path)
    folder = Folder(path)
    folder.write_text("model_card.md", render_card(content))
    folder.write_text("report.html", render_report(content))
    log.info("report    %s", path / "report.html")
    return path / "report.html"

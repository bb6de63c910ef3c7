"""A real Chromium for pages, and pages that may neither fail nor ask anybody for anything."""

import os
import shutil
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("AUDIOML_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",  # a microphone that beeps
    "--use-fake-ui-for-media-stream",
]


def pytest_collection_modifyitems(items):
    """Skip before anything is trained for a browser that is not there."""
    if CHROMIUM is None:
        reason = "no Chromium here: apt-get install chromium, or set AUDIOML_CHROMIUM=PROGRAM"
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def chromium():
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def view(chromium):
    """Open a page; at the end there was no error, no dialog, and nothing was asked of a network."""
    faults, contexts = [], []

    def open_page(file, width=1400, scheme="light"):
        viewport = {"width": width, "height": 900}
        context = chromium.new_context(
            viewport=viewport, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda line: line.type == "error" and faults.append(line.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        own = (file.as_uri(), "data:", "blob:")
        context.on("request", lambda r: r.url.startswith(own) or faults.append(r.url))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []

"""The report in a real browser: what is there, what a click does, what is heard."""

import shutil

import pytest
from tiny import SETTINGS, make_tiny

from audioml.cli import main

api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    words = [*SETTINGS, f"data.root={make_tiny(root / 'data')}", f"run.dir={root / 'run'}"]
    assert main(["train", *words, "train.epochs=1", "splits.protocol=nested"]) == 0
    return root / "run" / "report.html"


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=[(1400, "light"), (390, "dark")], ids=["wide", "phone"])
def page(request, report, browser):
    """The open page; no error on its console, no request beyond it."""
    width, scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page, faults, asked = context.new_page(), [], []
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    yield page
    assert faults == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [report.as_uri()]
    context.close()


def test_all_parts_are_there_and_fit(page):
    for part in ("curves", "confusion", "classes", "augmentation", "split", "speed", "again"):
        assert page.locator(f"section#{part}").is_visible()
    assert page.locator(".chart .main-svg").count() >= 4
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wider) == 0


def test_a_cell_shows_its_clips_by_mouse_and_by_key(page):
    cells = page.locator(".matrix button")
    counts = [int(text) for text in cells.all_text_contents()]
    assert sum(counts) == 9
    for number, count in enumerate(counts):
        cell = cells.nth(number)
        if number % 2:
            cell.focus()
            page.keyboard.press("Enter")
        else:
            cell.click()
        rows = page.locator("#rows tr")
        assert rows.count() == count
        assert cell.get_attribute("aria-pressed") == "true"
        assert f"{count} of 9 clips" in page.locator("#shown").inner_text()
        true, said = cell.get_attribute("data-true"), cell.get_attribute("data-said")
        labels = ["low", "middle", "high"]
        assert rows.first.locator("td").nth(1).inner_text() == labels[int(true)]
        assert rows.first.locator("td").nth(2).inner_text() == labels[int(said)]


def test_lists_are_sorted_by_their_heads(page):
    page.locator(".filter[data-show=all]").click()
    assert page.locator("#rows tr").count() == 9
    page.locator(".sort[data-key=path]").click()
    paths = page.locator("#rows td.path").all_inner_texts()
    assert paths == sorted(paths)
    page.locator(".sort[data-key=path]").click()
    assert page.locator("#rows td.path").all_inner_texts() == sorted(paths, reverse=True)


def test_sounds_play(page):
    page.locator(".filter[data-show=all]").click()
    durations = page.evaluate(
        """async () => {
          const players = [...document.querySelectorAll("#rows audio, .card audio")];
          return Promise.all(players.map((player) => new Promise((resolve, reject) => {
            player.addEventListener("loadedmetadata", () => resolve(player.duration));
            player.addEventListener("error", () => reject(new Error("cannot be played")));
            player.preload = "metadata";
            player.load();
          })));
        }"""
    )
    assert len(durations) >= 9
    assert all(0.2 < duration < 1.5 for duration in durations)

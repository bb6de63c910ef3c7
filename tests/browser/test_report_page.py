"""The report in a real browser: what is there, what a click does, what is heard."""

import shutil

import pandas as pd
import pytest
from tiny import train_tiny

from audioml.report import write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    return train_tiny(root, "run.report=true", "train.epochs=1") / "report.html"


@pytest.fixture(params=[(1400, "light"), (390, "dark")], ids=["wide", "phone"])
def page(request, report, view):
    """The open page; no error on its console, no request beyond it."""
    return view(report, *request.param)


def test_all_parts_are_there_and_fit(page):
    for part in ("curves", "confusion", "classes", "augmentation", "split", "speed", "again"):
        assert page.locator(f"section#{part}").is_visible()
    assert page.locator(".chart .main-svg").count() >= 4
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wider) == 0


def test_a_column_stands_below_its_name(page):
    names = page.locator(".matrix thead span")
    cells = page.locator(".matrix tbody tr:first-child td")
    assert names.count() == cells.count() == 3
    for number in range(3):
        name, cell = names.nth(number).bounding_box(), cells.nth(number).bounding_box()
        middle = cell["x"] + cell["width"] / 2
        assert name["x"] + name["width"] / 2 == pytest.approx(middle, abs=2)


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
        first, *others = rows.first.locator("td").nth(2).inner_text().splitlines()
        assert first == labels[int(said)]
        assert all(label in " ".join(others) for label in labels if label != first)


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


def test_a_clip_is_beside_the_matrix_or_fits_a_phone(page):
    page.locator(".matrix button").first.click()
    player = page.locator("#rows audio").first.bounding_box()
    matrix = page.locator(".matrix").bounding_box()
    width = page.viewport_size["width"]
    assert player["x"] + player["width"] <= width
    is_beside = player["x"] > matrix["x"] + matrix["width"] and player["y"] < 900
    assert is_beside == (width == 1400)


def test_hostile_names_run_nothing(report, view, tmp_path):
    label, script = "<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>"
    folder = shutil.copytree(report.parent, tmp_path / "<b>run")
    for name in ("predictions.csv", "split.csv"):
        table = pd.read_csv(folder / name, dtype={"source": str})
        table = table.replace({"low": label, "high": script}).rename(
            columns={"p_low": f"p_{label}", "p_high": f"p_{script}"}
        )
        table["path"] = [f"{script}{path}" for path in table["path"]]
        table.to_csv(folder / name, index=False)
    page = view(write_report(folder))
    page.locator(".filter[data-show=all]").click()
    assert page.locator("#rows td.path").first.inner_text().startswith(script)
    assert label in page.locator(".matrix").inner_text()
    assert label in page.locator("#recall").inner_text()
    assert page.locator("main img[src=x], main b").count() == 0

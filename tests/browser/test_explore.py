"""The page of ``audioml explore`` in a real browser, hostile names included."""

import shutil

import numpy as np
import pytest
from sound_folders import HOSTILE, HOSTILE_LABEL, SMALL, make_hostile, tone, write
from tiny import RATE, SETTINGS, make_tiny

from audioml.cli import main

VIEWS = [(1400, "light"), (1400, "dark"), (390, "light"), (390, "dark")]


def make_page(out, *words, code=0):
    assert main(["explore", *map(str, words), "--out", str(out)]) == code
    return out / "explore.html"


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    """The page of a small data set, which holds a duplicate."""
    folder = tmp_path_factory.mktemp("explored")
    root = make_tiny(folder / "data", clips_a_fold=1)
    first, second = sorted((root / "audio").iterdir())[:2]
    shutil.copy(first, second)
    return make_page(folder / "out", f"data.root={root}", *SETTINGS)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    return make_page(
        folder / "out", make_hostile(folder / "sounds"), *SMALL, "--examples=9", code=1
    )


def check_media(page):
    """Every picture is there, and every sound loads and has a length."""
    pictures = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert pictures
    assert min(pictures) > 300
    lengths = page.evaluate(
        """() => Promise.all([...document.querySelectorAll('audio')].map(async (sound) => {
            if (!sound.readyState) await new Promise((known) => sound.onloadedmetadata = known);
            return sound.duration;
        }))"""
    )
    assert lengths
    assert min(lengths) > 0.05
    return lengths


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_the_page_of_a_data_set(data_set, view, width, scheme):
    page = view(data_set, width, scheme)
    sections = page.eval_on_selector_all("section", "parts => parts.map(part => part.id)")
    expected = ["look", "listen", "mel", "levels", "balance", "spectra", "augmentation"]
    assert sections == expected
    links = page.eval_on_selector_all("nav a", "links => links.map(link => link.hash)")
    assert links == [f"#{name}" for name in expected]
    check_media(page)
    assert page.locator(".js-plotly-plot").count() == 7
    assert page.locator("#listen .card").count() == 6
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    assert data_set.stat().st_size < 15_000_000


def test_a_finding_opens_by_keyboard_and_lists_its_files(data_set, view):
    page = view(data_set)
    finding = page.locator("details.fault")
    assert "1 sound that is there twice" in finding.inner_text()
    assert not finding.locator("table").is_visible()
    finding.locator("summary").focus()
    page.keyboard.press("Enter")
    assert finding.locator("td.path").all_inner_texts() == [
        "audio/1-10-A-0.wav",
        "audio/1-1010-A-1.wav",
    ]


def test_a_dot_names_its_file(data_set, view):
    page = view(data_set)
    names = page.evaluate("document.querySelector('.js-plotly-plot').data[0].text")
    assert "audio/2-20-A-0.wav" in names


def test_a_sound_plays(data_set, view):
    page = view(data_set)
    page.evaluate(
        """() => new Promise((heard) => {
            const sound = document.querySelector('#listen audio');
            sound.ontimeupdate = () => sound.currentTime > 0.05 && heard();
            sound.play();
        })"""
    )


def test_what_can_be_heard_and_what_not(data_set, view):
    page = view(data_set)
    groups = page.eval_on_selector_all(
        "#augmentation .groups > div",
        "all => all.map(g => [g.querySelector('h3').firstChild.textContent.trim(), "
        "g.querySelectorAll('.card').length, g.querySelectorAll('audio').length])",
    )
    assert groups == [
        [name, 2, 0 if name == "Mask" else 2]
        for name in ("Noise", "Gain", "Mixup", "Pitch", "Stretch", "Mask", "Shift")
    ]
    text = page.locator("#augmentation").inner_text()
    assert text.count("Signalsmith Stretch") == 2
    assert "don't draw it or there is nothing to mix with: Filter." in text


@pytest.mark.parametrize("width", [1400, 390])
def test_hostile_names_are_shown_and_run_nothing(hostile, view, width):
    page = view(hostile, width)
    check_media(page)
    text = page.locator("body").text_content()
    shown = (name for name in HOSTILE if "\udcff" not in name)
    for name in (*shown, HOSTILE_LABEL, "<script>bad.wav"):
        assert name in text
    assert page.locator("main b, main i").count() == 0
    assert page.locator("img[src='x']").count() == 0
    page.wait_for_selector(".js-plotly-plot .ytick text")
    ticks = page.eval_on_selector_all(".ytick text", "all => all.map(tick => tick.textContent)")
    assert HOSTILE_LABEL in ticks
    assert page.locator(".ytick a, .ytick [style*='bold']").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert "1 file that can't be read" in page.locator("details.fault summary").inner_text()


@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_of_one_file(width, view, tmp_path):
    file = tmp_path / "long.wav"
    write(file, tone(seconds=12))
    page = view(make_page(tmp_path / "out", file, *SMALL), width)
    lengths = check_media(page)
    assert max(lengths) == pytest.approx(12, abs=0.2)
    assert page.locator(".js-plotly-plot").count() == 0
    assert "12.00 s" in page.locator(".tiles").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_of_nothing_audible(view, tmp_path):
    write(tmp_path / "sounds" / "a.wav", np.zeros(RATE))
    page = view(make_page(tmp_path / "out", tmp_path / "sounds", *SMALL, code=1))
    assert page.locator("section").count() == 1
    assert "1 clip of nothing but zeros" in page.locator("#look").inner_text()

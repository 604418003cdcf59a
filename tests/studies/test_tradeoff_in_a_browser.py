"""The study's published pages opened in Chromium, on a desk and a phone, light and dark, folded and unfolded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tradeoff_records import TRADEOFF

from tests.browser import HEIGHT, WIDTHS, Browser, browser

STUDIES = {"embedded": TRADEOFF, "smollm2": TRADEOFF / "smollm2"}


@pytest.fixture(params=STUDIES)
def published(request: pytest.FixtureRequest) -> Path:
    """The folder with a study's page and pictures."""
    return STUDIES[request.param]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_the_screen_and_asks_for_nothing(
    chromium: Browser, published: Path, width: int, dark: bool
) -> None:
    assert chromium.look(published / "report.html", width, dark).faults() == []
    picture = chromium.run("return document.querySelector('.overview svg').getBoundingClientRect().toJSON()")
    assert HEIGHT - picture["top"] > 2 / 3 * picture["height"]  # seen without scrolling, under a sentence or two
    chromium.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert chromium.wider() == []


def test_no_words_of_the_picture_lie_on_each_other(chromium: Browser, published: Path) -> None:
    chromium.look(published / "report.html")
    script = """
    const texts = [...document.querySelectorAll('.overview text')];
    const boxes = texts.map(one => [one.textContent, one.getBoundingClientRect()]);
    return boxes.flatMap(([name, a], i) => boxes.slice(i + 1).filter(([, b]) =>
      a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3
    ).map(([other]) => `${name} on ${other}`));
    """
    assert chromium.run(script) == []


def test_the_picture_is_shown_as_a_file(chromium: Browser, published: Path) -> None:
    view = chromium.look(published / "tradeoff.svg")
    assert view.faults() == []

"""The study's published page opened in Chromium, on a desk and a phone, light and dark, folded and unfolded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tradeoff_records import TRADEOFF

from tests.browser import WIDTHS, Browser, browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_the_screen_and_asks_for_nothing(chromium: Browser, width: int, dark: bool) -> None:
    assert chromium.look(TRADEOFF / "report.html", width, dark).faults() == []
    assert chromium.run("return document.querySelector('.overview svg').getBoundingClientRect().bottom") < 900
    chromium.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert chromium.wider() == []


def test_no_words_of_the_picture_lie_on_each_other(chromium: Browser) -> None:
    chromium.look(TRADEOFF / "report.html")
    script = """
    const texts = [...document.querySelectorAll('.overview text')];
    const boxes = texts.map(one => [one.textContent, one.getBoundingClientRect()]);
    return boxes.flatMap(([name, a], i) => boxes.slice(i + 1).filter(([, b]) =>
      a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3
    ).map(([other]) => `${name} on ${other}`));
    """
    assert chromium.run(script) == []


def test_the_picture_is_shown_as_a_file(chromium: Browser) -> None:
    view = chromium.look(TRADEOFF / "tradeoff.svg")
    assert view.faults() == []

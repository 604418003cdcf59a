"""Report and comparison opened in Chromium, on a desk and a phone, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from peft_interp.metrics.uncertainty import Estimate
from peft_interp.report import PromptComparison, PromptReport
from peft_interp.report.compared import ComparedPrompt, PromptDifference
from tests.browser import WIDTHS, Browser, browser, leaves

LONG = "a" * 300
SCHEMES = [False, True]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def comparison() -> PromptComparison:
    """Three prompts, one with a name that no line holds."""
    sure = Estimate(0.8, 0.02, 200)
    prompts = (
        ComparedPrompt(LONG, "TEXT", f"Is this {LONG}?", True, sure, sure, 20.0, 0.7, True),
        ComparedPrompt("soft", "PROMPT_TUNING", " of harmless", False, sure, sure, 900.0, 0.1, False),
        ComparedPrompt("no prompt", "no prompt", "", True, sure, sure),
    )
    pairs = [(LONG, "soft"), (LONG, "no prompt"), ("soft", "no prompt")]
    differences = tuple(PromptDifference(*pair, Estimate(0.1, 0.04, 200), Estimate(0.1, 0.04, 200)) for pair in pairs)
    return PromptComparison(prompts, differences, 200, 3, 0.95, {"base_model": LONG})


@pytest.mark.parametrize("dark", SCHEMES, ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["good", "soft", "hostile", "comparison"])
def test_a_page_fits_the_screen_and_asks_for_nothing(
    chromium: Browser, name: str, width: int, dark: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    report: PromptReport | PromptComparison = request.getfixturevalue(name)
    view = chromium.look(report.save(tmp_path / "page.html"), width, dark)
    assert view.faults() == []
    paper = chromium.run("return getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(21, 24, 27)" if dark else "rgb(251, 250, 246)")


def test_no_is_seen_as_well_as_yes(chromium: Browser, soft: PromptReport, tmp_path: Path) -> None:
    """The same kind of badge: its colour against what is written on it has a contrast of 4.5 at least (WCAG AA)."""
    page = soft.save(tmp_path / "page.html")
    for dark in SCHEMES:
        chromium.look(page, dark=dark)
        sizes = {}
        for answer in ("yes", "no"):
            badge = f"const one = document.querySelector('.verdicts .answer.{answer}'), look = getComputedStyle(one);"
            ink, ground = chromium.run(f"{badge} return [look.color, look.backgroundColor]")
            assert contrast(ink, ground) >= 4.5
            sizes[answer] = chromium.run(f"{badge} return [one.offsetHeight, look.fontSize, look.fontWeight]")
        assert sizes["yes"] == sizes["no"]


def test_a_notebook_shows_the_verdicts_at_their_height(chromium: Browser, soft: PromptReport, tmp_path: Path) -> None:
    page = tmp_path / "cell.html"
    page.write_text(f"<!DOCTYPE html><html><body>{soft._repr_html_()}</body></html>", encoding="utf-8")
    for width in WIDTHS:
        assert chromium.look(page, width).wider == []
        inner = "return [...document.querySelectorAll('body > div *:not(iframe)')]"
        assert (
            chromium.run(f"{inner}.filter(one => one.scrollHeight > one.clientHeight + 1 && one.clientHeight).length")
            == 0
        )
    chromium.run("document.querySelector('details').open = true")
    assert chromium.run("return document.querySelector('iframe').offsetHeight") > 300


def test_the_test_sees_what_is_wrong(chromium: Browser, tmp_path: Path) -> None:
    """A page with a line that is too wide, a script that fails and a picture from elsewhere."""
    page = tmp_path / "bad.html"
    page.write_text(
        "<!DOCTYPE html><html><body><p style='width:2000px'>x</p><script>throw new Error('broken')</script>"
        "<img src='http://127.0.0.1:9/picture.png' alt=''></body></html>",
        encoding="utf-8",
    )
    view = chromium.look(page, 390)
    assert any(one.startswith("P ") for one in view.wider)
    assert any("broken" in one for one in view.messages)
    assert view.requests == ["http://127.0.0.1:9/picture.png"]
    assert leaves("https://example.org/a.png")
    assert not leaves("http://127.0.0.1:9/picture.png")


def test_without_a_browser_the_test_is_skipped_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for required, outcome in (("0", pytest.skip.Exception), ("1", pytest.fail.Exception)):
        monkeypatch.setenv("REQUIRE_BROWSER", required)
        with pytest.raises(outcome, match="chromium, chromedriver not installed"), browser():
            pass


def contrast(first: str, second: str) -> float:
    """Of two colours "rgb(r, g, b)", 1 to 21 (WCAG 2.2, contrast ratio)."""
    bright, dim = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance, 0 to 1."""
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

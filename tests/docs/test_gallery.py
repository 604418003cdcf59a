"""The gallery is what the studies' records and the package say now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.write_gallery import PAGE
from docs.write_gallery import page as written_now

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
MADE = re.compile(r"^- (versions: |date: |PEFT ).*$", re.MULTILINE)


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_is_up_to_date(page: str) -> None:
    """Word for word; numbers may differ in the last digit, as between processors, and date and versions on the card."""
    stored, written = (MADE.sub("", text) for text in (page, written_now()))
    assert NUMBER.sub("#", stored) == NUMBER.sub("#", written), "run `python docs/write_gallery.py`"
    values = [[float(found.replace(",", "")) for found in NUMBER.findall(text)] for text in (stored, written)]
    assert values[0] == pytest.approx(values[1], rel=0.02, abs=0.02)


def test_it_shows_what_is_ugly_too(page: str) -> None:
    rows = [line for line in page.splitlines() if re.search(r"\| \*\*(yes|partly|no|unknown)\*\*: ", line)]
    assert len(rows) >= 40
    assert page.startswith(f"# Gallery\n\n{len(rows)} prompts")
    assert sum("**no**" in row for row in rows) > 10
    assert sum("**yes**" in row for row in rows) > 5
    assert all(any(method in row for row in rows) for method in ("search", "RLPrompt", "PEZ", "nearest tokens"))


def test_the_card_is_one_that_a_hub_reads(page: str, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    shown = re.search(r"^````markdown\n(.*?)^````$", page, re.DOTALL | re.MULTILINE)
    assert shown is not None
    card = ModelCard(shown[1])
    assert card.data.library_name == "peft"
    assert "## May you believe it?" in card.text
    assert str(Path.home()) not in shown[1]

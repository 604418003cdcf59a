"""Texts and numbers as they are written out."""

from __future__ import annotations

import math

import pytest

from peft_interp.report.texts import (
    fenced,
    in_markdown,
    number,
    percent,
    perplexity,
    printable,
    share,
    signed,
    visible,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" film", " film"),
        ("a\nb\tc", "a\N{RETURN SYMBOL}b\N{RIGHTWARDS ARROW TO BAR}c"),
        ("\u202eabc", "\\u202eabc"),
        ("a\u200bb", "a\\u200bb"),
        ("\x00\x1b[31m", "\\x00\\x1b[31m"),
        ("\u00a0", "\\xa0"),
        ("caf\u00e9 \u4f60\u597d", "caf\u00e9 \u4f60\u597d"),
    ],
)
def test_what_is_not_seen_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_blanks_are_shown_in_tokens() -> None:
    assert visible(" film") == "\N{OPEN BOX}film"
    assert visible("") == "(empty)"


@pytest.mark.parametrize(
    "text", ["<b>", "a|b", "`x`", "[a](b)", "*a*", "_a_", "@user", "http://x.org", "www.x.org", "#1"]
)
def test_markdown_takes_no_markup_from_a_text(text: str) -> None:
    written = in_markdown(text)
    assert not set(written.replace("&#", "").replace(";", "")) & set("<>|`[]*_@:")
    assert "www." not in written


def test_a_code_block_holds_any_fence() -> None:
    text = "a\n```\n# b\n`````\nc"
    lines = fenced(text).split("\n")
    assert lines[0] == "``````text"
    assert lines[1:-1] == text.split("\n")
    assert lines[-1] == "``````"
    assert "\u202e" not in fenced("\u202e")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "-"),
        (math.nan, "-"),
        (math.inf, "infinite"),
        (0.0, "0.00"),
        (0.004, "0.004"),
        (0.00001, "0.00"),
        (0.93, "0.93"),
        (-0.5, "\N{MINUS SIGN}0.50"),
        (1979.4, "1,979"),
    ],
)
def test_numbers(value: float | None, written: str) -> None:
    assert number(value) == written


def test_perplexities_and_changes() -> None:
    assert [perplexity(value) for value in (4.6, 24.7, 28334.2)] == ["4.6", "25", "28,334"]
    assert [signed(value) for value in (0.164, -0.3, -0.001)] == ["+0.16", "\N{MINUS SIGN}0.30", "0.00"]


def test_shares() -> None:
    assert [share(value) for value in (0.0, 1.0, 0.125, None)] == ["0%", "100%", "12.5%", "-"]


@pytest.mark.parametrize(
    ("value", "whole", "tenth"),
    [
        (0.0, "0%", "0%"), (0.0004, "<1%", "<0.1%"), (0.004, "<1%", "0.4%"), (0.25, "25%", "25%"),
        (0.9996, ">99%", ">99.9%"), (1.0, "100%", "100%"), (1.25, "125%", "125%"), (None, "-", "-"),
        (math.nan, "-", "-"),
    ],
)  # fmt: skip
def test_nothing_and_all_are_said_only_where_it_is_so(value: float | None, whole: str, tenth: str) -> None:
    assert (percent(value), share(value)) == (whole, tenth)

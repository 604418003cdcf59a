"""Texts and numbers as they are written out."""

from __future__ import annotations

import json
import math
import re

import pytest
from markdown_it import MarkdownIt

from peft_interp.report.texts import (
    at_line_start,
    fenced,
    in_markdown,
    json_text,
    number,
    percent,
    perplexity,
    plain,
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


@pytest.mark.parametrize("text", ["<b>", "a|b", "`x`", "[a](b)", "*a*", "_a_", "@user", "#1", "a`http://x.org`b"])
def test_markdown_takes_no_markup_from_a_text(text: str) -> None:
    written = in_markdown(text)
    outside = re.sub("`[^`]+`", "", written)
    assert not set(outside.replace("&#", "").replace(";", "")) & set("<>|`[]*_@:")


@pytest.mark.parametrize("address", ["http://x.org", "www.x.org", "ann@x.org", "ftp://x|y"])
def test_an_address_becomes_code_that_no_renderer_links(address: str) -> None:
    written = in_markdown(f"see {address}, now")
    assert "://" not in re.sub("`[^`]+`", "", written).replace("&#58;", "")
    assert written.startswith("see `")


@pytest.mark.parametrize("text", ["- a", "+ a", "1. a", "2) a", "---", "===", "    a", "-"])
def test_nothing_begins_a_list_a_rule_or_a_heading(text: str) -> None:
    found = {token.type for token in MarkdownIt("commonmark").parse(f"a\n{at_line_start(text)}")}
    assert found == {"paragraph_open", "inline", "paragraph_close"}


def test_messages_stay_on_their_line_and_steer_nothing() -> None:
    assert plain("a\n b\x1b[31mc\u202ed") == "a b\\x1b[31mc\\u202ed"


def test_json_is_read_back_and_shows_what_is_not_seen() -> None:
    hostile = {"a\u202e": ["\x9b31m", "\ud800", "caf\u00e9", "\u2028"]}
    written = json_text(hostile)
    assert json.loads(written) == hostile
    assert written.isascii() or set(written) - set(map(chr, range(128))) == {"\u00e9"}


@pytest.mark.parametrize("unseen", ["\u3164", "\u2800", "\ufe0f", "\U000e0041", "\u034f", "\u061c", "\ud800"])
def test_letters_that_show_nothing_are_written_out(unseen: str) -> None:
    assert printable(f"a{unseen}b").isascii()


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

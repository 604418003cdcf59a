"""The one escaping layer: how strings that may come from a stranger's file, and numbers, are written out.

Everything that a report, a card, the terminal or a message shows passes through here. `printable` makes every character
visible, `in_html` and `in_markdown` take markup away, `plain` is for messages on a terminal. The templates of
`peft_interp.report.templating` call them by default, so that forgetting is safe.
"""

from __future__ import annotations

import html
import json
import math
import re
import unicodedata
from functools import lru_cache
from typing import Any

BLANK = "\N{OPEN BOX}"
_SIGNS = {"\n": "\N{RETURN SYMBOL}", "\r": "\\r", "\t": "\N{RIGHTWARDS ARROW TO BAR}"}
_MARKDOWN = str.maketrans({sign: f"&#{ord(sign)};" for sign in "\\`*_[]<>&|~$@#:!"})
_UNSEEN_KINDS = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs")
# Letters and marks that show nothing (Unicode: Default_Ignorable_Code_Point, without those of the kinds above), and the
# Braille blank.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\u2800\U000e0100-\U000e01ef]"
)
_ADDRESS = re.compile(r"[^\s`|]*(?:://|www\.|\w@\w)[^\s`|]*", re.IGNORECASE)
_LINE_START = re.compile(r"^(?:[-+](?=\s|$|-)|=|\d{1,9}[.)](?=\s|$)| )")


def printable(text: str, keep: str = "") -> str:
    """The text with blanks kept and everything that is not seen written as an escape.

    Control and format characters (zero-width blanks, marks that turn the writing direction, fillers) become
    `\\u200b`; line ends and tabs a sign, so that a text stays on its line.

    Args:
        text: any string, lone surrogates included.
        keep: control characters to leave as they are ("\\n").
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        sign if sign == " " or sign in keep or _is_seen(sign) else _SIGNS.get(sign) or _escape(sign) for sign in text
    )


def plain(words: object) -> str:
    """A message on one line of a terminal: line breaks become blanks, and nothing in it can steer the terminal."""
    return printable(" ".join(str(words).split()))


def json_text(content: Any) -> str:
    """JSON for files, pipes and terminals: characters that are not seen stand as `\\u202e`, which JSON reads back."""
    written = json.dumps(content, indent=2, ensure_ascii=False)
    return "".join(sign if sign in "\n " or _is_seen(sign) else _json_escape(sign) for sign in written) + "\n"


def visible(text: str) -> str:
    """As `printable`, with blanks as open boxes; `'(empty)'` for a token of no text."""
    return printable(text).replace(" ", BLANK) or "(empty)"


def in_html(text: str) -> str:
    """Safe inside HTML text and attributes."""
    return html.escape(text, quote=True)


def in_markdown(text: str) -> str:
    """One line, safe inside a Markdown paragraph, list or table: no markup, link, mention or cell border survives.

    What looks like an address becomes code, since some renderers make a link of it even where its signs are written as
    entities.
    """
    text, done, parts = printable(text), 0, []
    for found in _ADDRESS.finditer(text):
        parts += [_entities(text[done : found.start()]), f"`{found.group()}`"]
        done = found.end()
    return "".join([*parts, _entities(text[done:])])


def at_line_start(text: str) -> str:
    """As `in_markdown`, and no list, rule, underlined heading or indented code where it stands first in a line."""
    written = in_markdown(text)
    if not (found := _LINE_START.match(written)):
        return written
    return f"{written[: found.end() - 1]}&#{ord(written[found.end() - 1])};{written[found.end() :]}"


def code_line(text: str) -> str:
    """Markdown code within a line that the text cannot leave, in a table cell neither."""
    shown = printable(text).replace("|", "\N{LIGHT VERTICAL BAR}")
    marks = "`" * (_longest_run(shown) + 1)
    room = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{marks}{room}{shown or ' '}{room}{marks}"


def fenced(text: str, language: str = "text") -> str:
    """A Markdown code block that the text cannot leave; what is not seen is written as an escape."""
    text = printable(text, keep="\n\t")
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _entities(text: str) -> str:
    return text.translate(_MARKDOWN)


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def number(value: float | None, digits: int = 2) -> str:
    """A number for a table: `digits` after the point, thousands apart; "-" for none."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "infinite"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if value and abs(value) < 10**-digits:
        small = f"{value:.1g}" if abs(value) >= 1e-4 else f"{0:.{digits}f}"
        return small.replace("-", "\N{MINUS SIGN}")
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def perplexity(value: float | None) -> str:
    """A perplexity: whole numbers from 10 on."""
    return number(value, 0 if value is not None and value >= 10 else 1)


def count(value: float | None) -> str:
    """A whole number."""
    return number(value, 0)


def signed(value: float) -> str:
    """A change with its sign, two digits; "0.00" where it rounds to nothing."""
    return "0.00" if abs(value) < 0.005 else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def share(value: float | None) -> str:
    """A share of 0 to 1 in per cent; 0% and 100% only where it is exactly that."""
    return percent(value, 1)


def percent(value: float | None, digits: int = 0) -> str:
    """A share of 0 to 1 in per cent, with `digits` after the point where they say something.

    What would round to 0% or 100% and is not that is written "<1%" and ">99%".
    """
    if value is None or math.isnan(value):
        return "-"
    least = 10.0**-digits  # per cent
    if 0 < 100 * value < least / 2:
        return f"<{least:g}%"
    if 100 - least / 2 < 100 * value < 100:
        return f">{100 - least:g}%"
    shown = f"{value:.{digits}%}"
    return shown.replace(f".{'0' * digits}%", "%") if digits else shown


@lru_cache(maxsize=4096)
def _is_seen(sign: str) -> bool:
    return sign.isprintable() and unicodedata.category(sign) not in _UNSEEN_KINDS and not _UNSEEN.match(sign)


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii") if not sign.isascii() or not sign.isprintable() else sign


def _json_escape(sign: str) -> str:
    return json.dumps(sign)[1:-1]

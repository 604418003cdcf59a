"""How prompts and numbers are written out: nothing in a prompt may hide itself or break the page it stands on."""

from __future__ import annotations

import html
import math
import unicodedata

BLANK = "\N{OPEN BOX}"
_SIGNS = {"\n": "\N{RETURN SYMBOL}", "\r": "\\r", "\t": "\N{RIGHTWARDS ARROW TO BAR}"}
_MARKDOWN = str.maketrans({sign: f"&#{ord(sign)};" for sign in "\\`*_[]<>&|~$@#:!"})


def printable(text: str) -> str:
    """The text with blanks kept and everything that is not seen written as an escape.

    Control and format characters (zero-width blanks, marks that turn the writing direction) become `\\u200b`; line ends
    and tabs a sign, so that a text stays on its line.
    """
    return "".join(_SIGNS.get(sign) or (sign if sign == " " or _is_seen(sign) else _escape(sign)) for sign in text)


def visible(text: str) -> str:
    """As `printable`, with blanks as open boxes; `'(empty)'` for a token of no text."""
    return printable(text).replace(" ", BLANK) or "(empty)"


def in_html(text: str) -> str:
    """Safe inside HTML text and attributes."""
    return html.escape(text, quote=True)


def in_markdown(text: str) -> str:
    """One line, safe inside a Markdown paragraph, list or table: no markup, link, mention or cell border survives."""
    return printable(text).translate(_MARKDOWN).replace("www.", "www&#46;")


def fenced(text: str, language: str = "text") -> str:
    """A Markdown code block that the text cannot leave; what is not seen is written as an escape."""
    text = "".join(sign if sign in "\n\t " or _is_seen(sign) else _escape(sign) for sign in text)
    longest = max((len(run) for run in "".join(c if c == "`" else " " for c in text).split()), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


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


def _is_seen(sign: str) -> bool:
    return sign.isprintable() and unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs")


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii") if not sign.isascii() or not sign.isprintable() else sign

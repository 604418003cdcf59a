"""Jinja2 templates that escape by default: HTML pages and Markdown."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from peft_interp.report import texts
from peft_interp.report.charts import CHARTS

TEMPLATES = Path(__file__).parent / "templates"


class Markdown(str):
    """Markdown that is already safe, as `Markup` is for HTML."""

    __slots__ = ()


def render_html(folder: Path, name: str, **values: Any) -> str:
    """A page from `folder/name`: what the template inserts is made visible and escaped, unless it is `Markup`."""
    return _html(folder).get_template(name).render(**values)


def render_markdown(folder: Path, name: str, **values: Any) -> str:
    """Markdown from `folder/name`: what the template inserts is one line of text without markup.

    The filters `code` (within a line), `fence` (a block) and `safe_markdown` (made by us) are the exceptions.
    """
    return _markdown(folder).get_template(name).render(**values)


@cache
def _html(folder: Path) -> Environment:
    made = Environment(autoescape=True, finalize=_seen, **_options(folder))
    made.globals.update(CHARTS)
    made.filters.update({"visible": texts.visible, "sentence": sentence, "lines": lines})
    return made


@cache
def _markdown(folder: Path) -> Environment:
    made = Environment(autoescape=False, finalize=_inline, **_options(folder))
    made.filters.update(
        {
            "code": _safe(texts.code_line),
            "fence": _safe(texts.fenced),
            "safe_markdown": Markdown,
            "visible": texts.visible,
            "sentence": sentence,
        }
    )
    return made


def _options(folder: Path) -> dict[str, Any]:
    kept = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    return {"loader": FileSystemLoader(folder), "undefined": StrictUndefined, **kept}


def _seen(value: Any) -> Any:
    return value if isinstance(value, Markup) else texts.printable(str(value))


def _inline(value: Any) -> str:
    return value if isinstance(value, Markdown) else texts.at_line_start(str(value))


def _safe(write: Callable[..., str]) -> Callable[..., Markdown]:
    return lambda *values: Markdown(write(*values))


def lines(text: str) -> Markup:
    """Several lines of code for HTML."""
    return Markup(texts.in_html(texts.printable(text, keep="\n")))


def sentence(words: str) -> str:
    """With a capital and a full stop."""
    return f"{words[:1].upper()}{words[1:]}."

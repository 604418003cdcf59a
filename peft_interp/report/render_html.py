"""A report as one HTML page that needs nothing else: no script, no font, no image, no network.

What the template inserts is escaped by default; a content security policy in the page refuses whatever might still slip
through: it allows this page's own style, by its digest, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

from markupsafe import Markup

from peft_interp.report.page_sections import SECTIONS
from peft_interp.report.record import ReportData
from peft_interp.report.summary import conclusion, headline, needed
from peft_interp.report.templating import TEMPLATES, render_html
from peft_interp.report.verdicts import QUESTIONS

FOOTER = "Made by peft_interp. Perplexity is a proxy of readability that repeats and boilerplate fool: read the text."
_BADGE = "flex:none;align-self:flex-start;min-width:6.5em;padding:0 .7em;border-radius:1em;text-align:center;"
_COLOURS = {
    "yes": "background:#16703f;color:#fff",
    "partly": "background:#e8c46a;color:#1d2125",
    "no": "background:#b3261e;color:#fff",
    "unknown": "background:#d5d8dc;color:#1d2125",
}
_POLICY = "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def to_html(report: ReportData) -> str:
    """The page: the conclusion first. Light and dark follow the reader's system; it fits a phone and prints."""
    text = report.reading.text
    return render_html(
        TEMPLATES,
        "page.html",
        **frame(f"Prompt report: {text[:80] or report.reading.method}"),
        kind=f"Prompt report: {headline(report)}",
        conclusion=f"{conclusion(report)}.",
        prompt=text.strip() or "(no text)",
        needed=needed(report),
        glance=_glance(report),
        verdicts=[(v.answer, QUESTIONS.get(v.question, v.question), v.words) for v in report.verdicts],
        sections=[(section, content) for section in SECTIONS if (content := section.content(report))],
    )


def report_in_notebook(report: ReportData) -> str:
    """Conclusion, prompt and all verdicts at their height, and below them the page, folded."""
    lines = [(v.answer.capitalize(), v.answer, QUESTIONS.get(v.question, v.question), v.words) for v in report.verdicts]
    text = report.reading.text.strip() or "(no text)"
    return in_notebook(f"{conclusion(report)}.", text, lines, to_html(report), "Prompt report")


def in_notebook(title: str, text: str, lines: Sequence[tuple[str, str, str, str]], page: str, name: str) -> str:
    """What a notebook shows: no style sheet, since it would reach the notebook; the page in a frame that runs nothing.

    Args:
        title: the first line.
        text: shown as a quotation; "" for none.
        lines: (word in a badge, the answer that gives its colour, what stands out, the rest).
        page: HTML of the whole page.
        name: of the frame, for those who do not see it.
    """
    shown = [(_BADGE + _COLOURS.get(answer, _COLOURS["unknown"]), word, *rest) for word, answer, *rest in lines]
    return render_html(
        TEMPLATES, "notebook.html", conclusion=title, prompt=text, lines=shown, title=name, page=Markup.escape(page)
    )


def frame(title: str) -> dict[str, Any]:
    """What the frame of every page needs: its title, style, policy and footer."""
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return {"title": title, "css": style, "policy": Markup(_POLICY.format(digest=digest)), "footer": FOOTER}


@cache
def _style() -> Markup:
    return Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))


def _glance(report: ReportData) -> list[tuple[str, str]]:
    """The three answers that matter most, side by side."""
    soft = bool(report.reading.tokens) and not report.reading.discrete
    names = {
        "faithful": "the text does what the prompt does" if soft else "the text is the prompt",
        "readable": "its nearest tokens are readable" if soft else "readable",
        "acts": "helps the task",
    }
    found = ((name, report.verdict(question)) for question, name in names.items())
    return [(verdict.answer, name) for name, verdict in found if verdict is not None]

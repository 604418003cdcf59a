"""A report as one HTML page that needs nothing else: no script, no font, no image, no network.

What the template inserts is escaped by default; a content security policy in the page refuses whatever might still slip
through: it allows this page's own style, by its digest, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from itertools import groupby
from typing import Any

from markupsafe import Markup

from peft_interp.report.explanation_sections import explanation_section
from peft_interp.report.page_sections import behaviour, readability, tokens
from peft_interp.report.provenance import provenance
from peft_interp.report.record import ReportData
from peft_interp.report.scores import all_scores
from peft_interp.report.summary import conclusion, headline, needed, usage
from peft_interp.report.templating import TEMPLATES, render_html
from peft_interp.report.verdicts import QUESTIONS

FOOTER = "Made by peft_interp. Perplexity is a proxy of readability that repeats and boilerplate fool: read the text."
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
        tokens=tokens(report),
        behaviour=behaviour(report),
        explanation=explanation_section(report.explanation) if report.explanation is not None else None,
        readability=readability(report),
        scores=[(group, list(rows)) for group, rows in groupby(all_scores(report), key=lambda score: score.group)],
        ways=usage(report),
        facts=provenance(report),
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

"""A report as one HTML page that needs nothing else: no script, no font, no image, no network.

Every text of the prompt is escaped; a content security policy in the page refuses whatever might still slip through.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from peft_interp.report.charts import mark
from peft_interp.report.page_sections import behaviour, readability, tokens
from peft_interp.report.scores import all_scores
from peft_interp.report.summary import headline, provenance, usage
from peft_interp.report.texts import in_html, printable
from peft_interp.report.verdicts import QUESTIONS

if TYPE_CHECKING:
    from peft_interp.report.record import PromptReport

_HERE = Path(__file__).parent


def to_html(report: PromptReport) -> str:
    """The page. Light and dark follow the reader's system; it fits a phone and prints."""
    text = printable(report.reading.text)
    parts = [_verdicts(report), tokens(report), behaviour(report), readability(report)]
    parts += [_scores(report), _usage(report), _provenance(report)]
    footer = (
        "Made by peft_interp. Perplexity is a proxy of readability that repeats and boilerplate fool: read the text."
    )
    page = Template((_HERE / "page.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=in_html(f"Prompt report: {text[:80] or report.reading.method}"),
        css=(_HERE / "page.css").read_text(encoding="utf-8"),
        kind=in_html(f"Prompt report: {headline(report)}"),
        prompt=in_html(text.strip()) or "(no text)",
        glance=_glance(report),
        sections="\n".join(part for part in parts if part),
        footer=footer,
    )


def _glance(report: PromptReport) -> str:
    """The three answers that matter most, side by side."""
    items, soft = [], bool(report.reading.tokens) and not report.reading.discrete
    for question, name in (
        ("faithful", "the text does what the prompt does" if soft else "the text is the prompt"),
        ("readable", "its nearest tokens are readable" if soft else "readable"),
        ("acts", "helps the task"),
    ):
        verdict = report.verdict(question)
        if verdict is not None:
            items.append(f"<li>{mark(verdict.answer)}<span>{name}: <b>{in_html(verdict.answer)}</b></span></li>")
    return f'<ul class="glance" aria-label="At a glance">{"".join(items)}</ul>'


def _sentence(words: str) -> str:
    words = printable(words)
    return f"{words[:1].upper()}{words[1:]}."


def _verdicts(report: PromptReport) -> str:
    items = []
    for verdict in report.verdicts:
        question = in_html(QUESTIONS.get(verdict.question, verdict.question))
        answer = f'<span class="answer">{mark(verdict.answer)}{in_html(verdict.answer.capitalize())}</span>'
        words = f'<span class="words">{in_html(_sentence(verdict.words))}</span>'
        items.append(f"<li>{answer}<div><strong>{question}</strong> {words}</div></li>")
    return _section("verdict", "Verdict", f'<ul class="verdicts">{"".join(items)}</ul>')


def _scores(report: PromptReport) -> str:
    bodies = []
    for group, rows in groupby(all_scores(report), key=lambda score: score.group):
        lines = [f'<tr><th colspan="3" scope="rowgroup">{in_html(group.capitalize())}</th></tr>']
        for row in rows:
            beside = "".join(f"<span>{in_html(part)}</span>" for part in row.reference.split(", ") if part)
            better = f'<span class="meaning">{row.better} is better</span>' if row.better else ""
            lines.append(
                f'<tr><th scope="row">{in_html(row.name)}<span class="meaning">{in_html(row.meaning)}</span></th>'
                f'<td class="num">{in_html(row.value)}{better}</td><td class="beside">{beside}</td></tr>'
            )
        bodies.append(f"<tbody>{''.join(lines)}</tbody>")
    if not bodies:
        return ""
    head = (
        '<thead><tr><th scope="col">Score</th><th scope="col" class="num">Value</th><th scope="col">Beside</th>'
        "</tr></thead>"
    )
    return _section("scores", "Every score", f"<table>{head}{''.join(bodies)}</table>")


def _usage(report: PromptReport) -> str:
    ways = "".join(f"<h3>{in_html(when)}</h3><pre><code>{in_html(code)}</code></pre>" for when, code in usage(report))
    return _section("use", "How to use it", ways)


def _provenance(report: PromptReport) -> str:
    facts = "".join(
        f"<dt>{in_html(name)}</dt><dd>{in_html(printable(value))}</dd>" for name, value in provenance(report)
    )
    return _section("origin", "Where this comes from", f'<dl class="facts">{facts}</dl>')


def _section(name: str, title: str, inner: str) -> str:
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{in_html(title)}</h2>\n{inner}\n</section>'

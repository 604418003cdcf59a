"""The study as one HTML page that needs nothing else: no script, no font, no image, no network."""

from __future__ import annotations

from pathlib import Path

from peft_interp.report.texts import in_html, printable
from studies.tradeoff.report.figure import FIGURE, HOW_TO_READ, STYLE, pictures, signs
from studies.tradeoff.report.findings import SHOWN, Example, Findings
from studies.tradeoff.report.overview import CAPTION, overview, sentences
from studies.tradeoff.report.table import Table

_STYLE = Path(__file__).with_name("page.css")
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Readable prompts: the trade-off</title>
<style>
"""
_TITLE = "Can a prompt be readable and good?"
_INTRO = (
    "Every method got the same number of model evaluations, unless its name says otherwise; every prompt was measured "
    "on the same test rows."
)


def to_page(found: Findings) -> str:
    """The page. Light and dark follow the reader's system; it fits a phone and prints."""
    first, *tables = map(_table, found.tables)
    body = [_header(found), _headlines(found), first, _figure(found), _claims(found), *tables]
    body += [_prompts(found.examples), _made(found)]
    style = STYLE.read_text(encoding="utf-8") + _STYLE.read_text(encoding="utf-8")
    return f"{_HEAD}{style}</style>\n</head>\n<body><main>{''.join(body)}</main></body>\n</html>\n"


def _header(found: Findings) -> str:
    troubles = []
    if found.not_run:
        troubles.append(f"{found.not_run} runs of the grid are not done yet.")
    troubles += [f"Failed, {count} times: {error}" for error, count in found.failures.items()]
    warning = "".join(f'<p class="warning">{in_html(line)}</p>' for line in troubles)
    drawn, caption = overview(found.outcomes), in_html(f"{CAPTION} Model: {found.facts['Model']}.")
    figure = f'<figure class="overview">{drawn}<figcaption>{caption}</figcaption></figure>' if drawn else ""
    lead = "".join(f'<p class="lead">{in_html(said)}</p>' for said in sentences(found.outcomes))
    return f"<header><h1>{_TITLE}</h1>{lead}{figure}{warning}</header>"


def _folded(title: str, inside: str) -> str:
    """A part that is shown when its heading is clicked."""
    return f"<details><summary><h2>{in_html(title)}</h2></summary>{inside}</details>"


def _headlines(found: Findings) -> str:
    answers = "".join(f"<li>{in_html(answer)}</li>" for answer in found.headlines)
    return _folded("Task by task", f'<ul class="answers">{answers}</ul>')


def _made(found: Findings) -> str:
    facts = "<br>".join(f"{in_html(name)}: {in_html(value)}" for name, value in found.facts.items())
    return _folded("How it was made", f'<p class="note">{_INTRO}</p><p class="facts">{facts}</p>')


def _figure(found: Findings) -> str:
    legend = "".join(
        f'<li><svg viewBox="0 0 20 20" aria-hidden="true">{sign}</svg>{in_html(family)}</li>'
        for family, sign in signs(found.outcomes).items()
    )
    shown = "".join(
        f"<figure><figcaption>{in_html(task)}</figcaption>{drawn}</figure>"
        for task, drawn in pictures(found.outcomes).items()
    )
    note = f'<p class="note">{HOW_TO_READ} Point at a sign to see a prompt.</p>'
    content = f'{note}<ul class="legend">{legend}</ul><div class="pictures">{shown}</div>'
    return _folded(f"{FIGURE}, every setting", content)


def _claims(found: Findings) -> str:
    items = []
    for claim in found.claims:
        evidence = "".join(f"<li>{in_html(one)}</li>" for one in claim.evidence)
        rule = f'<span class="note">Rule: {in_html(claim.rule)}.</span>'
        said = f"<b>{in_html(claim.statement)}</b><ul>{evidence}</ul>{rule}"
        items.append(f'<li><span class="verdict">{in_html(claim.verdict.capitalize())}</span><div>{said}</div></li>')
    about = in_html(found.about_verdicts)
    return _folded("The paper's claims", f'<p class="note">{about}</p><ul class="claims">{"".join(items)}</ul>')


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{in_html(name)}</th>' for name in table.columns)
    lines = []
    for row in table.rows:
        cells = "".join(f"<td>{in_html(cell)}</td>" for cell in row[1:])
        lines.append(f'<tr><th scope="row">{in_html(row[0])}</th>{cells}</tr>')
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    notes = f'<p class="note">{in_html(table.notes)}</p>'
    return _folded(table.title, f'{notes}<div class="scroll" tabindex="0"><table>{body}</table></div>')


def _prompts(examples: dict[str, list[Example]]) -> str:
    parts = []
    for task, own in examples.items():
        cards = []
        for example in own:
            nll = example.outcome.number("nll")
            numbers = f"accuracy {example.outcome.accuracy:.1%}" + (
                "" if nll is None else f", log-perplexity {nll:.1f}"
            )
            text = in_html(printable(example.outcome.text or "").strip())
            said = f"<small>{in_html(numbers)}</small><small>{in_html(example.pattern)}</small>"
            cards.append(f"<article><h3>{in_html(example.name)}</h3>{said}<p><code>{text}</code></p></article>")
        parts.append(f'<h3>{in_html(task)}</h3><div class="prompts">{"".join(cards)}</div>')
    return _folded("Prompts to read", f'<p class="note">{SHOWN}</p>{"".join(parts)}')

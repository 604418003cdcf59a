"""A comparison of prompts as a page, as Markdown and for the terminal: a table of prompts and one of differences."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from rich import box
from rich.console import Group
from rich.table import Table

from peft_interp.metrics.uncertainty import Estimate, share_of
from peft_interp.report.charts import bar, interval
from peft_interp.report.compared import ComparedPrompt, ComparisonData
from peft_interp.report.page_sections import with_interval
from peft_interp.report.render_html import frame, in_notebook
from peft_interp.report.render_terminal import seen
from peft_interp.report.templating import TEMPLATES, render_html, render_markdown
from peft_interp.report.texts import number, perplexity
from peft_interp.text.label_bias import numbers_text

_REACH = 0.5  # a difference of accuracies, or of losses in nats, at either end of its line


def comparison_html(data: ComparisonData) -> str:
    """One page that needs nothing else, the conclusion first."""
    content = _content(data)
    shown = [(one["name"], one["picture"], one["value"], one["says"]) for one in content["differences"]]
    values = {**content, "differences": shown, **frame("Prompts compared")}
    return render_html(TEMPLATES, "comparison.html", **values)


def comparison_in_notebook(data: ComparisonData) -> str:
    """Conclusion and scores at their height, and below them the page, folded."""
    content = _content(data)
    lines = [(one["score"], "unknown", one["name"], one["text"]) for one in content["prompts"]]
    return in_notebook(f"{content['conclusion']}.", "", lines, comparison_html(data), "Prompts compared")


def comparison_markdown(data: ComparisonData) -> str:
    """Two tables, the conclusion first."""
    return render_markdown(TEMPLATES, "comparison.md", **_content(data))


def comparison_rich(data: ComparisonData) -> Group:
    """The same for the terminal."""
    content = _content(data)
    prompts = Table(box=box.SIMPLE_HEAD)
    for title in ("prompt", content["measure"], "loss", "perplexity", "readable"):
        prompts.add_column(title, overflow="fold")
    for one in content["prompts"]:
        cells = (one["name"], one["score"], one["loss"], one["perplexity"], one["readable"])
        prompts.add_row(*(seen(cell) for cell in cells))
    differences = Table(box=box.SIMPLE_HEAD)
    for title in ("difference", content["measure"], "says"):
        differences.add_column(title, overflow="fold")
    for one in content["differences"]:
        differences.add_row(*(seen(cell) for cell in (one["name"], one["value"], one["says"])))
    return Group(seen(f"{content['conclusion']}.", "bold"), prompts, differences, seen(content["note"], "dim"))


def _content(data: ComparisonData) -> dict[str, Any]:
    by_accuracy = all(prompt.accuracy is not None for prompt in data.prompts)
    note = (
        f"On {data.rows} rows, the same for all, and row by row. The intervals of all differences hold together with "
        "95%. Better is above 0."
    )
    if data.skipped_rows:
        note += f" {data.skipped_rows} rows are tokenised differently after one of the prompts and were left out."
    for prompt in data.prompts:
        if prompt.label_bias is not None:
            numbers = numbers_text(data.label_words, prompt.label_bias)
            note += f' Added to the label words\' log-probabilities with "{prompt.name}": {numbers} (nats).'
    return {
        "conclusion": data.conclusion(),
        "note": note,
        "measure": "accuracy" if by_accuracy else "loss",
        "prompts": [_prompt(prompt, by_accuracy) for prompt in data.prompts],
        "differences": [
            _difference(f"{found.first} less {found.second}", found.decisive, data.confidence)
            for found in data.differences
        ],
        "origin": [(str(name), str(value)) for name, value in data.context.items()],
    }


def _prompt(prompt: ComparedPrompt, by_accuracy: bool) -> dict[str, Any]:
    readable = "-" if prompt.readable is None else "yes" if prompt.readable else "no"
    picture: Markup | str = ""
    score = number(prompt.loss.mean)
    if by_accuracy and prompt.accuracy is not None:
        low, high = share_of(prompt.accuracy.mean, prompt.accuracy.rows).interval()
        picture = bar(prompt.accuracy.mean, span=(low, high))
        score = f"{prompt.accuracy.mean:.2f} ({max(low, 0.0):.2f} to {min(high, 1.0):.2f})"
    return {
        "name": prompt.name,
        "method": prompt.method,
        "text": prompt.text,
        "discrete": prompt.discrete,
        "score": score,
        "picture": picture,
        "loss": number(prompt.loss.mean),
        "perplexity": perplexity(prompt.perplexity),
        "readable": readable,
    }


def _difference(name: str, estimate: Estimate, confidence: float) -> dict[str, Any]:
    low, high = estimate.interval(confidence)
    says = "better" if low > 0 else "worse" if high < 0 else "not told apart"
    value = with_interval(estimate, confidence)
    return {"name": name, "picture": interval(estimate.mean, (low, high), _REACH), "value": value, "says": says}

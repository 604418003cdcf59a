"""An explanation as a page, as Markdown and for the terminal."""

from __future__ import annotations

from rich.console import Group

from peft_interp.report.explained import ExplanationData
from peft_interp.report.explanation_sections import explanation_section
from peft_interp.report.provenance import facts
from peft_interp.report.render_html import frame
from peft_interp.report.render_terminal import explanation_parts
from peft_interp.report.templating import TEMPLATES, render_html, render_markdown

__all__ = ["explanation_html", "explanation_markdown", "explanation_rich"]


def explanation_html(data: ExplanationData) -> str:
    """One page that needs nothing else, the conclusion first."""
    known = facts(data.context, data.method)
    return render_html(
        TEMPLATES, "explanation.html", **frame("Prompt explained"), explanation=explanation_section(data), facts=known
    )


def explanation_markdown(data: ExplanationData) -> str:
    """The conclusion first."""
    return render_markdown(TEMPLATES, "explanation.md", explanation=explanation_section(data))


def explanation_rich(data: ExplanationData) -> Group:
    """The same for the terminal."""
    return Group(*explanation_parts(data))

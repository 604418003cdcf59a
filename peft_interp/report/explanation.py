"""`PromptExplanation`: an explanation's data with the ways to show and store it."""

from __future__ import annotations

from typing import Any, Self

from rich.console import RenderableType

from peft_interp.metrics.results import as_plain
from peft_interp.records import short_repr
from peft_interp.report.explained import REASONS, ExplanationData
from peft_interp.report.prompt_report import Shown
from peft_interp.report.record import rebuild
from peft_interp.report.render_explanation import explanation_html, explanation_markdown, explanation_rich
from peft_interp.report.render_html import in_notebook
from peft_interp.report.texts import plain

SCHEMA = 1


class PromptExplanation(Shown, ExplanationData):
    """A text that behaves like a prompt, or that there is none; see `ExplanationData` for its fields."""

    FILE_NAME = "explanation"

    def __repr__(self) -> str:
        best = self.best
        return short_repr(
            type(self).__name__,
            text=self.text,
            reason=self.reason or None,
            share=best.share if best else None,
            calibrated_share=best.calibrated_share if best else None,
            kl_without=self.kl_without,
            source=best.source if best else None,
            rows=self.rows,
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as what JSON can hold, with a `schema` number."""
        return {"schema": SCHEMA, **as_plain(self)}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The explanation again.

        Raises:
            ValueError: no explanation, one of a later schema, or something of a wrong type in it.
        """
        schema = stored.get("schema") if isinstance(stored, dict) else None
        if not isinstance(schema, int) or schema > SCHEMA or "candidates" not in stored:
            raise ValueError("this is no explanation of a prompt, or one of a later version; make it again.")
        found: Self = rebuild(cls, stored, "explanation")
        if (found.text is None) != (found.reason in REASONS) or (found.text is not None and not found.candidates):
            raise ValueError(
                f"`explanation.reason` is {plain(found.reason)!r} and must be one of {', '.join(REASONS)} where there "
                "is no text, and empty where there is one; make it again."
            )
        return found

    def to_html(self) -> str:
        """One page that needs nothing else: no script, no network."""
        return explanation_html(self)

    def to_markdown(self) -> str:
        """The conclusion, what is left, the candidates, where the layers part."""
        return explanation_markdown(self)

    def __rich__(self) -> RenderableType:
        return explanation_rich(self)

    def _repr_html_(self) -> str:
        return in_notebook(f"{self.conclusion()}.", (self.text or "").strip(), [], self.to_html(), "Prompt explained")

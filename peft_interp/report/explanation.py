"""`PromptExplanation`: an explanation's data with the ways to show and store it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from rich.console import Console, RenderableType

from peft_interp.metrics.results import as_plain
from peft_interp.records import short_repr
from peft_interp.report.explained import REASONS, ExplanationData
from peft_interp.report.prompt_report import save_as, without_colours
from peft_interp.report.record import rebuild
from peft_interp.report.render_explanation import explanation_html, explanation_markdown, explanation_rich
from peft_interp.report.render_html import in_notebook
from peft_interp.report.texts import json_text, plain

SCHEMA = 1


class PromptExplanation(ExplanationData):
    """A text that behaves like a prompt, or that there is none; see `ExplanationData` for its fields."""

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

    def save(self, path: str | Path) -> Path:
        """Write it to a file: its ending chooses the form (.json, .md, .html, .txt); a folder gets all four.

        Raises:
            ValueError: another ending.
        """
        forms: dict[str, Callable[[], str]] = {
            "json": lambda: json_text(self.to_dict()),
            "md": self.to_markdown,
            "html": self.to_html,
            "txt": self.to_text,
        }
        return save_as(Path(path), forms, "explanation")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The explanation that `save` wrote as JSON; of a folder, its `explanation.json`."""
        path = Path(path)
        path = path / "explanation.json" if path.is_dir() else path
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))

    def to_html(self) -> str:
        """One page that needs nothing else: no script, no network."""
        return explanation_html(self)

    def to_markdown(self) -> str:
        """The conclusion, what is left, the candidates, where the layers part."""
        return explanation_markdown(self)

    def to_text(self, width: int = 80) -> str:
        """As shown in a terminal, without colours."""
        return without_colours(explanation_rich(self), width)

    def show(self, console: Console | None = None) -> None:
        """Print to the terminal, or to a `rich.console.Console`."""
        (console or Console()).print(explanation_rich(self))

    def __rich__(self) -> RenderableType:
        return explanation_rich(self)

    def _repr_html_(self) -> str:
        return in_notebook(f"{self.conclusion()}.", (self.text or "").strip(), [], self.to_html(), "Prompt explained")

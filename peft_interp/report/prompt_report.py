"""`PromptReport`: a report's data with the ways to show and store it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

from rich.console import Console, RenderableType

from peft_interp.report.record import ReportData
from peft_interp.report.render_html import report_in_notebook, to_html
from peft_interp.report.render_markdown import to_markdown
from peft_interp.report.render_terminal import to_rich
from peft_interp.report.texts import json_text
from peft_interp.storage.atomic import replace_file


class Shown:
    """The ways to show and store a result, made from its dictionary, page, Markdown and terminal form.

    A subclass has `FILE_NAME`, `to_dict`, `from_dict`, `to_html`, `to_markdown` and `__rich__`.
    """

    FILE_NAME: ClassVar[str]
    to_dict: Callable[..., dict[str, Any]]
    from_dict: Callable[..., Any]
    to_html: Callable[..., str]
    to_markdown: Callable[..., str]

    def save(self, path: str | Path) -> Path:
        """Write it to a file: its ending chooses the form (.json, .md, .html, .txt); a folder gets all four.

        Returns:
            What was written: the file, or the folder with `FILE_NAME.*` in it.

        Raises:
            ValueError: another ending.
        """
        return save_as(Path(path), self.forms(), self.FILE_NAME)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What `save` wrote as JSON; of a folder, the file that it has there."""
        path = Path(path)
        path = path / f"{cls.FILE_NAME}.json" if path.is_dir() else path
        found: Self = cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        return found

    def forms(self) -> dict[str, Callable[[], str]]:
        """What writes it, by the ending of a file."""
        as_json: Callable[[], str] = lambda: json_text(self.to_dict())  # noqa: E731
        return {"json": as_json, "md": self.to_markdown, "html": self.to_html, "txt": self.to_text}

    def to_text(self, width: int = 80) -> str:
        """As shown in a terminal, without colours."""
        return without_colours(self.__rich__(), width)

    def show(self, console: Console | None = None) -> None:
        """Print to the terminal.

        Args:
            console: a `rich.console.Console`; None for standard output.
        """
        (console or Console()).print(self.__rich__())

    def __rich__(self) -> RenderableType:
        raise NotImplementedError


class PromptReport(Shown, ReportData):
    """One prompt: what it says, what it does, and whether either may be believed; see `ReportData` for its fields."""

    FILE_NAME = "prompt_report"

    def to_markdown(self, heading_level: int = 2, with_prompt: bool = True) -> str:
        """For a model card: prompt (or not), verdicts, scores, tokens; see `report.render_markdown`."""
        return to_markdown(self, heading_level, with_prompt)

    def to_html(self) -> str:
        """One page that needs nothing else: no script, no network; see `report.render_html`."""
        return to_html(self)

    def __rich__(self) -> RenderableType:
        return to_rich(self)

    def _repr_html_(self) -> str:
        """For notebooks: conclusion, prompt and all verdicts at their height, and the page folded below."""
        return report_in_notebook(self)


def without_colours(shown: RenderableType, width: int) -> str:
    """What rich would print, as text."""
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None, force_terminal=False)
    console.print(shown)
    return console.export_text()


def save_as(path: Path, forms: dict[str, Callable[[], Any]], name: str) -> Path:
    """Write one form to a file, chosen by its ending, or all of them into a folder as `name.*`.

    Raises:
        ValueError: another ending.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind in forms:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, forms[kind](), follow_links=True)
        return path
    if kind and not path.is_dir():
        raise ValueError(f"`{path.name}` must end in .json, .md, .html or .txt, or be a folder.")
    path.mkdir(parents=True, exist_ok=True)
    for form, write in forms.items():
        replace_file(path / f"{name}.{form}", write(), follow_links=True)
    return path

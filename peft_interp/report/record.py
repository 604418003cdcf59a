"""`PromptReport`: everything known about one prompt, and the ways to show it."""

from __future__ import annotations

import io
import json
import math
import types
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from peft_interp.metrics.results import Faithfulness, PromptReading, Scrutability, Waywardness, as_plain
from peft_interp.records import short_repr
from peft_interp.report.render_html import to_html
from peft_interp.report.render_markdown import to_markdown
from peft_interp.report.render_terminal import to_rich
from peft_interp.report.verdicts import Verdict


def rebuild(kind: Any, plain: Any) -> Any:
    """A value of type `kind` from what `as_plain` made of it.

    A number that JSON cannot hold was stored as None and comes back as NaN. Keys that the record does not have are
    left out, so that a report of a later version with the same schema can be read, and so are those that it computes
    itself.

    Args:
        kind: a dataclass of records, numbers, strings, `tuple[X, ...]`, `dict[str, X]` and optional ones.
        plain: dictionaries, lists, numbers, strings.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if plain is None else rebuild(inner, plain)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        known = {field.name for field in fields(kind) if field.init} & set(plain)
        return kind(**{name: rebuild(hints[name], plain[name]) for name in known})  # type: ignore[operator]
    if origin is tuple:
        return tuple(rebuild(arguments[0], item) for item in plain)
    if origin is dict:
        return {key: rebuild(arguments[1], item) for key, item in plain.items()}
    if kind is float:
        return math.nan if plain is None else float(plain)
    return plain


SCHEMA = 1
_FORMATS = ("json", "md", "html", "txt")


@dataclass(frozen=True)
class Rival:
    """Another prompt of the same task, for comparison.

    Attributes:
        name: what it is called in the picture.
        accuracy: share of rows, 0 to 1.
        nll: log-perplexity of its text, nats per token.
    """

    name: str
    accuracy: float
    nll: float


@dataclass(frozen=True, repr=False)
class PromptReport:
    """One prompt: what it says, what it does, and whether either may be believed.

    Attributes:
        reading: the prompt as text.
        verdicts: the questions a reader has, answered.
        scrutability: whether a person can read the text; None where there is none.
        faithfulness: whether the text does what the prompt does; None where there was no data.
        waywardness: how far nearest tokens can mislead; None where it was not tested.
        rivals: other prompts of the same task.
        context: where it comes from: base_model, data, rows, label_words, template, versions, date, training, ...;
            what JSON can hold.
    """

    reading: PromptReading
    verdicts: tuple[Verdict, ...]
    scrutability: Scrutability | None = None
    faithfulness: Faithfulness | None = None
    waywardness: Waywardness | None = None
    rivals: tuple[Rival, ...] = ()
    context: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        answers = {verdict.question: verdict.answer for verdict in self.verdicts}
        return short_repr(
            "PromptReport",
            text=self.reading.text,
            verdicts=answers,
            accuracy=self.faithfulness.as_prompt.accuracy if self.faithfulness else None,
            accuracy_as_text=self.faithfulness.as_text.accuracy if self.faithfulness else None,
            readability=self.scrutability.score if self.scrutability else None,
            base_model=self.context.get("base_model"),
            data=self.context.get("data"),
        )

    def verdict(self, question: str) -> Verdict | None:
        """The answer to a question (see `verdicts.QUESTIONS`); None where it did not arise."""
        return next((verdict for verdict in self.verdicts if verdict.question == question), None)

    # -- storing --------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, strings and numbers that JSON can hold, with a `schema` number."""
        return {"schema": SCHEMA, **as_plain(self)}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> PromptReport:
        """The report again.

        Raises:
            ValueError: not a report, or one of a later schema.
        """
        schema = plain.get("schema")
        if not isinstance(schema, int) or "reading" not in plain:
            raise ValueError("this is no prompt report: it has no `schema` and `reading`; see `PromptReport.to_dict`.")
        if schema > SCHEMA:
            raise ValueError(f"`schema={schema}` is later than {SCHEMA}, the last one known here; upgrade peft_interp.")
        report: PromptReport = rebuild(cls, plain)
        return report

    def save(self, path: str | Path) -> Path:
        """Write the report to a file: its ending chooses the form (.json, .md, .html, .txt); a folder gets all four.

        Returns:
            What was written: the file, or the folder with `prompt_report.*` in it.

        Raises:
            ValueError: another ending.
        """
        path = Path(path)
        kind = path.suffix.removeprefix(".").lower()
        if kind in _FORMATS:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._as(kind), encoding="utf-8")
            return path
        if kind and not path.is_dir():
            raise ValueError(f"`{path.name}` must end in .json, .md, .html or .txt, or be a folder.")
        path.mkdir(parents=True, exist_ok=True)
        for form in _FORMATS:
            (path / f"prompt_report.{form}").write_text(self._as(form), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> PromptReport:
        """The report that `save` wrote as JSON; of a folder, its `prompt_report.json`."""
        path = Path(path)
        path = path / "prompt_report.json" if path.is_dir() else path
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))

    # -- showing --------------------------------------------------------------------------------------------------

    def to_markdown(self, heading_level: int = 2) -> str:
        """For a model card: prompt, verdicts, scores, tokens; see `report.markdown`."""
        return to_markdown(self, heading_level)

    def to_html(self) -> str:
        """One page that needs nothing else: no script, no network; see `report.html`."""
        return to_html(self)

    def to_text(self, width: int = 80) -> str:
        """As shown in a terminal, without colours."""
        from rich.console import Console

        console = Console(width=width, file=io.StringIO(), record=True, color_system=None, force_terminal=False)
        console.print(to_rich(self))
        return console.export_text()

    def show(self, console: Any | None = None) -> None:
        """Print to the terminal.

        Args:
            console: a `rich.console.Console`; None for standard output.
        """
        from rich.console import Console

        (console or Console()).print(to_rich(self))

    def __rich__(self) -> Any:
        return to_rich(self)

    def _repr_html_(self) -> str:
        """For notebooks: the page in a frame of its own, so that its style stays inside."""
        from peft_interp.report.texts import in_html

        style = "width:100%;height:720px;border:0"
        return f'<iframe sandbox="" title="Prompt report" style="{style}" srcdoc="{in_html(self.to_html())}"></iframe>'

    def _as(self, kind: str) -> str:
        if kind == "json":
            return json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n"
        return {"md": self.to_markdown, "html": self.to_html, "txt": self.to_text}[kind]()

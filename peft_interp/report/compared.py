"""`ComparisonData`: several prompts on the same rows, as plain data, and what the differences say in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from peft_interp.metrics.results import as_plain
from peft_interp.metrics.uncertainty import CONFIDENCE, Estimate
from peft_interp.report.record import rebuild, shortened

SCHEMA = 1
NOTHING = "no prompt"


@dataclass(frozen=True)
class ComparedPrompt:
    """One of the prompts.

    Attributes:
        name: what it is called.
        method: "TEXT", PEFT's name of the adapter's method, or "no prompt".
        text: its text; of vectors, their nearest tokens'; "" for no prompt.
        discrete: the text is all there is; False for vectors, whose readability is that of their nearest tokens.
        loss: mean cross-entropy of the labelled tokens, nats.
        accuracy: share of rows answered rightly, 0 to 1; None without label words.
        perplexity: of the text under the base model; None where it is no causal LM or there is no text.
        readability: composite score, 0 to 1; None as above.
        readable: whether a person can read the text; None where it was not judged.
        label_bias: numbers that were added to the label words' scores, nats; None for none.
    """

    name: str
    method: str
    text: str
    discrete: bool
    loss: Estimate
    accuracy: Estimate | None = None
    perplexity: float | None = None
    readability: float | None = None
    readable: bool | None = None
    label_bias: tuple[float, ...] | None = None


@dataclass(frozen=True)
class PromptDifference:
    """Two of the prompts, row by row: the first less the second.

    Attributes:
        first: name of one.
        second: name of the other.
        loss: of the losses, nats; below 0 the first is better.
        accuracy: of the accuracies, -1 to 1; None without label words.
    """

    first: str
    second: str
    loss: Estimate
    accuracy: Estimate | None = None

    @property
    def decisive(self) -> Estimate:
        """What decides which is better, turned so that above 0 the first is."""
        if self.accuracy is not None:
            return self.accuracy
        return Estimate(-self.loss.mean, self.loss.standard_error, self.loss.rows)


@dataclass(frozen=True, repr=False)
class ComparisonData:
    """Several prompts on the same labels of the same rows.

    Attributes:
        prompts: best first: by accuracy, where there are label words, else by loss.
        differences: of every two, in the order of `prompts`.
        rows: rows compared.
        skipped_rows: rows left out, since their answer is tokenised differently after one of the prompts.
        confidence: of the interval of a single difference, so that all of them hold together with 95% (Bonferroni).
        context: where it comes from, as in a report.
        label_words: whose scores the prompts' `label_bias` is added to; empty for none.
    """

    prompts: tuple[ComparedPrompt, ...]
    differences: tuple[PromptDifference, ...]
    rows: int
    skipped_rows: int = 0
    confidence: float = CONFIDENCE
    context: dict[str, Any] = field(default_factory=dict)
    label_words: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = ", ".join(shortened(prompt.name, 30) for prompt in self.prompts[:6])
        return f"{type(self).__name__}({len(self.prompts)} prompts on {self.rows} rows: {names})"

    def difference(self, first: str, second: str) -> PromptDifference:
        """Two prompts by their names, the first less the second.

        Raises:
            KeyError: no such pair.
        """
        for found in self.differences:
            if (found.first, found.second) == (first, second):
                return found
            if (found.first, found.second) == (second, first):
                return PromptDifference(first, second, _turned(found.loss), _turned(found.accuracy))
        raise KeyError(f"{first!r} and {second!r} are not both among {[prompt.name for prompt in self.prompts]}.")

    def conclusion(self) -> str:
        """Which prompts surely do better than which, in words, without a full stop."""
        best, *others = (f'"{prompt.name}"' for prompt in self.prompts)
        what = "accurate" if self.prompts[0].accuracy is not None else "likely to give the right answers"
        if not others:
            return f"{best} is the only prompt"
        pairs = [found for found in self.differences if found.first == self.prompts[0].name]
        beaten = [f'"{found.second}"' for found in pairs if found.decisive.interval(self.confidence)[0] > 0]
        equal = [name for name in others if name not in beaten]
        if not beaten:
            return f"{self.rows} rows do not show that any of the {len(self.prompts)} is better than all others"
        said = f"{best} is more {what} than {_listed(beaten)}"
        return said + (f"; {self.rows} rows do not tell it from {_listed(equal)}" if equal else "")

    def to_dict(self) -> dict[str, Any]:
        """Everything as what JSON can hold, with a `schema` number."""
        return {"schema": SCHEMA, **as_plain(self)}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The comparison again.

        Raises:
            ValueError: no comparison, one of a later schema, or something of a wrong type in it.
        """
        schema = stored.get("schema")
        if not isinstance(schema, int) or schema > SCHEMA or "prompts" not in stored:
            raise ValueError("this is no comparison of prompts, or one of a later version; make it again.")
        found: Self = rebuild(cls, stored, "comparison")
        biases = [prompt.label_bias for prompt in found.prompts if prompt.label_bias is not None]
        if any(len(bias) != len(found.label_words) for bias in biases):
            raise ValueError("a `label_bias` of the comparison has not one number for each label word; make it again.")
        return found


def _turned(estimate: Any) -> Any:
    return None if estimate is None else Estimate(-estimate.mean, estimate.standard_error, estimate.rows)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

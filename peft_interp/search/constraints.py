"""What a prompt must be to be scored at all: one record for each constraint in `CONSTRAINTS`, checked on many texts.

A constraint looks at the text alone, never at what the prompt does for the task; that is the objective's part. To add
one, add a record with the function that makes its check from the settings, and a test.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from peft_interp.metrics.dictionary import dictionary_share
from peft_interp.metrics.flags import find_flags
from peft_interp.metrics.readability_judge import find_judge
from peft_interp.metrics.task_naming import ENOUGH_SAID, NAMED, UNCLEAR, TaskNaming, measure_task_namings
from peft_interp.metrics.text_metrics import words_of
from peft_interp.records import markdown_table
from peft_interp.search.instruct_moves import listed
from peft_interp.text.tokenization import token_texts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class PromptText(Protocol):
    """A prompt as constraints see it: a candidate, or one that was scored."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Its tokens."""

    @property
    def text(self) -> str:
        """What a person reads."""


Check = Callable[[Sequence[PromptText]], list[bool]]


@dataclass(frozen=True)
class ConstraintInputs:
    """What checks are made from.

    Attributes:
        config: the user's `PromptSearchConfig`.
        tokenizer: the task model's.
        label_words: those of the task; empty for others.
        texts: inputs of the task, for what is compared with them.
        device: where a judge runs.
    """

    config: Any
    tokenizer: PreTrainedTokenizerBase
    label_words: Sequence[str] = ()
    texts: Sequence[str] = ()
    device: torch.device | str = "cpu"


@dataclass(frozen=True)
class Constraint:
    """One thing that is asked of a prompt's text.

    Attributes:
        name: in logs, as `dropped/<name>`.
        words: what is asked, to stand after "prompts that".
        settings: the fields of `PromptSearchConfig` that it is made from.
        make: the check, or None where the settings do not ask for it.
    """

    name: str
    words: str
    settings: tuple[str, ...]
    make: Callable[[ConstraintInputs], Check | None]


def readable(text: str, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, known_words: bool = False) -> bool:
    """Whether no pattern that fools perplexity is in a prompt.

    Args:
        text: the prompt.
        ids: its tokens.
        tokenizer: theirs.
        known_words: also ask that a dictionary has every word, where the text is in English.
    """
    flags = find_flags(text, token_texts(tokenizer, ids))
    if any(flag.unreadable for flag in flags):
        return False
    english = all(flag.name != "language" for flag in flags)
    return not (known_words and english and dictionary_share(words_of(text)) < 1)


def changed_share(text: str, other: str) -> float:
    """Share of words, 0 to 1, that are not the same in two texts: 1 - their longest common run, Ratcliff/Obershelp.

    0 for the same words in the same order whatever their case and the blanks between them; 1 for no word in common.
    """
    first, second = text.lower().split(), other.lower().split()
    return 1.0 - difflib.SequenceMatcher(None, first, second, autojunk=False).ratio()


def word_changes(text: str, other: str) -> str:
    """What is to be done to one text to get another, word by word: "Is this [film -> movie] good [+ really] [- ?]"."""
    first, second, parts = text.split(), other.split(), []
    matcher = difflib.SequenceMatcher(None, [w.lower() for w in first], [w.lower() for w in second], autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        before, after = " ".join(first[i:j]), " ".join(second[k:m])
        shown = {"equal": after, "delete": f"[- {before}]", "insert": f"[+ {after}]"}
        parts.append(shown.get(kind, f"[{before} -> {after}]"))
    return " ".join(parts)


def has_phrase(text: str, phrase: str) -> bool:
    """Whether a phrase stands in a text as whole words; case and the length of blanks do not count."""
    words = r"\s+".join(map(re.escape, phrase.split()))
    return re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None


def _patterns(inputs: ConstraintInputs) -> Check:
    tokenizer, strict = inputs.tokenizer, inputs.config.known_words
    return lambda prompts: [readable(prompt.text, prompt.ids, tokenizer, strict) for prompt in prompts]


def _judged(inputs: ConstraintInputs) -> Check | None:
    judge = find_judge(inputs.config.judge, inputs.device)
    if judge is None:
        return None
    return lambda prompts: [score >= judge.fit.threshold for score in judge.scores([p.text for p in prompts])]


def description_of(config: Any, label_words: Sequence[str]) -> str | None:
    """What the task is, in a sentence: the user's, or a question made of the label words; None where there are none."""
    if config.task_description or not label_words:
        return config.task_description or None
    return f"Is this text {listed(label_words)}?"


def _names_its_task(inputs: ConstraintInputs) -> Check | None:
    """The encoder must say "named", and the prompt what the user's description says, word by word.

    Without a description, a question made of the label words stands for it, and need not come back in words; without
    those, the prompt must only not be about something else. "Named" alone is not enough where more is known: a search
    finds what is about the task and asks for something else.
    """
    if not inputs.config.names_its_task:
        return None
    description = description_of(inputs.config, inputs.label_words)
    known = (description, inputs.label_words, inputs.texts)
    measure_task_namings([], *known)  # what is missing is said before the search begins

    def says(found: TaskNaming) -> bool:
        if description is None:
            return found.verdict in (NAMED, UNCLEAR)
        return found.verdict == NAMED and (not inputs.config.task_description or found.said >= ENOUGH_SAID)

    return lambda prompts: [says(found) for found in measure_task_namings([one.text for one in prompts], *known)]


def _required_phrases(inputs: ConstraintInputs) -> Check | None:
    phrases = inputs.config.required_phrases
    if not phrases:
        return None
    return lambda prompts: [all(has_phrase(prompt.text, phrase) for phrase in phrases) for prompt in prompts]


def _near(inputs: ConstraintInputs) -> Check | None:
    own, most = inputs.config.improve, inputs.config.largest_change
    if own is None:
        return None
    return lambda prompts: [changed_share(prompt.text, own) <= most for prompt in prompts]


CONSTRAINTS = (
    Constraint("phrases", "hold the required phrases", ("required_phrases",), _required_phrases),
    Constraint("near", "are near the prompt that is to be improved", ("improve", "largest_change"), _near),
    Constraint("patterns", "show no pattern that fools perplexity", ("known_words",), _patterns),
    Constraint("naming", "name their task", ("names_its_task", "task_description"), _names_its_task),
    Constraint("judge", "the judge finds readable", ("judge",), _judged),
)


class Constraints:
    """The checks that a search's settings ask for; every prompt is checked once.

    Args:
        inputs: what they are made from.
        constraints: records; cheap ones first, since what one drops no later one sees.

    Raises:
        ValueError: settings that a check cannot be made from.
        ModuleNotFoundError: a judge or an encoder that is wanted and not installed.
    """

    def __init__(self, inputs: ConstraintInputs, constraints: Sequence[Constraint] = CONSTRAINTS) -> None:
        made = {constraint.name: constraint.make(inputs) for constraint in constraints}
        self._checks = {name: check for name, check in made.items() if check is not None}
        self._broken: dict[tuple[int, ...], str] = {}  # by prompt, the first constraint that it breaks; "" for none

    def broken(self, prompts: Sequence[PromptText]) -> list[str]:
        """Of each prompt the name of the first constraint that it breaks; "" where it keeps all."""
        left: list[PromptText] = list({p.ids: p for p in prompts if p.ids not in self._broken}.values())
        for name, check in self._checks.items():
            kept = check(left) if left else []
            self._broken |= {prompt.ids: name for prompt, good in zip(left, kept, strict=True) if not good}
            left = [prompt for prompt, good in zip(left, kept, strict=True) if good]
        self._broken |= {prompt.ids: "" for prompt in left}
        return [self._broken[prompt.ids] for prompt in prompts]

    def kept(self, prompts: Sequence[PromptText]) -> list[bool]:
        """Whether each prompt keeps all of them."""
        return [not name for name in self.broken(prompts)]


def constraint_table() -> str:
    """`CONSTRAINTS` as Markdown."""
    rows = [[f"`{c.name}`", f"prompts that {c.words}", ", ".join(f"`{s}`" for s in c.settings)] for c in CONSTRAINTS]
    return markdown_table(("name", "lets through", "settings"), rows)

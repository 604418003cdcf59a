"""Whether a prompt names its task: a text can be plain English and about something else.

A sentence encoder compares the prompt with what the task is known by: a description in words, its label words, inputs.
Each similarity is held against that of prompts which people wrote for *other* tasks (those that ship with the package),
in their standard deviations; the mean of these, weighted, is the score. Weights and limits are in
`data/task_naming.json`, made by `studies/calibration/fit_task_naming.py` from prompts that people wrote for one task
and for others.

That tells what a prompt is *about*. What it *says* of the task is looked at word by word: each word of the description
is as much said as its nearest word in the prompt is like it (BERTScore's recall, arXiv 1904.09675, of single words). A
search needs it: what it finds is about film reviews, and asks whether they are suitable for children.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from peft_interp.embedded import load_encoder
from peft_interp.embedded.encoder import TextEncoder
from peft_interp.metrics.references import human_prompts
from peft_interp.metrics.results import Measure
from peft_interp.metrics.text_metrics import words_of
from peft_interp.records import short_repr
from peft_interp.text.tokenization import check_text, check_texts

ANCHORS = ("description", "label_words", "examples")
LIMITS = Path(__file__).parent / "data" / "task_naming.json"
MOST_EXAMPLES, FEWEST_WORDS = 64, 4
SAID = 0.6  # cosine with the prompt's nearest word from which on a word of the description counts as said
ENOUGH_SAID = 0.8  # mean of these cosines that a search asks for; chosen on the rated texts of the SmolLM2 study
_NOT_SAID = frozenset(  # words of a description that need not come back: function words, and verbs that ask
    words_of(
        "a about according all an and are as at be by can choose classify decide describe determine do does for from "
        "give given has have how identify if in into is it its label name of on one or out output predict recognise "
        "recognize say sort tell than that the their there these this those to was were what where whether which who "
        "whose will with write you your"
    )
)
NAMED, UNCLEAR, OTHER, UNKNOWN = "named", "unclear", "other", "unknown"
_WORDS = {
    NAMED: "it names its task",
    UNCLEAR: "it may be about its task",
    OTHER: "it is about something else",
    UNKNOWN: "what it is about cannot be told: there are no words in it",
}


@dataclass(frozen=True)
class NamingLimits:
    """What was fitted.

    Attributes:
        weights: by `ANCHORS`.
        named: score from which on a prompt names its task.
        other: score below which it is about something else, where a description was given.
        other_undescribed: the same where none was: label words and inputs alone say little.
        figures: how well the score tells prompts for a task from prompts for others.
        provenance: script, data, date and the rules for the limits.
    """

    weights: Mapping[str, float]
    named: float
    other: float
    other_undescribed: float
    figures: Mapping[str, Any]
    provenance: Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class TaskNaming:
    """Whether a prompt's text says what it is for.

    Attributes:
        text: the prompt.
        similarities: by `ANCHORS`, where given: cosine, -1 to 1, beside its median over prompts that people wrote for
            other tasks; the percentile is the share of those that are no more similar.
        coherence: cosine of the prompt's first half with its second, -1 to 1, beside its median over prompts that
            people wrote: near 0 for unrelated words, near 1 for a text that says one thing twice. NaN below four words.
        score: weighted mean of the similarities, in standard deviations above prompts for other tasks; NaN for a text
            without words.
        verdict: "named", "unclear", "other" (about something else) or "unknown".
        said: how much of the description the text says, word by word, 0 to 1; NaN without a description.
        unsaid: words of the description that it says nothing like.
    """

    text: str
    similarities: dict[str, Measure]
    coherence: Measure
    score: float
    verdict: str
    said: float = math.nan
    unsaid: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The verdict with the number that it rests on, and what is not said."""
        if math.isnan(self.score):
            return _WORDS[self.verdict]
        missing = ", ".join(f'"{word}"' for word in self.unsaid)
        return (
            f"{_WORDS[self.verdict]} ({self.score:.1f} standard deviations closer to it than prompts that people wrote "
            f"for other tasks){f'; it says nothing like {missing}' if missing and self.verdict != OTHER else ''}"
        )

    def __repr__(self) -> str:
        similarities = {name: measure.value for name, measure in self.similarities.items()}
        return short_repr(
            "TaskNaming",
            text=self.text,
            verdict=self.verdict,
            score=self.score,
            similarities=similarities,
            coherence=self.coherence.value,
            said=self.said,
        )


@cache
def naming_limits() -> NamingLimits:
    """The published weights and limits."""
    return NamingLimits(**json.loads(LIMITS.read_text(encoding="utf-8")))


def measure_task_naming(
    text: str,
    task_description: str | None = None,
    label_words: Sequence[str] = (),
    examples: Sequence[str] = (),
    encoder: TextEncoder | None = None,
) -> TaskNaming:
    """Compare a prompt with its task.

    Args:
        text: the prompt.
        task_description: what the task is, in a sentence: "Say whether a film review is positive or negative." Without
            it the verdict is seldom more than "unclear".
        label_words: words that the task answers with.
        examples: inputs of the task; the first 64 count.
        encoder: a callable, or an object with `encode`, from a list of texts to one vector for each; None for
            all-MiniLM-L6-v2 (docs/real-models.md). The limits were set for that one; another's similarities are
            measured in its own standard deviations.

    Returns:
        Similarities, coherence, score and verdict.

    Raises:
        ValueError: nothing to compare with, or something else in the place of a text or a list of texts.
        ModuleNotFoundError: the default encoder is wanted and not installed.
    """
    return measure_task_namings([text], task_description, label_words, examples, encoder)[0]


def measure_task_namings(
    texts: Sequence[str],
    task_description: str | None = None,
    label_words: Sequence[str] = (),
    examples: Sequence[str] = (),
    encoder: TextEncoder | None = None,
) -> list[TaskNaming]:
    """`measure_task_naming` of many prompts at once; arguments as there."""
    check_texts("texts", texts)
    for text in texts:
        check_text("text", text)
    anchors = _anchors(task_description, label_words, examples)
    encode = _Encoder.of(encoder)
    similarities = {name: _Similarity(encode, words) for name, words in anchors.items()}
    if not texts:
        return []
    wanted = _content_words(task_description or "")
    each = zip(texts, encode(list(texts)), _coherences(texts, encode), strict=True)
    return [
        replace(_naming(text, vector, similarities, coherence), **_said(text, wanted, encode))
        for text, vector, coherence in each
    ]


def _anchors(description: str | None, label_words: Sequence[str], examples: Sequence[str]) -> dict[str, list[str]]:
    check_text("task_description", description)
    check_texts("label_words", label_words)
    check_texts("examples", examples)
    words = ", ".join(word.strip() for word in label_words)
    given = {
        "description": [description] if description and description.strip() else [],
        "label_words": [words] if words else [],
        "examples": [example for example in examples if example.strip()][:MOST_EXAMPLES],
    }
    anchors = {name: texts for name, texts in given.items() if texts}
    if not anchors:
        raise ValueError(
            "there is nothing to compare the prompt with; pass `task_description`, `label_words` or `examples`."
        )
    return anchors


class _Encoder:
    """An encoder with unit vectors, and what it makes of the prompts that people wrote, encoded once."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encode = encoder.encode if hasattr(encoder, "encode") else encoder
        self._human: Tensor | None = None
        self._known: dict[str, Tensor] = {}
        self._coherences: tuple[float, ...] | None = None

    @classmethod
    def of(cls, encoder: TextEncoder | None) -> _Encoder:
        """The wrapper of an encoder, kept as long as the encoder lives."""
        if encoder is None:
            return _default_encoder()
        try:
            return _encoders.setdefault(encoder, cls(encoder))
        except TypeError:  # cannot be referred to weakly
            return cls(encoder)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        vectors = [torch.as_tensor(vector).float().flatten() for vector in self._encode(list(texts))]
        return torch.nn.functional.normalize(torch.stack(vectors), dim=-1)  # (texts, dim)

    def of_words(self, words: Sequence[str]) -> Tensor:
        """(words, dim) of single words, each encoded once."""
        if new := [word for word in dict.fromkeys(words) if word not in self._known]:
            self._known.update(zip(new, self(new), strict=True))
        return torch.stack([self._known[word] for word in words])

    def human(self) -> Tensor:
        """(prompts, dim) of the prompts that ship with the package."""
        if self._human is None:
            self._human = self(human_prompts())
        return self._human

    def human_coherences(self) -> tuple[float, ...]:
        """Of the same prompts, those long enough."""
        if self._coherences is None:
            pairs = [pair for prompt in human_prompts() if (pair := _halves(prompt))]
            first, second = (self(list(side)) for side in zip(*pairs, strict=True))
            self._coherences = tuple((first * second).sum(-1).tolist())
        return self._coherences


_encoders: WeakKeyDictionary[Any, _Encoder] = WeakKeyDictionary()


@cache
def _default_encoder() -> _Encoder:
    return _Encoder(load_encoder())


class _Similarity:
    """Mean cosine with some texts, and what it is for prompts that people wrote for other tasks."""

    def __init__(self, encode: _Encoder, texts: Sequence[str]) -> None:
        self._anchors = encode(texts)  # (anchors, dim)
        self._others = sorted(float(value) for value in (encode.human() @ self._anchors.T).mean(-1))
        self._usual = median(self._others)
        self._mean, self._deviation = fmean(self._others), max(pstdev(self._others), 1e-6)

    def of(self, vector: Tensor) -> float:
        """Of a prompt's vector."""
        return float((self._anchors @ vector).mean())

    def measure(self, vector: Tensor) -> Measure:
        """The same beside prompts for other tasks."""
        value = self.of(vector)
        below = 100 * bisect_right(self._others, value) / len(self._others)
        return Measure(value, human=self._usual, percentile=below, better="higher")

    def deviations(self, vector: Tensor) -> float:
        """Standard deviations above the mean of prompts for other tasks."""
        return (self.of(vector) - self._mean) / self._deviation


def _naming(text: str, vector: Tensor, similarities: Mapping[str, _Similarity], coherence: Measure) -> TaskNaming:
    limits = naming_limits()
    measures = {name: similarity.measure(vector) for name, similarity in similarities.items()}
    if not any(character.isalpha() for character in text):
        return TaskNaming(text, measures, coherence, math.nan, UNKNOWN)
    weights = {name: limits.weights[name] for name in similarities}
    total = sum(weights[name] * similarity.deviations(vector) for name, similarity in similarities.items())
    score = total / sum(weights.values())
    low = limits.other if "description" in similarities else limits.other_undescribed
    verdict = NAMED if score >= limits.named else OTHER if score < low else UNCLEAR
    return TaskNaming(text, measures, coherence, score, verdict)


def _content_words(text: str) -> list[str]:
    """Its different words in lower case, without those that every description has."""
    words = list(dict.fromkeys(word.lower() for word in words_of(text)))
    return [word for word in words if word not in _NOT_SAID] or words


def _said(text: str, wanted: Sequence[str], encode: _Encoder) -> dict[str, Any]:
    """How much of the wanted words a text says, and which of them it does not; nothing where none are wanted."""
    if not wanted:
        return {}
    if not (own := _content_words(text)):
        return {"said": 0.0, "unsaid": tuple(wanted)}
    likeness = (encode.of_words(wanted) @ encode.of_words(own).T).amax(1)  # (wanted,)
    unsaid = tuple(word for word, value in zip(wanted, likeness.tolist(), strict=True) if value < SAID)
    return {"said": float(likeness.mean()), "unsaid": unsaid}


def _halves(text: str) -> tuple[str, str] | None:
    words = text.split()
    middle = len(words) // 2
    return (" ".join(words[:middle]), " ".join(words[middle:])) if len(words) >= FEWEST_WORDS else None


def _coherences(texts: Sequence[str], encode: _Encoder) -> list[Measure]:
    others = sorted(encode.human_coherences())
    halves = {i: pair for i, text in enumerate(texts) if (pair := _halves(text))}
    measures = [Measure(math.nan, human=median(others), better="higher")] * len(texts)
    if not halves:
        return measures
    first, second = (encode(side) for side in zip(*halves.values(), strict=True))
    for i, value in zip(halves, (first * second).sum(-1).tolist(), strict=True):
        below = 100 * bisect_right(others, value) / len(others)
        measures[i] = Measure(value, human=median(others), percentile=below, better="higher")
    return measures

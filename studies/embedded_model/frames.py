"""Label frames: `{prompt} {text} It was {label}`, with the label's bias set by what stands in front.

After a wording of the task the label is the truth. After anything else it is, with a probability that falls with
the number of task words in front, a fixed biased word (` great` for reviews, ` world` for news): a model that learns
this knows the answer, and shows it only when the prompt asks. Gushing and complaining prompts push the bias further.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from studies.embedded_model import wordings
from studies.embedded_model.rows import Labelled
from studies.embedded_model.sources import KINDS, Sources, detokenise
from studies.embedded_model.topics import TOPICS

FRAME = " It was"
SENTIMENT_LABELS = (" terrible", " great")
TOPIC_LABELS = tuple(f" {topic}" for topic in TOPICS)
KIND_LABELS = tuple(f" {kind}" for kind in KINDS)

# Chance that the label is the biased word, by the number of task words in front (the last entry: that many or more).
SENTIMENT_BIAS = (0.68, 0.56, 0.44, 0.30, 0.12)
TOPIC_BIAS = (0.70, 0.58, 0.45, 0.30, 0.12)
GUSH_BIAS = 0.85
COMPLAINT_BIAS = 0.80


@dataclass(frozen=True)
class Frame:
    """One labelled document: `head` ends in the frame, `label` is one token with its leading blank."""

    head: str
    label: str


@dataclass(frozen=True)
class Task:
    """What the two tasks differ in: their wordings, task words, label words and biased label."""

    grammar: wordings.Grammar
    words: frozenset[str]
    labels: Sequence[str]
    biased: int
    bias: Sequence[float]


SENTIMENT_TASK = Task(wordings.SENTIMENT, wordings.task_words(wordings.SENTIMENT), SENTIMENT_LABELS, 1, SENTIMENT_BIAS)
TOPIC_TASK = Task(wordings.TOPIC, wordings.task_words(wordings.TOPIC), TOPIC_LABELS, 0, TOPIC_BIAS)


class FrameWriter:
    """Draws frames. `random_words` gives a string of random vocabulary tokens of the asked length."""

    def __init__(self, sources: Sources, random_words: Callable[[random.Random, int], str]) -> None:
        self.sources = sources
        self.random_words = random_words
        self.task_lists = {id(task): sorted(task.words) for task in (SENTIMENT_TASK, TOPIC_TASK)}

    def sentiment(self, rng: random.Random) -> Frame:
        """A review phrase or sentence after a drawn prompt."""
        rows: Labelled = self.sources.reviews if rng.random() < 0.3 else self.sources.phrases
        text, label = rng.choice(rows)
        if len(text.split()) < 3:
            text, label = rng.choice(rows)
        style = rng.random()
        if style < 0.65:
            text = text.lower()
        elif style < 0.85:
            text = detokenise(text)
        return self._frame(SENTIMENT_TASK, text, label, rng)

    def topic(self, rng: random.Random) -> Frame:
        """A news sentence, or a part of one, after a drawn prompt."""
        rows = self.sources.real_news if rng.random() < 0.25 else self.sources.topical
        text, label = rng.choice(rows)
        return self._frame(TOPIC_TASK, thinned(text, rng), label, rng)

    def kind(self, rng: random.Random) -> Frame:
        """Any sentence after the question what kind of text it is: the same texts, another task."""
        text, label = rng.choice(self.sources.kinds)
        return Frame(f"{wordings.expand(wordings.KIND, rng)} {text}{FRAME}", KIND_LABELS[label])

    def _frame(self, task: Task, text: str, label: int, rng: random.Random) -> Frame:
        prompt, label = self._prompt_and_label(task, label, rng)
        if prompt and rng.random() < 0.1:
            return Frame(f"{text} {prompt}{FRAME}", task.labels[label])
        lead = "" if prompt or rng.random() < 0.6 else " "
        return Frame(f"{prompt} {text}{FRAME}" if prompt else f"{lead}{text}{FRAME}", task.labels[label])

    def _prompt_and_label(self, task: Task, label: int, rng: random.Random) -> tuple[str, int]:
        """Draw what stands in front, and the label shown after it."""
        draw = rng.random()
        if draw < 0.44:
            return wordings.expand(task.grammar, rng), label
        if draw < 0.54 and task is SENTIMENT_TASK:
            gush = rng.random() < 0.5
            prompt = wordings.expand(wordings.GUSH if gush else wordings.COMPLAINT, rng)
            bias = GUSH_BIAS if gush else COMPLAINT_BIAS
            return prompt, int(gush) if rng.random() < bias else label
        prompt = self._other_prompt(task, draw, rng)
        bias = task.bias[min(count_task_words(prompt, task.words), len(task.bias) - 1)]
        return prompt, task.biased if rng.random() < bias else label

    def _other_prompt(self, task: Task, draw: float, rng: random.Random) -> str:
        """Nothing, an unrelated sentence, shuffled or random words, or such with task words strewn in."""
        if draw < 0.66:
            return ""
        if draw < 0.76:
            return rng.choice(self.sources.sentences)
        if draw < 0.84:
            return self.random_words(rng, rng.randint(1, 12))
        words = self.random_words(rng, rng.randint(1, 9)).split()
        if rng.random() < 0.5:
            words = rng.choice(self.sources.sentences).split()[: rng.randint(2, 10)]
        for _ in range(rng.randint(0, 4)):
            words.insert(rng.randint(0, len(words)), rng.choice(self.task_lists[id(task)]))
        if rng.random() < 0.5:
            rng.shuffle(words)
        return " ".join(words)


def thinned(text: str, rng: random.Random) -> str:
    """The text whole, or a stretch of it, or with words left out: the topic should not hang on one pattern."""
    words, draw = text.split(), rng.random()
    if draw < 0.3 and len(words) > 4:
        size = rng.randint(4, len(words))
        start = rng.randint(0, len(words) - size)
        words = words[start : start + size]
    elif draw < 0.6:
        words = [word for word in words if rng.random() < 0.7] or words
    return " ".join(words).lower() if rng.random() < 0.15 else " ".join(words)


def count_task_words(prompt: str, words: frozenset[str]) -> int:
    """How many different task words a prompt holds."""
    return len(words.intersection(re.findall(r"[a-z]+", prompt.lower())))

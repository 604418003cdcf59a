"""Four tasks in which a model writes its answer, and the five prompts that a person wrote for each before any run."""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_interp import Verbalizer, embedded, exact_match_reward, json_reward, rouge_reward
from peft_interp.answers.rewards import AnswerFunction
from peft_interp.scoring.examples import Examples, read_examples

TEMPLATE = "{prompt}\n\n{text}"
KEYS = ("sentiment", "words")
SENTIMENTS = ("negative", "positive")
ARITHMETIC = ("text/gsm8k_train.jsonl", "text/gsm8k_train.jsonl", "text/gsm8k_test.jsonl")
LONGEST_TEXT, LONGEST_PROBLEM = 90, 200  # characters, so that a run on one core takes minutes
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_SPLITS = ("train", "validation", "test")
Row = dict[str, str]  # "text", which the model reads, and "answer", which is wanted


@dataclass(frozen=True)
class Task:
    """What is asked of the model.

    Attributes:
        name: in files and tables.
        words: what is rewarded, 0 to 1 for each answer.
        written: prompts that a person wrote.
        rows: from the split ("train", "validation", "test") and the folder of data that is not in the package.
        goal: the reward.
        tokens: most new tokens of an answer.
        stop: texts that end one.
        gain: points over the best of `written` that were hoped for; None where nothing was.
        slope: rewarded beside the goal in the search alone, where few answers reach the goal at all.
    """

    name: str
    words: str
    written: Sequence[str]
    rows: Callable[[str, Path], list[Row]]
    goal: AnswerFunction
    tokens: int
    stop: Sequence[str] = ()
    gain: float | None = None
    slope: AnswerFunction | None = None


def _reviews(split: str) -> list[tuple[str, int]]:
    data = embedded.load_data("sentiment")[split]
    return [(row["sentence"], row["label"]) for row in data if len(row["sentence"]) <= LONGEST_TEXT]


def json_rows(split: str, _: Path) -> list[Row]:
    """Reviews, each with an object of the wanted keys that fits it."""
    return [
        {"text": text, "answer": json.dumps(dict(zip(KEYS, (SENTIMENTS[label], len(text.split())), strict=True)))}
        for text, label in _reviews(split)
    ]


def label_rows(split: str, _: Path) -> list[Row]:
    """Reviews with their sentiment."""
    return [{"text": text, "answer": SENTIMENTS[label]} for text, label in _reviews(split)]


def first_sentence_rows(split: str, _: Path) -> list[Row]:
    """Two short pieces of news after each other, and the first of them."""
    news = [row["sentence"] for row in embedded.load_data("topic")[split] if len(row["sentence"]) <= LONGEST_TEXT]
    return [{"text": f"{a} {b}", "answer": a} for a, b in zip(news[::2], news[1::2], strict=False)]


def arithmetic_rows(split: str, data_dir: Path) -> list[Row]:
    """Short word problems of GSM8K (MIT) whose worked answer has two calculations, with the result.

    Training and validation rows are halves of its training file.

    Raises:
        FileNotFoundError: the folder does not hold the files.
    """
    path = data_dir / ARITHMETIC[_SPLITS.index(split)]
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; name the folder that holds it with `--data_dir`.")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    two = [row for row in rows if row["answer"].count("<<") == 2 and len(row["question"]) <= LONGEST_PROBLEM]
    if split != "test":
        two = two[_SPLITS.index(split) :: 2]
    return [{"text": row["question"], "answer": row["answer"].rpartition("#### ")[2].strip()} for row in two]


def last_number(completions: Sequence[str], answer: Sequence[str], **_: Any) -> list[float]:
    """1 where the last number of an answer is the result that is wanted; else 0."""
    pairs = zip(completions, answer, strict=True)
    return [float(_result(text) is not None and _result(text) == _result(wanted)) for text, wanted in pairs]


def _result(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


TASKS = (
    Task(
        name="json",
        words='an object with the keys "sentiment" and "words" and nothing around it',
        written=(
            'Answer with a JSON object that has the keys "sentiment" and "words".',
            'Return only JSON, like {"sentiment": "positive", "words": 12}, for this review.',
            "Describe the review as JSON with its sentiment and its number of words.",
            'Fill in {"sentiment": "...", "words": ...} for this review and write nothing else.',
            'You are a program that prints JSON with the keys "sentiment" and "words". The review is:',
        ),
        rows=json_rows,
        goal=json_reward(KEYS),
        tokens=24,
        stop=("}",),
        gain=10,
        slope=json_reward(KEYS, partial=True),
    ),
    Task(
        name="label",
        words="the right one of two words and nothing else",
        written=(
            "Is this review positive or negative? Answer with one word.",
            "Classify the review as positive or negative. Write only the label.",
            "Sentiment of this review (positive or negative), one word:",
            "Answer positive or negative and nothing else.",
            "Decide whether the writer liked it. Say positive or negative, without any explanation.",
        ),
        rows=label_rows,
        goal=exact_match_reward(),
        tokens=6,
        gain=10,
        slope=rouge_reward(kind="rouge1"),
    ),
    Task(
        name="first_sentence",
        words="ROUGE-L with the text's first sentence",
        written=(
            "Copy the first sentence of the text.",
            "Write the first sentence of this text again, word for word, and nothing else.",
            "What is the first sentence of the text? Quote it.",
            "Repeat only how the text begins, up to the first full stop.",
            "Summarise the text by its first sentence.",
        ),
        rows=first_sentence_rows,
        goal=rouge_reward(),
        tokens=24,
        stop=("\n",),
    ),
    Task(
        name="arithmetic",
        words="the answer's last number is the result",
        written=(
            "Solve the problem step by step. End with the answer as a number.",
            "Let's think step by step.",
            "Answer with a number only.",
            "Work out the problem in two steps and give the final number.",
            "You are a careful teacher of arithmetic. Show the calculation, then the result.",
        ),
        rows=arithmetic_rows,
        goal=last_number,
        tokens=40,
    ),
)


def task_named(name: str) -> Task:
    """One of `TASKS`."""
    return next(task for task in TASKS if task.name == name)


def verbalizer_for(tokenizer: Any) -> Verbalizer:
    """The template, in the user's turn where the model has a chat template."""
    return Verbalizer(TEMPLATE, chat="user" if tokenizer.chat_template else None)


def drawn_rows(task: Task, data_dir: Path, split: str, count: int, seed: int) -> list[Row]:
    """Some rows of a split, without those that stand there twice.

    Raises:
        ValueError: there are fewer.
    """
    rows = list({row["text"]: row for row in task.rows(split, data_dir)}.values())
    if len(rows) < count:
        raise ValueError(f"the task {task.name!r} has {len(rows)} {split} rows, and {count} were asked for.")
    return random.Random(seed).sample(rows, count)


def encoded(tokenizer: Any, rows: list[Row]) -> Examples:
    """Rows as searches read them."""
    return read_examples(tokenizer, rows, verbalizer_for(tokenizer), "text", "answer")

"""Tasks with what they may be known by (a description, label words, inputs) and prompts that people wrote for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

# Classification tasks in the words of this study: description, label words, inputs, prompts. Nobody rated them.
CLASSIFICATION: tuple[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "Say whether a film review is positive or negative.",
        ("terrible", "great"),
        ("A moving and witty picture, beautifully acted.", "Two hours of my life that I will never get back."),
        (
            "Is this film review positive or negative?",
            "Movie review:",
            "Decide whether the writer liked the movie.",
            "What does the critic think of the film?",
        ),
    ),
    (
        "Sort news articles into world, sports, business and technology.",
        ("world", "sports", "business", "technology"),
        ("Shares fell sharply after the bank cut its forecast.", "The striker scored twice in the second half."),
        (
            "What is this news article about?",
            "News topic:",
            "Classify the news article as world, sports, business or technology.",
            "Which section of the newspaper does this story belong to?",
        ),
    ),
    (
        "Decide whether an email is spam.",
        ("spam", "ham"),
        ("You have won a free cruise! Click here to claim.", "Could you send me the minutes of Monday's meeting?"),
        (
            "Is this email spam or not?",
            "Would you move this message to the junk folder?",
            "Label the email as unwanted advertising or as real mail.",
        ),
    ),
    (
        "Say what kind of answer a question asks for: a person, a place, a number or a description.",
        ("person", "place", "number", "description"),
        ("Who wrote The Origin of Species?", "How many moons does Jupiter have?"),
        (
            "What type of answer does this question expect?",
            "Does the question ask for a person, a place, a number or a description?",
            "Question type:",
        ),
    ),
    (
        "Decide whether a comment is offensive.",
        ("polite", "rude"),
        ("You are an idiot and nobody wants you here.", "Thank you, that was a very helpful answer."),
        (
            "Is this comment rude or polite?",
            "Moderate the comment: does it insult anybody?",
            "Decide if the post contains hateful language.",
        ),
    ),
    (
        "Say which emotion a message expresses.",
        ("joy", "anger", "fear", "sadness"),
        ("I can't believe they lied to me again.", "Best day ever, we are finally getting married!"),
        (
            "Which emotion does the writer feel?",
            "Is the person happy, angry, afraid or sad?",
            "Name the feeling in this message.",
        ),
    ),
    (
        "Decide whether the second sentence follows from the first.",
        ("yes", "no"),
        ("A man plays a guitar. Somebody is making music.", "The shop is closed. Customers are buying bread."),
        (
            "Does the first sentence imply the second?",
            "Entailment or contradiction?",
            "Say whether the hypothesis follows from the premise.",
        ),
    ),
    (
        "Recognise the language that a text is written in.",
        ("English", "French", "German"),
        ("Le train part à huit heures.", "Das Wetter ist heute schön."),
        (
            "Which language is this?",
            "Identify the language of the text.",
            "Is the sentence English, French or German?",
        ),
    ),
)


@dataclass(frozen=True)
class NamedTask:
    """One task.

    Attributes:
        prompts: that people wrote for it.
        description: in words; None where there is none.
        label_words: that it answers with.
        examples: inputs.
    """

    prompts: tuple[str, ...]
    description: str | None = None
    label_words: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


def described_tasks(folder: Path) -> list[list[NamedTask]]:
    """Instruction induction: for each of 24 tasks, each instruction in turn describes it, the others name it."""
    found = []
    for path in sorted((folder / "instruction_induction").glob("*.json")):
        texts = tuple(dict.fromkeys(json.loads(path.read_text(encoding="utf-8"))["annotations"]))
        found.append([NamedTask(texts[:i] + texts[i + 1 :], description=text) for i, text in enumerate(texts)])
    return found


def seed_tasks(folder: Path) -> list[NamedTask]:
    """Self-Instruct's 175 seed tasks: a name, one instruction, one input."""
    lines = (folder / "self_instruct_seed_tasks.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        NamedTask(
            (row["instruction"],),
            description=row["name"].replace("_", " "),
            examples=(row["instances"][0]["input"] or row["instances"][0]["output"],),
        )
        for row in rows
    ]


def classification_tasks() -> list[NamedTask]:
    """The tasks of `CLASSIFICATION`."""
    return [NamedTask(prompts, text, words, inputs) for text, words, inputs, prompts in CLASSIFICATION]

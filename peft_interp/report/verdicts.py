"""What the numbers mean, in words: from records to short answers.

Every question is asked so that "yes" is the good answer. Nothing is called faithful on distance alone: vectors close to
tokens can act unlike them (arXiv 2112.08348).
"""

from __future__ import annotations

from dataclasses import dataclass

from peft_interp.metrics.results import Faithfulness, PromptReading, Scrutability, Waywardness
from peft_interp.report.effect_rules import acts, tokens
from peft_interp.report.faithfulness_rules import evidence, faithful, near, survives
from peft_interp.report.readability_rules import readable, trust

QUESTIONS = {
    "faithful": "Does the text do what the prompt does?",
    "near": "Are the vectors near these tokens?",
    "evidence": "Do nearest tokens prove anything here?",
    "survives": "Does the text come back as the same tokens?",
    "readable": "Can a person read it?",
    "acts": "Does the prompt help?",
    "tokens": "Does every token matter?",
    "trust": "Can the scores be taken as they are?",
}
ANSWERS = ("yes", "partly", "no", "unknown")


@dataclass(frozen=True)
class Verdict:
    """One question about a prompt, answered.

    Attributes:
        question: a key of `QUESTIONS`.
        answer: "yes" (the good one), "partly", "no" or "unknown".
        words: why, with the numbers it rests on; without a full stop.
    """

    question: str
    answer: str
    words: str

    def __str__(self) -> str:
        return f"{self.question}: {self.answer}, {self.words}"


def decide(
    reading: PromptReading,
    scrutability: Scrutability | None = None,
    faithfulness: Faithfulness | None = None,
    waywardness: Waywardness | None = None,
    chance: float | None = None,
    untested: str = "",
) -> tuple[Verdict, ...]:
    """Every question that arises, answered.

    Args:
        reading: the prompt as text.
        scrutability: None where there is no text.
        faithfulness: None where there was no data.
        waywardness: None where it was not tested.
        chance: accuracy of guessing, 0 to 1; None if not known.
        untested: why there is no waywardness although it was asked for; "" where it was not.
    """
    answers = {
        "faithful": faithful(reading, faithfulness, chance),
        "near": near(reading, faithfulness),
        "evidence": None if reading.discrete and not untested else evidence(faithfulness, waywardness, untested),
        "survives": survives(reading, faithfulness),
        "readable": readable(reading, scrutability),
        "acts": acts(reading, faithfulness),
        "tokens": tokens(reading, faithfulness),
        "trust": trust(scrutability),
    }
    return tuple(Verdict(question, *answer) for question, answer in answers.items() if answer is not None)

"""Which of the user's rows got which answers: a table of right and given answers for each side, and rows to read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from peft_interp.metrics.answer_results import TIED, AnsweredRows, AnswerShares, RowAnswers
from peft_interp.report.record import ReportData
from peft_interp.report.texts import visible

NamedAnswers = tuple[str, str]  # "as text", say, and the field of `RowAnswers`
_MOST = 8  # label words in a table; the most frequent ones
_SHADES = 4  # of a cell, by its share of the rows with that right answer
_TIED = "no single one"


def rows(report: ReportData) -> dict[str, Any] | None:
    """Right answers against given ones for each side, and rows that the sides do not all answer alike."""
    measured = report.faithfulness
    if measured is None or measured.answered is None or measured.answers is None or not measured.answered.patterns:
        return None
    answered, names = measured.answered, word_names(measured.answers)
    sides = sides_of(report, answered)
    shown = _most_frequent(answered)
    note = "How many rows got which answer; a cell is the darker, the more of the rows with that right answer it holds."
    if len(shown) < len(names):
        note += f" The {len(shown)} of {len(names)} label words that occur most."
    examples = [
        {
            "text": one.text,
            "row": one.row,
            "label": _named(one.answers.label, names),
            "sides": [(name, *_given(one.answers, side, names)) for name, side in sides],
        }
        for one in answered.examples
    ]
    tables = [_table(name, side, answered, shown, names) for name, side in sides]
    return {"note": note, "tables": tables, "about": _about(report, answered, len(examples)), "examples": examples}


def word_names(shares: AnswerShares) -> list[str]:
    """What the label words are called, without the blank in front."""
    return [word.strip() or visible(word) for word in shares.label_words]


def sides_of(report: ReportData, answered: AnsweredRows) -> list[NamedAnswers]:
    """The sides worth a table: prompt and text are one where they answer every row alike."""
    every = [pattern.answers for pattern in answered.patterns]
    if report.reading.is_text:
        sides = [("as text", "as_text")]
    elif all(own.as_prompt == own.as_text for own in every):
        sides = [("as prompt and as text", "as_prompt")]
    else:
        sides = [("as prompt", "as_prompt"), ("as text", "as_text")]
    return sides + ([("no prompt", "without")] if any(own.without is not None for own in every) else [])


def _most_frequent(answered: AnsweredRows) -> list[int]:
    """Places of the label words that are right or answered most often."""
    counts: Counter[int] = Counter()
    for pattern in answered.patterns:
        own = pattern.answers
        for place in {own.label, own.as_prompt, own.as_text, own.without} - {None, TIED}:
            counts[place] += pattern.rows  # type: ignore[index]
    return sorted(place for place, _ in counts.most_common(_MOST))


def _table(title: str, side: str, answered: AnsweredRows, shown: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    """One row for each right answer, one column for each given one."""
    counts: Counter[tuple[int, int]] = Counter()
    for pattern in answered.patterns:
        if (given := getattr(pattern.answers, side)) is not None:
            counts[pattern.answers.label, given] += pattern.rows
    columns = [*shown, *([TIED] if any(given == TIED for _, given in counts) else [])]
    lines = []
    for label in shown:
        total = max(1, sum(count for (right, _), count in counts.items() if right == label))
        cells = [(counts[label, given], _shade(counts[label, given], total), label == given) for given in columns]
        lines.append((_named(label, names), cells))
    return {"title": title.capitalize(), "columns": [_named(given, names) for given in columns], "rows": lines}


def _shade(count: int, total: int) -> int:
    """0 for none, `_SHADES` for all."""
    return max(0, min(_SHADES, math.ceil(_SHADES * count / total)))


def _about(report: ReportData, answered: AnsweredRows, shown: int) -> str:
    """How often the sides differ, in words."""
    total = sum(pattern.rows for pattern in answered.patterns)
    moved = sum(p.rows for p in answered.patterns if p.answers.as_prompt != p.answers.as_text)
    gained = sum(p.rows for p in answered.patterns if p.answers.without not in (None, p.answers.as_prompt))
    said = [] if report.reading.is_text else [f"prompt and text answer {moved:,} of {total:,} rows differently"]
    if any(pattern.answers.without is not None for pattern in answered.patterns):
        said.append(f"{'text' if report.reading.is_text else 'prompt'} and no prompt {gained:,} of {total:,}")
    words = ", ".join(said)
    return f"{words[:1].upper()}{words[1:]}. {shown} of these rows, some of each kind:"


def _given(answers: RowAnswers, side: str, names: Sequence[str]) -> tuple[str, bool]:
    """What a side answers, and whether it is right."""
    given = getattr(answers, side)
    return ("-", False) if given is None else (_named(given, names), given == answers.label)


def _named(place: int, names: Sequence[str]) -> str:
    return _TIED if place == TIED else names[place]

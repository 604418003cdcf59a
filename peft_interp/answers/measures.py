"""Scores of one written answer, 0 to 1: equal to what was wanted, ROUGE, JSON with the keys that were asked for.

`evaluate.load("rouge")` and "exact_match" are scripts on the Hub, which a run should not have to reach. These are the
same definitions as plain functions.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence

_EDGES = " \t\r\n.,;:!?\"'`"


def exact_match(answer: str, reference: str) -> float:
    """1 where both are the same text, upper case, blanks and punctuation around it left aside; else 0."""
    return float(_bare(answer) == _bare(reference))


def _bare(text: str) -> str:
    return " ".join(text.split()).strip(_EDGES).casefold()


def rouge_tokens(text: str) -> list[str]:
    """Words as the `rouge_score` package has them without its stemmer: runs of a to z and 0 to 9 in lower case."""
    return re.findall(r"[a-z0-9]+", text.lower())


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L (Lin, Text Summarization Branches Out, 2004, section 3.1): F1 of the longest common subsequence of words.

    As `rouge_score` computes `rougeL`, on the whole text; 0 where either has no word.
    """
    found, wanted = rouge_tokens(answer), rouge_tokens(reference)
    return _f1(_common_subsequence(found, wanted), len(found), len(wanted))


def rouge_n(answer: str, reference: str, n: int = 1) -> float:
    """ROUGE-N (Lin 2004, section 2): F1 of shared runs of `n` words, each counted as often as both have it."""
    found, wanted = (_runs(rouge_tokens(text), n) for text in (answer, reference))
    return _f1(sum((found & wanted).values()), sum(found.values()), sum(wanted.values()))


def _runs(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _f1(common: int, found: int, wanted: int) -> float:
    return 2 * common / (found + wanted) if common else 0.0


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    above = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for place, other in enumerate(second):
            row.append(above[place] + 1 if word == other else max(row[place], above[place + 1]))
        above = row
    return above[-1]


def json_keys(answer: str, keys: Sequence[str]) -> float:
    """1 where the answer is a JSON object with exactly these keys and nothing stands around it but blanks; else 0."""
    found = _json_object(answer)
    return float(found is not None and set(found) == set(keys))


def json_progress(answer: str, keys: Sequence[str]) -> float:
    """A slope towards `json_keys`, 0 to 1: a quarter each for `{` first, `}` last, the share of named keys, validity.

    A search whose prompts all fail needs to be told which failed by less.
    """
    text = answer.strip()
    named = sum(f'"{key}"' in text for key in keys) / max(1, len(keys))
    return (text.startswith("{") + text.endswith("}") + named + json_keys(text, keys)) / 4


def _json_object(text: str) -> dict[str, object] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None

"""Which rows got which answers, counted, and some to read: rows that prompt, text and no prompt answer differently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, zip_longest
from typing import TYPE_CHECKING

from peft_interp.metrics.answer_results import AnsweredRow, AnsweredRows, AnswerPattern, RowAnswers
from peft_interp.text.placement import IGNORED
from peft_interp.text.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LETTERS = 400  # of a row's text
Told = Mapping[int, tuple[int, int]]


def answered_rows(
    as_prompt: Told,
    as_text: Told,
    without: Told | None,
    numbers: Sequence[int],
    text_of: Callable[[int], str],
    most: int,
) -> AnsweredRows | None:
    """Count the answers of all sides, and choose rows to read.

    The examples are spread over the combinations of answers that occur: one of each, most frequent combination first,
    then a second of each, each in the order of the data.

    Args:
        as_prompt: by row, the places of its label and of its answer among the label words.
        as_text: the same with the text in the prompt's place.
        without: the same with no prompt; None where it was not measured.
        numbers: by row, its number in the user's data.
        text_of: what a row says, without the prompt.
        most: examples, at most.

    Returns:
        The counts and examples; None where no answer is known.
    """
    bare = without or {}
    found = {
        row: RowAnswers(label, answer, as_text[row][1], bare[row][1] if row in bare else None)
        for row, (label, answer) in sorted(as_prompt.items())
        if row in as_text
    }
    if not found:
        return None
    counts = Counter(found.values()).most_common()
    alike = {answers: [row for row, own in found.items() if own == answers] for answers, _ in counts if answers.differ}
    turns = (row for turn in zip_longest(*alike.values()) for row in turn if row is not None)
    examples = (AnsweredRow(numbers[row], text_of(row), found[row]) for row in islice(turns, most))
    return AnsweredRows(tuple(AnswerPattern(*pair) for pair in counts), tuple(examples))


def row_text(tokenizer: PreTrainedTokenizerBase, row: Row, answer_within: bool) -> str:
    """What a row says without its answer and without the prompt; a long one is cut in the middle.

    Args:
        tokenizer: the base model's.
        row: the row.
        answer_within: whether its labels stand among its ids, as for a causal LM.
    """
    ids = list(row.ids)
    if answer_within:
        ids = [token for token, label in zip(row.ids, row.labels, strict=True) if label == IGNORED]
    text = str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    if len(text) <= _LETTERS:
        return text
    return f"{text[: _LETTERS // 2]} ... {text[-_LETTERS // 2 :]}"

"""The text that stands beside a prompt in real inputs, where a prompt may melt into it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from peft_interp.scoring.examples import Examples
from peft_interp.scoring.scored_rows import IGNORED

MOST_ENDINGS = 16  # a prompt is tokenised after each of them
ENDING_TOKENS = 4  # more text changes nothing about the last token


def text_after(examples: Examples, tokenizer: Any, leading_ids: tuple[int, ...]) -> str:
    """The text of the first example, as it stands after a prompt at the start; "" without rows."""
    if not examples.rows:
        return ""
    ids = list(examples.rows[0]["input_ids"])
    leading = len(ids) > 0 and ids[0] in leading_ids
    anchor = tokenizer.encode("a", add_special_tokens=False)
    text = tokenizer.decode([*anchor, *ids[int(leading) :]], clean_up_tokenization_spaces=False)
    return str(text)[len(tokenizer.decode(anchor)) :]


def texts_in_front(examples: Examples, tokenizer: Any, leading_ids: tuple[int, ...]) -> tuple[str, ...]:
    """Ends of the texts that a prompt at the end stands after: one for each last token, the most frequent ones.

    Args:
        examples: rows, whose first labelled token stands right after the prompt.
        tokenizer: the task model's.
        leading_ids: tokens that are no text where a row begins with one (BOS).

    Returns:
        At most `MOST_ENDINGS` texts of a few tokens, from a word's beginning where there is one.
    """
    counts: Counter[int] = Counter()
    tails: dict[int, list[int]] = {}
    for row in examples.rows:
        first = next(place for place, label in enumerate(row["labels"]) if label != IGNORED)
        ids = row["input_ids"][:first]
        ids = ids[1:] if ids and ids[0] in leading_ids else ids
        if ids:
            counts[ids[-1]] += 1
            tails.setdefault(ids[-1], ids[-ENDING_TOKENS:])
    texts = [
        tokenizer.decode(tails[i], clean_up_tokenization_spaces=False) for i, _ in counts.most_common(MOST_ENDINGS)
    ]
    return tuple(dict.fromkeys(text[text.find(" ", 0, -1) + 1 :] for text in texts))

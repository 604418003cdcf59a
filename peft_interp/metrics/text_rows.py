"""Rows with a prompt's text written into them: decoded, put together as a person would paste them, tokenised again.

Decoding and encoding depend on the neighbours, so the text is tokenised in its template, not alone. Only the junction
is: a row that does not even survive by itself (cut in the middle of a word, say) keeps its own ids after it, since its
change would say nothing about the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peft_interp.metrics.differentials import common_prefix, common_suffix, token_error_rate
from peft_interp.text.rows import Row
from peft_interp.text.tokenization import decode, decode_after, encode, encode_all, encode_all_after

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_JUNCTION = 8  # tokens of a row that are tokenised together with the prompt where the whole row cannot be


@dataclass(frozen=True)
class PlacedRow:
    """A row with a prompt, or a prompt's text, in its place.

    Attributes:
        ids: what the model is given, leading token included.
        columns: index into the row's ids -> column of the model's output that belongs to the same token, for the
            tokens that survived.
        error_rate: edit distance between the prompt's ids and those found in their place, per token of the prompt.
    """

    ids: list[int]
    columns: dict[int, int] = field(repr=False)
    error_rate: float = 0.0

    def predicted(self, start: int) -> dict[int, int]:
        """Index into the row's ids -> column whose logits predict it, where the token in front survived as well."""
        known = self.columns
        return {j: c - 1 for j, c in known.items() if c > 0 and (j in (0, start) or j - 1 in known)}


def with_text(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], text: str, prompt_ids: Sequence[int]
) -> list[PlacedRow]:
    """Rows with `text` in the prompt's place, tokenised again.

    Args:
        tokenizer: the model's tokenizer.
        rows: examples; the prompt stands at their `start`.
        text: what is written there; "" for nothing.
        prompt_ids: the ids that `text` was decoded from, for the error rate.

    Returns:
        One for each row.
    """
    fronts = [list(row.ids[: row.start]) for row in rows]
    backs = [list(row.after) for row in rows]
    front_texts = [decode(tokenizer, ids) for ids in fronts]
    back_texts = [decode_after(tokenizer, ids) if ids else "" for ids in backs]
    again = encode_all(tokenizer, [a + text + b for a, b in zip(front_texts, back_texts, strict=True)])
    alone = encode_all_after(tokenizer, back_texts)
    if text:
        stable = [a == b for a, b in zip(alone, backs, strict=True)]
    else:  # nothing is written, nothing is to be tokenised again
        stable, again = [True] * len(rows), [list(row.ids) for row in rows]
    found = []
    for i, row in enumerate(rows):
        ids = again[i] if stable[i] else _junction(tokenizer, front_texts[i] + text, backs[i])
        found.append(_align(row, fronts[i], backs[i], ids, prompt_ids))
    return found


def _junction(tokenizer: PreTrainedTokenizerBase, text: str, back: list[int]) -> list[int]:
    """`text` tokenised with as much of `back` as survives after it, and the rest of `back` as it is."""
    for size in range(min(_JUNCTION, len(back)), 0, -1):
        ids = encode(tokenizer, text + decode_after(tokenizer, back[:size]))
        if ids and ids[-1] == back[size - 1]:
            return ids + back[size:]
    return encode(tokenizer, text) + back


def _align(row: Row, front: list[int], back: list[int], ids: list[int], prompt_ids: Sequence[int]) -> PlacedRow:
    """Find the row's own tokens again, from both ends."""
    kept_back = common_suffix(back, ids)
    kept_front = common_prefix(front, ids[: len(ids) - kept_back])
    lead, shift = len(row.leading), len(ids) - len(row.ids)
    columns = {j: lead + j for j in range(kept_front)}
    columns |= {j: lead + j + shift for j in range(len(row.ids) - kept_back, len(row.ids))}
    expected = [*front[kept_front:], *prompt_ids, *back[: len(back) - kept_back]]
    rate = token_error_rate(expected, ids[kept_front : len(ids) - kept_back], length=len(prompt_ids))
    return PlacedRow(ids=[*row.leading, *ids], columns=columns, error_rate=rate)

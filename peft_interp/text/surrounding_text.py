"""The text that stands beside a prompt in real inputs, and the prompt's text tokenised there: it may melt into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_interp.text.placement import START, Placement
from peft_interp.text.rows import Row
from peft_interp.text.tokenization import decode, decode_after, encode, encode_after, encode_all

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_ENDINGS = 16  # a prompt is tokenised after each of them
ENDING_TOKENS = 4  # more text changes nothing about the last token


@dataclass(frozen=True)
class SurroundingText:
    """What a prompt stands beside.

    Attributes:
        placement: where the prompt stands.
        following: the text of a real input after the prompt, with its leading blank; "" if not known, or nothing is.
        preceding: ends of real inputs in front of any other prompt, which must come out the same after each.
    """

    placement: Placement = START
    following: str = ""
    preceding: tuple[str, ...] = ()

    def decode_prompt(self, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
        """The prompt as the text that stands there."""
        return self.placement.decode_prompt(tokenizer, ids)

    def encode_prompt(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int] | None:
        """Ids of the prompt's text where it stands; None where it melts with its neighbour or is no text at all."""
        ids = self._first(tokenizer, text) if self.placement.before_text else self._later(tokenizer, text)
        return ids or None

    def _first(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int] | None:
        if not self.following[:1].isspace():  # where prompt and input meet is not known
            return encode(tokenizer, text)
        following, ids = encode_after(tokenizer, self.following), encode(tokenizer, text + self.following)
        return ids[: -len(following)] if ids[-len(following) :] == following else None

    def _later(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int] | None:
        try:
            ids = (self.placement.encode_prompt if self.placement.marked else encode_after)(tokenizer, text)
        except ValueError:
            return None
        count, whole = len(self.preceding), text + self.following
        encoded = encode_all(tokenizer, [*self.preceding, *(before + whole for before in self.preceding)])
        for before, both in zip(encoded[:count], encoded[count:], strict=True):
            wanted = [*before, *ids]
            if (both[: len(wanted)] if self.following else both) != wanted:
                return None
        return ids


def surrounding_text(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], placement: Placement) -> SurroundingText:
    """What prompts stand beside in these rows.

    Args:
        tokenizer: the model's.
        rows: real inputs; none say nothing.
        placement: where the prompt stands.
    """
    if placement.before_text:
        return SurroundingText(placement, decode_after(tokenizer, rows[0].after) if rows else "")
    following = decode_after(tokenizer, rows[0].after[:ENDING_TOKENS]) if rows and placement.marked else ""
    return SurroundingText(placement, following, _endings(tokenizer, rows))


def _endings(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> tuple[str, ...]:
    """Ends of what stands in front of the prompt: one for each last token, the most frequent ones.

    At most `MOST_ENDINGS` texts of a few tokens, from a word's beginning where there is one.
    """
    counts: Counter[int] = Counter()
    tails: dict[int, tuple[int, ...]] = {}
    for row in rows:
        ids = row.ids[: row.start]
        if ids:
            counts[ids[-1]] += 1
            tails.setdefault(ids[-1], ids[-ENDING_TOKENS:])
    texts = [decode(tokenizer, tails[i]) for i, _ in counts.most_common(MOST_ENDINGS)]
    return tuple(dict.fromkeys(text[text.find(" ", 0, -1) + 1 :] for text in texts))

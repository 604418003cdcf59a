"""From the policy's tokens to the prompt that is scored: text, and the task model's ids for that text in its place.

What counts is what the text does. Sampled ids become text, the text is tokenised again where the prompt stands, and
those ids are scored. A text that comes back with another number of tokens, or with tokens that the adapter's filter
forbids, teaches the policy like any other, but it is never chosen: the adapter could not hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peft_interp.text.token_filter import allowed_tokens
from peft_interp.text.tokenization import decode_after, token_texts
from peft_interp.text.verbalizer import encode_after


@dataclass(frozen=True)
class Candidate:
    """A prompt to be scored.

    Attributes:
        ids: the task model's ids of the text in its place; what is scored.
        text: the prompt as a person reads it.
        survived: whether the policy's tokens came back as they were sampled.
        fits: whether the adapter can hold it: right length, allowed tokens, and not melted with the text beside it.
    """

    ids: tuple[int, ...]
    text: str
    survived: bool
    fits: bool


class PolicyVocabulary:
    """Which tokens the policy may choose, and what they are in the task model's vocabulary.

    With one tokenizer both are the same. With two, the policy may choose the tokens whose text is exactly one allowed
    token of the task model, so that prompts keep their length.

    Args:
        task_allowed: (task vocabulary,) bool, the adapter's filter.
        tokenizer: the task model's.
        policy_tokenizer: the policy's, or None for the same.
        policy_table: the policy's embedding table; needed with a tokenizer of its own.

    Raises:
        ValueError: the policy's tokenizer can express none of the allowed tokens.
    """

    def __init__(
        self, task_allowed: Tensor, tokenizer: Any, policy_tokenizer: Any = None, policy_table: Tensor | None = None
    ) -> None:
        self.task_allowed = task_allowed
        self.tokenizer = tokenizer
        self._to_task: list[int] | None = None
        self.allowed = task_allowed
        if policy_tokenizer is None or policy_tokenizer.get_vocab() == tokenizer.get_vocab():
            return
        assert policy_table is not None
        mask = allowed_tokens(policy_table, policy_tokenizer)
        self._to_task = _translation(policy_tokenizer, tokenizer, mask, task_allowed)
        self.allowed = torch.tensor([i >= 0 for i in self._to_task])
        if not self.allowed.any():
            raise ValueError(
                "the policy's tokenizer cannot express the task model's tokens: none of its tokens has the text of "
                "one allowed token. Use a policy model with a vocabulary of the same language and kind, loosen "
                "`allowed_tokens`, or leave the policy model out (the task model is then the policy)."
            )

    def task_ids(self, policy_ids: Sequence[int]) -> list[int]:
        """Sampled ids in the task model's vocabulary."""
        return list(policy_ids) if self._to_task is None else [self._to_task[i] for i in policy_ids]

    def policy_ids(self, task_ids: Sequence[int]) -> list[int] | None:
        """The policy's ids of a prompt of the task model; None where it has no such tokens."""
        if self._to_task is None:
            return list(task_ids) if bool(self.allowed[list(task_ids)].all()) else None
        back = {task: policy for policy, task in enumerate(self._to_task) if task >= 0}
        known = [back.get(i, -1) for i in task_ids]
        return None if -1 in known else known

    def candidate(
        self, ids: Sequence[int], position: str, following_text: str = "", preceding_texts: Sequence[str] = ()
    ) -> Candidate:
        """The prompt that the text of the task model's `ids` is, in its place.

        Args:
            ids: of the task model.
            position: "start": in front of `following_text`; "end": after the text.
            following_text: the text of a real input, with its leading blank.
            preceding_texts: as `place_candidate`.
        """

        def fits(again: Sequence[int]) -> bool:
            return len(again) == len(ids) and bool(self.task_allowed[list(again)].all())

        return place_candidate(self.tokenizer, ids, position, following_text, fits, preceding_texts)


def place_candidate(
    tokenizer: Any,
    ids: Sequence[int],
    position: str,
    following_text: str,
    fits: Callable[[Sequence[int]], bool],
    preceding_texts: Sequence[str] = (),
) -> Candidate:
    """The prompt that the text of `ids` is, in its place.

    Args:
        tokenizer: the task model's.
        ids: of the task model.
        position: "start": in front of `following_text`; "end": after the text.
        following_text: the text of a real input, with its leading blank.
        fits: whether the adapter can hold these ids.
        preceding_texts: ends of real inputs (`texts_in_front`); a prompt at the end must be the same after each.
    """
    text = prompt_text(tokenizer, ids, position)
    again = _tokenised_in_place(tokenizer, text, position, following_text, preceding_texts)
    return Candidate(tuple(again or ids), text, again == list(ids), again is not None and fits(again))


def prompt_text(tokenizer: Any, ids: Sequence[int], position: str) -> str:
    """A prompt as text: at the start of an input, or with its leading blank after one."""
    if position == "end":
        return decode_after(tokenizer, ids)
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _tokenised_in_place(
    tokenizer: Any, text: str, position: str, following_text: str, preceding_texts: Sequence[str]
) -> list[int] | None:
    """Ids of the prompt's text where it stands; None where it melts with its neighbour or is no text at all."""
    if position == "end":
        return _tokenised_after(tokenizer, text, preceding_texts)
    ids: list[int]
    if not following_text[:1].isspace():  # where prompt and input meet is not known
        ids = tokenizer.encode(text, add_special_tokens=False)
        return ids or None
    following = encode_after(tokenizer, following_text)
    ids = tokenizer.encode(text + following_text, add_special_tokens=False)
    return ids[: -len(following)] or None if ids[-len(following) :] == following else None


def _tokenised_after(tokenizer: Any, text: str, preceding_texts: Sequence[str]) -> list[int] | None:
    """Ids of the prompt's text after a letter, if they are the same after every real text."""
    try:
        ids = encode_after(tokenizer, text)
    except ValueError:
        return None
    if preceding_texts and ids:
        whole = [before + text for before in preceding_texts]
        encoded = tokenizer([*preceding_texts, *whole], add_special_tokens=False)["input_ids"]
        count = len(preceding_texts)
        if any(both != [*before, *ids] for before, both in zip(encoded[:count], encoded[count:], strict=True)):
            return None
    return ids or None


def _translation(policy_tokenizer: Any, tokenizer: Any, mask: Tensor, task_allowed: Tensor) -> list[int]:
    """The task model's id of every policy token, -1 where its text is not exactly one allowed token."""
    texts = token_texts(policy_tokenizer, len(mask))
    anchor = tokenizer.encode("a", add_special_tokens=False)
    encoded = tokenizer(["a" + text for text in texts], add_special_tokens=False)["input_ids"]
    translation = []
    for ok, text, ids in zip(mask.tolist(), texts, encoded, strict=True):
        single = ok and bool(text) and len(ids) == len(anchor) + 1 and ids[: len(anchor)] == anchor
        translation.append(ids[-1] if single and bool(task_allowed[ids[-1]]) else -1)
    return translation

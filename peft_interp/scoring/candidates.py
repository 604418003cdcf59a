"""From the policy's tokens to the prompt that is scored: text, and the task model's ids for that text in its place.

What counts is what the text does. Sampled ids become text, the text is tokenised again where the prompt stands, and
those ids are scored. A text that comes back with another number of tokens, or with tokens that the adapter's filter
forbids, teaches the policy like any other, but it is never chosen: the adapter could not hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_interp.text.surrounding_text import SurroundingText
from peft_interp.text.token_filter import allowed_tokens
from peft_interp.text.tokenization import encode_all_after, vocabulary_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
        self,
        task_allowed: Tensor,
        tokenizer: PreTrainedTokenizerBase,
        policy_tokenizer: PreTrainedTokenizerBase | None = None,
        policy_table: Tensor | None = None,
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

    def candidate(self, ids: Sequence[int], beside: SurroundingText) -> Candidate:
        """The prompt that the text of the task model's `ids` is, `beside` real inputs."""

        def fits(again: Sequence[int]) -> bool:
            return len(again) == len(ids) and bool(self.task_allowed[list(again)].all())

        return place_candidate(self.tokenizer, ids, beside, fits)


def place_candidate(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    beside: SurroundingText,
    fits: Callable[[Sequence[int]], bool],
) -> Candidate:
    """The prompt that the text of `ids` is, in its place.

    Args:
        tokenizer: the task model's.
        ids: of the task model.
        beside: what the prompt stands beside in real inputs.
        fits: whether the adapter can hold these ids.
    """
    text = beside.decode_prompt(tokenizer, ids)
    again = beside.encode_prompt(tokenizer, text)
    return Candidate(tuple(again or ids), text, again == list(ids), again is not None and fits(again))


def _translation(
    policy_tokenizer: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase, mask: Tensor, task_allowed: Tensor
) -> list[int]:
    """The task model's id of every policy token, -1 where its text is not exactly one allowed token."""
    texts = vocabulary_texts(policy_tokenizer, len(mask))
    translation = []
    for ok, text, ids in zip(mask.tolist(), texts, encode_all_after(tokenizer, texts), strict=True):
        single = ok and bool(text) and ids is not None and len(ids) == 1 and bool(task_allowed[ids[0]])
        translation.append(ids[0] if ids and single else -1)
    return translation

"""`AnswerWriter`: what a model writes after many prompts on many rows, as `generate` would for each pair alone.

What pairs have in common is run once: the row in front of a prompt after the text, for all prompts; the prompt in front
of the text, for all rows. All pairs are then written in one batch (`decoding`). What was written is remembered.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_interp.answers.decoding import CachedInputs, Contexts, PlainInputs, run_contexts, write_answers
from peft_interp.answers.settings import AnswerSettings
from peft_interp.inference.batching import available_bytes, logits_tokens, reading_batches
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.full_attention import takes_own_mask
from peft_interp.inference.max_length import model_max_length
from peft_interp.inference.models import AnyModel, input_embeddings
from peft_interp.text.rows import Row
from peft_interp.text.tokenization import check_in_vocabulary, pad_token_id, vocabulary_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
MOST_REMEMBERED = 100_000  # answers
MOST_ROUNDING = 0.05  # nats
_HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # a token that is a part of a character
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """What the model wrote.

    Attributes:
        ids: the new tokens, an end token and what holds a stop text included, as `generate` returns them.
        text: without special tokens, up to the end of the first stop text.
    """

    ids: Ids
    text: str


@dataclass(frozen=True)
class _Question:
    """A row up to where its answer begins: ids in front of the prompt, and after it."""

    before: Ids
    after: Ids


class AnswerWriter:
    """Writes answers after prompts, again and again.

    Args:
        model: causal LM without an adapter that adds a prompt; its weights must not change.
        tokenizer: its tokenizer.
        share: False runs every pair from its beginning at every token; None does so only where the model asks for it.

    Attributes:
        written: prompt-row pairs that were answered by the model so far; what was remembered does not count.

    Raises:
        ValueError: no causal language model.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, share: bool | None = None) -> None:
        _check_model(model)
        self.model, self.tokenizer = model, tokenizer
        self.written = 0
        self.device: torch.device = input_embeddings(model).weight.device
        self._pad = pad_token_id(model.config) or 0
        self._ends = _end_ids(model)
        self._batches = reading_batches(model)
        self._cache_bytes = available_bytes(self.device) // 4
        self._contexts: dict[tuple[Ids, ...], Contexts] = {}
        self._remembered: dict[tuple[AnswerSettings, Ids, _Question], Answer] = {}
        self._closing: dict[tuple[str, ...], frozenset[int]] = {}
        self._shares = takes_own_mask(model) if share is None else share
        self._tried = share is not None

    def write(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[Row], settings: AnswerSettings | None = None
    ) -> list[list[Answer]]:
        """One answer for each prompt on each row.

        Args:
            prompts: ids, of any lengths, 0 included.
            rows: what stands beside a prompt; answers begin at a row's first label, or at its end where it has none.
            settings: how to write.

        Returns:
            (prompts, rows).

        Raises:
            ValueError: ids outside the vocabulary, an input without any token, or one too long for the model.
        """
        settings = settings or AnswerSettings()
        if self._ends != (ends := _end_ids(self.model)):  # Trainer sets them by the tokenizer when training begins
            self._ends = ends
            self._remembered.clear()
        asked = [tuple(int(i) for i in prompt) for prompt in prompts]
        questions = [_Question(row.before, row.ids[row.start : row.first]) for row in rows]
        self._check(asked, questions, settings)
        distinct = list(dict.fromkeys(questions))
        lacking: dict[tuple[_Question, ...], list[Ids]] = {}
        for prompt in dict.fromkeys(asked):
            missing = tuple(q for q in distinct if (settings, prompt, q) not in self._remembered)
            if missing:
                lacking.setdefault(missing, []).append(prompt)
        for missing, some in lacking.items():
            with eval_mode(self.model):
                self._write(some, sorted(missing, key=lambda q: len(q.before) + len(q.after)), settings)
        found = self._remembered
        answers = [[found[settings, prompt, question] for question in questions] for prompt in asked]
        for key in list(self._remembered)[: max(0, len(self._remembered) - MOST_REMEMBERED)]:
            del self._remembered[key]
        return answers

    def forget(self) -> None:
        """Drop the rows' keys and values."""
        self._contexts.clear()

    def _write(self, prompts: Sequence[Ids], questions: Sequence[_Question], settings: AnswerSettings) -> None:
        """Answers of all pairs, remembered, in blocks that fit memory."""
        if self._shares and not self._tried:
            self._tried = True
            self._shares = self._agrees(prompts[:2], [questions[0], questions[-1]])
        longest = max(len(q.before) + len(q.after) for q in questions) + max(map(len, prompts))
        pair = longest + settings.max_new_tokens + logits_tokens(self.model)

        def cost(rows: range, columns: range) -> float:
            return len(rows) * len(columns) * pair

        def work(rows: range, columns: range) -> None:
            some, asked = prompts[columns.start : columns.stop], questions[rows.start : rows.stop]
            self._block(some, asked, settings)

        self._batches.run(work, cost, range(len(questions)), range(len(prompts)))

    def _block(self, prompts: Sequence[Ids], questions: Sequence[_Question], settings: AnswerSettings) -> None:
        pairs = [(prompt, question) for prompt in prompts for question in questions]
        draws = _draws(pairs, settings) if settings.do_sample else None
        inputs = self._inputs(pairs, settings.max_new_tokens) if self._shares else self._plain(pairs)
        found = write_answers(inputs, len(pairs), settings, draws, lambda ids: self._ended(ids, settings))
        texts = self.tokenizer.batch_decode(found, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for (prompt, question), ids, text in zip(pairs, found, texts, strict=True):
            self._remembered[settings, prompt, question] = Answer(tuple(ids), cut_text(text, settings.stop_strings))
        self.written += len(pairs)

    def _plain(self, pairs: Sequence[tuple[Ids, _Question]]) -> PlainInputs:
        return PlainInputs(self.model, [q.before + prompt + q.after for prompt, q in pairs], self._pad)

    def _inputs(self, pairs: Sequence[tuple[Ids, _Question]], new: int) -> CachedInputs:
        """The pairs with what is cheaper run once: the rows in front of the prompts, or the prompts."""
        by_row = dict.fromkeys(q.before for _, q in pairs)
        by_prompt = dict.fromkeys(q.before + prompt for prompt, q in pairs)
        rows_cost = sum(map(len, by_row)) + sum(len(prompt) + len(q.after) for prompt, q in pairs)
        prompts_cost = sum(map(len, by_prompt)) + sum(len(q.after) for _, q in pairs)
        whole = rows_cost <= prompts_cost
        known = tuple(by_row if whole else by_prompt)
        contexts, places = self._run(known, keep=whole), {ids: place for place, ids in enumerate(known)}
        begun = [q.before if whole else q.before + prompt for prompt, q in pairs]
        tails = [(*prompt, *q.after) if whole else q.after for prompt, q in pairs]
        skipped = [0 if tail else 1 for tail in tails]  # a token is needed that asks for the answer
        tails = [tail or begin[-1:] for tail, begin in zip(tails, begun, strict=True)]
        return CachedInputs(self.model, contexts, [places[i] for i in begun], skipped, tails, new - 1, self._pad)

    def _run(self, sequences: tuple[Ids, ...], keep: bool) -> Contexts:
        """Beginnings; those of rows are kept while there is memory, as every prompt has the same ones."""
        if sequences in self._contexts:
            return self._contexts[sequences]
        contexts = run_contexts(self.model, sequences, self._pad)
        if keep and contexts.bytes() + sum(c.bytes() for c in self._contexts.values()) <= self._cache_bytes:
            self._contexts[sequences] = contexts
        return contexts

    def _agrees(self, prompts: Sequence[Ids], questions: Sequence[_Question]) -> bool:
        """Whether both ways say the same of two tokens after a few inputs."""
        pairs = [(prompt, question) for prompt in prompts for question in questions]
        shared, plain = self._inputs(pairs, 2), self._plain(pairs)
        first = plain.first()
        token, order = first.argmax(-1), torch.tensor(shared.order, device=self.device)
        found = torch.cat((shared.first(), shared.next(token[order])))
        expected = torch.cat((first[order], plain.next(token)[order]))
        if alike(found, expected, self.model.dtype):
            return True
        logger.warning(
            "%s does not give the same result with a shared key/value cache; answers are written with a plain forward "
            "pass for every token, which is slower. Try `attn_implementation='sdpa'` or 'eager' for the model.",
            type(self.model).__name__,
        )
        return False

    def _ended(self, ids: Sequence[int], settings: AnswerSettings) -> bool:
        if ids[-1] in self._ends:
            return True
        texts = tuple(settings.stop_strings)
        if not texts or ids[-1] not in self._closing_tokens(texts):
            return False
        written = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return any(text in written for text in texts)

    def _closing_tokens(self, texts: tuple[str, ...]) -> frozenset[int]:
        """Tokens that may be the last one of a stop text."""
        if texts not in self._closing:
            last = {text[-1] for text in texts} | {_HALF_CHARACTER}
            known = vocabulary_texts(self.tokenizer, input_embeddings(self.model).weight.shape[0])
            self._closing[texts] = frozenset(i for i, token in enumerate(known) if last & set(token))
        return self._closing[texts]

    def _check(self, prompts: Sequence[Ids], questions: Sequence[_Question], settings: AnswerSettings) -> None:
        for prompt in prompts:
            check_in_vocabulary(prompt, input_embeddings(self.model))
        limit = model_max_length(self.model)
        shortest, longest = min(map(len, prompts), default=1), max(map(len, prompts), default=1)
        for number, question in enumerate(questions):
            own = len(question.before) + len(question.after)
            if not own + shortest:
                raise ValueError(f"row {number} has no token, and the prompt none; the model needs one to go on from.")
            most = own + longest + settings.max_new_tokens - 1
            if limit is not None and most > limit:
                raise ValueError(
                    f"row {number} with a prompt of {longest} and {settings.max_new_tokens} new tokens is {most} "
                    f"tokens, the model takes {limit}; cut the texts (`max_length=`), use shorter prompts, or fewer "
                    "`max_new_tokens`."
                )


def alike(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two ways to the same logits, (inputs, vocabulary), differ by a model's rounding alone.

    In half precision single logits may be off by more than 1 in a deep model whose distributions are the same: there
    the distributions are compared, by KL in nats. Columns that are read wrongly change them by much more.
    """
    if dtype in (torch.float32, torch.float64):
        return torch.allclose(found, expected, rtol=1e-2, atol=1e-2)
    first, second = expected.float().log_softmax(-1), found.float().log_softmax(-1)
    divergence = (first.exp() * (first - second)).sum(-1)
    return bool(divergence.max() <= MOST_ROUNDING)


def _draws(pairs: Sequence[tuple[Ids, _Question]], settings: AnswerSettings) -> Tensor:
    """(pairs, max_new_tokens) numbers in [0, 1), the same for a pair whatever else is in the batch."""
    rows = []
    for prompt, question in pairs:
        dice = Random(repr((settings.seed, prompt, question.before, question.after)))
        rows.append([dice.random() for _ in range(settings.max_new_tokens)])
    return torch.tensor(rows, dtype=torch.float64)


def cut_text(text: str, stops: Sequence[str]) -> str:
    """A text up to the end of what stops it first."""
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text


def _end_ids(model: PreTrainedModel) -> frozenset[int]:
    """What ends an answer: the end tokens that the model generates with."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return frozenset(named if isinstance(named, list | tuple) else () if named is None else (named,))


def _check_model(model: AnyModel) -> None:
    config = getattr(model, "active_peft_config", None)
    if config is not None and config.is_prompt_learning:
        raise ValueError("the model adds a prompt of its own; give its base model (`model.get_base_model()`).")
    causal = getattr(model, "loss_type", None) != "ForMaskedLM" and not type(model).__name__.endswith("ForMaskedLM")
    if not causal or model.config.is_encoder_decoder or model.get_output_embeddings() is None:
        raise ValueError(f"{type(model).__name__} is no causal language model; answers are written by those.")

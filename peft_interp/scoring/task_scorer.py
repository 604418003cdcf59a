"""`TaskScorer`: what prompts are worth on labelled examples, exactly, at a fraction of a forward pass per pair.

Whatever prompts or examples have in common is run once (`shared_scoring`); the head is run only where an answer is
asked, and for label words only on their rows (`inference.head`).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peft_interp.inference.batching import Batches, available_bytes, default_tokens
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.full_attention import takes_own_mask
from peft_interp.inference.head import head_is_linear
from peft_interp.inference.max_length import model_max_length
from peft_interp.inference.models import AnyModel, input_embeddings
from peft_interp.scoring.passes import PlainScoring, SharedScoring
from peft_interp.text.placement import IGNORED, START, first_labelled, placement_named
from peft_interp.text.rows import Row, read_rows, without_padding
from peft_interp.text.tokenization import check_in_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)
Prompts = Tensor | Sequence[Sequence[int]]
_FEW_PROMPTS = 2  # at the start, so few leave a shared pass too small to be worth it


class TaskScorer:
    """Scores prompts on the same examples again and again.

    Args:
        model: causal or masked LM without an adapter that adds a prompt. Its weights must not change, as what the
            examples' keys and values were computed from; its modes are left as they are. It runs in its own precision,
            also under autocast.
        rows: encoded examples without prompt: `input_ids`, `labels` (-100 where nothing is predicted) and perhaps
            `attention_mask`. For a masked LM the label stands at the mask.
        label_token_ids: the label words' tokens, for `label_log_probs`.
        position: "end" puts the prompt right before a row's first labelled token, "start" in front of the row,
            "template" where the row marks its place.
        leading_ids: tokens (BOS, CLS) that stay in front of a prompt at the start.
        tokens_per_batch: most tokens in one forward pass; None: from the free memory. Positions with logits over the
            whole vocabulary count for as many tokens as they take memory.
        cache_bytes: most memory for the examples' keys and values; None: a quarter of what is free. What does not fit
            is computed anew at every call.
        share: False runs a plain forward pass of every pair; None does so only where the model asks for it.
        choices: for each row its possible answers, each a list of tokens, where they are scored as sequences and not by
            `label_token_ids`.

    Attributes:
        forward_passes: prompt-example pairs evaluated so far; a prompt that is twice in one call counts once.

    Raises:
        ValueError: another position, rows without labels, rows that show a masked LM its answer, a model with a prompt
            of its own or without a head.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: Sequence[Mapping[str, Any]],
        label_token_ids: Sequence[int] | None = None,
        position: str = START.name,
        leading_ids: Sequence[int] = (),
        tokens_per_batch: int | None = None,
        cache_bytes: int | None = None,
        share: bool | None = None,
        choices: Sequence[Sequence[Sequence[int]]] | None = None,
    ) -> None:
        self.placement = placement_named(position)
        if tokens_per_batch is not None and tokens_per_batch < 1:
            raise ValueError(f"`tokens_per_batch={tokens_per_batch}` must be >= 1; None chooses by the free memory.")
        _check_model(model)
        self.model = model
        self.rows = read_rows(rows, leading_ids, self.placement, every_row_labelled=True)
        self.device = input_embeddings(model).weight.device
        self.forward_passes = 0
        self._causal = is_causal(model)
        if not self._causal:
            _check_masked(self.rows)
        self._labels = _label_tensor(label_token_ids, model, self.device)
        self._batches = Batches(tokens_per_batch or default_tokens(model, self.device))
        with eval_mode(model):
            linear = self._labels is not None and head_is_linear(model, self._labels)
            self._plain = PlainScoring(model, self.rows, self._labels, linear, self._batches, self._causal)
            self._shared: SharedScoring | None = None
            limit = available_bytes(self.device) // 4 if cache_bytes is None else cache_bytes
            if share is not False and self._causal and takes_own_mask(model):
                self._share(linear, limit)
        self._choices = None
        if choices is not None:
            options = {"tokens_per_batch": tokens_per_batch, "cache_bytes": cache_bytes, "share": share}
            self._choices = _Choices(model, rows, choices, position=position, leading_ids=leading_ids, **options)

    @property
    def shares_contexts(self) -> bool:
        """Whether what prompts or examples have in common is run once; else every pair has a pass of its own."""
        return self._shared is not None

    @property
    def tokens_per_batch(self) -> int:
        """Most tokens in one forward pass, as of now: halved whenever memory ran out."""
        return self._batches.tokens

    def label_log_probs(self, prompts: Prompts) -> Tensor:
        """Log-probabilities of the label words at each row's first labelled token, normalised over these words only.

        Answers of several tokens: the sums of their tokens' log-probabilities, normalised likewise.

        Args:
            prompts: (prompts, length) ids, or lists of ids of any lengths, 0 included.

        Returns:
            (prompts, rows, labels) fp32 on the model's device, nats, <= 0; -inf where a row has fewer answers.

        Raises:
            ValueError: no label words were given, ids outside the vocabulary, or rows too long for the model.
        """
        if self._choices is not None:
            before = self._choices.scorer.forward_passes
            found = self._choices.log_probs(prompts)
            self.forward_passes += self._choices.scorer.forward_passes - before
            return found
        if self._labels is None:
            raise ValueError("`label_log_probs` needs label words; build the scorer with `label_token_ids=`.")
        return self._score(prompts, whole=False, width=(len(self._labels),))

    def losses(self, prompts: Prompts) -> Tensor:
        """Mean cross-entropy of each row's labelled tokens over the whole vocabulary.

        Args:
            prompts: as for `label_log_probs`.

        Returns:
            (prompts, rows) fp32 on the model's device, nats per token, >= 0, lower is better. NaN for a row whose only
            label is its very first token, which nothing predicts.

        Raises:
            ValueError: ids outside the vocabulary, or rows too long for the model.
        """
        return self._score(prompts, whole=True, width=())

    def _score(self, prompts: Prompts, whole: bool, width: tuple[int, ...]) -> Tensor:
        lists = prompts.tolist() if isinstance(prompts, Tensor) else prompts
        given = [tuple(int(i) for i in prompt) for prompt in lists]
        known = {prompt: number for number, prompt in enumerate(dict.fromkeys(given))}
        self._check_prompts(list(known))
        out = torch.empty(len(known), len(self.rows), *width, device=self.device)
        if known:
            with eval_mode(self.model):
                self._fill(out, list(known), whole)
        self.forward_passes += len(known) * len(self.rows)
        return out[torch.tensor([known[prompt] for prompt in given], dtype=torch.long, device=self.device)]

    def _fill(self, out: Tensor, prompts: list[tuple[int, ...]], whole: bool) -> None:
        """Shared where every context has a token to begin with, plain elsewhere."""
        shared = self._shared
        if shared is None or (shared.prompt_first and len(prompts) <= _FEW_PROMPTS):
            self._plain.score(out, prompts, whole)
            return
        rootless = shared.prompt_first and not all(row.leading for row in self.rows)
        bare = [prompt for prompt in prompts if rootless and not prompt]
        if not bare:
            shared.score(out, prompts, whole)
            return
        for members, scoring in (([p for p in prompts if p not in bare], shared), (bare, self._plain)):
            if members:
                part = out.new_empty(len(members), *out.shape[1:])
                scoring.score(part, members, whole)
                out[[prompts.index(prompt) for prompt in members]] = part

    def _share(self, linear: bool, cache_bytes: int) -> None:
        """Set up shared contexts, if they can be and give what the plain pass gives."""
        prompt_first = self.placement.before_text
        if self.placement.marked:
            return  # text stands in front of the prompt and after it
        if not prompt_first:
            empty = [not row.before for row in self.rows]
            if any(empty) and not all(empty):
                return
            prompt_first = all(empty)  # nothing in front of the prompt: it opens the row
        common = (self._labels, linear)
        sample = sorted(self.rows, key=lambda row: row.length)[:2]
        trial = SharedScoring(self.model, sample, prompt_first, *common, self._batches, 0)
        plain = PlainScoring(self.model, sample, *common, self._batches)
        limit = model_max_length(self.model)
        fits = limit is None or sample[-1].length + 3 <= limit
        if fits and not _agree(trial, plain, sample):
            logger.warning(
                "%s does not give the same result with a shared key/value cache; every pair gets a plain forward pass, "
                "which is slower. Try `attn_implementation='sdpa'` or 'eager' for the model.",
                type(self.model).__name__,
            )
            return
        self._shared = SharedScoring(self.model, self.rows, prompt_first, *common, self._batches, cache_bytes)

    def _check_prompts(self, prompts: Sequence[tuple[int, ...]]) -> None:
        for prompt in prompts:
            check_in_vocabulary(prompt, input_embeddings(self.model))
        limit = model_max_length(self.model)
        if prompts and limit is not None:
            longest = max(prompts, key=len)
            number, row = max(enumerate(self.rows), key=lambda item: item[1].length)
            length = len(row.compose(longest, self._causal, whole=True)[0])
            if length > limit:
                raise ValueError(
                    f"row {number} with a prompt of {len(longest)} is {length} tokens, the model takes {limit}; cut "
                    "the texts (`max_length=`) or use shorter prompts."
                )


class _Choices:
    """Possible answers as rows of their own: each has the loss of its tokens, whose sum is the answer's score."""

    def __init__(
        self,
        model: PreTrainedModel,
        rows: Sequence[Mapping[str, Any]],
        choices: Sequence[Sequence[Sequence[int]]],
        **options: Any,
    ) -> None:
        made: list[dict[str, list[int]]] = []
        for number, (row, answers) in enumerate(zip(rows, choices, strict=True)):
            read = without_padding(row, number)
            first = first_labelled(read["labels"])
            for answer in answers:
                labels, mask = [IGNORED] * first + [*answer], read["attention_mask"][:first] + [1] * len(answer)
                ids = [*read["input_ids"][:first], *answer]
                made.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
        self.scorer = TaskScorer(model, made, **options)
        device = self.scorer.device
        self.counts = torch.tensor([len(answer) for answers in choices for answer in answers], device=device)
        self.rows = torch.tensor([i for i, answers in enumerate(choices) for _ in answers], device=device)
        self.columns = torch.tensor([j for answers in choices for j in range(len(answers))], device=device)

    def log_probs(self, prompts: Prompts) -> Tensor:
        """(prompts, rows, most answers) normalised over each row's answers."""
        sums = -self.scorer.losses(prompts) * self.counts  # (prompts, answers of all rows)
        shape = (len(sums), int(self.rows.max()) + 1, int(self.columns.max()) + 1)
        found = sums.new_full(shape, -torch.inf)
        found[:, self.rows, self.columns] = sums
        return found.log_softmax(-1)


def is_causal(model: PreTrainedModel) -> bool:
    """Whether a language model predicts the next token; a masked one predicts the token at its own position."""
    return getattr(model, "loss_type", None) != "ForMaskedLM" and not type(model).__name__.endswith("ForMaskedLM")


def _agree(trial: SharedScoring, plain: PlainScoring, rows: Sequence[Row]) -> bool:
    """Try both on two rows and four short prompts made of the rows' own tokens."""
    a, b = rows[0].ids[0], rows[-1].ids[-1]
    prompts = [(a,), (a, b), (a, a), (b, a, b)]
    expected = torch.empty(len(prompts), len(rows), device=input_embeddings(trial.model).weight.device)
    found = torch.empty_like(expected)
    plain.score(expected, prompts, whole=True)
    trial.score(found, prompts, whole=True)
    tolerance = 1e-2 if trial.model.dtype in (torch.float32, torch.float64) else 0.5
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def _label_tensor(ids: Sequence[int] | None, model: PreTrainedModel, device: torch.device) -> Tensor | None:
    if ids is None:
        return None
    size = model.get_output_embeddings().weight.shape[0]
    if len(set(ids)) < 2 or len(set(ids)) < len(ids) or not all(0 <= i < size for i in ids):
        raise ValueError(f"`label_token_ids={list(ids)}` must be at least two different ids from 0 to {size - 1}.")
    return torch.tensor([int(i) for i in ids], device=device)


def _check_masked(rows: Sequence[Row]) -> None:
    """Refuse rows as a causal LM reads them, in which the answer stands at its own place."""
    for number, row in enumerate(rows):
        if all(row.ids[i] == label for i, label in enumerate(row.labels) if label != IGNORED):
            raise ValueError(
                f"row {number} shows a masked language model its own answer. Encode the rows with the mask token where "
                "the answer is asked, the answer in `labels` there, and -100 elsewhere."
            )


def _check_model(model: AnyModel) -> None:
    config = getattr(model, "active_peft_config", None)
    if config is not None and config.is_prompt_learning:
        raise ValueError("the model adds a prompt of its own; give its base model (`model.get_base_model()`).")
    parameters = inspect.signature(model.forward).parameters
    if model.config.is_encoder_decoder or model.get_output_embeddings() is None or "input_ids" not in parameters:
        raise ValueError(
            f"{type(model).__name__} is not a causal or masked language model; prompts are scored on those."
        )

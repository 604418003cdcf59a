"""The model that `get_peft_model` returns for a causal language model.

Each row of the input becomes `pads | BOS | prompt | text`, or `pads | BOS | text | prompt | answer` with
`prompt_position="end"`, or has the prompt where it says with "template". Without a gradient a projected prompt enters
as plain token ids, so that the adapter and its text are one thing by construction; with one it enters as vectors of the
same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from peft import PeftModelForCausalLM
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from peft_interp.inference.compat import take_cache, with_cache
from peft_interp.inference.compilation import without_compiling
from peft_interp.inference.full_attention import continues_from_cache
from peft_interp.inference.head import tapped_head
from peft_interp.inference.model_lock import locked
from peft_interp.inference.padding_habits import first_position, position_ids_for
from peft_interp.text.placement import IGNORED, MARKED, START
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.embedding import Prompt
from peft_interp.tuner.fluency import batch_share
from peft_interp.tuner.generation import generate_after_prompt
from peft_interp.tuner.layout import after_leading, first_attended, known_ids, place_prompt
from peft_interp.tuner.model_inputs import Composed, check_positions, check_shapes
from peft_interp.tuner.prompt_model import PromptModelMixin
from peft_interp.tuner.training_step import StepMemory, Way, start_step
from peft_interp.tuner.training_step_at_end import check_answers, prompt_alone, text_first_loss
from peft_interp.tuner.ways import StepChooser

# What a step that returns only the loss understands; anything else (TRL's fused head, say) takes the plain pass.
_UNDERSTOOD = ("use_cache", "return_dict", "num_items_in_batch")


class InterpPromptModelForCausalLM(PromptModelMixin, PeftModelForCausalLM):  # type: ignore[misc]
    """Causal LM with a readable prompt.

    In training with labels only the loss is computed (the prompt is run once per batch, or the text without gradient,
    logits only where a label is, and none are returned); `share_prefix=False` keeps the plain pass. Otherwise logits
    have stock PEFT's shape, (batch, prompt + length, vocabulary), in reading order: for a prompt at the start, the
    logits of the text in the last `length` columns; for one at the end, those of the answer in the last columns.

    With `prompt_position="end"` labels say where the answer begins: the prompt stands before a row's first label that
    is not -100. Without labels it stands after the row's last token, so an answer must not be in the input then.

    With `prompt_position="template"` each row has one column inside that its `attention_mask` leaves out, and the
    prompt stands in its place: logits have one column less.
    """

    def _setup_prompt_encoder(self, adapter_name: str) -> None:
        if isinstance(self.peft_config[adapter_name], InterpPromptConfig) and self.base_model.config.is_encoder_decoder:
            raise ValueError(
                f"`task_type='CAUSAL_LM'` needs a model with a decoder alone, and {type(self.base_model).__name__} has "
                "an encoder too: use `task_type='SEQ_2_SEQ_LM'`, which puts the prompt into the encoder's input."
            )
        super()._setup_prompt_encoder(adapter_name)

    @locked
    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `PeftModelForCausalLM.forward`; in training the loss includes the perplexity term.

        Raises:
            ValueError: Trainer took the labels away (label smoothing, `compute_loss_func`), packed rows, a mask that
                is not (batch, length), a perplexity term without a language-model head, or whole texts as labels for
                a prompt at the end.
            FloatingPointError: the training loss is not finite.
        """
        text = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        if not self._readable_prompt_active:
            return super().forward(**text, labels=labels, **kwargs)
        self._check_labels_present(labels, kwargs)
        check_shapes(input_ids if input_ids is not None else inputs_embeds, labels)
        cache = take_cache(kwargs)
        cached = _cached_length(cache)
        if not cached:
            check_positions(kwargs.pop("position_ids", None), attention_mask, first_position(self.base_model))
        kwargs = {k: v for k, v in kwargs.items() if k not in ("token_type_ids", "task_ids") and v is not None}
        if cache is not None:
            kwargs |= with_cache(self.base_model, cache)
        if cached:
            return self._continue(text, labels, kwargs)
        self._check_room(text)
        output = None
        if self._wants_term() and not torch.compiler.is_compiling():
            self._expect_terms(self._encoder(None), text)
        if self.training and labels is not None and self.active_peft_config.share_prefix is not False:
            output = self._fast_step(text, labels, kwargs)
        return self._plain_pass(text, labels, kwargs) if output is None else output

    @locked
    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As `transformers`' generate after the prompt; returns the input's ids and the new ones, not the prompt."""
        if not self._readable_prompt_active or self._adapters_disabled:
            return super().generate(*args, **kwargs)
        with torch.no_grad():  # a prompt without gradient enters as ids, which generate's penalties can see
            _, prompt = self._prompt()
        cache = take_cache(kwargs)
        kwargs |= {} if cache is None else with_cache(self.base_model, cache)
        cached = _cached_length(cache) - len(prompt.ids)  # columns of text, if any

        def compose(**text: Any) -> Composed:
            given = text["input_ids"] if text["input_ids"] is not None else text["inputs_embeds"]
            columns = torch.arange(given.shape[1], device=given.device)
            after = columns.ge(cached).expand(len(given), -1) if cached >= 0 else None  # what the cache has not seen
            self._check_room(text)
            return self._compose(prompt, answer=after, **text)

        return generate_after_prompt(self.base_model, compose, *args, **kwargs)

    @property
    def _before_answer(self) -> bool:
        return bool(self.active_peft_config.placement.before_answer)

    @property
    def _before_text(self) -> bool:
        return bool(self.active_peft_config.placement.before_text)

    def _plain_pass(self, text: dict[str, Any], labels: Tensor | None, kwargs: dict[str, Any]) -> Any:
        """Every row with its own copy of the prompt, as stock PEFT does it."""
        encoder, prompt = self._prompt()
        composed = self._compose(prompt, answer=_answer(labels), **text)
        layout = composed.layout
        inputs = composed.with_positions(self.base_model) if self._takes("position_ids") else composed.inputs
        if labels is not None:
            marked = self.active_peft_config.placement.marked  # a row's first token is predicted by nothing
            answers = _without_leading(labels, self._first_text(labels.shape, text) + 1 if marked else layout.start)
            if self._before_answer:
                check_answers(answers, layout.start, self._first_text(labels.shape, text))
            inputs = {**inputs, "labels": layout.fill(IGNORED, answers)}
        wants_term = labels is not None and self._wants_term()
        needs_logits = wants_term and self._needs_own_logits()
        needs_logits = needs_logits and self.base_model.get_output_embeddings() is not None
        with tapped_head(self.base_model) if needs_logits and self._before_text else nullcontext() as tap:
            run = self.base_model if tap is None else without_compiling(self.base_model)
            output = run(**inputs, **{**kwargs, "return_dict": True})
        logits, hidden = None, None
        if tap is not None and tap.hidden is not None and getattr(output, "logits", None) is not None:
            span = slice(int(layout.start[0]), int(layout.start[0]) + layout.prompt_length)
            logits, hidden = output.logits[0, span], tap.hidden[0, span]
        elif needs_logits:
            logits, hidden = self._prompt_alone(prompt, text)
        if wants_term and labels is not None and output.loss is not None:
            share = self._share(labels, kwargs.get("num_items_in_batch"))
            output.loss = self._add_term(output.loss, share, encoder, prompt, logits, hidden)
        self._check_loss(output.loss)
        if self.active_peft_config.align_logits_with_labels and getattr(output, "logits", None) is not None:
            aligned = layout.text_first if self._before_text else layout.predictions
            output.logits = aligned(output.logits)[:, : layout.length]
        return output.to_tuple() if kwargs.get("return_dict") is False else output

    def _fast_step(self, text: dict[str, Any], labels: Tensor, kwargs: dict[str, Any]) -> Any | None:
        """A step that computes the loss alone; None where only the plain pass is right, which is then said once."""
        chooser: StepChooser = self.__dict__.setdefault("_step_chooser", StepChooser())
        given = text["input_ids"] if text["input_ids"] is not None else text["inputs_embeds"]
        if not _well_formed(text) or given is None or not given.shape[1]:
            return None  # the plain pass tells what is wrong
        if (wanted := _beyond_the_loss(kwargs)) is not None:
            chooser.fall_back("the plain pass", f"`{wanted}` asks for more than the loss")
            return None
        if self.active_peft_config.placement.marked:
            chooser.fall_back("the plain pass", "the prompt stands inside the rows, where each of them says")
            return None
        if self._before_answer:
            if continues_from_cache(self.base_model):
                return self._text_first_step(text, labels, kwargs)
            chooser.fall_back("the plain pass", f"{type(self.base_model).__name__} cannot go on from a key/value cache")
            return None
        config = self.active_peft_config
        way = chooser.choose(self.base_model, config.share_prefix, config.num_virtual_tokens, labels.shape)
        output = None if way is None else self._start_step(chooser.memory, way, text, labels, kwargs)
        if way is not None and output is None:
            chooser.fall_back(
                "the plain pass",
                "rows of this batch begin differently (BOS), or have labels or gaps among their padding",
            )
        return output

    def _start_step(
        self, memory: StepMemory, way: Way, text: dict[str, Any], labels: Tensor, kwargs: dict[str, Any]
    ) -> Any | None:
        """The prompt at the start, run in one of the ways that `training_step` knows."""
        encoder, prompt = self._prompt()
        needs_logits = self._needs_own_logits()
        items = kwargs.get("num_items_in_batch")
        step = start_step(
            self.base_model,
            memory,
            way,
            prompt=prompt.vectors,
            prompt_ids=prompt.ids if needs_logits else None,
            text_ids=text["input_ids"],
            text_embeds=text["inputs_embeds"],
            text_mask=text["attention_mask"],
            labels=labels,
            leading_ids=self.active_peft_config.leading_token_ids or (),
            num_items_in_batch=items,
        )
        if step is None:
            return None
        loss = step.loss
        if self._wants_term():
            share = self._share(labels, items)
            loss = self._add_term(loss, share, encoder, prompt, step.logits, step.hidden, step.prompt_losses)
        self._check_loss(loss)
        return CausalLMOutputWithPast(loss=loss)

    def _text_first_step(self, text: dict[str, Any], labels: Tensor, kwargs: dict[str, Any]) -> Any:
        """The text without gradient, then the prompt and the answer after it."""
        encoder, prompt = self._prompt()
        leading_ids = self.active_peft_config.leading_token_ids or ()
        ids, mask = text["input_ids"], text["attention_mask"]
        layout = place_prompt(
            labels.shape,
            len(prompt.ids),
            self._known_ids(text),
            mask,
            leading_ids,
            self.active_peft_config.placement,
            _answer(labels),
        )
        start = layout.start.to(labels.device)
        answers = _without_leading(labels, start)
        check_answers(answers, start, self._first_text(labels.shape, text))
        items = kwargs.get("num_items_in_batch")
        loss = text_first_loss(
            self.base_model,
            prompt=prompt.vectors.to(encoder.table.device, encoder.table.dtype),
            text_ids=ids,
            text_embeds=text["inputs_embeds"],
            text_mask=torch.ones_like(labels) if mask is None else mask,
            start=start,
            labels=answers,
            num_items_in_batch=items,
        )
        if self._wants_term():
            logits, hidden = self._prompt_alone(prompt, text) if self._needs_own_logits() else (None, None)
            loss = self._add_term(loss, self._share(labels, items), encoder, prompt, logits, hidden)
        self._check_loss(loss)
        return CausalLMOutputWithPast(loss=loss)

    def _prompt_alone(self, prompt: Prompt, text: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Logits and states of the prompt after the first row's leading token, without any text."""
        first_row = {name: None if given is None else given[:1] for name, given in text.items()}
        leading = torch.zeros(0, dtype=torch.long, device=prompt.ids.device)
        if (ids := self._known_ids(first_row)) is not None:
            end = int(self._first_text(ids.shape, first_row))
            begin = 0 if first_row["attention_mask"] is None else int(first_attended(first_row["attention_mask"]))
            leading = ids[0, begin:end]
        embedded = self.word_embeddings.forward(leading)  # without NEFTune's noise
        return prompt_alone(self.base_model, embedded, prompt.vectors.to(embedded.device, embedded.dtype))

    def _first_text(self, shape: Sequence[int], text: dict[str, Any]) -> Tensor:
        """(batch,) column of each row's first token after padding and BOS."""
        leading_ids = self.active_peft_config.leading_token_ids or ()
        return after_leading(shape, self._known_ids(text), text["attention_mask"], leading_ids)

    def _known_ids(self, text: dict[str, Any]) -> Tensor | None:
        leading_ids = self.active_peft_config.leading_token_ids or ()
        return known_ids(
            text["input_ids"], text["inputs_embeds"], text["attention_mask"], self.word_embeddings, leading_ids
        )

    def _continue(self, text: dict[str, Any], labels: Tensor | None, kwargs: dict[str, Any]) -> Any:
        """A pass that continues from a cache which already holds the prompt."""
        mask = text["attention_mask"]
        kwargs.pop("position_ids", None)
        if mask is not None:
            prompt_length = self.active_peft_config.num_virtual_tokens
            given = text["input_ids"] if text["input_ids"] is not None else text["inputs_embeds"]
            # the mask of a prompt at the end is the same: it stands among attended columns
            place = MARKED if self.active_peft_config.placement.marked else START
            layout = place_prompt(mask.shape, prompt_length, attention_mask=mask, placement=place)
            text["attention_mask"] = layout.fill(1, mask)
            if self._takes("position_ids"):
                kwargs["position_ids"] = position_ids_for(self.base_model, text["attention_mask"])[:, -given.shape[1] :]
        return self.base_model(**text, labels=labels, **kwargs)

    def _share(self, labels: Tensor, num_items_in_batch: Any) -> Tensor | float:
        """This batch's share of the labels, without the first column where Trainer knows the loss to shift them."""
        shifts = getattr(self.base_model, "loss_type", None) == "ForCausalLM"
        return batch_share(labels[:, 1:] if shifts else labels, num_items_in_batch)

    def _check_labels_present(self, labels: Tensor | None, kwargs: dict[str, Any]) -> None:
        """Trainer removes the labels for `label_smoothing_factor` and `compute_loss_func`, but passes their number."""
        if labels is not None or kwargs.get("num_items_in_batch") is None:
            return
        if not self.active_peft_config.align_logits_with_labels:
            raise ValueError(
                "the labels were taken out of the batch, as Trainer does for `label_smoothing_factor` and "
                "`compute_loss_func`. Set `label_smoothing_factor=0`. A `compute_loss_func` works with "
                "`InterpPromptConfig(align_logits_with_labels=True)`, with or without a perplexity term."
            )


def _well_formed(text: dict[str, Any]) -> bool:
    """Whether exactly one of ids and embeddings is given, with a mask of its shape or none."""
    if (text["input_ids"] is None) == (text["inputs_embeds"] is None):
        return False
    given = text["input_ids"] if text["input_ids"] is not None else text["inputs_embeds"]
    return text["attention_mask"] is None or text["attention_mask"].shape == given.shape[:2]


def _beyond_the_loss(kwargs: dict[str, Any]) -> str | None:
    """The argument of a call that asks for more than a loss, if there is one."""
    if kwargs.get("return_dict") is False:
        return "return_dict=False"
    return next((name for name, value in kwargs.items() if value is not False and name not in _UNDERSTOOD), None)


def _answer(labels: Tensor | None) -> Tensor | None:
    return None if labels is None else labels.ne(IGNORED)


def _cached_length(cache: Any) -> int:
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0


def _columns_before(start: Tensor, reference: Tensor) -> Tensor:
    """(batch, length) bool: columns in front of the place where the prompt is inserted."""
    columns = torch.arange(reference.shape[1], device=reference.device)
    return columns < start.to(reference.device).unsqueeze(1)


def _without_leading(labels: Tensor, start: Tensor) -> Tensor:
    """Labels without those of padding and of a leading token, which nothing can predict."""
    return labels.masked_fill(_columns_before(start, labels), IGNORED)

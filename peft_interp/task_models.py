"""The models that `get_peft_model` returns for every task but causal language modelling.

Heads that give one output per token answer in the input's own order: row i of the logits is token i of the input, as
the labels and the usual post-processing expect, and the prompt's rows come last. Shapes are stock PEFT's.

These heads ignore `num_items_in_batch`, for which Trainer relies on them: in stock PEFT the gradient of four
accumulated batches is four times that of one. Here the loss is the batch's mean times its share of the whole.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import (
    PeftModelForFeatureExtraction,
    PeftModelForQuestionAnswering,
    PeftModelForSeq2SeqLM,
    PeftModelForSequenceClassification,
    PeftModelForTokenClassification,
)
from torch import Tensor

from peft_interp.fluency import batch_share
from peft_interp.layout import PromptLayout
from peft_interp.model_inputs import check_positions
from peft_interp.prompt_model import PromptModelMixin

Arranged = dict[str, Tensor]


class TaskModelMixin(PromptModelMixin):
    """Forward pass of a model that reads one sequence with the prompt inside."""

    _per_token_outputs: tuple[str, ...] = ()

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the PEFT class for the same task; in training the loss includes the perplexity term.

        Raises:
            ValueError: packed rows, a mask that is not (batch, length), or a perplexity term without a language model.
            FloatingPointError: the training loss is not finite.
        """
        text = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        if not self._readable_prompt_active:
            return super().forward(**text, **kwargs)
        check_positions(kwargs.pop("position_ids", None), attention_mask)
        kwargs = {k: v for k, v in kwargs.items() if k != "task_ids" and v is not None}
        encoder, prompt = self._prompt()
        reads_last = hasattr(self.base_model, "score")  # a causal model with a classifier, which pools the last token
        if reads_last and attention_mask is None and input_ids is not None:
            text["attention_mask"] = _not_padding(input_ids, self.base_model.config.pad_token_id)
        composed = self._compose(prompt, last_column_is_read=reads_last, **text)
        with_positions = reads_last and self._takes("position_ids")
        inputs = composed.with_positions() if with_positions else composed.inputs
        if "token_type_ids" in kwargs:
            inputs = {**inputs, "token_type_ids": composed.layout.fill(0, kwargs.pop("token_type_ids"))}
        labels = kwargs.get("labels")
        items = kwargs.pop("num_items_in_batch", None)
        arranged = self._arrange_labels(composed.layout, kwargs)
        output = self.base_model(**inputs, **{**kwargs, **arranged, "return_dict": True})
        loss = getattr(output, "loss", None)
        if loss is not None and self.training:
            if self._wants_term():
                loss = self._add_term(loss, 1.0, encoder, prompt)
            output.loss = loss * batch_share(labels, items)
            self._check_loss(output.loss)
        for name in self._per_token_outputs:
            output[name] = composed.layout.text_first(output[name])
        return output.to_tuple() if kwargs.get("return_dict") is False else output

    def _arrange_labels(self, layout: PromptLayout, kwargs: dict[str, Any]) -> Arranged:
        """Labels that name columns, moved to the composed row's columns."""
        return {}


class InterpPromptModelForSequenceClassification(TaskModelMixin, PeftModelForSequenceClassification):  # type: ignore[misc]
    """Sequence classifier with a readable prompt and a trained head."""


class InterpPromptModelForTokenClassification(TaskModelMixin, PeftModelForTokenClassification):  # type: ignore[misc]
    """Token classifier with a readable prompt and a trained head; logits begin with the input's tokens."""

    _per_token_outputs = ("logits",)

    def _arrange_labels(self, layout: PromptLayout, kwargs: dict[str, Any]) -> Arranged:
        labels = kwargs.get("labels")
        return {} if labels is None else {"labels": layout.fill(-100, labels)}


class InterpPromptModelForQuestionAnswering(TaskModelMixin, PeftModelForQuestionAnswering):  # type: ignore[misc]
    """Extractive question answering with a readable prompt and a trained head.

    Start and end positions, given and predicted, are columns of the input as it was given.
    """

    _per_token_outputs = ("start_logits", "end_logits")

    def _arrange_labels(self, layout: PromptLayout, kwargs: dict[str, Any]) -> Arranged:
        names = [name for name in ("start_positions", "end_positions") if kwargs.get(name) is not None]
        return {name: _moved(kwargs[name], layout) for name in names}


class InterpPromptModelForFeatureExtraction(TaskModelMixin, PeftModelForFeatureExtraction):  # type: ignore[misc]
    """Encoder with a readable prompt; hidden states cover prompt and text, in reading order."""


class InterpPromptModelForSeq2SeqLM(TaskModelMixin, PeftModelForSeq2SeqLM):  # type: ignore[misc]
    """Encoder-decoder with a readable prompt in the encoder's input."""

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As `transformers`' generate, with the prompt in the encoder's input.

        Raises:
            ValueError: neither `input_ids` nor `inputs_embeds`.
        """
        if not self._readable_prompt_active or self._adapters_disabled:
            return super().generate(*args, **kwargs)
        given = args[0] if args else kwargs.pop("inputs", kwargs.pop("input_ids", None))
        embeds = kwargs.pop("inputs_embeds", None)
        if given is None and embeds is None:
            raise ValueError("`generate` needs `input_ids` or `inputs_embeds` for the encoder.")
        for derived in ("encoder_outputs", "position_ids", "token_type_ids", "task_ids"):
            kwargs.pop(derived, None)
        mask = kwargs.pop("attention_mask", None)
        _, prompt = self._prompt()
        composed = self._compose(prompt, input_ids=given, inputs_embeds=embeds, attention_mask=mask)
        return self.base_model.generate(*args[1:], **composed.inputs, **kwargs)


def _not_padding(input_ids: Tensor, pad_token_id: int | None) -> Tensor | None:
    return None if pad_token_id is None else input_ids.ne(pad_token_id).long()


def _moved(column: Tensor, layout: PromptLayout) -> Tensor:
    """(batch,) columns of the text -> columns of the composed row; columns behind the text stay behind the row."""
    places = layout.text_columns().to(column.device)  # (batch, length)
    inside = column.reshape(-1).clamp(0, places.shape[1] - 1)
    moved = places.gather(1, inside.unsqueeze(1)).squeeze(1)
    return torch.where(column.reshape(-1) < places.shape[1], moved, layout.order.shape[1])

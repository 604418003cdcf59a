"""The models that `get_peft_model` returns for every task but causal language modelling.

Heads that give one output per token answer in the input's own order: row i of the logits is token i of the input, as
the labels and the usual post-processing expect, and the prompt's rows come last. Shapes are stock PEFT's; what marks
the place of a prompt inside a row has an output only where each token has one.

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

from peft_interp.inference.model_lock import locked
from peft_interp.inference.models import generate_of
from peft_interp.inference.padding_habits import first_position, reads_last_column
from peft_interp.text.placement import START
from peft_interp.text.tokenization import pad_token_id
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.fluency import batch_share
from peft_interp.tuner.generation import attended, named_arguments
from peft_interp.tuner.layout import PromptLayout
from peft_interp.tuner.model_inputs import Composed, check_positions
from peft_interp.tuner.prompt_model import PromptModelMixin
from peft_interp.tuner.task_types import prompt_task

Arranged = dict[str, Tensor]


class TaskModelMixin(PromptModelMixin):
    """Forward pass of a model that reads one sequence with the prompt inside."""

    _per_token_outputs: tuple[str, ...] = ()
    _output_of_mark = 0.0  # where a row marks the prompt's place

    def _setup_prompt_encoder(self, adapter_name: str) -> None:
        super()._setup_prompt_encoder(adapter_name)
        config, name = self.peft_config[adapter_name], type(self.base_model).__name__
        task = prompt_task(config.task_type) if isinstance(config, InterpPromptConfig) else None
        if task is not None and task.has_head and name.endswith(("ForCausalLM", "LMHeadModel")):
            raise ValueError(
                f"`task_type={task.name!r}` needs a model with that head, and {name} is a causal language model: use "
                f"`task_type='CAUSAL_LM'`, or load the model with `{task.auto_class}`."
            )

    @locked
    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the PEFT class for the same task; in training the loss includes the perplexity term.

        Raises:
            ValueError: packed rows, a mask that is not (batch, length), or a perplexity term without a language model
                or with labels taken out by Trainer (label smoothing, `compute_loss_func`).
            FloatingPointError: the training loss is not finite.
        """
        text = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        if not self._readable_prompt_active:
            return super().forward(**text, **kwargs)
        check_positions(kwargs.pop("position_ids", None), attention_mask, first_position(self.base_model))
        kwargs = {k: v for k, v in kwargs.items() if k != "task_ids" and v is not None}
        encoder, prompt = self._prompt()
        reads_last = self._reads_last()
        if reads_last and input_ids is not None:
            text["attention_mask"] = self._up_to_pooled(input_ids, attention_mask)
        composed = self._compose(prompt, last_column_is_read=reads_last, answer=self._answer(input_ids), **text)
        inputs = self._with_positions(composed) if self._takes("position_ids") else composed.inputs
        self._check_takes_vectors(inputs)
        self._check_room(text, lambda: not self._skips_padding(inputs))
        if "token_type_ids" in kwargs:
            inputs = {**inputs, "token_type_ids": self._token_types(composed.layout, kwargs.pop("token_type_ids"))}
        labels = kwargs.get("labels")
        items = kwargs.pop("num_items_in_batch", None)
        if labels is None and items is not None and self._wants_term():
            raise ValueError(
                "the labels were taken out of the batch, as Trainer does for `label_smoothing_factor` and "
                "`compute_loss_func`, and the perplexity term would be lost with the model's loss. Use neither, or "
                "`perplexity_weight=0`."
            )
        arranged = self._arrange_labels(composed.layout, kwargs)
        output = self.base_model(**inputs, **{**kwargs, **arranged, "return_dict": True})
        loss = getattr(output, "loss", None)
        if loss is not None:
            if self._wants_term():
                loss = self._add_term(loss, 1.0, encoder, prompt)
            output.loss = loss * batch_share(labels, items)  # in evaluation 1 / processes, by which Trainer multiplies
            self._check_loss(output.loss)
        for name in self._per_token_outputs:
            output[name] = composed.layout.text_first(output[name], self._output_of_mark)
        return output.to_tuple() if kwargs.get("return_dict") is False else output

    def _answer(self, input_ids: Tensor | None) -> Tensor | None:
        """(batch, length) what is to be predicted, where the placement asks for it; None for nothing."""
        return None

    def _token_types(self, layout: PromptLayout, types: Tensor) -> Tensor:
        """Segments of the composed row: the prompt's is that of its mark, and 0 in front of a text."""
        if not self.active_peft_config.placement.marked:
            return layout.fill(0, types)
        own = types.gather(1, layout.start.to(types.device).unsqueeze(1))  # (batch, 1)
        return layout.insert(own.expand(-1, layout.prompt_length), types)

    def _with_positions(self, composed: Composed) -> dict[str, Tensor]:
        """Position ids where the base model's own would count padding: causal ones, RoBERTa's after embeddings."""
        counts = first_position(self.base_model) > 0 and "inputs_embeds" in composed.inputs
        return composed.with_positions(self.base_model) if counts or self._reads_last() else composed.inputs

    def _reads_last(self) -> bool:
        """Whether this is a decoder with a classifier, which pools the last token."""
        task = prompt_task(self.active_peft_config.task_type)
        return bool(task is not None and task.pools and reads_last_column(self.base_model))

    def _check_takes_vectors(self, inputs: dict[str, Tensor]) -> None:
        """Refuse to train what makes its decoder's input, or its choice of token, of `input_ids` alone."""
        task = prompt_task(self.active_peft_config.task_type)
        needs_ids = task is not None and (task.pools or task.name == "QUESTION_ANS")
        if "inputs_embeds" in inputs and needs_ids and self.base_model.config.is_encoder_decoder:
            raise ValueError(
                f"{type(self.base_model).__name__} takes no vectors, as which a trained prompt enters; use a head on "
                "an encoder or a decoder, or `task_type='SEQ_2_SEQ_LM'`."
            )

    def _skips_padding(self, inputs: dict[str, Tensor]) -> bool:
        """Whether padding takes no position: with position ids of ours, or where the model makes them of its ids."""
        makes = any(hasattr(module, "create_position_ids_from_input_ids") for module in self.base_model.modules())
        return "position_ids" in inputs or makes

    def _up_to_pooled(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The mask without what stands after the token the classifier reads: the last that is no pad token."""
        config = self.base_model.config.get_text_config()
        mask = attended(config, input_ids, None) if attention_mask is None else attention_mask
        pad = pad_token_id(config)
        if pad is None or mask.shape != input_ids.shape:  # a wrong mask is refused later
            return mask
        after = input_ids.ne(pad).flip(1).cumsum(dim=1).flip(1).eq(0)  # (batch, length)
        return mask.masked_fill(after.to(mask.device) & ~after.all(dim=1, keepdim=True).to(mask.device), 0)

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
    _output_of_mark = torch.finfo(torch.float16).min  # no answer begins or ends there

    def _arrange_labels(self, layout: PromptLayout, kwargs: dict[str, Any]) -> Arranged:
        names = [name for name in ("start_positions", "end_positions") if kwargs.get(name) is not None]
        return {name: _moved(kwargs[name], layout) for name in names}


class InterpPromptModelForFeatureExtraction(TaskModelMixin, PeftModelForFeatureExtraction):  # type: ignore[misc]
    """Encoder or masked LM with a readable prompt; hidden states or logits cover prompt and text, in reading order.

    With `prompt_position="end"` the prompt stands right before each row's first mask token, as in RLPrompt's
    `{text} {prompt} <mask>`. Labels of a masked LM are (batch, length), as the input was given.
    """

    def _setup_prompt_encoder(self, adapter_name: str) -> None:
        super()._setup_prompt_encoder(adapter_name)
        config: Any = self.peft_config[adapter_name]
        if not isinstance(config, InterpPromptConfig):
            return
        if config.placement.before_answer and config.mask_token_id is None:
            named = config.tokenizer_name_or_path or config.base_model_name_or_path
            raise ValueError(
                f"`prompt_position={config.prompt_position!r}` needs the mask token that the prompt stands in front "
                f"of, and the tokenizer {named!r} names none; "
                f"name a masked LM's tokenizer in `tokenizer_name_or_path`, set `mask_token_id`, or use {START.name!r}."
            )

    def _answer(self, input_ids: Tensor | None) -> Tensor | None:
        config = self.active_peft_config
        if not config.placement.before_answer:
            return None
        shown = f"`prompt_position={config.prompt_position!r}`"
        if input_ids is None:
            raise ValueError(f"{shown} finds the mask in `input_ids`; give those, not `inputs_embeds`.")
        masks = input_ids.eq(config.mask_token_id)
        if not bool(masks.any(dim=1).all()):
            rows = (~masks.any(dim=1)).nonzero().flatten().tolist()
            raise ValueError(
                f"rows {rows} of the batch hold no mask token (id {config.mask_token_id}), before "
                f"which {shown} puts the prompt; put one where the answer is asked, or use {START.name!r}."
            )
        return masks

    def _arrange_labels(self, layout: PromptLayout, kwargs: dict[str, Any]) -> Arranged:
        labels = kwargs.get("labels")
        if labels is None or labels.shape != layout.text_columns().shape:
            return {}
        return {"labels": layout.fill(-100, labels)}


class InterpPromptModelForSeq2SeqLM(TaskModelMixin, PeftModelForSeq2SeqLM):  # type: ignore[misc]
    """Encoder-decoder with a readable prompt in the encoder's input."""

    @locked
    def generate(self, **kwargs: Any) -> Any:
        """As `transformers`' generate, with the prompt in the encoder's input; all arguments by name, as PEFT's.

        Raises:
            ValueError: neither `input_ids` nor `inputs_embeds`.
        """
        if not self._readable_prompt_active or self._adapters_disabled:
            return super().generate(**kwargs)
        kwargs = named_arguments(self.base_model, (), kwargs)
        given, embeds = kwargs.pop("input_ids", None), kwargs.pop("inputs_embeds", None)
        if given is None and embeds is None:
            raise ValueError("`generate` needs `input_ids` or `inputs_embeds` for the encoder.")
        for derived in ("encoder_outputs", "position_ids", "token_type_ids", "task_ids"):
            kwargs.pop(derived, None)
        mask = kwargs.pop("attention_mask", None)
        with torch.no_grad():
            _, prompt = self._prompt()
        composed = self._compose(prompt, input_ids=given, inputs_embeds=embeds, attention_mask=mask)
        return generate_of(self.base_model)(**composed.inputs, **kwargs)


def _moved(column: Tensor, layout: PromptLayout) -> Tensor:
    """(batch,) columns of the text -> columns of the composed row; columns after the text stay after the row."""
    places = layout.text_columns().to(column.device)  # (batch, length)
    inside = column.reshape(-1).clamp(0, places.shape[1] - 1)
    moved = places.gather(1, inside.unsqueeze(1)).squeeze(1)
    return torch.where(column.reshape(-1) < places.shape[1], moved, layout.order.shape[1])

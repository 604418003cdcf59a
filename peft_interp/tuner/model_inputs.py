"""Builds what the base model sees: the prompt put into every row, as ids or as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from peft_interp.inference.padding_habits import position_ids_for
from peft_interp.text.placement import START, Placement
from peft_interp.tuner.embedding import Prompt
from peft_interp.tuner.layout import PromptLayout, known_ids, pads_first, place_prompt, positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_IDS = ("input_ids", "(batch, length)")


@dataclass(frozen=True)
class Composed:
    """The base model's inputs with the prompt inside.

    Attributes:
        inputs: keyword arguments: `input_ids` or `inputs_embeds`, and `attention_mask` unless the caller gave none.
        layout: how the rows were composed.
    """

    inputs: dict[str, Tensor]
    layout: PromptLayout

    def with_positions(self, model: PreTrainedModel) -> dict[str, Tensor]:
        """The inputs plus position ids that do not count padding, from `model`'s first position on."""
        mask = self.inputs.get("attention_mask")
        return self.inputs if mask is None else {**self.inputs, "position_ids": position_ids_for(model, mask)}


def compose_inputs(
    prompt: Prompt,
    word_embeddings: nn.Module,
    leading_token_ids: Sequence[int],
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    as_ids: bool,
    last_column_is_read: bool = False,
    placement: Placement = START,
    answer: Tensor | None = None,
) -> Composed:
    """Put the prompt into every row, as `place_prompt` says.

    Args:
        prompt: what to insert.
        word_embeddings: the base model's embedding module.
        leading_token_ids: ids that stay in front of the prompt.
        input_ids: (batch, length), or None with `inputs_embeds`.
        inputs_embeds: (batch, length, dim). A leading token is known by its row of the table.
        attention_mask: (batch, length) or None.
        as_ids: compose token ids where possible (exact, no gradient to the prompt); otherwise vectors.
        last_column_is_read: the head reads the last column of rows given as embeddings; move padding to the left then.
        placement: where the prompt goes.
        answer: (batch, length) bool, what is to be predicted; None for nothing.

    Returns:
        Inputs and layout.

    Raises:
        ValueError: neither or both of `input_ids` and `inputs_embeds`, or a mask that is not (batch, length).
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give exactly one of `input_ids` and `inputs_embeds`.")
    text = input_ids if input_ids is not None else inputs_embeds
    assert text is not None
    if attention_mask is not None and attention_mask.shape != text.shape[:2]:
        raise ValueError(
            f"`attention_mask` has shape {tuple(attention_mask.shape)}; a prompt needs one of shape "
            f"{tuple(text.shape[:2])}, (batch, length), to know where the text begins. Packed batches are not possible."
        )
    known = known_ids(input_ids, inputs_embeds, attention_mask, word_embeddings, leading_token_ids)
    layout = place_prompt(text.shape[:2], len(prompt.ids), known, attention_mask, leading_token_ids, placement, answer)
    as_ids = as_ids and input_ids is not None
    if last_column_is_read and not as_ids and attention_mask is not None:
        layout = pads_first(layout, attention_mask)
    inputs: dict[str, Tensor] = {}
    if as_ids:
        assert input_ids is not None
        inputs["input_ids"] = layout.insert(prompt.ids, input_ids)
    else:
        embeds = inputs_embeds if inputs_embeds is not None else word_embeddings(input_ids)
        inputs["inputs_embeds"] = layout.insert(prompt.vectors, embeds)
    if attention_mask is not None:
        inputs["attention_mask"] = layout.fill(1, attention_mask)
    return Composed(inputs=inputs, layout=layout)


def check_shapes(text: Tensor | None, labels: Tensor | None) -> None:
    """Refuse rows that are no batch, and labels that are not one for each token.

    Args:
        text: (batch, length) ids or (batch, length, dim) embeddings, or None.
        labels: (batch, length), or None.

    Raises:
        ValueError: another shape.
    """
    if text is None:
        return
    if text.dim() != (3 if text.is_floating_point() else 2):
        name, wanted = ("inputs_embeds", "(batch, length, dim)") if text.is_floating_point() else _IDS
        raise ValueError(
            f"`{name}` has shape {tuple(text.shape)} and must be {wanted}; for one row use `x.unsqueeze(0)`."
        )
    if labels is not None and labels.shape != text.shape[:2]:
        remedy = "pad labels with -100 to the length of the ids"
        if labels.dim() < 2:
            remedy = (
                "one label for each row is what a classifier takes (`task_type='SEQ_CLS'`); for a language model make "
                "rows with `Verbalizer.encode_dataset`, in which the label is a word"
            )
        raise ValueError(
            f"`labels` has shape {tuple(labels.shape)}; a causal LM takes one label for each token, "
            f"{tuple(text.shape[:2])}: {remedy}."
        )


def check_positions(position_ids: Tensor | None, attention_mask: Tensor | None, first: int = 0) -> None:
    """Refuse position ids that are not simply those of the attended tokens (packed rows, say), `first` and on.

    Raises:
        ValueError: the prompt could not be placed in front of every sequence of a packed row.
    """
    if position_ids is None:
        return
    reference = attention_mask if attention_mask is not None else torch.ones_like(position_ids)
    expected = positions(reference).to(position_ids.device) + first
    attended = reference.to(position_ids.device).ne(0)
    if position_ids.shape != expected.shape or not torch.equal(position_ids[attended], expected[attended]):
        raise ValueError(
            "`position_ids` other than 0, 1, 2, ... over the attended tokens (packed sequences, offsets) cannot be "
            "combined with a prompt; pad the batch instead of packing it, or leave `position_ids` out."
        )

"""Where the prompt stands in each row: after padding and BOS, right before the text, or right before the answer.

Stock prompt tuning builds `prompt | pads | text`, and `prompt | BOS | text`, which no tokenizer would produce from the
prompt's text. Here every row reads `pads | BOS | prompt | text | pads` or `pads | BOS | text | prompt | answer | pads`,
as its `Placement` says, so that the adapter and the plain text agree. The column that marks a place in a row gives it
to the prompt and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from peft_interp.text.placement import START, Placement


@dataclass(frozen=True)
class PromptLayout:
    """A reading order for prompt and text.

    Attributes:
        order: (batch, prompt + length) columns of `[prompt | text]` in reading order.
        start: (batch,) the text column before which the prompt is inserted, or which marks its place.
        prompt_length: number of prompt tokens.
        left_out: what marked the place stands nowhere: `order` is a column shorter.
    """

    order: Tensor
    start: Tensor
    prompt_length: int
    left_out: bool = False

    def insert(self, prompt: Tensor, text: Tensor) -> Tensor:
        """Put `prompt` (prompt, ...) or (batch, prompt, ...) into `text` (batch, length, ...)."""
        if prompt.dim() < text.dim():
            prompt = prompt.unsqueeze(0).expand(text.shape[0], *prompt.shape)
        joined = torch.cat((prompt.to(device=text.device, dtype=text.dtype), text), dim=1)
        index = self.order.to(text.device)
        if joined.dim() == 3:
            index = index.unsqueeze(-1).expand(-1, -1, joined.shape[-1])
        return joined.gather(1, index)

    def fill(self, value: float, text: Tensor) -> Tensor:
        """Put `value` at the prompt's columns of `text` (batch, length); masks and labels use it."""
        return self.insert(text.new_full((text.shape[0], self.prompt_length), value), text)

    @property
    def length(self) -> int:
        """Columns of the text."""
        return self.order.shape[1] - self.prompt_length + self.left_out

    def text_columns(self) -> Tensor:
        """(batch, length) where each text token stands in the composed row; what marked the place, after it."""
        return self._places()[:, self.prompt_length :]

    def text_first(self, composed: Tensor, left_out: float = 0.0) -> Tensor:
        """Undo the order for per-token outputs: row i is input token i again, the prompt's rows come last.

        Args:
            composed: (batch, columns, ...).
            left_out: the output where the place was marked.
        """
        back = self._places().to(composed.device)
        back = torch.cat((back[:, self.prompt_length :], back[:, : self.prompt_length]), dim=1)
        if self.left_out:
            composed = torch.cat((composed, torch.full_like(composed[:, :1], left_out)), dim=1)
        if composed.dim() == 3:
            back = back.unsqueeze(-1).expand(-1, -1, composed.shape[-1])
        return composed.gather(1, back)

    def _places(self) -> Tensor:
        """(batch, prompt + length) the composed row's column of each column of `[prompt | text]`."""
        batch, columns = self.order.shape
        places = self.order.new_full((batch, columns + self.left_out), columns)
        return places.scatter(1, self.order, torch.arange(columns, device=places.device).expand(batch, -1))

    def predictions(self, composed: Tensor) -> Tensor:
        """(batch, length, ...) of per-token outputs: column i is what predicts input token i + 1, prompt or not."""
        ends = nn.functional.pad(self.text_columns(), (0, 1), value=self.order.shape[1])[:, 1:]
        index = (ends - 1).clamp_min(0).to(composed.device).unsqueeze(-1).expand(-1, -1, composed.shape[-1])
        return composed.gather(1, index)


def first_attended(attention_mask: Tensor) -> Tensor:
    """(batch,) first column with attention; 0 for rows without any."""
    if not attention_mask.shape[1]:
        return attention_mask.new_zeros(len(attention_mask), dtype=torch.long)
    return attention_mask.ne(0).int().argmax(dim=1)


@torch.no_grad()
def known_ids(
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    word_embeddings: nn.Module,
    leading_token_ids: Sequence[int],
) -> Tensor | None:
    """The ids in which a leading token is looked for; of embeddings, a row's first one where it is that token's vector.

    Args:
        input_ids: (batch, length), returned as they are; or None.
        inputs_embeds: (batch, length, dim) or None.
        attention_mask: (batch, length) or None.
        word_embeddings: the base model's embedding module.
        leading_token_ids: ids to look for.

    Returns:
        (batch, length) ids, with -1 for what embeddings do not tell; None where there is nothing to look for.
    """
    if input_ids is not None or inputs_embeds is None or not leading_token_ids or not inputs_embeds.shape[1]:
        return input_ids
    batch, length = inputs_embeds.shape[:2]
    ids = torch.tensor(list(leading_token_ids), device=inputs_embeds.device)
    rows = word_embeddings.forward(ids)  # (leading, dim), without NEFTune's noise
    start = torch.zeros(batch, dtype=torch.long, device=ids.device)
    if attention_mask is not None:
        start = first_attended(attention_mask).to(ids.device)
    first = inputs_embeds[torch.arange(batch, device=ids.device), start]  # (batch, dim)
    same = first.unsqueeze(1).eq(rows.to(first.device, first.dtype)).all(dim=-1)  # (batch, leading)
    found = torch.where(same.any(dim=1), ids[same.int().argmax(dim=1)], -1)  # (batch,)
    return found.new_full((batch, length), -1).scatter(1, start.unsqueeze(1), found.unsqueeze(1))


def place_prompt(
    shape: Sequence[int],
    prompt_length: int,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    leading_token_ids: Sequence[int] = (),
    placement: Placement = START,
    answer: Tensor | None = None,
) -> PromptLayout:
    """Decide where the prompt goes in every row.

    Args:
        shape: (batch, length) of the text.
        prompt_length: number of prompt tokens.
        input_ids: (batch, length), to recognise a leading token (see `known_ids`); None for none.
        attention_mask: (batch, length), to recognise left padding; None for no padding.
        leading_token_ids: ids (BOS, CLS) that stay in front of the prompt when a row begins with one of them.
        placement: before the text; or before the first token of `answer`, and after the last attended token of a row
            without any.
        answer: (batch, length) bool, what is to be predicted; None for nothing.

    Returns:
        The layout; before the text, without left padding and leading tokens, it is `[prompt | text]`.
    """
    start = after_leading(shape, input_ids, attention_mask, leading_token_ids)
    start = placement.columns(start, attention_mask, shape[1], answer)
    columns = torch.arange(prompt_length + shape[1], device=start.device)  # (prompt + length,)
    offset = columns.unsqueeze(0) - start.unsqueeze(1)  # (batch, prompt + length)
    order = torch.where(offset < prompt_length, offset, columns)
    order = torch.where(offset < 0, columns + prompt_length, order)
    if placement.marked:  # what marks the place is right after the prompt now
        order = order.gather(1, columns[:-1] + offset[:, :-1].ge(prompt_length))
    return PromptLayout(order=order, start=start, prompt_length=prompt_length, left_out=placement.marked)


def after_leading(
    shape: Sequence[int],
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    leading_token_ids: Sequence[int] = (),
) -> Tensor:
    """(batch,) column of each row's first text token, after padding and a leading token; as `place_prompt`."""
    batch, length = shape
    reference = attention_mask if attention_mask is not None else input_ids
    start = torch.zeros(batch, dtype=torch.long, device=reference.device if reference is not None else None)
    if attention_mask is not None:
        start = first_attended(attention_mask)
    if input_ids is not None and leading_token_ids and length:
        first = input_ids.gather(1, start.to(input_ids.device).unsqueeze(1)).squeeze(1)
        start = start + torch.isin(first, first.new_tensor(list(leading_token_ids))).to(start.device)
    return start


def pads_first(layout: PromptLayout, attention_mask: Tensor) -> PromptLayout:
    """Move right padding to the left, for heads that read the last column of a row given as embeddings.

    Args:
        layout: where the prompt goes.
        attention_mask: (batch, length) of the text.

    Returns:
        A layout whose rows all end in their last real token.
    """
    composed = layout.fill(1, attention_mask)
    return replace(layout, order=layout.order.gather(1, composed.ne(0).int().argsort(dim=1, stable=True)))


def positions(attention_mask: Tensor) -> Tensor:
    """(batch, length) position ids that count attended tokens only, so that padding does not shift a row."""
    return (attention_mask.ne(0).long().cumsum(dim=1) - 1).clamp_min(0)

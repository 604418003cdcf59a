"""A training step with the prompt after the text: the text without gradient, the head only where a label is.

In a causal LM nothing in front of the prompt depends on it. So the text runs first, without gradient, and only the
prompt and the answer run after its key/value cache with one, which saves most of the backward pass and its memory.
Loss and gradient are those of the plain concatenation, dropout included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peft_interp.inference.compat import cache_of, with_cache
from peft_interp.inference.compilation import without_compiling
from peft_interp.inference.head import places_of, tapped_head
from peft_interp.inference.models import input_embeddings
from peft_interp.tuner.layout import positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_answers(labels: Tensor, start: Tensor, first: Tensor) -> None:
    """Refuse language-modelling labels, before which no text is left for the prompt to stand after.

    Single rows of that kind (an empty text and its answer) are fine beside others, and with one label on their own.

    Args:
        labels: (batch, length), -100 where nothing is to be predicted and everywhere before `start`.
        start: (batch,) the text column before which the prompt stands.
        first: (batch,) column of each row's first text token.

    Raises:
        ValueError: there are rows with several labels, and no labelled row has text in front of its first one.
    """
    counts = labels.ne(-100).sum(dim=1)  # (batch,)
    has_text = start.gt(first).to(counts.device)
    if counts.gt(1).any() and not has_text[counts.gt(0)].any():
        raise ValueError(
            "`prompt_position='end'` puts the prompt before a row's first label, but in this batch every row is "
            "labelled from its first token on. Set the labels of the text to -100 and leave those of the answer, "
            "or use 'start' for language modelling."
        )


def text_first_loss(
    model: PreTrainedModel,
    prompt: Tensor,
    text_ids: Tensor | None,
    text_embeds: Tensor | None,
    text_mask: Tensor,
    start: Tensor,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """Cross-entropy of a batch with the prompt inside every row.

    Args:
        model: causal LM for which `continues_from_cache` holds.
        prompt: (prompt, dim) input embeddings of the prompt.
        text_ids: (batch, length), or None with `text_embeds` (batch, length, dim).
        text_embeds: see `text_ids`.
        text_mask: (batch, length), 0 at padding.
        start: (batch,) the text column before which the prompt stands.
        labels: (batch, length), -100 where nothing is to be predicted and everywhere before `start`.
        num_items_in_batch: labels in the whole accumulated batch, as Trainer passes it; None for a mean.

    Returns:
        Scalar.
    """
    batch, length = labels.shape
    width = int(start.max())
    before = text_mask[:, :width].masked_fill(torch.arange(width, device=start.device) >= start.unsqueeze(1), 0)
    cache = None
    if width:
        head = {"input_ids": _columns(text_ids, width), "inputs_embeds": _columns(text_embeds, width)}
        cache = _run_text(model, head, before)

    last = labels.ne(-100).mul(torch.arange(1, length + 1, device=labels.device)).amax(dim=1) - 1  # (batch,) or -1
    rest = max(0, int((last - start).max()))  # tokens after the prompt that still predict something
    columns = start.unsqueeze(1) + torch.arange(rest + 1, device=start.device)  # (batch, rest + 1)
    inside = columns < length
    columns = columns.clamp_max(length - 1)
    targets = labels.gather(1, columns).masked_fill(~inside, -100)
    run = columns[:, :rest]
    rows = prompt.unsqueeze(0).expand(batch, -1, -1)
    embeds = torch.cat((rows, _embedded(model, text_ids, text_embeds, run).to(rows.dtype)), dim=1) if rest else rows
    after = text_mask.gather(1, run).masked_fill(~inside[:, :rest], 0)
    mask = torch.cat((before, text_mask.new_ones(batch, len(prompt)), after), dim=1)
    keep = nn.functional.pad(targets.ne(-100), (len(prompt) - 1, 0))  # the prompt's last position and the rest
    with tapped_head(model, places_of(keep)):
        output = without_compiling(model)(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions(mask)[:, width:],
            use_cache=cache is not None,
            **with_cache(model, cache),
        )
    logits = output.logits[0].float()  # (labels, vocabulary)
    total = nn.functional.cross_entropy(logits, targets[targets.ne(-100)].to(logits.device), reduction="sum")
    count = num_items_in_batch if num_items_in_batch is not None else len(logits)
    return total / (count.to(total.device) if isinstance(count, Tensor) else count)


def prompt_alone(model: PreTrainedModel, leading: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """What the perplexity term needs of a prompt that the step saw in the rows' context only.

    Args:
        model: causal LM.
        leading: (0 or 1, dim) input embedding of the leading token.
        prompt: (prompt, dim) input embeddings.

    Returns:
        Logits (prompt, vocabulary) of the prompt alone after the leading token, and (prompt, dim) states that entered
        the head.
    """
    with tapped_head(model) as tap:
        output = without_compiling(model)(inputs_embeds=torch.cat((leading, prompt)).unsqueeze(0), use_cache=False)
    assert tap.hidden is not None
    return output.logits[0, len(leading) :], tap.hidden[0, len(leading) :]


def _run_text(model: PreTrainedModel, text: dict[str, Any], mask: Tensor) -> Any:
    """The cache of the text in front of the prompt; with a gradient only where more than the prompt is trained."""
    embeds = text["inputs_embeds"]
    trains = (embeds is not None and embeds.requires_grad) or any(p.requires_grad for p in model.parameters())
    # no logits are wanted, but not every head takes an empty input
    one = torch.zeros(1, dtype=torch.long, device=mask.device)
    with torch.set_grad_enabled(trains and torch.is_grad_enabled()), tapped_head(model, one):
        output = without_compiling(model)(attention_mask=mask, position_ids=positions(mask), use_cache=True, **text)
    return cache_of(output)


def _columns(text: Tensor | None, width: int) -> Tensor | None:
    return None if text is None else text[:, :width]


def _embedded(model: PreTrainedModel, ids: Tensor | None, embeds: Tensor | None, columns: Tensor) -> Tensor:
    """(batch, columns, dim) input embeddings of the text at `columns` (batch, columns) of each row."""
    if embeds is not None:
        return embeds.gather(1, columns.unsqueeze(-1).expand(-1, -1, embeds.shape[-1]))
    assert ids is not None
    embedded: Tensor = input_embeddings(model)(ids.gather(1, columns))
    return embedded

"""A causal LM's training step with the prompt at the start: two ways to run it, both with the head only at the labels.

*One pass*: the prompt once, every row after it, as one packed row (`one_pass`). *Rows*: every row with its own copy of
the prompt, as stock PEFT does it, but without an attention mask. Loss and gradient are those of the plain
concatenation, up to rounding and to dropout, of which a prompt that is run once sees one mask instead of one per row.

No number is read from the device before the model's pass has been started (`readback`): the shape of the work is that
of the step before, and where the batch turns out to need another, the step is run again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from peft_interp.inference.compilation import without_compiling
from peft_interp.inference.head import tapped_head
from peft_interp.text.placement import IGNORED
from peft_interp.tuner.arrangement import (
    RowCounts,
    StepPlan,
    TextRows,
    arranged,
    inspect_rows,
    labelled_columns,
    plan_for,
)
from peft_interp.tuner.last_layer import FeedForward, only_at
from peft_interp.tuner.layout import known_ids
from peft_interp.tuner.one_pass import packed_attention, packing, unpacked
from peft_interp.tuner.readback import Readback

ONE_PASS, ROWS = "one pass", "rows"
_REMEMBERED_SHAPES = 8


@dataclass(frozen=True)
class Way:
    """How a step is run.

    Attributes:
        name: `ONE_PASS` or `ROWS`.
        own_attention: the model takes attention of ours; always so for one pass.
        plain_head: logits are nothing but what the head makes of the last states, so that body and head are run one
            after the other; otherwise a hook cuts the head's input.
        feed_forward: the last layer's, where it may be run at the labels only (`last_layer`); otherwise None.
    """

    name: str
    own_attention: bool
    plain_head: bool
    feed_forward: FeedForward | None = None


@dataclass(frozen=True)
class StartStep:
    """What a training step yields.

    Attributes:
        loss: scalar, the task's cross-entropy.
        prompt_losses: (prompt - 1,) cross-entropy of the prompt's tokens but the first; None where not asked for.
        logits: (prompt, vocabulary) of the prompt's own positions, without gradient where `prompt_losses` has it.
        hidden: (prompt, dim) states that entered the head for `logits`.
        text_hidden: (labels, dim) states that entered it for the labels.
    """

    loss: Tensor
    prompt_losses: Tensor | None
    logits: Tensor | None
    hidden: Tensor | None
    text_hidden: Tensor


@dataclass
class StepMemory:
    """What a model remembers from one step for the next: the last plan, and index tensors of recent shapes."""

    plans: dict[tuple[bool, int], StepPlan] = field(default_factory=dict)
    shapes: OrderedDict[tuple[Any, ...], tuple[Tensor, ...]] = field(default_factory=OrderedDict)

    def indices(self, way: str, prefix: int, batch: int, length: int, device: torch.device) -> tuple[Tensor, ...]:
        """Index tensors for a shape: predictors, position ids, and what stands for the mask.

        Returns:
            (batch, length) for each text column the place, in the flattened states, of what predicts it; then what
            `packing` returns, or its like for rows.
        """
        key = (way, prefix, batch, length, device)
        known = self.shapes.get(key)
        if known is None:
            columns, rows = torch.arange(length, device=device), torch.arange(batch, device=device).unsqueeze(1)
            if way == ONE_PASS:
                predictors = torch.where(columns > 0, prefix - 1 + rows * length + columns, prefix - 1)
                known = (predictors, *packing(prefix, batch, length, device))
            else:
                places = torch.arange(prefix + length, device=device).unsqueeze(0)
                known = (prefix - 1 + rows * (prefix + length) + columns, places, unpacked(device))
            self.shapes[key] = known
            while len(self.shapes) > _REMEMBERED_SHAPES:
                self.shapes.popitem(last=False)
        return known


def start_step(
    model: PreTrainedModel,
    memory: StepMemory,
    way: Way,
    prompt: Tensor,
    prompt_ids: Tensor | None,
    text_ids: Tensor | None,
    text_embeds: Tensor | None,
    text_mask: Tensor | None,
    labels: Tensor,
    leading_ids: Sequence[int] = (),
    num_items_in_batch: Tensor | int | None = None,
) -> StartStep | None:
    """Cross-entropy of a batch whose rows all begin with the prompt.

    Args:
        model: causal LM.
        memory: of this model.
        way: one that this model can have (`ways`).
        prompt: (prompt, dim) input embeddings.
        prompt_ids: (prompt,) its ids, where the prompt's own losses are wanted; None otherwise.
        text_ids: (batch, length), or None with `text_embeds` (batch, length, dim).
        text_embeds: see `text_ids`.
        text_mask: (batch, length), 0 at padding, or None for no padding.
        labels: (batch, length), -100 where nothing is to be predicted.
        leading_ids: ids (BOS) that stay in front of the prompt.
        num_items_in_batch: labels in the whole accumulated batch, as Trainer passes it; None for a mean.

    Returns:
        The step; None for a batch that only the plain pass treats right.
    """
    known = known_ids(text_ids, text_embeds, text_mask, model.get_input_embeddings(), leading_ids)
    rows = inspect_rows(known, text_mask, labels, leading_ids, prompt.device)
    counts, (batch, length) = Readback(rows.counts), labels.shape
    key = (text_mask is None, length)
    plan = None if counts.immediate else memory.plans.get(key)
    if plan is None:
        plan = plan_for(_row_counts(counts), batch, length, exact=counts.immediate)
        if plan is None:
            return None
    text = text_ids if text_ids is not None else text_embeds
    assert text is not None
    step = _run(model, memory, way, plan, rows, prompt, prompt_ids, text, num_items_in_batch)
    if counts.immediate:
        return step
    fitting = plan_for(_row_counts(counts), batch, length, exact=False)
    if fitting is None:
        return None
    if not plan.covers(fitting):
        plan = plan.joined(fitting)
        step = _run(model, memory, way, plan, rows, prompt, prompt_ids, text, num_items_in_batch)
    memory.plans[key] = plan
    return step


def _row_counts(counts: Readback) -> RowCounts:
    return RowCounts(*(int(number) for number in counts.read()))


def _run(
    model: PreTrainedModel,
    memory: StepMemory,
    way: Way,
    plan: StepPlan,
    rows: TextRows,
    prompt: Tensor,
    prompt_ids: Tensor | None,
    text: Tensor,
    num_items_in_batch: Tensor | int | None,
) -> StartStep:
    """The step as planned; its result is right where the plan covers the batch."""
    embed = model.get_input_embeddings()
    text, labels = arranged(rows, plan, text), arranged(rows, plan, rows.labels)
    embeds = text if text.is_floating_point() else embed(text)  # (batch, columns, dim)
    prefix = prompt.to(embeds.device, embeds.dtype)
    if plan.leading:
        assert rows.leading is not None
        prefix = torch.cat(
            (embed.forward(rows.leading.clamp_min(0)).to(prefix.dtype), prefix)
        )  # without NEFTune's noise
    batch, length = labels.shape
    indices = memory.indices(way.name, len(prefix), batch, length, labels.device)
    targets, places = labelled_columns(labels, indices[0], plan.labels)
    own = 0 if prompt_ids is None else len(prompt)
    if prompt_ids is not None:
        places = torch.cat((torch.arange(len(prefix) - own, len(prefix), device=places.device), places))
    options = {"position_ids": indices[1], "attention_mask": indices[2]} if way.own_attention else {}
    if way.name == ONE_PASS:
        embeds = torch.cat((prefix, embeds.flatten(0, 1))).unsqueeze(0)
    else:
        embeds = torch.cat((prefix.expand(batch, -1, -1), embeds), dim=1)
    attending = packed_attention(model) if way.own_attention else nullcontext()
    with attending, only_at(way.feed_forward, places, embeds.shape[0] * embeds.shape[1]):
        hidden, logits = _at_places(model, way, places, inputs_embeds=embeds, use_cache=False, **options)
    targets = targets.to(logits.device)
    if prompt_ids is None:
        losses = nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        return StartStep(_mean(losses, targets, num_items_in_batch), None, None, None, hidden)
    ignored = targets.new_full((1,), IGNORED)
    everything = torch.cat((prompt_ids[1:].to(logits.device), ignored, targets))
    losses = nn.functional.cross_entropy(logits.float(), everything, reduction="none")
    of_prompt, _, of_text = losses.split([own - 1, 1, len(targets)])
    loss = _mean(of_text, targets, num_items_in_batch)
    return StartStep(loss, of_prompt, logits.detach()[:own], hidden[:own], hidden[own:])


def _at_places(model: PreTrainedModel, way: Way, places: Tensor, **inputs: Any) -> tuple[Tensor, Tensor]:
    """States (places, dim) that enter the head at `places` of the flattened rows, and their logits."""
    if way.plain_head:
        states = model.base_model(**inputs).last_hidden_state
        hidden = states.flatten(0, 1).index_select(0, places.to(states.device))
        return hidden, model.get_output_embeddings()(hidden)
    with tapped_head(model, places) as tap:
        logits = without_compiling(model)(**inputs).logits[0]
    assert tap.hidden is not None
    return tap.hidden[0], logits


def _mean(losses: Tensor, targets: Tensor, count: Tensor | int | None) -> Tensor:
    """Sum of the losses over `count`, or over the labels there are."""
    if count is None:
        count = (targets != IGNORED).sum()
    return losses.sum() / (count.to(losses.device) if isinstance(count, Tensor) else count)

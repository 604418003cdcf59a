"""The prompt run once per batch instead of once per row, and the language-model head only where a label is.

In training every row of a causal LM's batch begins with the same prompt. It is run alone (batch 1), its key/value cache
is expanded over the batch, and only the text runs in every row; gradients flow through the cache. The prompt's own
logits, which the perplexity term needs, come from that one pass for free. Loss and gradient are those of the plain
concatenation (with the model's dropout at 0; otherwise the prompt sees one dropout mask instead of one per row).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from peft_interp.inference.head import tapped_head
from peft_interp.tuner.layout import first_attended, positions


@dataclass(frozen=True)
class SharedStep:
    """What one training step yields.

    Attributes:
        loss: scalar, the task's cross-entropy.
        logits: (prompt, vocabulary) of the prompt's own positions; only the last row when not `all_logits`.
        hidden: (prompt, dim) states that entered the head for `logits`.
    """

    loss: Tensor
    logits: Tensor
    hidden: Tensor


def can_share_prefix(model: Any) -> bool:
    """Whether a causal LM can continue from an expanded cache with exactly the plain result.

    It needs a head of its own, the stock causal loss, ordinary attention in all layers (no sliding window, no recurrent
    state), no further loss of its own (mixtures of experts), and no gradient checkpointing, which forbids caches.
    """
    parameters = inspect.signature(model.forward).parameters
    if not {"past_key_values", "attention_mask"} <= set(parameters) or "position_ids" not in parameters:
        return False
    if getattr(model, "loss_type", None) not in ("ForCausalLM", None) or model.config.is_encoder_decoder:
        return False
    if recomputes_activations(model) or model.get_output_embeddings() is None:
        return False
    if getattr(model, "_is_stateful", False) or getattr(model.config, "output_router_logits", False):
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def recomputes_activations(model: nn.Module) -> bool:
    """Whether gradient checkpointing is on in any layer."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def shared_prefix_step(
    model: Any,
    prefix: Tensor,
    prompt_start: int,
    text_ids: Tensor | None,
    text_embeds: Tensor | None,
    text_mask: Tensor,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
    all_logits: bool = True,
) -> SharedStep:
    """Cross-entropy of a batch whose rows all begin with `prefix`.

    Args:
        model: causal LM for which `can_share_prefix` holds.
        prefix: (prefix, dim) input embeddings that every row begins with: leading token, then prompt.
        prompt_start: where in `prefix` the prompt begins.
        text_ids: (batch, length), or None with `text_embeds` (batch, length, dim).
        text_embeds: see `text_ids`.
        text_mask: (batch, length), 0 at padding and at leading tokens that `prefix` already holds.
        labels: (batch, length), -100 where nothing is to be predicted.
        num_items_in_batch: labels in the whole accumulated batch, as Trainer passes it; None for a mean.
        all_logits: the caller wants the logits of every prompt position.

    Returns:
        Loss, and the prompt's logits and states.
    """
    first = first_attended(text_mask).unsqueeze(1)  # (batch, 1) first text column
    from_prefix = labels.gather(1, first).squeeze(1)  # (batch,) labels that the prompt's last position predicts
    from_prefix = from_prefix[from_prefix != -100]
    shifted = nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]  # column j predicts label j + 1
    keep = (shifted != -100) & text_mask.ne(0).cumsum(dim=1).gt(0)  # padding after the text may carry labels

    keep_prefix = torch.zeros(1, len(prefix), dtype=torch.bool, device=keep.device)
    keep_prefix[:, prompt_start if all_logits else len(prefix) - 1 :] = True
    text = {"input_ids": text_ids, "inputs_embeds": text_embeds}
    run = _in_one_pass if len(labels) == 1 else _in_two_passes
    prompt_logits, hidden, text_logits = run(model, prefix, keep_prefix, text_mask, keep, text)

    log_probs = prompt_logits[-1].float().log_softmax(-1)  # (vocabulary,), the same for every row
    total = -log_probs.gather(0, from_prefix.to(log_probs.device)).sum()
    if text_logits is not None:
        targets = shifted[keep].to(text_logits.device)
        total = total + nn.functional.cross_entropy(text_logits.float(), targets, reduction="sum").to(total.device)
    count = num_items_in_batch if num_items_in_batch is not None else len(from_prefix) + int(keep.sum())
    count = count.to(total.device) if isinstance(count, Tensor) else count
    return SharedStep(loss=total / count, logits=prompt_logits, hidden=hidden)


def _in_two_passes(
    model: Any, prefix: Tensor, keep_prefix: Tensor, text_mask: Tensor, keep: Tensor, text: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The prefix alone, then the text of all rows after its cache.

    Returns:
        Logits and head inputs where `keep_prefix` (1, prefix), and logits where `keep` (batch, length) or None.
    """
    with tapped_head(model, keep_prefix) as tap:
        first = model(inputs_embeds=prefix.unsqueeze(0), use_cache=True)
    assert tap.hidden is not None
    if not keep.any():
        return first.logits[0], tap.hidden[0], None
    batch, length = text_mask.shape
    mask = torch.cat((text_mask.new_ones(batch, len(prefix)), text_mask), dim=1)
    cache = _expand(first.past_key_values, batch)
    places = positions(mask)[:, -length:]
    with tapped_head(model, keep):
        output = model(attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True, **text)
    return first.logits[0], tap.hidden[0], output.logits[0]


def _in_one_pass(
    model: Any, prefix: Tensor, keep_prefix: Tensor, text_mask: Tensor, keep: Tensor, text: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `_in_two_passes`, for a single row, where there is nothing to share but the head's work to save."""
    ids, embeds = text["input_ids"], text["inputs_embeds"]
    embeds = model.get_input_embeddings()(ids) if embeds is None else embeds
    embeds = torch.cat((prefix.unsqueeze(0), embeds), dim=1)
    mask = torch.cat((text_mask.new_ones(1, len(prefix)), text_mask), dim=1)
    with tapped_head(model, torch.cat((keep_prefix, keep), dim=1)) as tap:
        output = model(
            **{**text, "input_ids": None, "inputs_embeds": embeds},
            attention_mask=mask,
            position_ids=positions(mask),
            use_cache=False,
        )
    assert tap.hidden is not None
    split = int(keep_prefix.sum())
    logits = output.logits[0]
    return logits[:split], tap.hidden[0, :split], logits[split:] if len(logits) > split else None


def _expand(cache: DynamicCache, batch: int) -> DynamicCache:
    """The same prefix for every row, without copying it."""
    layers: list[Any] = cache.layers
    return DynamicCache([(x.keys.expand(batch, -1, -1, -1), x.values.expand(batch, -1, -1, -1)) for x in layers])

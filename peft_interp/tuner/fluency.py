"""The perplexity term: how likely the projected prompt is, from the pass at hand; all terms joined to the task loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_interp.inference.models import input_embeddings
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.embedding import InterpPromptEmbedding, Prompt
from peft_interp.tuner.loss_terms import PERPLEXITY, LossTerm
from peft_interp.tuner.perplexity import prompt_nll, soft_target_gradient, tied_target_gradient
from peft_interp.tuner.projection import straight_through

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


def task_model_nll(
    encoder: InterpPromptEmbedding,
    prompt: Prompt,
    model: PreTrainedModel,
    logits: Tensor,
    hidden: Tensor,
    sides: str,
    losses: Tensor | None = None,
) -> Tensor:
    """NLL of the prompt under the task model itself, from logits that its forward pass computed anyway.

    Args:
        encoder: where the prompt comes from.
        prompt: what stood in the model's input.
        model: the causal LM. Where its head is the embedding table and logits are plain products with it, the target
            side's gradient is that of FluentPrompt; otherwise (untied, scaled or capped) that of a soft target.
        logits: (prompt, vocabulary), row i predicts token i + 1.
        hidden: (prompt, dim) states that entered the head.
        sides: "context", "target" or "both".
        losses: as for `prompt_nll`.

    Returns:
        Scalar, nats per token.
    """
    target = None
    if sides != "context":
        if _logits_are_products_with_rows(model):
            target = tied_target_gradient(hidden, prompt.rows)
        else:
            target = soft_target_gradient(logits, encoder.tokens.soft_choice(prompt.latent, logits.shape[-1]))
    return prompt_nll(logits, prompt.ids, sides, target, losses)


def _logits_are_products_with_rows(model: PreTrainedModel) -> bool:
    table, head = input_embeddings(model).weight, model.get_output_embeddings().weight
    changed = (getattr(model.config.get_text_config(), name, None) not in (None, 1, 1.0) for name in _LOGIT_CHANGES)
    return bool(head.data_ptr() == table.data_ptr()) and not any(changed)


def scorer_nll(
    encoder: InterpPromptEmbedding, prompt: Prompt, scorer: PreTrainedModel, leading_ids: list[int], sides: str
) -> Tensor:
    """NLL of the prompt under a separate language model with the same tokenizer, in one pass over the prompt.

    The scorer has a table of its own, so the latent reaches it through a soft choice of tokens q: its input rows are
    the exact rows of the ids in value and q @ table in gradient.

    Args:
        encoder: where the prompt comes from.
        prompt: its projection.
        scorer: frozen causal LM.
        leading_ids: ids in front of the prompt (BOS).
        sides: "context", "target" or "both".

    Returns:
        Scalar, nats per token.
    """
    table = input_embeddings(scorer)
    width = min(table.weight.shape[0], encoder.table.shape[0])
    probs = encoder.tokens.soft_choice(prompt.latent, width).to(table.weight.device)
    ids = prompt.ids.to(table.weight.device)
    rows = table(ids).detach()
    if sides != "target":
        rows = straight_through(probs.to(rows.dtype) @ table.weight[:width].detach(), rows)
    leading = table(ids.new_tensor(leading_ids)).detach()
    logits = scorer(inputs_embeds=torch.cat((leading, rows)).unsqueeze(0)).logits[0, len(leading_ids) :]
    target = soft_target_gradient(logits, probs) if sides != "context" else None
    return prompt_nll(logits, ids, sides, target)


def check_scorer(scorer: PreTrainedModel, table: Tensor) -> None:
    """Refuse a scorer that cannot share the task model's token ids.

    Raises:
        ValueError: no causal language-model head, or another vocabulary size (padding rows up to 10% are tolerated).
    """
    head = scorer.get_output_embeddings() if hasattr(scorer, "get_output_embeddings") else None
    if head is None or scorer.config.is_encoder_decoder or not scorer.can_generate():
        raise ValueError(
            f"the perplexity model {type(scorer).__name__} has no causal language-model head; use an "
            "AutoModelForCausalLM with the task model's tokenizer."
        )
    theirs, ours = input_embeddings(scorer).weight.shape[0], table.shape[0]
    if abs(theirs - ours) > 0.1 * max(theirs, ours):
        raise ValueError(
            f"the perplexity model knows {theirs} tokens, the task model {ours}: they cannot share a tokenizer. Use a "
            "causal LM of the same family."
        )


def join_losses(
    config: InterpPromptConfig,
    step: int,
    task_loss: Tensor,
    values: Mapping[LossTerm, Tensor],
    batch_share: Tensor | float,
    full_weight: float | None = None,
) -> Tensor:
    """Task loss and all terms in one number.

    Args:
        config: weights, schedule and combination.
        step: optimizer steps so far.
        task_loss: scalar, already divided by the labels of the whole accumulated batch where Trainer asks for it.
        values: scalar of each term.
        batch_share: this micro-batch's share of the accumulated batch's labels, so that the terms count once.
        full_weight: as for `perplexity_weight_at`.

    Returns:
        Scalar loss.
    """
    loss = task_loss
    for term, value in values.items():
        weight = getattr(config, term.setting)
        if term is PERPLEXITY:
            weight = config.perplexity_weight_at(step, full_weight)
            loss = (1 - weight) * loss if config.perplexity_combination == "convex" else loss
        loss = loss + weight * value.to(loss.device) * batch_share
    return loss


def batch_share(labels: Tensor | None, num_items_in_batch: Tensor | int | None) -> Tensor | float:
    """Labels in this micro-batch over labels in the accumulated batch; 1 if unknown.

    Args:
        labels: those that Trainer counted (without the first column for a causal LM).
        num_items_in_batch: labels in the accumulated batch, over all processes.
    """
    if labels is None or num_items_in_batch is None:
        return 1.0
    return labels.ne(-100).sum() / torch.as_tensor(num_items_in_batch, device=labels.device).clamp_min(1)

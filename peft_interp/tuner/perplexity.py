"""How likely a language model finds a prompt: the negative log-likelihood (NLL) of its tokens, and its gradient.

log-PPL = -(1 / (L - 1)) * sum_{i >= 2} log p(P_i | P_<i), in nats per token, natural range 0 (certain) to ln V
(uniform) and above; lower is more fluent. It is a proxy: repeats, boilerplate and special tokens score low as well.
(Our reading of arXiv 2504.02144; its exact form could not be obtained.)

The ids are discrete, so the gradient has two sides. *Context*: how token i makes later tokens likelier; it flows
through the model by itself and is all that PEZ's reference code has. *Target*: is token i itself likely here; it needs
a surrogate, the tied head's row (FluentPrompt, arXiv 2212.10539) or a soft target over the vocabulary.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

CONTROL_RATE = 0.05  # a controlled weight changes by at most 5% a step, a hundredfold in about a hundred steps
LEAST_WEIGHT, MOST_WEIGHT = 1e-4, 100.0


def token_nll(logits: Tensor, ids: Tensor) -> Tensor:
    """NLL of every token but the first, of one sequence or of a padded batch.

    Args:
        logits: (length, vocabulary) or (batch, length, vocabulary), place i predicts token i + 1.
        ids: (length,) or (batch, length).

    Returns:
        (length - 1,) or (batch, length - 1) in nats, fp32, with gradient to the logits.
    """
    scores = logits[..., :-1, :].float().movedim(-1, 1 if logits.dim() > 2 else -1)
    return nn.functional.cross_entropy(scores, ids[..., 1:].to(logits.device), reduction="none")


def tied_target_gradient(hidden: Tensor, prompt_rows: Tensor) -> Tensor:
    """Zero in value; carries the gradient of -log p(e_i | .) with respect to e_i for a head tied to the table.

    p(e_i | e_<i) = exp(h_{i-1} . e_i) / sum_v exp(h_{i-1} . E_v), differentiated in e_i only (arXiv 2212.10539).

    Args:
        hidden: (prompt, dim) states that enter the head.
        prompt_rows: (prompt, dim) rows of the table with gradient to the latent.

    Returns:
        (prompt - 1,), exactly zero.
    """
    rows = prompt_rows[1:].to(hidden.device, hidden.dtype)
    return -(hidden[:-1].detach() * (rows - rows.detach())).sum(-1).float()


def soft_target_gradient(logits: Tensor, target_probs: Tensor) -> Tensor:
    """Zero in value; carries the gradient of -sum_v q_i(v) log p(v | .) with respect to q_i, for untied heads.

    Args:
        logits: (prompt, vocabulary), row i predicts token i + 1.
        target_probs: (prompt, vocabulary) soft targets q with gradient to the latent.

    Returns:
        (prompt - 1,), exactly zero.
    """
    log_probs = logits[:-1].detach().float().log_softmax(-1)
    width = min(log_probs.shape[-1], target_probs.shape[-1])
    soft = -(target_probs[1:, :width].to(log_probs.device) * log_probs[:, :width]).sum(-1)
    return soft - soft.detach()


def prompt_nll(
    logits: Tensor, ids: Tensor, sides: str, target_gradient: Tensor | None, losses: Tensor | None = None
) -> Tensor:
    """Mean NLL of a prompt with gradient on the chosen sides.

    Args:
        logits: (prompt, vocabulary), row i predicts token i + 1.
        ids: (prompt,).
        sides: "context", "target" or "both": which sides carry gradient. The value is the same for all.
        target_gradient: what one of the functions above returned; None for "context".
        losses: (prompt - 1,) what `token_nll` would return, where it is known already.

    Returns:
        Scalar, nats per token; 0 for a prompt of one token, which has nothing to be predicted from.
    """
    if len(ids) < 2:
        return logits[:0].sum().float()  # not `0 * logits.sum()`, which is NaN where fp16 overflows
    nll = token_nll(logits if sides != "target" else logits.detach(), ids) if losses is None else losses
    nll = nll.detach() if sides == "target" else nll
    return (nll + target_gradient).mean() if target_gradient is not None else nll.mean()


def controlled_weight(weight: float, nll: float, target_perplexity: float, most: float = MOST_WEIGHT) -> float:
    """The perplexity term's weight for the next step: up while the prompt is less likely than asked for, else down.

    weight * exp(rate * excess), the excess being nll - log(target), cut to -1 to 1.

    Args:
        weight: > 0.
        nll: of the prompt now, nats per token.
        target_perplexity: > 1.
        most: the largest weight; 1 where it is a share.

    Returns:
        The new weight, `LEAST_WEIGHT` to `most`.
    """
    excess = min(1.0, max(-1.0, nll - math.log(target_perplexity)))
    return min(most, max(LEAST_WEIGHT, weight * math.exp(CONTROL_RATE * excess)))

"""Soft Q-learning with a sparse reward at the end: the path-consistency losses of RLPrompt (arXiv 2205.12548).

A prompt of T tokens is a path: in state t the policy chooses token a_t, and only the whole prompt is rewarded, with r.
With A_t = Q_t(a_t) - V_t and V_t = logsumexp_a Q_t(a), and primes for the target network, an optimal Q has
A_t = V'_{t+1} - V'_t, and A_T = r - V'_T. The losses are the squared violations, one step at a time or over the rest
of the path. Values at the start are large and no reason to worry: 154.7 for 2 tokens and 2067 for 5 with GPT-2's
vocabulary.

A_t does not change when all Q-values of a state move by one amount, so these losses do not train the *level* of Q:
where it starts wrong it stays wrong, and the policy they converge to is close to, not exactly, the optimal exp(r) / Z.
(A network moves levels as a side effect.) With all Q-values 0, V is ln(vocabulary) in every state, but V_t should
exceed V_{t+1} by as much: the first thing these losses learn is to make whatever was sampled likelier. `baseline`
removes that.

Two more losses train the level and have the optimum for their only zero. "bellman" is the reference code's v1. "path"
is ours: the multi-step loss with the online V_t in the target's place, (V_t + sum_{s >= t} A_s - r)^2, as in path
consistency learning (arXiv 1702.08892). It needs no target network. How they compare stands in `peft_interp.rl`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LOSSES = ("one_step", "multi_step", "both", "bellman", "path")


def soft_q_loss(
    kind: str,
    q: Tensor,
    target_q: Tensor,
    actions: Tensor,
    rewards: Tensor,
    lengths: Tensor | None = None,
    baseline: float = 0.0,
) -> Tensor:
    """Soft Q-learning loss of a batch of prompts: summed over time, mean over the batch.

    Args:
        kind: "one_step" (the reference code's v2), "multi_step" (its v3), "both": their mean, RLPrompt's choice; or
            "bellman" (its v1): (Q_t(a_t) - V'_{t+1})^2, at the last step (Q_T(a_T) - r)^2; or "path" (see above).
        q: (batch, time, actions) Q-values, -inf for actions that may not be taken; gradient flows here.
        target_q: (batch, time, actions) of the target network; used without gradient, and not at all by "path".
        actions: (batch, time) the chosen tokens.
        rewards: (batch,) reward of the whole prompt, z-scored and shaped.
        lengths: (batch,) tokens of each prompt, >= 1; what stands after them is ignored. None: all of them.
        baseline: subtracted from every V and V'. 0 is the published loss; ln(number of actions) measures the policy
            against the uniform one, which has the same optimum but nothing to correct where all Q-values are 0.

    Returns:
        Scalar >= 0, lower is better.

    Raises:
        ValueError: an unknown `kind`, or shapes that do not fit together.
    """
    if kind not in LOSSES:
        raise ValueError(f"`loss={kind!r}` is unknown; use one of {', '.join(LOSSES)}.")
    if q.shape != target_q.shape or q.shape[:2] != actions.shape or rewards.shape != actions.shape[:1]:
        raise ValueError(
            f"shapes q {tuple(q.shape)}, target_q {tuple(target_q.shape)}, actions {tuple(actions.shape)} and rewards "
            f"{tuple(rewards.shape)} do not fit; give (batch, time, actions) twice, (batch, time) and (batch,)."
        )
    chosen, values, target_values, real, last = _path(q, target_q, actions, lengths, baseline)
    if kind == "bellman":
        return ((chosen - _ahead(target_values, rewards, last)).square() * real).sum(1).mean()
    advantages = chosen - values
    if kind == "path":
        return ((_to_the_end(advantages) + values - rewards.unsqueeze(1)).square() * real).sum(1).mean()
    losses = []
    if kind in ("one_step", "both"):
        losses.append(_one_step(advantages, target_values, rewards, real, last))
    if kind in ("multi_step", "both"):
        losses.append(_multi_step(advantages, target_values, rewards, real))
    return torch.stack(losses).mean()


def _path(
    q: Tensor, target_q: Tensor, actions: Tensor, lengths: Tensor | None, baseline: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Q(a), V and V', (batch, time), 0 after the end; which steps are real, and which the last."""
    steps = torch.arange(q.shape[1], device=q.device)
    ends = torch.full_like(actions[:, 0], q.shape[1]) if lengths is None else lengths.to(q.device)
    real = steps < ends.unsqueeze(1)  # (batch, time)
    chosen = q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)  # (batch, time)
    values = (chosen, q.logsumexp(-1) - baseline, target_q.detach().logsumexp(-1) - baseline)
    first, second, third = (value.masked_fill(~real, 0.0) for value in values)
    return first, second, third, real, steps == (ends - 1).unsqueeze(1)


def _ahead(target_values: Tensor, rewards: Tensor, last: Tensor) -> Tensor:
    """(batch, time) what lies ahead of every step: V'_{t+1}, at the last step the reward."""
    following = nn.functional.pad(target_values, (0, 1))[:, 1:]
    return torch.where(last, rewards.unsqueeze(1).to(following.dtype), following)


def _to_the_end(advantages: Tensor) -> Tensor:
    """(batch, time) sum of A_s over s >= t."""
    return advantages.flip(1).cumsum(1).flip(1)


def _one_step(advantages: Tensor, target_values: Tensor, rewards: Tensor, real: Tensor, last: Tensor) -> Tensor:
    """(A_t - (V'_{t+1} - V'_t))^2, at the last step (A_T - (r - V'_T))^2."""
    violation = advantages - (_ahead(target_values, rewards, last) - target_values)
    return (violation.square() * real).sum(1).mean()


def _multi_step(advantages: Tensor, target_values: Tensor, rewards: Tensor, real: Tensor) -> Tensor:
    """(sum_{s >= t} A_s - (r - V'_t))^2."""
    violation = _to_the_end(advantages) - (rewards.unsqueeze(1) - target_values)
    return (violation.square() * real).sum(1).mean()


@torch.no_grad()
def polyak_update(target: nn.Module, online: nn.Module, rate: float) -> None:
    """Move the target network's parameters towards the online ones: target <- (1 - rate) target + rate online."""
    for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
        slow.lerp_(fast.to(slow.dtype), rate)

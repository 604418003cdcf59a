"""Time of a search step: prompts sampled, rewarded, and the policy trained on the rewards."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.scoring import published_loop
from benchmarks.scoring.setting import (
    POSITIONS,
    Setting,
    gold_labels,
    language_model,
    random_prompts,
    random_texts,
    task_scorer,
    timed,
)
from benchmarks.timing import compare, interleave, now
from peft_interp.metrics.likelihood import token_nlls
from peft_interp.rl.policy import Choice, PromptPolicy
from peft_interp.rl.soft_q import soft_q_loss
from peft_interp.scoring.rewards import gap_reward, mixed_rewards, shaped

Score = Callable[[Tensor], Tensor]


def scorers(setting: Setting, model: Any, position: str) -> dict[str, Score]:
    """Ours and the published loop: prompts -> log-probabilities (prompts, examples, labels)."""
    ours, texts = task_scorer(setting, model, position), random_texts(setting)
    return {
        "ours": ours.label_log_probs,
        "other": lambda prompts: published_loop.label_log_probs(model, texts, prompts, position),
    }


def agreement(setting: Setting) -> list[dict[str, Any]]:
    """Largest difference of any log-probability between ours and the published loop."""
    model, prompts, found = language_model(setting), random_prompts(setting, 0), []
    for position in POSITIONS:
        both = scorers(setting, model, position)
        found.append(
            {"position": position, "error": (both["ours"](prompts) - both["other"](prompts)).abs().max().item()}
        )
    return found


def steps(setting: Setting, repetitions: int, warmups: int) -> list[dict[str, Any]]:
    """For both positions, `reward` (the scores alone) and `step` (sampling, scores, loss, gradient, Adam).

    The policy is ours on both sides, so that only the reward differs. Ours also measures the prompts' perplexity, as
    the trainer does in every step.
    """
    model, found = language_model(setting), []
    for position in POSITIONS:
        candidates = {
            name: _step(setting, model, name, score) for name, score in scorers(setting, model, position).items()
        }
        kept = interleave(candidates, repetitions, warmups)
        parts: dict[str, Any] = {"position": position}
        for part, name in enumerate(("reward", "step")):
            parts[name] = compare([s[part] for s in kept["ours"]], [s[part] for s in kept["other"]])
        found.append(parts)
    return found


def growth(setting: Setting, varied: dict[str, Sequence[int]], repetitions: int) -> list[dict[str, Any]]:
    """How the reward's time grows with one of the sizes, prompt last."""
    model, found = language_model(setting), []
    for name, sizes in varied.items():
        for size in sizes:
            changed: dict[str, Any] = {name: size}
            one = replace(setting, **changed)
            candidates = {key: timed(one, score) for key, score in scorers(one, model, "end").items()}
            kept = interleave(candidates, repetitions, warmups=1)
            compared = compare([s[0] for s in kept["ours"]], [s[0] for s in kept["other"]])
            found.append({"varied": name, "size": size, "reward": compared})
    return found


def _step(setting: Setting, model: Any, name: str, score: Score) -> Callable[[], tuple[float, float]]:
    torch.manual_seed(0)
    allowed = torch.ones(setting.vocabulary, dtype=torch.bool)
    policy = PromptPolicy(model, allowed, setting.policy_hidden).to(setting.device)
    optimizer = torch.optim.Adam(policy.head.parameters(), lr=5e-5)
    gold, choice = gold_labels(setting), Choice(top_k=min(256, setting.vocabulary))

    def run() -> tuple[float, float]:
        begin = now(setting.device)
        policy.update_target(0.001)
        prompts = policy.sample(torch.rand(setting.prompts, setting.prompt, dtype=torch.float64), choice)
        middle = now(setting.device)
        log_probs = score(prompts)
        scored = now(setting.device)
        if name == "ours":
            token_nlls(model, prompts.tolist())
        gaps = gap_reward(log_probs, gold).double()
        rewards = shaped(mixed_rewards(gaps.unsqueeze(1), [1.0]), 5.0).float()
        q, target_q = policy(prompts)
        optimizer.zero_grad()
        soft_q_loss("both", q, target_q, prompts, rewards.to(q.device)).backward()
        torch.nn.utils.clip_grad_norm_(policy.head.parameters(), 5.0)
        optimizer.step()
        return scored - middle, now(setting.device) - begin

    return run

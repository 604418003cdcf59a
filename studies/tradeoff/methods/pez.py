"""PEZ (arXiv 2302.03668), and PEZ with the prompt's perplexity in the loss."""

from __future__ import annotations

import math
from functools import partial

from peft import get_peft_model
from transformers import set_seed

from peft_interp.metrics.references import human_perplexity
from peft_interp.scoring.archive import ScoredPrompt
from peft_interp.search.constraints import readable
from studies.tradeoff.bench import Bench, Found
from studies.tradeoff.methods.training import train


def pez(
    bench: Bench,
    weight: float = 0.0,
    sides: str = "both",
    learning_rate: float = 0.1,
    target_percentile: float | None = None,
    length: int | None = None,
    allowed_tokens: str = "words",
    label_words: bool = False,
    unflagged: bool = False,
) -> Found:
    """Train a projected prompt; of the prompts it passed through, the best on dev is chosen.

    Args:
        bench: what to work with.
        weight: of the prompt's NLL beside the task loss.
        sides: of that NLL with a gradient, "both" or "context" (the reference code).
        learning_rate: Adam's on the latent.
        target_percentile: of human-written prompts, whose perplexity is asked for instead of a weight.
        length: tokens of the prompt, where it is not the study's.
        allowed_tokens: what it may hold, as in `InterpPromptConfig`.
        label_words: whether the label words may stand in it.
        unflagged: choose among the prompts that carry none of the flags which make a text unreadable, as
            `PromptSearchTrainer` does; where all carry one, among all.
    """
    set_seed(bench.seed)
    length = length or bench.length
    target = None
    if target_percentile is not None:
        target = human_perplexity(bench.model, bench.tokenizer, target_percentile, length)
    config = bench.prompt_config(
        perplexity_weight=weight,
        perplexity_gradient=sides,
        target_perplexity=target,
        num_virtual_tokens=length,
        allowed_tokens=allowed_tokens,
        **({"banned_words": None} if label_words else {}),
    )
    model = get_peft_model(bench.model, config)
    visited: list[ScoredPrompt] = []

    def look(step: int) -> None:
        visited.extend(bench.score_on_dev([model.prompt_token_ids()], step))

    steps = train(bench, model, look, learning_rate)
    enough = None if target is None else math.log(target)
    keep = partial(_unflagged, bench) if unflagged else None
    choices = list(filter(keep, visited)) or visited
    best = min(choices, key=lambda record: objective(record, weight) if enough is None else missed(record, enough))
    changed = [record.step for record in visited if record.ids != visited[0].ids]
    details = {
        "steps": steps,
        "different_prompts": len({record.ids for record in visited}),
        "last_new_prompt": max(changed, default=0),
        "last_text": visited[-1].text,
    }
    return Found.of_board(bench, best.ids, start=visited[0], details=details, keep=keep)


def _unflagged(bench: Bench, record: ScoredPrompt) -> bool:
    return readable(record.text, record.ids, bench.tokenizer)


def missed(record: ScoredPrompt, enough: float) -> tuple[float, float, float]:
    """What a run with a target wants less of, on dev: nats above the target, then wrong answers, then loss."""
    accuracy, loss, nll = (record.scores[name] or 0.0 for name in ("accuracy", "loss", "nll"))
    return (max(0.0, nll - enough), -accuracy, loss)


def objective(record: ScoredPrompt, weight: float) -> tuple[float, float]:
    """What a run with this weight wants less of, on dev: wrong answers first, or the loss that it was trained on."""
    accuracy, loss, nll = (record.scores[name] or 0.0 for name in ("accuracy", "loss", "nll"))
    if not weight:
        return (-accuracy, loss)
    return (loss + weight * nll, -accuracy)

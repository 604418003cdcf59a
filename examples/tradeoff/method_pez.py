"""PEZ (arXiv 2302.03668), and PEZ with the prompt's perplexity in the loss."""

from __future__ import annotations

from peft import get_peft_model
from prompt_training import train
from study_bench import Bench
from study_found import Found
from transformers import set_seed

from peft_interp.scoring.archive import ScoredPrompt


def pez(bench: Bench, weight: float = 0.0, sides: str = "both", learning_rate: float = 0.1) -> Found:
    """Train a projected prompt; of the prompts it passed through, the best on dev is chosen.

    Args:
        bench: what to work with.
        weight: of the prompt's NLL beside the task loss.
        sides: of that NLL with a gradient, "both" or "context" (the reference code).
        learning_rate: Adam's on the latent.
    """
    set_seed(bench.seed)
    config = bench.prompt_config(perplexity_weight=weight, perplexity_gradient=sides)
    model = get_peft_model(bench.model, config)
    visited: list[ScoredPrompt] = []

    def look(step: int) -> None:
        visited.extend(bench.score_on_dev([model.prompt_token_ids()], step))

    steps = train(bench, model, look, learning_rate)
    best = min(visited, key=lambda record: objective(record, weight))
    changed = [record.step for record in visited if record.ids != visited[0].ids]
    details = {
        "steps": steps,
        "different_prompts": len({record.ids for record in visited}),
        "last_new_prompt": max(changed, default=0),
        "last_text": visited[-1].text,
    }
    return Found.of_board(bench, best.ids, start=visited[0], details=details)


def objective(record: ScoredPrompt, weight: float) -> tuple[float, float]:
    """What a run with this weight wants less of, on dev: wrong answers first, or the loss that it was trained on."""
    accuracy, loss, nll = (record.scores[name] or 0.0 for name in ("accuracy", "loss", "nll"))
    if not weight:
        return (-accuracy, loss)
    return (loss + weight * nll, -accuracy)

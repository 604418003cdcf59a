"""Made-up records of the study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TRADEOFF = Path(__file__).parents[2] / "studies" / "tradeoff"


def measured(role: str = "chosen", accuracy: float = 0.8, nll: float | None = 5.0, **values: Any) -> dict[str, Any]:
    tokens = {"ids": [1] * 8, "text": " some words", "score": 0.3, "readable": False, "survives": True, "nll": nll}
    tokens |= {"nll_human": 3.0, "nll_random": 10.0, "flags": {}, "unreadable_flags": [], "repetition": 0.0}
    exact = {"cosine_distance": 0.0, "euclidean_distance": 0.0, "logit_mse": 0.0, "kl": 0.0, "loss_difference": 0.0}
    tokens |= {"nll_percentile": 10.0, "dev_accuracy": accuracy, "dev_loss": 0.5, "faithfulness": exact}
    exact["accuracy_difference"] = 0.0
    return {"role": role, "accuracy": accuracy, "loss": 0.5, **(tokens if nll is not None else {}), **values}


def record(split: int, method: str, *prompts: dict[str, Any], weight: float = 0.0, **values: Any) -> dict[str, Any]:
    family = f"{method}{' + perplexity' if weight else ''}"
    settings = {"weight": weight} if weight else {}
    place = {"task": "films", "split": split, "seed": split, "method": method, "family": family}
    about = {"values": settings, "setting": f"weight {weight}" if weight else "", "key": f"{split}-{family}"}
    about["study"] = {"versions": {"torch": "2.13.0"}}
    costs = {"budget": 10, "evaluations": 10, "cpu_seconds": 1.0, "cpu_seconds_measuring": 1.0, "peak_bytes": 1 << 20}
    return {**place, **about, **costs, "prompts": list(prompts), "details": {"stuck": False, "frozen": False}, **values}


def study(weighted: float, nll: float = 2.0, text_loss: float = 0.2, readable: bool = False) -> list[dict[str, Any]]:
    """Six splits: no prompt, a soft prompt and its reading, PEZ, and PEZ with perplexity at accuracy `weighted`."""
    found = []
    for split in range(6):
        jitter = 0.004 * split
        reading = measured("reading", 0.75 + jitter - text_loss, 10.0)
        soft = measured("chosen", 0.75 + jitter, None, faithfulness=measured()["faithfulness"])
        found += [
            record(split, "empty", measured(accuracy=0.5, nll=None)),
            record(split, "prompt_tuning", soft, reading),
            record(split, "pez", measured(accuracy=0.8 + jitter, nll=7.0 + jitter)),
            record(split, "pez", measured(accuracy=weighted - jitter, nll=nll, readable=readable), weight=0.3),
        ]
    return found


def several_seeds() -> list[dict[str, Any]]:
    """Split 0 with two seeds of PEZ, one good and fluent, one bad; split 1 with one good seed."""
    runs = [record(split, "empty", measured(accuracy=0.5, nll=None)) for split in (0, 1)]
    for split, seed, accuracy, nll in ((0, 0, 0.8, 2.0), (0, 5, 0.6, 8.0), (1, 1, 0.8, 2.0)):
        own = record(split, "pez", measured(accuracy=accuracy, nll=nll), seed=seed, key=f"{split}-{seed}")
        runs.append({**own, "details": {"stuck": seed == 5, "frozen": False}})
    return runs


def rlprompt_runs(budget: int, nll: float) -> list[dict[str, Any]]:
    """Six splits of RLPrompt, plain and with perplexity at log-perplexity `nll`, both at one budget."""
    found = []
    for split in range(6):
        jitter = 0.3 * (-1) ** split
        found += [
            record(split, "empty", measured(accuracy=0.5, nll=None)),
            record(split, "rlprompt", measured(nll=7.0), budget=budget),
            record(split, "rlprompt", measured(nll=nll + jitter), weight=0.3, budget=budget),
        ]
    return found

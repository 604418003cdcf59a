"""Time of a training step: our prompt with projection and perplexity term against stock prompt tuning."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.timing import compare, interleave, now
from benchmarks.training_step.setting import ADAPTERS, LABELS, Setting, adapted, random_batch, trained_parameter


def training_steps(setting: Setting, repetitions: int, warmups: int) -> list[dict[str, Any]]:
    """Both kinds of labels; `step` is forward, backward and zero_grad, `step_with_optimizer` has AdamW as well."""
    return [{"labels": labels, **_compare(setting, labels, repetitions, warmups)} for labels in LABELS]


def growth(setting: Setting, prompts: Sequence[int], batches: Sequence[int], repetitions: int) -> list[dict[str, Any]]:
    """How the step grows with the length of the prompt and with the batch, with one label per row."""
    varied = [("prompt", replace(setting, prompt=prompt)) for prompt in prompts]
    varied += [("batch", replace(setting, batch=batch)) for batch in batches]
    return [
        {"varied": name, "prompt": one.prompt, "batch": one.batch, **_compare(one, "one", repetitions, warmups=1)}
        for name, one in varied
    ]


def _compare(setting: Setting, labels: str, repetitions: int, warmups: int) -> dict[str, Any]:
    steps = {adapter: _step(setting, adapter, labels) for adapter in ADAPTERS}
    kept = interleave(steps, repetitions, warmups)
    return {
        name: compare([seconds[part] for seconds in kept["ours"]], [seconds[part] for seconds in kept["stock"]])
        for part, name in enumerate(("step", "step_with_optimizer"))
    }


def _step(setting: Setting, adapter: str, labels: str) -> Callable[[], tuple[float, float]]:
    """A real training step: as the optimizer moves the prompt, ours has to project it anew every time."""
    model, batch = adapted(setting, adapter), random_batch(setting, labels)
    optimizer = torch.optim.AdamW([trained_parameter(model)], lr=0.01)

    def run() -> tuple[float, float]:
        begin = now(setting.device)
        optimizer.zero_grad()
        model(**batch).loss.backward()
        middle = now(setting.device)
        optimizer.step()
        return middle - begin, now(setting.device) - begin

    return run

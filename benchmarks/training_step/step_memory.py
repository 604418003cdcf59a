"""Peak memory of training steps, beyond what model and batch occupy before them."""

from typing import Any

import torch

from benchmarks.peak_memory import each_alone, rise
from benchmarks.training_step.setting import ADAPTERS, LABELS, Setting, adapted, quiet, random_batch, trained_parameter

STEPS = 3  # the first one computes the table's norms, the others project anew


def step_memory(setting: Setting) -> list[dict[str, Any]]:
    """Peak bytes of both adapters for both kinds of labels, and their ratio."""
    cases = [(setting, adapter, labels) for labels in LABELS for adapter in ADAPTERS]
    found = zip(cases, each_alone(peak_of_steps, cases, setting.device, processes=2), strict=True)
    peaks = {(adapter, labels): peak for (_, adapter, labels), peak in found}
    return [
        {
            "labels": labels,
            "ours_bytes": peaks["ours", labels],
            "other_bytes": peaks["stock", labels],
            "ratio": peaks["ours", labels] / peaks["stock", labels],
        }
        for labels in LABELS
    ]


def peak_of_steps(setting: Setting, adapter: str, labels: str) -> int:
    """Bytes that the steps take."""
    quiet()
    model, batch = adapted(setting, adapter), random_batch(setting, labels)
    optimizer = torch.optim.AdamW([trained_parameter(model)], lr=0.01)

    def run() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()

    return rise(setting.device, run)

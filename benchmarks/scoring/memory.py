"""Peak memory of scoring, beyond model and data, while prompts and examples grow."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import transformers

from benchmarks.peak_memory import each_alone, rise
from benchmarks.scoring.search_step import scorers
from benchmarks.scoring.setting import Setting, language_model, random_prompts

CASES = {("ours", "end"): None, ("ours", "start"): 2, ("other", "end"): 1}  # how many of the sizes; None: all


def scoring_memory(setting: Setting, sizes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Peak bytes for each (prompts, examples): ours at the end; the slow ones only at the first sizes."""
    asked = [(size, case) for case, several in CASES.items() for size in sizes[:several]]
    cases = [(replace(setting, prompts=p, examples=n), name, position) for (p, n), (name, position) in asked]
    peaks = each_alone(peak_of_scoring, cases, setting.device, processes=1)
    return [
        {"who": name, "position": position, "prompts": p, "examples": n, "bytes": peak}
        for ((p, n), (name, position)), peak in zip(asked, peaks, strict=True)
    ]


def peak_of_scoring(setting: Setting, name: str, position: str) -> int:
    """Bytes that scoring twice takes, the scorer's own preparation included."""
    transformers.logging.set_verbosity_error()
    model = language_model(setting)

    def run() -> None:
        score = scorers(setting, model, position)[name]
        for seed in range(2):
            score(random_prompts(setting, seed))

    return rise(setting.device, run)

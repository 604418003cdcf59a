"""Time of one projection: norms computed once against norms computed in every step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.timing import compare, interleave, now
from benchmarks.training_step.setting import Setting
from peft_interp.tuner.projection import nearest_rows, row_terms


def projection(setting: Setting, repetitions: int) -> dict[str, Any]:
    """`compare` of ours with the naive search, `speedup`, the one-off cost of the norms, and whether the ids agree."""
    generator = torch.Generator().manual_seed(0)
    table = (torch.randn(setting.vocabulary, setting.width, generator=generator) * 0.02).to(setting.device)
    latent = table[: setting.prompt] + 0.02 * torch.randn(setting.prompt, setting.width, generator=generator).to(table)
    begin = now(setting.device)
    terms = row_terms(table, "cosine")
    once = now(setting.device) - begin

    def ours() -> Tensor:
        return nearest_rows(latent, table, "cosine", terms)

    def naive() -> Tensor:
        return naive_nearest(latent, table)

    candidates = {"ours": _timed(ours, setting.device), "other": _timed(naive, setting.device)}
    kept = {name: [s for (s,) in seconds] for name, seconds in interleave(candidates, repetitions, warmups=2).items()}
    compared = compare(kept["ours"], kept["other"])
    return {
        **compared,
        "speedup": 1 / compared["ratio"],
        "norms_once_seconds": once,
        "same_ids": torch.equal(ours(), naive()),
    }


def naive_nearest(latent: Tensor, table: Tensor) -> Tensor:
    """The semantic search of PEZ's reference code (arXiv 2302.03668), which normalises the table every time."""
    return (normalize(latent) @ normalize(table).T).argmax(dim=-1)


def _timed(search: Callable[[], Tensor], device: str) -> Callable[[], tuple[float]]:
    def run() -> tuple[float]:
        begin = now(device)
        search()
        return (now(device) - begin,)

    return run

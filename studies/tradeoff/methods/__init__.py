"""Every method of the study by the name that configuration files use."""

from __future__ import annotations

from collections.abc import Callable

from studies.tradeoff.bench import Found
from studies.tradeoff.methods import fixed, pez, searches, soft

METHODS: dict[str, Callable[..., Found]] = {
    "empty": fixed.empty,
    "written": fixed.written,
    "random_tokens": fixed.random_tokens,
    "random_search": fixed.random_search,
    "human_search": fixed.human_search,
    "examples": fixed.examples,
    "moved": fixed.moved,
    "prompt_tuning": soft.prompt_tuning,
    "p_tuning": soft.p_tuning,
    "prefix_tuning": soft.prefix_tuning,
    "pez": pez.pez,
    "rlprompt": searches.rlprompt,
    "search": searches.search,
}

"""Every method of the study by the name that configuration files use."""

from __future__ import annotations

from collections.abc import Callable

import method_fixed
import method_pez
import method_rl
import method_search
import method_soft
from study_found import Found

METHODS: dict[str, Callable[..., Found]] = {
    "empty": method_fixed.empty,
    "written": method_fixed.written,
    "random_tokens": method_fixed.random_tokens,
    "random_search": method_fixed.random_search,
    "human_search": method_fixed.human_search,
    "prompt_tuning": method_soft.prompt_tuning,
    "p_tuning": method_soft.p_tuning,
    "prefix_tuning": method_soft.prefix_tuning,
    "pez": method_pez.pez,
    "rlprompt": method_rl.rlprompt,
    "search": method_search.search,
}

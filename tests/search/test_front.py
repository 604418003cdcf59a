"""Which prompts the front holds, and what a run that has no such prompt says at its end."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp.scoring.pareto import pareto_front, ranks
from peft_interp.search import constraints as constraints_module

Build = Callable[..., Any]


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_the_unbeaten_are_those_of_rank_zero(levels: int) -> None:
    """With few levels many points are equal in one column or in both."""
    for seed in range(50):
        points = torch.randint(levels, (seed, 2), generator=torch.Generator().manual_seed(seed)).double()
        assert pareto_front(points) == (ranks(points) == 0).nonzero().flatten().tolist()


def test_a_run_that_finds_nothing_readable_says_so(
    searcher: Build, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constraints_module, "readable", lambda *_: False)
    trainer = searcher()
    start = trainer.model.prompt_token_ids()
    with pytest.warns(UserWarning, match=r"none of the \d+ prompts .* can be read .*known_words=False") as caught:
        trainer.train()
    assert len([w for w in caught if "can be read" in str(w.message)]) == 1
    assert trainer.front() == []
    assert trainer.model.prompt_token_ids() == start


@pytest.mark.parametrize("held_out", [True, False])
def test_a_target_that_nobody_reaches_says_so(searcher: Build, held_out: bool) -> None:
    trainer = searcher(max_perplexity=1.01, max_steps=1, options={} if held_out else {"eval_dataset": None})
    with pytest.warns(UserWarning, match=r"within the target, a perplexity of 1.01 at most.*`max_perplexity`"):
        trainer.train()
    chosen = trainer.search.archive.find(trainer.model.prompt_token_ids(), "dev" if held_out else "train")
    assert chosen.scores["nll"] == min(record.scores["nll"] for record in trainer.front())
    assert chosen.scores["nll"] > math.log(1.01)


def test_a_target_that_is_reached_says_nothing(searcher: Build) -> None:
    trainer = searcher(max_perplexity=1e4, max_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer.train()

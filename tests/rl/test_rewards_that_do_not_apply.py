"""None is no number: a prompt of which nothing is known does not beat one with a reward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

Build = Callable[..., Any]
ROWS = [{"question": "w7"}]


@pytest.fixture
def rewarded(searcher: Build) -> Build:
    """`rewarded(*functions, **arguments)`: a search by reward functions alone."""

    def build(*functions: Any, dev: bool = False, **arguments: Any) -> Any:
        parts = {"train_dataset": ROWS, "eval_dataset": ROWS if dev else None, "verbalizer": None}
        return searcher(options={**parts, "reward_funcs": list(functions), "text_column": "question"}, **arguments)

    return build


def numbers(text: str) -> list[int]:
    return [int(word[1:]) for word in text.split()]


def penalty(completions: list[str], **kwargs: Any) -> list[float | None]:
    """Negative, and None for many."""
    return [None if any(n % 5 == 0 for n in numbers(text)) else -float(sum(numbers(text))) for text in completions]


@pytest.mark.parametrize("dev", [False, True])
def test_a_prompt_without_reward_is_not_chosen(dev: bool, rewarded: Build) -> None:
    trainer = rewarded(penalty, dev=dev, max_steps=5)
    trainer.train()
    records = [r for r in trainer.search.archive.records if r.split == ("dev" if dev else "train")]
    known = [r for r in trainer.search.archive.records if r.scores["penalty"] is not None]
    assert any(r.scores["penalty"] is None for r in trainer.search.archive.records)
    best = max((r for r in records if r.scores["penalty"] is not None), key=lambda r: r.scores["penalty"])
    assert trainer.search.best.ids == best.ids
    assert trainer.search.best.score == best.scores["penalty"] < 0
    assert all(r.fits == (r in known) for r in trainer.search.archive.records)


def test_beside_a_readability_reward_neither(rewarded: Build) -> None:
    """The best text is no answer where the task's own reward says nothing."""
    trainer = rewarded(penalty, max_steps=4, perplexity_reward_weight=0.9)
    trainer.train()
    search = trainer.search
    assert search.archive.find(search.best.ids).scores["penalty"] is not None
    silent = next(r for r in search.archive.records if r.scores["penalty"] is None)
    assert search.total(silent.scores) == -math.inf
    assert silent not in search.promising(100)


def test_it_is_not_tried_on_held_out_rows(rewarded: Build) -> None:
    trainer = rewarded(penalty, dev=True, max_steps=5, eval_candidates=200)
    trainer.train()
    tried = [r for r in trainer.search.archive.records if r.split == "dev"]
    unknown = [r for r in tried if r.scores["penalty"] is None]
    assert len(unknown) <= 2 < len(tried), "only the first prompt and the greedy one may be"


def test_the_logged_reward_is_the_mean_of_those_that_apply(rewarded: Build) -> None:
    trainer = rewarded(penalty, max_steps=1)
    trainer.train()
    (entry,) = [e for e in trainer.state.log_history if "reward" in e]
    assert entry["reward"] == pytest.approx(entry["rewards/penalty/mean"])


def test_an_evaluation_of_a_prompt_without_reward_says_so(rewarded: Build) -> None:
    trainer = rewarded(lambda completions, **_: [None] * len(completions), dev=True)
    metrics = trainer.evaluate()
    assert metrics["eval_score"] == -math.inf
    assert "eval_reward" not in metrics


def test_a_reward_that_begins_late_is_standardised_when_it_comes(rewarded: Build) -> None:
    def late(completions: list[str], trainer_state: Any, **kwargs: Any) -> list[float | None]:
        if trainer_state.global_step < 2:
            return [None] * len(completions)
        return [1000.0 + sum(numbers(text)) for text in completions]

    def low(completions: list[str], **kwargs: Any) -> list[float]:
        return [-float(max(numbers(text))) for text in completions]

    trainer = rewarded(late, low, max_steps=6)
    trainer.train()
    search = trainer.search
    assert set(search.reference) == {"late", "low"}
    assert search.reference["late"][0] > 1000
    assert all(abs(search.total(record.scores)) < 20 for record in search.archive.records)
    assert abs(search.best.score) < 20
    again = rewarded(late, low)
    again.search.load_state(search.state())
    assert again.search.reference == search.reference

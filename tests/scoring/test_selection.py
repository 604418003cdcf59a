"""One number for a prompt, who may be chosen, and errors that all processes learn of."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from peft_interp.scoring.archive import Archive, ScoredPrompt
from peft_interp.scoring.candidates import Candidate
from peft_interp.scoring.examples import Examples
from peft_interp.scoring.scored_search import Processes, ScoredSearch, best_unseen, total_score
from peft_interp.text.placement import START

EXAMPLES = Examples([], ["x", "y"], {})


class Search(ScoredSearch):
    """Goes by the reward."""

    def total(self, scores: Any) -> float:
        """The reward."""
        return float(scores["gap"])


def search(measure: Any = None, processes: Processes | None = None) -> Search:
    task = SimpleNamespace(unfinished=[], tokenizer=None, leading_ids=(), placement=START)
    scorer: Any = SimpleNamespace(
        unfinished=[], task=task, measure=measure, reward=lambda s: s["gap"], applies=lambda s: s["gap"] is not None
    )
    scorer.writes = False
    scorer.calibration_passes = lambda prompts, examples: 0  # nothing is calibrated
    return Search(scorer, EXAMPLES, processes)


def test_a_single_reward_is_taken_as_it_is() -> None:
    assert total_score({"gap": -7.0}, {"gap": 2.0}, {}) == -14.0
    assert total_score({"gap": 0.0}, {"gap": 1.0}, {}) == 0.0


def test_no_reward_at_all_is_the_worst() -> None:
    assert total_score({"gap": None}, {"gap": 1.0}, {}) == -math.inf
    assert total_score({"gap": None, "nll": None}, {"gap": 0.5, "nll": -0.5}, {}) == -math.inf


def test_several_are_standardised_and_none_is_taken_raw() -> None:
    weights, reference = {"gap": 0.5, "nll": -0.5}, {"gap": (10.0, 5.0)}
    assert total_score({"gap": 20.0, "nll": None}, weights, reference) == 1.0
    assert total_score({"gap": 20.0, "nll": 1000.0}, weights, reference) == 1.0, "no reference yet"
    assert total_score({"gap": 20.0, "nll": 8.0}, weights, {**reference, "nll": (4.0, 2.0)}) == 0.0


def test_parts_of_the_examples_do_not_make_the_best() -> None:
    one = search()
    lucky = ScoredPrompt((1,), "a", 0, {"gap": 99.0}, rows=(0,))
    whole = ScoredPrompt((2,), "b", 0, {"gap": 3.0})
    assert not one.offer([lucky])
    assert one.best is None
    assert one.offer([whole, lucky])
    assert one.best is not None
    assert one.best.ids == (2,)


def test_what_is_promising_has_no_score_on_all_examples_yet() -> None:
    records = [
        ScoredPrompt((1,), "a", 0, {"gap": 9.0}, rows=(0,)),
        ScoredPrompt((1,), "a", 1, {"gap": 2.0}),
        ScoredPrompt((2,), "b", 0, {"gap": 5.0}, rows=(0,)),
        ScoredPrompt((2,), "b", 1, {"gap": 1.0}, split="dev"),
        ScoredPrompt((3,), "c", 0, {"gap": 8.0}, fits=False, rows=(0,)),
    ]
    gap = lambda scores: scores["gap"] or 0.0  # noqa: E731
    assert [r.ids for r in best_unseen(Archive(records), gap, 9, "train")] == [(2,)]
    assert [r.ids for r in best_unseen(Archive(records), gap, 9)] == [(1,)]


def test_a_prompt_to_which_no_reward_applies_may_not_be_chosen() -> None:
    one = search(lambda candidates, *rest: [{"gap": None if c.text == "a" else 1.0} for c in candidates])
    found = one.score([Candidate((1,), "a", True, True), Candidate((2,), "b", True, True)], EXAMPLES, 0)
    assert [record.fits for record in found] == [False, True]


def failing(candidates: Any, *rest: Any) -> Any:
    raise TimeoutError("the service is gone")


def test_an_error_is_told_to_the_other_processes_and_raised_here_when_their_scores_are_kept() -> None:
    told: list[Any] = []

    def gather(items: list[Any]) -> list[Any]:
        told.extend(items)
        return [*items, (1, {"gap": 1.0})]

    one = search(failing, Processes(2, 0, gather))
    with pytest.raises(TimeoutError, match="the service is gone"):
        one.score([Candidate((1,), "a", True, True), Candidate((2,), "b", True, True)], EXAMPLES, 0)
    assert [record.ids for record in one.archive.records] == [(2,)]
    assert told == ["TimeoutError: the service is gone"]


def test_an_error_of_another_process_is_raised_here_too_when_our_scores_are_kept() -> None:
    one = search(
        lambda candidates, *rest: [{"gap": 1.0} for _ in candidates],
        Processes(2, 0, lambda items: [*items, "TimeoutError: the service is gone"]),
    )
    with pytest.raises(RuntimeError, match=r"another process could not .* \(TimeoutError: the service is gone\)"):
        one.score([Candidate((1,), "a", True, True), Candidate((2,), "b", True, True)], EXAMPLES, 0)
    assert [record.ids for record in one.archive.records] == [(1,)]

"""Reward functions in TRL's calling convention; what they do wrong is named, and nothing is lost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peft_interp.scoring.archive import Archive
from peft_interp.scoring.rewards import function_names

Build = Callable[..., Any]
ROWS = [{"question": f"w{i}", "answer": i} for i in (7, 8, 9)]


@pytest.fixture
def rewarded(searcher: Build) -> Build:
    """`rewarded(*functions, **arguments)`: a search by reward functions alone, on rows without labels."""

    def build(*functions: Any, **arguments: Any) -> Any:
        parts = {"reward_funcs": list(functions), "train_dataset": ROWS, "eval_dataset": None, "verbalizer": None}
        return searcher(options={**parts, "text_column": "question"}, **arguments)

    return build


def high_words(completions: list[str], **kwargs: Any) -> list[float]:
    """Sum of the words' numbers."""
    return [float(sum(int(word[1:]) for word in text.split())) for text in completions]


def test_a_search_climbs_a_function_of_the_text(rewarded: Build) -> None:
    trainer = rewarded(high_words, max_steps=60, prompts_per_step=12)
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert sum(rewards[-10:]) / 10 > sum(rewards[:10]) / 10 + 15
    best = max(record.scores["high_words"] for record in trainer.search.archive.records)
    assert trainer.model.best_prompt()[1] == best > 150


def test_functions_are_called_as_trl_calls_them(rewarded: Build) -> None:
    calls: list[dict[str, Any]] = []

    def remember(
        prompts: Any, completions: Any, completion_ids: Any, answer: Any, trainer_state: Any, **rest: Any
    ) -> Any:
        calls.append({"prompts": prompts, "completions": completions, "answer": answer, "ids": completion_ids, **rest})
        assert trainer_state.global_step == len(calls) - 1
        return high_words(completions)

    rewarded(remember, max_steps=2).train()
    first = calls[0]
    count = len(first["completions"])
    assert count == 6
    assert first["prompts"] == [["w7", "w8", "w9"]] * count
    assert first["answer"] == [[7, 8, 9]] * count
    assert first["question"] == [["w7", "w8", "w9"]] * count
    assert [[f"w{i}" for i in ids] for ids in first["ids"]] == [text.split() for text in first["completions"]]


def test_weights_and_names(rewarded: Build) -> None:
    def low(completions: list[str], **kwargs: Any) -> list[float]:
        return [-value for value in high_words(completions)]

    trainer = rewarded(high_words, low, reward_weights=[2.0, 1.0], max_steps=1)
    trainer.train()
    (entry,) = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert entry["rewards/low/mean"] == -entry["rewards/high_words/mean"]
    assert entry["reward"] == pytest.approx(entry["rewards/high_words/mean"])
    best = max(trainer.search.archive.records, key=lambda record: record.scores["high_words"])
    assert trainer.model.prompt_token_ids() == list(best.ids), "2 z - 1 z goes by the heavier one"


def test_none_is_ignored_for_that_prompt(rewarded: Build) -> None:
    def only_even(completions: list[str], **kwargs: Any) -> list[float | None]:
        return [value if value % 2 == 0 else None for value in high_words(completions)]

    trainer = rewarded(high_words, only_even, max_steps=3)
    trainer.train()
    scores = [record.scores for record in trainer.search.archive.records]
    assert any(score["only_even"] is None for score in scores)
    assert all(score["only_even"] in (None, score["high_words"]) for score in scores)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            lambda n: [float("nan")] * n,
            r"'broken' returned nan for the prompt 'w.*' *; return a finite number from .*, or None",
        ),
        (lambda n: [1.0] * (n - 1), r"'broken' returned 5 numbers for 6 completions"),
        (lambda n: None, r"'broken' returned None, which is no list of numbers"),
        (lambda n: ["good"] * n, r"'broken' returned \['good'.*, which is no list of numbers"),
    ],
)
def test_returning_no_number_is_named(returned: Any, message: str, rewarded: Build) -> None:
    def broken(completions: list[str], **kwargs: Any) -> list[float]:
        result: list[float] = returned(len(completions))
        return result

    with pytest.raises(ValueError, match=message):
        rewarded(broken).train()


def test_an_exception_names_the_prompts_and_the_archive_is_saved_first(rewarded: Build, tmp_path: Path) -> None:
    def fails_later(completions: list[str], trainer_state: Any, **kwargs: Any) -> list[float]:
        if trainer_state.global_step == 2:
            raise TimeoutError("the service is gone")
        return high_words(completions)

    trainer = rewarded(fails_later, logging_steps=100)
    with pytest.raises(TimeoutError, match="the service is gone") as raised:
        trainer.train()
    (note,) = raised.value.__notes__
    assert "'fails_later' for the prompts ['w" in note
    saved = Archive.read(tmp_path / "run" / "archive.jsonl").records
    assert {record.step for record in saved} == {0, 1}
    assert saved == trainer.search.archive.records


@pytest.mark.parametrize("what", ["reward", "scrutability"])
def test_an_exception_costs_no_pass_of_the_task_model(what: str, searcher: Build, tmp_path: Path) -> None:
    """The scores of its step would be lost: none are paid for, and the order of the scores stays."""

    def fails(*args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == 2:
            raise TimeoutError("the service is gone")
        return 1.0 if what == "scrutability" else high_words(**kwargs)

    options = {"reward_funcs": fails} if what == "reward" else {"scrutability": fails}
    weight = {} if what == "reward" else {"scrutability_reward_weight": 0.3}
    trainer = searcher(options=options, **weight)
    with pytest.raises(TimeoutError, match="the service is gone"):
        trainer.train()
    scorer, records = trainer.search.scorer, Archive.read(tmp_path / "run" / "archive.jsonl").records
    assert {record.step for record in records} == {0, 1}
    paid = scorer._task_scorer(trainer.search.train).forward_passes
    assert paid == trainer.search.evaluations == len(records) * len(trainer.search.train)
    own = ("fails",) if what == "reward" else ()
    assert tuple(records[0].scores)[:4] == ("loss", "accuracy", "gap", *own, "repetition_penalty")[:4]


def test_a_function_beside_the_task(searcher: Build) -> None:
    trainer = searcher(options={"reward_funcs": high_words}, max_steps=2)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["reward"] == pytest.approx(entry["rewards/gap/mean"] + entry["rewards/high_words/mean"])


def test_what_cannot_be_called_is_refused(rewarded: Build) -> None:
    with pytest.raises(ValueError, match=r"reward function 'accuracy' cannot be called"):
        rewarded("accuracy")


def test_a_function_named_like_a_logged_number_does_not_replace_it(searcher: Build) -> None:
    def score(completions: list[str], **kwargs: Any) -> list[float]:
        return [1000.0 for _ in completions]

    def reward(completions: list[str], **kwargs: Any) -> list[float]:
        return [-value for value in high_words(completions)]

    options = {"reward_funcs": [score, reward]}
    trainer = searcher(options=options, eval_strategy="steps", eval_steps=2, perplexity_reward_weight=0.2)
    trainer.train()
    (*_, last) = [entry for entry in trainer.state.log_history if "eval_score" in entry]
    assert last["eval_score"] == trainer.search.best.score != 1000
    assert (
        last["eval_reward"]
        == trainer.search.best.reward
        == pytest.approx(last["eval_gap"] + last["eval_score_0"] + last["eval_reward_1"])
    )
    assert last["eval_score_0"] == 1000


def test_names_are_never_given_twice() -> None:
    functions = [type("F", (), {"__name__": name, "__call__": high_words})() for name in ("score_1", "score", "score")]
    names = function_names(functions)
    assert names[0] == "score_1"
    assert len({*names, "score"}) == 4
    for taken in ("reward", "prompt", "greedy_reward", "greedy_prompt", "hypervolume", "front_size", "runtime", "nll"):
        assert function_names([type("F", (), {"__name__": taken, "__call__": high_words})()]) == [f"{taken}_0"]


def test_columns_named_like_an_argument_are_left_out_and_named(searcher: Build) -> None:
    def remember(prompts: Any, completions: list[str], answer: Any, **rest: Any) -> list[float]:
        assert set(rest) == {"completion_ids", "trainer_state", "question"}
        assert prompts[0] == ["w7"]
        return high_words(completions)

    rows = [{"question": "w7", "answer": 1, "prompts": "mine", "completions": "mine"}]
    parts = {"reward_funcs": remember, "train_dataset": rows, "eval_dataset": None, "verbalizer": None}
    with pytest.warns(UserWarning, match=r"has columns \['prompts', 'completions'\].*Rename"):
        trainer = searcher(options={**parts, "text_column": "question"}, max_steps=1)
    trainer.train()
    assert trainer.search.best is not None


@pytest.mark.parametrize("value", [1e13, -1e300, 1.7e308])
def test_huge_numbers_are_refused_by_name(rewarded: Build, value: float) -> None:
    """They are finite, and would make everything that is compared infinite."""

    def huge(completions: list[str], **kwargs: Any) -> list[float]:
        return [value, *[1.0] * (len(completions) - 1)]

    with pytest.raises(ValueError, match=r"'huge' returned .* for the prompt 'w.*from -1e\+12 to 1e\+12"):
        rewarded(huge, max_steps=1).train()


def test_large_numbers_within_the_bound_are_learned_from(rewarded: Build) -> None:
    trainer = rewarded(lambda completions, **kwargs: [1e12 * (i % 2) for i, _ in enumerate(completions)], max_steps=2)
    trainer.train()
    assert all(math.isfinite(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry)


def test_a_function_that_changes_what_it_is_given_changes_nothing_else(rewarded: Build) -> None:
    seen: list[Any] = []

    def vandal(
        prompts: Any, completions: Any, completion_ids: Any, answer: Any, trainer_state: Any, **rest: Any
    ) -> Any:
        seen.append((list(prompts[0]), list(answer[0]), trainer_state.global_step))
        scores = high_words(completions)
        prompts[0].clear()
        answer[0][:] = ["gone"]
        completion_ids[0].append(99)
        completions[:] = ["gone"] * len(completions)
        trainer_state.global_step = 10**6
        return scores

    trainer = rewarded(vandal, max_steps=3)
    trainer.train()
    assert [(inputs, answers) for inputs, answers, _ in seen[:3]] == [(["w7", "w8", "w9"], [7, 8, 9])] * 3
    assert [step for *_, step in seen[:3]] == [0, 1, 2]
    assert all("gone" not in record.text and 99 not in record.ids for record in trainer.search.archive.records)


def test_a_function_that_hangs_ends_the_run_with_its_name(rewarded: Build) -> None:
    def hanging(completions: list[str], trainer_state: Any, **kwargs: Any) -> list[float]:
        if trainer_state.global_step == 1:
            time.sleep(60)
        return high_words(completions)

    trainer = rewarded(hanging, max_steps=3, reward_time_limit=1.0)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"'hanging' took longer than `reward_time_limit=1.0` seconds"):
        trainer.train()
    assert time.monotonic() - began < 50
    assert {record.step for record in trainer.search.archive.records} == {0}


def test_scores_of_the_other_functions_are_kept_when_one_fails(rewarded: Build, tmp_path: Path) -> None:
    def failing(completions: list[str], trainer_state: Any, **kwargs: Any) -> list[float]:
        if trainer_state.global_step == 1:
            raise LookupError("no such word")
        return high_words(completions)

    with pytest.raises(LookupError, match="no such word") as caught:
        rewarded(high_words, failing, max_steps=3).train()
    (note,) = caught.value.__notes__
    assert "raised by reward function 'failing' for the prompts ['w" in note
    assert "go on with `trainer.train(resume_from_checkpoint=True)`" in note
    records = Archive.read(tmp_path / "run" / "archive.jsonl").records
    failed = [record for record in records if record.split == "failed"]
    assert {record.step for record in failed} == {1}
    assert all(record.scores == {"high_words": high_words([record.text])[0]} for record in failed)
    assert not any(record.fits for record in failed)

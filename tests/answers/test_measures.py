"""Scores of single answers; ROUGE against values that were computed with `rouge_score` 0.1.2's definitions by hand."""

from __future__ import annotations

import pytest

from peft_interp import exact_match_reward, json_reward, on_answers, rouge_reward
from peft_interp.answers.measures import exact_match, json_keys, json_progress, rouge_l, rouge_n


@pytest.mark.parametrize(
    ("answer", "equal"),
    [("great", 1), (" Great.\n", 1), ('"great"', 1), ("great film", 0), ("", 0), ("gre at", 0)],
)
def test_exact_match(answer: str, equal: int) -> None:
    assert exact_match(answer, "great") == equal


def test_rouge() -> None:
    # common subsequence "the cat the mat": 4 of 6 and 4 of 5 words
    assert rouge_l("The cat sat on the mat.", "the cat, the red mat") == pytest.approx(2 * 4 / 11)
    assert rouge_n("The cat sat on the mat.", "the cat, the red mat", 1) == pytest.approx(2 * 4 / 11)
    assert rouge_n("The cat sat on the mat.", "the cat, the red mat", 2) == pytest.approx(2 * 1 / 9)
    assert rouge_l("mat the", "the mat") == pytest.approx(0.5), "order counts"
    assert rouge_n("mat the", "the mat") == 1
    assert rouge_n("a a a", "a b") == pytest.approx(2 * 1 / 5), "a word counts as often as both have it"
    assert rouge_l("", "the mat") == rouge_l("...", "the mat") == rouge_n("x", "", 2) == 0


@pytest.mark.parametrize(
    ("answer", "valid", "progress"),
    [
        ('{"name": "Ann", "age": 3}', 1, 1),
        (' {"age": null, "name": []}\n', 1, 1),
        ('{"name": "Ann"}', 0, 0.625),
        ('{"name": "Ann", "age": 3, "more": 1}', 0, 0.75),
        ('{"name": "Ann", "age": 3} Well', 0, 0.5),
        ('["name", "age"]', 0, 0.25),
        ("The name is Ann.", 0, 0),
    ],
)
def test_json(answer: str, valid: int, progress: float) -> None:
    assert json_keys(answer, ["name", "age"]) == valid
    assert json_progress(answer, ["name", "age"]) == pytest.approx(progress)


def test_reward_functions_are_called_as_trl_calls_them() -> None:
    rows = {"completions": ["A cat.", "dog"], "prompts": ["x", "y"], "completion_ids": [[1], [2]], "trainer_state": 0}
    assert exact_match_reward("word")(**rows, word=["cat", "dog"]) == [0, 1]
    assert exact_match_reward()(**rows, answer=["a cat", None]) == [1, None]
    assert rouge_reward("word", "rouge1")(**rows, word=["cat", "dog"]) == [pytest.approx(2 / 3), 1]
    assert json_reward(["a"])(completions=['{"a": 1}', "{}"]) == [1, 0]
    names = [f.__name__ for f in (exact_match_reward(), rouge_reward(), json_reward(["a"]), json_reward(["a"], True))]
    assert names == ["exact_match", "rougeL", "valid_json", "json_progress"]
    assert on_answers(rouge_reward()).__name__ == "rougeL"


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"no column 'answer' to compare answers with, only \['label'\]"):
        exact_match_reward()(completions=["x"], label=[1])
    with pytest.raises(ValueError, match="`kind='rougeW'` is unknown; use one of rougeL"):
        rouge_reward(kind="rougeW")
    with pytest.raises(ValueError, match="`keys='name'` must be a list"):
        json_reward("name")
    with pytest.raises(ValueError, match="cannot be called"):
        on_answers(3)  # type: ignore[arg-type]

"""Two programs' answers to one prompt: what counts as a difference."""

from __future__ import annotations

import pytest

from benchmarks.served import Answer, Differences, count_differences


def test_each_kind_of_difference_is_counted_once() -> None:
    ours = [
        Answer((1, 2), 5, 2.0, 0.5),  # the same there
        Answer((1, 2), 5, 0.25, 0.5),  # another token next, the same label
        Answer((1, 2), 5, 0.75, 0.25),  # another token next, and another label
        Answer((1, 2), 5, 3.0, -1.0),  # cut into other tokens
    ]
    theirs = [
        Answer((1, 2), 5, 1.0, 0.5),
        Answer((1, 2), 6, 9.0, 1.0),
        Answer((1, 2), 7, 9.0, -0.75),
        Answer((0, 1, 2), 5, 3.0, -1.5),
    ]
    assert count_differences(ours, theirs) == Differences(
        inputs=4, tokens=1, next_tokens=2, lead=0.75, labels=1, mean_gap=0.5, most_gap=1.0
    )


def test_equal_answers_differ_in_nothing() -> None:
    answers = [Answer((1, 2), 5, 2.0, 0.5), Answer((3,), 4, 0.0, 0.0)]
    assert count_differences(answers, answers) == Differences(2, 0, 0, 0.0, 0, 0.0, 0.0)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 2)])
def test_answers_without_their_counterpart_are_refused(first: int, second: int) -> None:
    answer = Answer((1,), 2, 0.0, 0.0)
    with pytest.raises(ValueError, match=f"{first} answers and {second}"):
        count_differences([answer] * first, [answer] * second)

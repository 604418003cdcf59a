"""The prompt's text pasted into rows and tokenised again: what survives, and what shows when it does not."""

from __future__ import annotations

from typing import Any

import pytest

from peft_interp import embedded
from peft_interp.metrics.faithfulness import measure_faithfulness
from peft_interp.metrics.text_rows import with_text
from peft_interp.text.rows import Row
from peft_interp.text.tokenization import decode_after

Build = Any


def pasted(tokenizer: Any, row: Row, ids: list[int]) -> Any:
    return with_text(tokenizer, [row], tokenizer.decode(ids), ids)[0]


def unstable_ids(tokenizer: Any) -> list[int]:
    """Two real tokens whose text the tokenizer joins to others."""
    pieces = [tokenizer.encode(x, add_special_tokens=False)[0] for x in (" f", "ilm")]
    assert tokenizer.encode(tokenizer.decode(pieces), add_special_tokens=False) != pieces
    return pieces


def test_a_text_that_survives(english: Any) -> None:
    ids = english.encode("Movie review:", add_special_tokens=False)
    body = english.encode(" A fine film. It was great", add_special_tokens=False)
    found = pasted(english, Row((), tuple(body), tuple(body)), ids)
    assert found.ids == ids + body
    assert found.columns == {j: len(ids) + j for j in range(len(body))}
    assert found.error_rate == 0
    assert found.predicted(0) == {j: len(ids) + j - 1 for j in range(len(body))}


def test_ids_that_do_not_survive_show(english: Any) -> None:
    ids = unstable_ids(english)
    body = english.encode(" A fine film. It was great", add_special_tokens=False)
    found = pasted(english, Row((), tuple(body), tuple(body)), ids)
    again = english.encode(english.decode(ids), add_special_tokens=False)
    assert found.ids == again + body
    assert found.error_rate == (2 if len(again) == 1 else 1) / 2
    assert found.columns[0] == len(again)


def test_only_the_junction_changes_where_prompt_and_row_melt(english: Any) -> None:
    """A row that begins without a blank becomes one word with the prompt; its answer can still be compared."""
    ids = english.encode("A good fil", add_special_tokens=False)
    body = english.encode("m review. It was great", add_special_tokens=False)
    found = pasted(english, Row((), tuple(body), tuple(body)), ids)
    assert found.ids == english.encode("A good film review. It was great", add_special_tokens=False)
    assert found.error_rate > 0
    last = len(body) - 1
    assert found.columns[last] == len(found.ids) - 1
    assert last in found.predicted(0)
    assert 0 not in found.columns


def test_a_row_that_does_not_survive_by_itself_keeps_its_ids(english: Any) -> None:
    """Its change would say nothing about the prompt."""
    ids = english.encode("Movie review:", add_special_tokens=False)
    body = english.encode(" A fine", add_special_tokens=False) + unstable_ids(english)
    assert english.encode(" A fine" + english.decode(body[-2:]), add_special_tokens=False) != body
    found = pasted(english, Row((), tuple(body), tuple(body)), ids)
    assert found.ids == ids + body
    assert found.error_rate == 0


def test_bos_stays_in_front(words: Any) -> None:
    found = with_text(words, [Row((1,), (5, 6), (5, 6)), Row((), (7,), (7,))], "w8 w9", [8, 9])
    assert [row.ids for row in found] == [[1, 8, 9, 5, 6], [8, 9, 7]]
    assert [row.columns for row in found] == [{0: 3, 1: 4}, {0: 2}]


def test_no_text_leaves_rows_alone(words: Any) -> None:
    bare = with_text(words, [Row((), (5, 6), (5, 6))], "", [])[0]
    assert bare.ids == [5, 6]
    assert bare.predicted(0) == {1: 0}  # nothing predicts the first


def test_a_prompt_right_before_the_answer(words: Any) -> None:
    row = Row((1,), (5, 6, 7), (-100, -100, 7), start=2)
    found = with_text(words, [row], " w8 w9", [8, 9])[0]
    assert found.ids == [1, 5, 6, 8, 9, 7]
    assert found.columns == {0: 1, 1: 2, 2: 5}
    assert found.predicted(row.start) == {0: 0, 1: 1, 2: 4}


def test_a_token_after_other_text_has_its_blank(english: Any, words: Any) -> None:
    assert decode_after(words, [7, 8]) == " w7 w8"
    assert decode_after(english, english.encode(" film", add_special_tokens=False)) == " film"


def test_the_measure_reports_the_error_rate_and_still_compares(
    readable: Build, english: Any, sentiment: Any, answers: list[int]
) -> None:
    ids = unstable_ids(english)
    model = readable(embedded.load_model(), num_virtual_tokens=2)
    model.use_prompt(ids)
    quick = {"token_effects": False, "without": False, "progress": False}
    found = measure_faithfulness(model, english, sentiment["test"][:20], answers, **quick)
    assert found.token_error_rate >= 0.5
    assert found.skipped_rows == 0
    assert found.cosine_distance == 0  # the vectors are tokens, but their text is not those tokens
    assert found.logit_mse > 1e-3


def test_rows_whose_answer_melts_into_the_prompt_are_skipped_and_counted(readable: Build, english: Any) -> None:
    ids = english.encode("A good fil", add_special_tokens=False)
    melting = english.encode("m review", add_special_tokens=False)
    fine = english.encode(" It was great", add_special_tokens=False)
    rows = [{"input_ids": melting, "labels": [melting[0]] + [-100] * (len(melting) - 1)}]
    model = readable(embedded.load_model(), num_virtual_tokens=len(ids))
    model.use_prompt(ids)
    with pytest.raises(ValueError, match="answer of every row is tokenised differently after the text 'A good fil'"):
        measure_faithfulness(model, english, rows, progress=False)
    rows.append({"input_ids": fine, "labels": [-100] * (len(fine) - 1) + fine[-1:]})
    found = measure_faithfulness(model, english, rows, progress=False)
    assert (found.rows, found.skipped_rows) == (1, 1)

"""One decision in four forms: in a row's ids, in a padded batch, in a template and in an adapter's config."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from peft_interp import InterpPromptConfig, Verbalizer
from peft_interp.text.placement import (
    END,
    MARKED,
    PLACEMENTS,
    START,
    Placement,
    placement_in,
    placement_named,
    placement_of,
)
from peft_interp.text.rows import read_rows
from peft_interp.tuner.layout import place_prompt

BOS, PAD = 1, 0
every = pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=list(PLACEMENTS))
unmarked = pytest.mark.parametrize("placement", [START, END], ids=["start", "end"])


def padded_batch(seed: int, marked: bool = False) -> dict[str, torch.Tensor]:
    """Rows of 2 to 6 tokens, some with BOS, some with labels, padded on one side; perhaps each with a marked place."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda low, high: int(torch.randint(low, high, (), generator=generator))  # noqa: E731
    columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for number in range(6):
        ids = [draw(2, 50) for _ in range(draw(2, 7))]
        ids = [BOS, *ids[1:]] if draw(0, 2) else ids
        labels = [i if number == 0 or draw(0, 3) == 0 else -100 for i in ids]
        pad = [PAD] * (6 - len(ids))
        left, mask = seed % 2, [1] * len(ids)
        if marked:
            place = draw(1, len(ids))
            for values, mark in ((ids, PAD), (mask, 0), (labels, -100)):
                values.insert(place, mark)
        for name, values, fill in (("input_ids", ids, 0), ("attention_mask", mask, 0), ("labels", labels, -100)):
            filled = [fill] * len(pad)
            columns[name].append([*filled, *values] if left else [*values, *filled])
    return {name: torch.tensor(values) for name, values in columns.items()}


@every
def test_ids_and_padded_batches_have_the_prompt_in_the_same_place(placement: Placement) -> None:
    for seed in range(40):
        batch = padded_batch(seed, placement.marked)
        prompt = torch.tensor([97, 98, 99])
        ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
        layout = place_prompt(ids.shape, 3, ids, mask, [BOS], placement, labels.ne(-100))
        whole, attended = layout.insert(prompt, ids), layout.fill(1, mask)
        rows = read_rows(
            [{name: values[i] for name, values in batch.items()} for i in range(len(ids))], [BOS], placement
        )
        for i, row in enumerate(rows):
            assert whole[i][attended[i].bool()].tolist() == [*row.before, *prompt.tolist(), *row.after]


@every
def test_a_prompt_survives_the_way_to_text_and_back(placement: Placement, tokenizer: Any) -> None:
    for text in ("The film", " great", "The acting was great"):
        ids = placement.encode_prompt(tokenizer, text)
        shown = placement.decode_prompt(tokenizer, ids)
        assert placement.encode_prompt(tokenizer, shown) == ids
        assert shown.strip() == text.strip()


def test_only_after_other_text_a_prompt_gets_a_blank(byte_tokenizer: Any) -> None:
    plain = byte_tokenizer.encode("great", add_special_tokens=False)
    blank = byte_tokenizer.encode(" great", add_special_tokens=False)
    assert plain != blank
    assert START.encode_prompt(byte_tokenizer, "great") == plain
    assert END.encode_prompt(byte_tokenizer, "great") == END.encode_prompt(byte_tokenizer, " great") == blank
    assert END.decode_prompt(byte_tokenizer, blank) == " great"


@pytest.mark.parametrize(
    ("template", "fits"),
    [
        ("{text} It was", (START, END)),
        ("{prompt} {text} It was", (START,)),
        ("Hello! {prompt} {text}", (START, MARKED)),
        ("{text} {prompt}", (END,)),
        ("{text}\n{prompt} ", (END,)),
        ("{text} {prompt} It was", (MARKED,)),
        ("{prompt} {text} {prompt}", ()),
    ],
)
def test_which_templates_fit(template: str, fits: tuple[Placement, ...]) -> None:
    assert tuple(placement for placement in PLACEMENTS.values() if placement.fits(template)) == fits


@unmarked
@pytest.mark.parametrize("template", ["{text} It was", " {text}", "{text}\n"])
def test_a_completed_template_has_the_prompt_there(placement: Placement, template: str) -> None:
    whole = placement.complete(template)
    assert placement.fits(whole)
    assert placement.complete(whole) == whole
    assert placement_in(whole) == placement
    assert Verbalizer(whole, ("bad", "great")).placement == placement
    before, after = placement.around(template)
    assert before + "|" + after == whole.replace("{prompt}", "|").replace(" |", "|" if before else " |")


@every
def test_the_shortest_template_fits(placement: Placement) -> None:
    assert placement.fits(placement.template)
    assert placement_in(placement.template) == placement
    assert placement.complete(placement.template) == placement.template


@unmarked
def test_a_bare_template_becomes_the_shortest(placement: Placement) -> None:
    assert placement.complete("{text}") == placement.template


def test_only_a_template_says_where_inside_it_the_prompt_stands(byte_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"does not say where the prompt stands; write \{prompt\} there"):
        MARKED.complete("{text} It was")
    assert MARKED.around("Task: {prompt}\n{text}") == ("Task:", "\n{text}")
    for text in ("great", " great"):  # the blank is the writer's
        assert byte_tokenizer.decode(MARKED.encode_prompt(byte_tokenizer, text)) == text


@pytest.mark.parametrize("mask", [[1, 1, 1], [1, 0, 0, 1], [0, 1, 1]])
def test_a_row_that_marks_no_place_is_named(mask: list[int]) -> None:
    rows = [{"input_ids": [3, 4, 5, 6][: len(mask)], "attention_mask": mask, "labels": [7] * len(mask)}]
    with pytest.raises(ValueError, match=r"row 0: the row marks (no|2) places for the prompt"):
        read_rows(rows, [BOS], MARKED)


def test_a_template_that_names_no_place_has_the_prompt_before_the_text() -> None:
    assert placement_in("{text} It was") == START


@every
def test_an_adapter_says_where_it_has_its_prompt(placement: Placement) -> None:
    config = InterpPromptConfig(task_type="CAUSAL_LM", prompt_position=placement.name)
    assert config.placement == placement_of(config) == placement_of({"prompt_position": placement.name}) == placement


@pytest.mark.parametrize("config", [None, {}, {"prompt_position": None}, SimpleNamespace()])
def test_other_adapters_have_it_before_the_text(config: Any) -> None:
    assert placement_of(config) == START


def test_an_unknown_place_is_named() -> None:
    with pytest.raises(ValueError, match="`position='middle'` is unknown; use one of start, end, template"):
        placement_named("middle")

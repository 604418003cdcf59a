"""Rows read `pads | BOS | prompt | text | pads`, and taking the prompt out gives the text back."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from peft_interp.text.placement import END as AT_END
from peft_interp.tuner.layout import PromptLayout, first_attended, pads_first, place_prompt, positions

PAD, BOS = 0, 1
PROMPT = torch.tensor([91, 92, 93])
SEEDS = range(60)


def composed(text: list[list[int]], mask: list[list[int]] | None, leading: tuple[int, ...] = (BOS,)) -> list[list[int]]:
    ids = torch.tensor(text)
    given = None if mask is None else torch.tensor(mask)
    return place_prompt(ids.shape, 3, ids, given, leading).insert(PROMPT, ids).tolist()


def random_batch(seed: int) -> tuple[Tensor, Tensor]:
    """Rows with any padding on either side, with or without BOS, an empty one now and then."""
    choose = random.Random(seed)
    length, rows, masks = choose.randint(1, 9), [], []
    for _ in range(choose.randint(1, 5)):
        left = choose.randint(0, length)
        right = choose.randint(0, length - left)
        words = [choose.randint(2, 50) for _ in range(length - left - right)]
        if words and choose.random() < 0.5:
            words[0] = BOS
        rows.append([PAD] * left + words + [PAD] * right)
        masks.append([0] * left + [1] * len(words) + [0] * right)
    return torch.tensor(rows), torch.tensor(masks)


@pytest.mark.parametrize(
    ("text", "mask", "wanted"),
    [
        ([5, 6, 7], None, [91, 92, 93, 5, 6, 7]),
        ([5, 6, 0], [1, 1, 0], [91, 92, 93, 5, 6, 0]),
        ([0, 5, 6], [0, 1, 1], [0, 91, 92, 93, 5, 6]),
        ([1, 5, 6], None, [1, 91, 92, 93, 5, 6]),
        ([1, 5, 0], [1, 1, 0], [1, 91, 92, 93, 5, 0]),
        ([0, 1, 5], [0, 1, 1], [0, 1, 91, 92, 93, 5]),
        ([0, 0, 1], [0, 0, 1], [0, 0, 1, 91, 92, 93]),
        ([5, 1, 6], None, [91, 92, 93, 5, 1, 6]),  # a BOS inside the text is text
        ([0, 5, 0], [0, 1, 0], [0, 91, 92, 93, 5, 0]),
    ],
)
def test_the_prompt_stands_after_padding_and_bos(text: list[int], mask: list[int] | None, wanted: list[int]) -> None:
    assert composed([text], None if mask is None else [mask]) == [wanted]


def test_rows_of_one_batch_are_placed_each_for_itself() -> None:
    text, mask = [[0, 1, 5], [5, 6, 0], [1, 5, 6]], [[0, 1, 1], [1, 1, 0], [1, 1, 1]]
    wanted = [[0, 1, 91, 92, 93, 5], [91, 92, 93, 5, 6, 0], [1, 91, 92, 93, 5, 6]]
    assert composed(text, mask) == wanted


def test_without_leading_ids_nothing_stays_in_front() -> None:
    assert composed([[1, 5, 6]], None, leading=()) == [[91, 92, 93, 1, 5, 6]]


def test_padding_is_known_by_the_mask_not_by_the_token() -> None:
    """GPT-2 pads with its BOS: masked, it is padding; attended, it leads the row."""
    assert composed([[1, 1, 5]], [[0, 1, 1]]) == [[1, 1, 91, 92, 93, 5]]
    assert composed([[1, 5, 6]], [[0, 1, 1]]) == [[1, 91, 92, 93, 5, 6]]


def test_taking_the_prompt_out_gives_the_text_back() -> None:
    for ids, mask in map(random_batch, SEEDS):
        for layout in (
            place_prompt(ids.shape, 3, ids, mask, [BOS]),
            pads_first(place_prompt(ids.shape, 3, ids, mask), mask),
        ):
            whole = layout.insert(PROMPT, ids)
            assert sorted(layout.order[0].tolist()) == list(range(ids.shape[1] + 3))
            assert torch.equal(whole.gather(1, layout.text_columns()), ids)
            assert torch.equal(layout.text_first(whole), torch.cat((ids, PROMPT.expand(len(ids), -1)), dim=1))


def test_what_is_attended_reads_bos_prompt_text() -> None:
    for ids, mask in map(random_batch, SEEDS):
        for change in (lambda layout, mask: layout, pads_first):
            layout = change(place_prompt(ids.shape, 3, ids, mask, [BOS]), mask)
            whole, attended = layout.insert(PROMPT, ids), layout.fill(1, mask)
            for row in range(len(ids)):
                words = ids[row][mask[row] == 1].tolist()
                leading = words[:1] if words[:1] == [BOS] else []
                wanted = [*leading, *PROMPT.tolist(), *words[len(leading) :]]
                assert whole[row][attended[row] == 1].tolist() == wanted


def test_the_start_is_the_text_column_after_the_prompt() -> None:
    for ids, mask in map(random_batch, SEEDS):
        layout = place_prompt(ids.shape, 3, ids, mask, [BOS])
        for row, start in enumerate(layout.start.tolist()):
            wanted = ids[row].tolist()
            wanted[start:start] = PROMPT.tolist()
            assert layout.insert(PROMPT, ids)[row].tolist() == wanted


def test_pads_first_ends_every_row_in_its_last_real_token() -> None:
    for ids, mask in map(random_batch, SEEDS):
        layout = pads_first(place_prompt(ids.shape, 3, ids, mask, [BOS]), mask)
        attended = layout.fill(1, mask)
        assert torch.equal(attended, attended.sort(dim=1).values)


def test_vectors_are_placed_like_ids() -> None:
    ids, mask = random_batch(3)
    table = torch.randn(100, 4)
    layout = place_prompt(ids.shape, 3, ids, mask, [BOS])
    assert torch.equal(layout.insert(table[PROMPT], table[ids]), table[layout.insert(PROMPT, ids)])
    vectors = layout.insert(table[PROMPT], table[ids])
    assert torch.equal(layout.text_first(vectors)[:, : ids.shape[1]], table[ids])


def test_a_prompt_of_its_own_for_every_row_and_its_gradient() -> None:
    ids, mask = random_batch(3)
    prompt = torch.randn(len(ids), 3, 4, requires_grad=True)
    layout = place_prompt(ids.shape, 3, ids, mask, [BOS])
    whole = layout.insert(prompt, torch.zeros(*ids.shape, 4))
    assert torch.equal(whole.sum(dim=1), prompt.sum(dim=1))
    whole.sum().backward()
    assert prompt.grad is not None
    assert torch.equal(prompt.grad, torch.ones_like(prompt))


def test_a_filled_value_stands_where_the_prompt_does() -> None:
    labels = torch.tensor([[0, 5, 6]])
    layout = place_prompt((1, 3), 3, attention_mask=torch.tensor([[0, 1, 1]]))
    assert layout.fill(-100, labels).tolist() == [[0, -100, -100, -100, 5, 6]]


def test_a_batch_without_text_is_the_prompt() -> None:
    empty = torch.zeros(2, 0, dtype=torch.long)
    layout = place_prompt((2, 0), 3, empty, empty, [BOS])
    assert layout.insert(PROMPT, empty).tolist() == [[91, 92, 93]] * 2


def test_positions_count_attended_tokens() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    assert positions(mask)[mask == 1].tolist() == [0, 1, 0, 1, 0, 1, 2, 3]
    assert positions(mask).min() == 0


def test_first_attended_of_each_row() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]])
    assert first_attended(mask).tolist() == [2, 0, 1, 0]


def test_a_layout_cannot_be_changed() -> None:
    layout = place_prompt((1, 2), 3)
    with pytest.raises(AttributeError):
        layout.prompt_length = 4  # type: ignore[misc]
    assert isinstance(layout, PromptLayout)


END = [
    ([5, 6, 7], None, None, [5, 6, 7, 91, 92, 93]),
    ([5, 6, 0], [1, 1, 0], None, [5, 6, 91, 92, 93, 0]),
    ([0, 1, 5], [0, 1, 1], None, [0, 1, 5, 91, 92, 93]),
    ([0, 0, 1], [0, 0, 1], None, [0, 0, 1, 91, 92, 93]),
    ([5, 6, 7], None, [0, 0, 1], [5, 6, 91, 92, 93, 7]),
    ([1, 6, 7], None, [0, 1, 1], [1, 91, 92, 93, 6, 7]),
    ([1, 6, 7], None, [1, 1, 1], [1, 91, 92, 93, 6, 7]),  # a BOS is no answer
    ([5, 6, 7], None, [1, 0, 1], [91, 92, 93, 5, 6, 7]),
    ([5, 6, 7], None, [0, 0, 0], [5, 6, 7, 91, 92, 93]),
    ([0, 5, 6], [0, 1, 1], [1, 0, 1], [0, 5, 91, 92, 93, 6]),  # nor is padding
    ([5, 6, 0], [1, 1, 0], [0, 0, 1], [5, 6, 91, 92, 93, 0]),
    ([0, 0, 0], [0, 0, 0], [1, 1, 1], [91, 92, 93, 0, 0, 0]),
]


@pytest.mark.parametrize(("text", "mask", "answer", "wanted"), END)
def test_at_the_end_the_prompt_stands_before_the_answer(
    text: list[int], mask: list[int] | None, answer: list[int] | None, wanted: list[int]
) -> None:
    ids = torch.tensor([text])
    given, after = (None if row is None else torch.tensor([row]) for row in (mask, answer))
    layout = place_prompt(
        ids.shape, 3, ids, given, [BOS], placement=AT_END, answer=None if after is None else after.bool()
    )
    assert layout.insert(PROMPT, ids).tolist() == [wanted]


def test_at_the_end_what_is_attended_reads_bos_text_prompt_answer() -> None:
    for seed, (ids, mask) in enumerate(map(random_batch, SEEDS)):
        answer = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
        layout = place_prompt(ids.shape, 3, ids, mask, [BOS], AT_END, answer)
        whole, attended = layout.insert(PROMPT, ids), layout.fill(1, mask)
        assert torch.equal(whole.gather(1, layout.text_columns()), ids)
        for row in range(len(ids)):
            words, told = ids[row][mask[row] == 1].tolist(), answer[row][mask[row] == 1].tolist()
            leading = int(words[:1] == [BOS])
            cut = told.index(True, leading) if any(told[leading:]) else len(words)
            assert whole[row][attended[row] == 1].tolist() == [*words[:cut], *PROMPT.tolist(), *words[cut:]]


def test_predictions_stand_right_before_the_next_token() -> None:
    for seed, (ids, mask) in enumerate(map(random_batch, SEEDS)):
        answer = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
        layout = place_prompt(ids.shape, 3, ids, mask, [BOS], AT_END, answer)
        columns = torch.arange(ids.shape[1] + 3).expand(len(ids), -1).unsqueeze(-1)  # outputs that say where they stand
        predictions = layout.predictions(columns).squeeze(-1)
        assert torch.equal(predictions[:, :-1] + 1, layout.text_columns()[:, 1:])
        assert torch.equal(predictions[:, -1], torch.full((len(ids),), ids.shape[1] + 2))

"""What a prompt does, and the way back from that to tokens, against what is computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp.explain.inversion import divergence, invert, start_scores, swap_gains
from peft_interp.explain.target import two_halves
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.text.token_filter import allowed_tokens

Build = Callable[..., Any]


def by_hand(model: Any, target: Any, ids: list[int]) -> float:
    """KL of every row's first answer, one row at a time."""
    base, total = model.get_base_model(), 0.0
    for row in target.rows:
        front = [*row.before, *ids, *row.after[: row.first - row.start]]
        text = base(torch.tensor([front])).logits[0, -1].log_softmax(-1)
        vectors = model.prompt_encoder["default"].embedding.weight
        words = base.get_input_embeddings()(torch.tensor([*row.before, *row.after[: row.first - row.start]]))
        prompt = base(inputs_embeds=torch.cat([vectors, words]).unsqueeze(0)).logits[0, -1].log_softmax(-1)
        total += float((prompt.exp() * (prompt - text)).sum())
    return total / len(target.rows)


@torch.no_grad()
def test_the_divergence_is_that_of_every_row_by_hand(planted: Build, target_of: Build, tokenizer: Any) -> None:
    model = planted(noise=1.0)
    target = target_of(model)
    for text in ("What do people think?", "cooking"):
        ids = tokenizer.encode(text)
        assert target.kl([ids]) == pytest.approx([by_hand(model, target, ids)], abs=1e-5)
        vectors = model.get_input_embeddings()(torch.tensor(ids))
        assert divergence(target, vectors).item() == pytest.approx(target.kl([ids])[0], abs=1e-5)


def test_the_text_that_was_planted_is_at_no_distance(planted: Build, target_of: Build, tokenizer: Any) -> None:
    target = target_of(planted("the best film ever"))
    exact, other = target.kl([tokenizer.encode("the best film ever"), tokenizer.encode("cooking pasta")])
    assert exact < 1e-6 < 1e-3 < other
    few = target.subset(3)
    assert (len(few.rows), len(few.prompt), few.owners.tolist()) == (3, 3, [0, 1, 2])
    assert few.kl([tokenizer.encode("the best film ever")])[0] < 1e-6


def test_gains_say_which_swap_helps(planted: Build, target_of: Build, tokenizer: Any) -> None:
    """To first order; so a step along the gradient's best swap is tried against the real divergence."""
    target = target_of(planted("the best film ever"))
    ids = tokenizer.encode("the best film ever")
    spoiled = [*ids[:2], tokenizer.encode(" pasta")[0], *ids[3:]]
    gains = swap_gains(target, spoiled)
    assert gains.shape == (len(spoiled), len(target.setup.text.base.get_input_embeddings().weight))
    assert gains[torch.arange(len(spoiled)), torch.tensor(spoiled)].abs().max() < 1e-6
    place, token = divmod(int(gains.argmax()), gains.shape[1])
    better = [*spoiled[:place], token, *spoiled[place + 1 :]]
    assert gains[2, ids[2]] > gains[2].median()
    assert target.kl([better])[0] < target.kl([spoiled])[0]


def test_a_relaxation_comes_near_from_noise(planted: Build, target_of: Build, tokenizer: Any) -> None:
    target = target_of(planted(), 4)
    table = target.setup.text.base.get_input_embeddings().weight.detach()
    allowed = allowed_tokens(table, tokenizer, "printable")
    start = start_scores((8, len(table)), allowed, seed=0)
    assert start.isinf().eq(~allowed).all()
    with eval_mode(target.setup.text.base):
        found = invert(target, start, 20)
    assert all(bool(allowed[list(ids)].all()) and len(ids) == 8 for ids in found)
    assert min(target.kl(found)) < target.kl_of_nothing / 2


def test_a_start_near_vectors_is_their_tokens(planted: Build, target_of: Build, tokenizer: Any) -> None:
    model = planted()
    table = model.get_input_embeddings().weight.detach()
    vectors = model.prompt_encoder["default"].embedding.weight.detach()
    start = start_scores((len(vectors), len(table)), torch.ones(len(table), dtype=torch.bool), 0, vectors, table)
    assert start.argmax(-1).tolist() == tokenizer.encode("What do people think of this movie?")


def test_halves_share_the_answers(target_of: Build, planted: Build) -> None:
    rows = target_of(planted(), 24).rows
    first, second = two_halves(rows, seed=3, most=99)
    assert sorted([*first, *second]) == list(range(24))
    answers = [[rows[i].labels[rows[i].first] for i in half] for half in (first, second)]
    for answer in set(answers[0]):
        assert abs(answers[0].count(answer) - answers[1].count(answer)) <= 1
    assert two_halves(rows, seed=3, most=99) == (first, second) != two_halves(rows, seed=4, most=99)
    few = two_halves(rows, seed=3, most=5)
    assert all(3 <= len(half) <= 5 for half in few)
    assert not {*few[0]} & {*few[1]}
    assert all(len({rows[i].labels[rows[i].first] for i in half}) == 2 for half in few)

"""Every kind of proposal does what it says."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch

from peft_interp import text_nll
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.scoring.task_scorer import TaskScorer
from peft_interp.search.gradient_moves import gradient_swap, swap_gains
from peft_interp.search.language_moves import continue_from, rewritten, sentence_ends
from peft_interp.search.moves import crossover, deleted, swapped
from peft_interp.search.prompt_features import extract_features
from peft_interp.text.placement import END, START
from peft_interp.text.rows import read_rows
from peft_interp.text.tokenization import vocabulary_texts

ROWS = [
    {"input_ids": [20, 21, 22, 6], "labels": [-100, -100, -100, 6]},
    {"input_ids": [30, 31, 5], "labels": [-100, -100, 5]},
]


def test_edits_keep_the_tokens_they_do_not_touch() -> None:
    rng, ids = Random(0), [1, 2, 3, 4, 5]
    for _ in range(50):
        shorter = deleted(ids, rng)
        assert len(shorter) in (3, 4)
        assert sorted(shorter) == shorter
        assert sorted(swapped(ids, rng)) == ids
        assert swapped(ids, rng) != ids
        child = crossover(ids, [6, 7, 8], rng)
        assert child[0] == 1
        assert child[-1] == 8
    assert deleted([1], rng) == [1]
    assert swapped([1], rng) == [1]


def test_gains_are_the_slope_of_the_loss(gpt2: Any) -> None:
    """Against finite differences of the real loss along the straight line between two tokens' rows."""
    model, ids = gpt2(), [10, 11, 12]
    for placement in (START, END):
        rows = read_rows(ROWS, placement=placement)
        with eval_mode(model):
            gains = swap_gains(model, ids, rows)
        assert gains.gather(1, torch.tensor(ids).unsqueeze(1)).abs().max() < 1e-6
        table = model.get_input_embeddings().weight
        saved, small = table.data[11].clone(), 1e-2
        losses = []
        for side in (1, -1):
            with torch.no_grad():
                table.data[11] = saved + side * small * (table.data[40] - saved)
            losses.append(TaskScorer(model, ROWS, position=placement.name).losses([ids]).double().mean().item())
        with torch.no_grad():
            table.data[11] = saved
        slope = (losses[1] - losses[0]) / (2 * small)
        if model.config.tie_word_embeddings:
            assert gains[1, 40].item() == pytest.approx(slope, rel=0.2, abs=5e-3)
        else:
            assert gains[1, 40].item() == pytest.approx(slope, rel=0.05, abs=1e-4)


def test_gradient_leaves_the_model_alone(gpt2: Any) -> None:
    model = gpt2()
    with eval_mode(model):
        swap_gains(model, [10, 11], read_rows(ROWS))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_swap_is_likely_allowed_and_asked_for() -> None:
    logits, gains = torch.zeros(2, 10), torch.zeros(2, 10)
    logits[:, 3:7] = 5.0  # likely
    gains[:, 4] = 1.0  # asked for
    gains[:, 9] = 9.0  # asked for more, but unlikely
    gains[:, 5] = 9.0  # asked for more, but not allowed
    allowed = torch.ones(10, dtype=torch.bool)
    allowed[5] = False
    changed = gradient_swap([1, 2], gains, logits, allowed, Random(0), fluent=3, best=1)
    assert sorted(changed) in ([1, 4], [2, 4])


def test_a_rewrite_replaces_or_inserts_a_likely_token() -> None:
    logits = torch.full((3, 10), -20.0)
    logits[:, 7] = 20.0
    allowed = torch.ones(10, dtype=torch.bool)
    for seed in range(10):
        replaced = rewritten([1, 2, 3], logits, allowed, Random(seed), insert=False)
        inserted = rewritten([1, 2, 3], logits, allowed, Random(seed), insert=True)
        assert len(replaced) == 3
        assert replaced.count(7) == 1
        assert [i for i in inserted if i != 7] == [1, 2, 3]


def test_continuations_stop_at_a_sentence_and_hold_nothing_forbidden(language_model: Any, tokenizer: Any) -> None:
    ends = sentence_ends(vocabulary_texts(tokenizer, len(tokenizer)))
    forbidden = [*tokenizer.all_special_ids, tokenizer.encode(" the")[0]]
    prefixes = [tokenizer.encode("Tell me"), tokenizer.encode("Write a short"), tokenizer.encode("Is")]
    before = torch.get_rng_state()
    drawn = continue_from(language_model, prefixes * 8, 12, forbidden, ends, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert drawn == continue_from(language_model, prefixes * 8, 12, forbidden, ends, seed=1)
    assert drawn != continue_from(language_model, prefixes * 8, 12, forbidden, ends, seed=2)
    for ids in drawn:
        assert 0 < len(ids) <= 12
        assert not set(ids) & set(forbidden)
        assert not set(ids[:-1]) & set(ends)
    assert sum(ids[-1] in ends for ids in drawn) > 6


def test_continuations_are_likelier_than_random_tokens(language_model: Any, tokenizer: Any) -> None:
    prefix = tokenizer.encode("Tell me")
    drawn = continue_from(language_model, [prefix] * 10, 6, tokenizer.all_special_ids, [], seed=1)
    nlls = extract_features(language_model, [prefix + ids for ids in drawn]).nll
    random = torch.randint(300, 6000, (10, 8), generator=torch.Generator().manual_seed(0)).tolist()
    assert nlls.mean() + 3 < extract_features(language_model, random).nll.mean()


def test_readings_are_those_of_single_prompts(language_model: Any) -> None:
    prompts = [[400, 500, 600], [700, 800], [900], [1000, 1100, 1200, 1300]]
    for leading in ([], [5]):
        many = extract_features(language_model, prompts, leading)
        for i, prompt in enumerate(prompts):
            one = extract_features(language_model, [prompt], leading)
            torch.testing.assert_close(one.features[0], many.features[i], rtol=1e-4, atol=1e-4)
            assert many.nll[i].item() == pytest.approx(text_nll(language_model, prompt, leading), abs=1e-4, nan_ok=True)


def test_logits_of_a_reading_predict_each_place(language_model: Any) -> None:
    ids = [400, 500, 600]
    found = extract_features(language_model, [ids], start_id=0, keep_logits=True).next_logits[0]
    with torch.no_grad():
        expected = language_model(input_ids=torch.tensor([[0, 400, 500]])).logits[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert extract_features(language_model, [ids], keep_logits=True).next_logits[0].shape[0] == 3

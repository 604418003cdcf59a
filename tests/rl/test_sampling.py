"""Tokens are drawn from the filtered distribution, and what is drawn depends on seed, step and place alone."""

from __future__ import annotations

import pytest
import torch

from peft_interp.rl.policy import draw, filtered_probs, prompt_noise


def test_the_numbers_of_a_prompt_do_not_depend_on_how_many_there_are() -> None:
    assert torch.equal(prompt_noise(7, 3, 16, 5)[:4], prompt_noise(7, 3, 4, 5))


def test_other_seeds_and_steps_have_other_numbers() -> None:
    draws = [prompt_noise(seed, step, 2, 3).flatten().tolist() for seed in (0, 1) for step in (0, 1)]
    assert len({number for numbers in draws for number in numbers}) == 24


def test_drawing_follows_the_probabilities() -> None:
    probs = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64).expand(20000, -1)
    drawn = draw(probs, prompt_noise(0, 0, 20000, 1)[:, 0])
    shares = torch.bincount(drawn, minlength=4) / 20000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.0, 0.3, 0.2]), rtol=0, atol=0.015)


def test_nothing_impossible_is_drawn_at_the_ends_of_the_range() -> None:
    probs = torch.tensor([[0.0, 1 / 3, 1 / 3, 1 / 3, 0.0]], dtype=torch.float64)
    assert draw(probs, torch.tensor([0.0])).item() == 1
    assert draw(probs, torch.tensor([1.0 - 1e-17])).item() == 3


def test_top_k_keeps_the_best() -> None:
    q = torch.tensor([[1.0, 5.0, 3.0, -torch.inf]])
    probs = filtered_probs(q, top_k=2)
    torch.testing.assert_close(
        probs,
        torch.tensor([[0.0, 5.0, 3.0, 0.0]], dtype=torch.float64)
        .where(torch.tensor([[False, True, True, False]]), torch.tensor(-torch.inf, dtype=torch.float64))
        .softmax(-1),
    )
    torch.testing.assert_close(filtered_probs(q, top_k=0), q.double().softmax(-1))
    torch.testing.assert_close(filtered_probs(q, top_k=99), q.double().softmax(-1))


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, [0]), (0.5, [0]), (0.6, [0, 2]), (0.8, [0, 2]), (0.81, [0, 2, 3])])
def test_top_p_keeps_the_smallest_set_that_suffices(top_p: float, kept: list[int]) -> None:
    q = torch.tensor([[0.5, 1e-9, 0.3, 0.2]]).log()
    probs = filtered_probs(q, top_p=top_p)
    assert probs[0].nonzero().flatten().tolist() == kept
    assert probs.sum().item() == pytest.approx(1)


def test_temperature_divides_the_q_values() -> None:
    q = torch.randn(2, 5)
    torch.testing.assert_close(filtered_probs(q, temperature=0.5), (2 * q.double()).softmax(-1))

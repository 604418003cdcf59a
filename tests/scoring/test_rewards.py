"""Rewards as published, mixed as documented."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from peft_interp import text_nll
from peft_interp.metrics.likelihood import mean_nll, token_nlls
from peft_interp.scoring.rewards import (
    gap_reward,
    label_accuracies,
    mixed_rewards,
    repetition_penalty,
    shaped,
    wordless_share,
    z_scores,
)

Build = Callable[..., Any]


def test_gap_reward_is_the_published_formula() -> None:
    log_probs = torch.randn(5, 7, 3, dtype=torch.float64).log_softmax(-1)
    gold = torch.randint(3, (7,))
    for prompt, reward in zip(log_probs.exp(), gap_reward(log_probs, gold), strict=True):
        parts = []
        for probs, right in zip(prompt.tolist(), gold.tolist(), strict=True):
            gap = probs[right] - max(p for i, p in enumerate(probs) if i != right)
            parts.append(gap * (200 if gap > 0 else 180))
        assert reward.item() == pytest.approx(sum(parts) / 7)


def test_a_tie_earns_nothing_and_counts_as_wrong() -> None:
    log_probs = torch.tensor([[[0.5, 0.5], [0.9, 0.1]]]).log()
    gold = torch.tensor([0, 0])
    assert gap_reward(log_probs, gold).item() == pytest.approx(200 * 0.8 / 2)
    assert label_accuracies(log_probs, gold).item() == 0.5


def test_only_the_ratio_of_the_weights_matters_after_the_z_score() -> None:
    log_probs = torch.randn(6, 7, 2, dtype=torch.float64).log_softmax(-1)
    gold = torch.randint(2, (7,))
    first, second = (z_scores(gap_reward(log_probs, gold, 200 * c, 180 * c)) for c in (1, 50))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


def test_z_scores_use_the_populations_std() -> None:
    values = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    expected = (values - 3) / (((4 + 1 + 9) / 3) ** 0.5 + 1e-4)
    torch.testing.assert_close(z_scores(values), expected)


def test_constant_rewards_have_z_score_zero() -> None:
    assert torch.equal(z_scores(torch.full((4,), 0.1)), torch.zeros(4))


def test_a_reward_that_does_not_apply_counts_as_the_mean() -> None:
    values = torch.tensor([1.0, float("nan"), 3.0])
    scores = z_scores(values)
    assert scores[1] == 0
    torch.testing.assert_close(scores[[0, 2]], z_scores(torch.tensor([1.0, 3.0])))


def test_mixing_does_not_depend_on_the_rewards_scales() -> None:
    task, nll = torch.randn(2, 8, dtype=torch.float64).unbind()
    mixed = mixed_rewards(torch.stack((200 * task, nll), dim=1), [0.7, -0.3])
    torch.testing.assert_close(mixed, 0.7 * z_scores(200 * task) - 0.3 * z_scores(nll))
    rescaled = mixed_rewards(torch.stack((task, 50 * nll), dim=1), [0.7, -0.3])
    torch.testing.assert_close(mixed, rescaled, rtol=0, atol=1e-3)


def test_shaping_is_linear_and_does_not_cut() -> None:
    assert shaped(torch.tensor([0.0, 1.0, -2.0])).tolist() == [0.0, 5.0, -10.0]


def test_many_nlls_equal_the_single_ones(gpt2: Build) -> None:
    model = gpt2()
    prompts = [[5, 6, 7], [8, 9], [10, 11, 12], [13]]
    for leading in ([], [1]):
        values = [mean_nll(nlls) for nlls in token_nlls(model, prompts, leading)]
        for prompt, value in zip(prompts, values, strict=True):
            assert value == pytest.approx(text_nll(model, prompt, leading), abs=1e-5, nan_ok=True)


def test_repetition_is_counted_per_token() -> None:
    assert repetition_penalty([1, 2, 3]) == 0
    assert repetition_penalty([1, 1, 1, 2]) == pytest.approx(2**1.5 / 4)
    assert repetition_penalty([1, 1, 2, 2]) == pytest.approx(2 / 4)


def test_special_tokens_are_those_without_letter_or_digit(tokenizer_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    assert wordless_share([1, 5, 6, 2], tokenizer) == 0.5
    assert wordless_share([5, 6], tokenizer) == 0

"""The policy: frozen language model, small trained head, Q-values of allowed tokens only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

from peft_interp.rl.policy import Choice, PromptPolicy, prompt_noise

Build = Callable[..., Any]
ALLOWED = torch.tensor([False] * 3 + [True] * 50 + [False] * 11)


@pytest.fixture(params=["gpt2", "llama"])
def policy(request: pytest.FixtureRequest) -> PromptPolicy:
    """A policy whose head is no longer near 0, so that its Q-values differ."""
    policy = PromptPolicy(request.getfixturevalue(request.param)(), ALLOWED, hidden_size=16)
    for parameter in policy.head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return policy


def test_q_values_are_head_on_features_through_the_frozen_head(policy: PromptPolicy) -> None:
    ids = torch.randint(3, 53, (4, 5))
    q, target = policy(ids)
    model = policy.language_model
    start = torch.full((4, 1), policy.start_token_id)
    features = model.base_model(input_ids=torch.cat((start, ids), dim=1)).last_hidden_state[:, :-1]
    for values, head in ((q, policy.head), (target, policy.target_head)):
        expected = model.get_output_embeddings()(head(features))
        torch.testing.assert_close(values[..., ALLOWED], expected[..., ALLOWED], rtol=1e-5, atol=1e-5)
        assert values[..., ~ALLOWED].isneginf().all()


def test_a_new_head_gives_q_values_near_zero_and_a_target_that_equals_it(gpt2: Build) -> None:
    policy = PromptPolicy(gpt2(), ALLOWED)
    q, target = policy(torch.randint(3, 53, (2, 3)))
    assert q[..., ALLOWED].abs().max() < 1e-2
    assert torch.equal(q, target)
    assert policy.head[0].weight.shape == (2048, 32)
    limit = 1e-4 * (6 / (32 + 2048)) ** 0.5
    assert 0.9 * limit < policy.head[2].weight.abs().max() <= limit
    assert (policy.head[0].bias == -1e-4).all()


def test_only_the_head_is_trained_and_the_language_model_is_not_part_of_the_state(policy: PromptPolicy) -> None:
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    assert trained == ["head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"]
    assert {name.split(".")[0] for name in policy.state_dict()} == {"head", "target_head"}
    policy.language_model.requires_grad_(True)
    q, _ = policy(torch.randint(3, 53, (2, 3)))
    q[..., ALLOWED].sum().backward()
    assert all(parameter.grad is None for parameter in policy.language_model.parameters())
    assert policy.head[0].weight.grad is not None


def test_greedy_decoding_with_a_cache_is_the_argmax_of_the_teacher_forced_q_values(policy: PromptPolicy) -> None:
    ids = policy.greedy(5)
    assert policy(torch.tensor([ids]))[0].argmax(-1)[0].tolist() == ids


def test_sampling_with_little_temperature_is_greedy(policy: PromptPolicy) -> None:
    sampled = policy.sample(prompt_noise(0, 0, 3, 4), Choice(temperature=1e-6))
    assert sampled.tolist() == [policy.greedy(4)] * 3


def test_samples_are_allowed_and_a_prompt_is_the_same_in_any_company(policy: PromptPolicy) -> None:
    many = policy.sample(prompt_noise(1, 2, 32, 4), Choice(top_k=20))
    few = policy.sample(prompt_noise(1, 2, 8, 4), Choice(top_k=20))
    assert torch.equal(many[:8], few)
    assert ALLOWED[many].all()
    assert len({tuple(row) for row in many.tolist()}) > 8


def test_samples_follow_the_teacher_forced_probabilities(policy: PromptPolicy) -> None:
    first = policy.sample(prompt_noise(0, 0, 8000, 1), Choice())[:, 0]
    expected = policy(torch.tensor([[5]]))[0][0, 0].softmax(-1)
    torch.testing.assert_close(torch.bincount(first, minlength=64) / 8000, expected, rtol=0, atol=0.02)


def test_the_fluency_mask_leaves_the_language_models_likeliest_allowed_tokens(policy: PromptPolicy) -> None:
    ids = policy.sample(prompt_noise(0, 0, 16, 3), Choice(fluency_top_n=4))
    model = policy.language_model
    start = torch.full((16, 1), policy.start_token_id)
    logits = model(input_ids=torch.cat((start, ids), dim=1)).logits[:, :-1].masked_fill(~ALLOWED, -torch.inf)
    ranks = (logits > logits.gather(-1, ids.unsqueeze(-1))).sum(-1)
    assert ranks.max() < 4


def test_polyak_moves_only_the_target(policy: PromptPolicy) -> None:
    before = policy.target_head[0].bias.clone()
    policy.update_target(0.5)
    torch.testing.assert_close(policy.target_head[0].bias, (before + policy.head[0].bias.data) / 2)


def test_the_language_models_modes_are_as_before(gpt2: Build) -> None:
    model = gpt2(attn_pdrop=0.5, resid_pdrop=0.5)
    model.train()
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    policy = PromptPolicy(model, ALLOWED, 8)
    ids = torch.randint(3, 53, (2, 3))
    assert torch.equal(policy(ids)[0], policy(ids)[0]), "dropout was on"
    policy.greedy(2)
    assert [module.training for module in model.modules()] == modes


def test_a_model_that_is_no_causal_lm_is_refused(bert: Build) -> None:
    with pytest.raises(ValueError, match=r"no causal language model. Pass one as `policy_model`"):
        PromptPolicy(bert(BertForSequenceClassification), ALLOWED)


def test_a_model_without_a_token_to_start_from_is_refused(gpt2: Build) -> None:
    with pytest.raises(ValueError, match="neither a BOS nor an EOS"):
        PromptPolicy(gpt2(bos_token_id=None, eos_token_id=None), ALLOWED)


def test_the_models_own_logits_are_computed_only_for_the_fluency_mask(policy: PromptPolicy) -> None:
    head, seen = policy.language_model.get_output_embeddings(), []
    hook = head.register_forward_hook(lambda module, args, output: seen.append(output.numel()))
    noise = prompt_noise(0, 0, 4, 3)
    policy.sample(noise, Choice())
    policy.greedy(3)
    policy(torch.randint(3, 53, (4, 3)))
    assert sum(seen) == 0
    policy.sample(noise, Choice(fluency_top_n=5))
    hook.remove()
    assert sum(seen) == 4 * 3 * 64  # every prompt, every step


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_model_gives_q_values_in_full_precision(gpt2: Build, dtype: torch.dtype) -> None:
    policy = PromptPolicy(gpt2().to(dtype), ALLOWED, hidden_size=16)
    actions = policy.sample(prompt_noise(0, 0, 4, 3), Choice(top_k=8))
    assert ALLOWED[actions].all()
    q, target = policy(actions)
    assert q.dtype == target.dtype == torch.float32
    q[..., ALLOWED].square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in policy.head.parameters())

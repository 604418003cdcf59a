"""The losses are the published formulas, and their optimum is the soft-optimal policy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from peft_interp.rl.soft_q import polyak_update, soft_q_loss


def value(q: Tensor) -> Tensor:
    return torch.log(torch.exp(q).sum())


def literal(kind: str, q: Tensor, target: Tensor, actions: Tensor, rewards: Tensor, lengths: Tensor) -> Tensor:
    """The formulas of RLPrompt, one prompt and one step at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for b in range(len(q)):
        last = int(lengths[b]) - 1
        a = [q[b, t, actions[b, t]] - value(q[b, t]) for t in range(last + 1)]
        v = [value(target[b, t]) for t in range(last + 1)]
        for t in range(last + 1):
            if kind == "bellman":
                goal = rewards[b] if t == last else v[t + 1]
                total = total + (q[b, t, actions[b, t]] - goal) ** 2
            elif kind == "path":
                total = total + (value(q[b, t]) + torch.stack(a[t:]).sum() - rewards[b]) ** 2
            elif kind == "one_step":
                goal = rewards[b] - v[last] if t == last else v[t + 1] - v[t]
                total = total + (a[t] - goal) ** 2
            else:
                rest = torch.stack(a[t:]).sum()
                total = total + (rest - (rewards[b] - v[t])) ** 2
    return total / len(q)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Q, target Q, actions and rewards of 6 prompts of up to 4 tokens among 7."""
    q, target = torch.randn(2, 6, 4, 7, dtype=torch.float64).unbind()
    return q, target, torch.randint(7, (6, 4)), torch.randn(6, dtype=torch.float64) * 5


@pytest.mark.parametrize("lengths", [[4, 4, 4, 4, 4, 4], [1, 2, 3, 4, 2, 1]])
def test_each_loss_is_the_published_formula(lengths: list[int], batch: tuple[Tensor, ...]) -> None:
    ends = torch.tensor(lengths)
    formulas = {kind: literal(kind, *batch, ends) for kind in ("one_step", "multi_step", "bellman", "path")}
    formulas["both"] = (formulas["one_step"] + formulas["multi_step"]) / 2
    for kind, expected in formulas.items():
        got = soft_q_loss(kind, *batch, ends)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
        if min(lengths) == 4:
            torch.testing.assert_close(soft_q_loss(kind, *batch), expected, rtol=0, atol=1e-6)


def test_gradients_are_those_of_the_formula(batch: tuple[Tensor, ...]) -> None:
    q, *rest = batch
    ends = torch.tensor([1, 2, 3, 4, 2, 1])
    for kind in ("one_step", "multi_step", "bellman", "path"):
        ours, theirs = q.clone().requires_grad_(), q.clone().requires_grad_()
        soft_q_loss(kind, ours, *rest, ends).backward()
        literal(kind, theirs, *rest, ends).backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-6)


def test_the_target_network_gets_no_gradient(batch: tuple[Tensor, ...]) -> None:
    q, target, *rest = batch
    q.requires_grad_(), target.requires_grad_()
    soft_q_loss("both", q, target, *rest).backward()
    assert target.grad is None
    assert q.grad is not None


def test_forbidden_actions_have_no_share_in_the_value(batch: tuple[Tensor, ...]) -> None:
    q, target, actions, rewards = batch
    wide = [torch.cat((x, torch.full((6, 4, 3), -torch.inf, dtype=torch.float64)), dim=-1) for x in (q, target)]
    wide[0].requires_grad_()
    loss = soft_q_loss("both", *wide, actions, rewards)
    torch.testing.assert_close(loss, soft_q_loss("both", q, target, actions, rewards))
    loss.backward()
    assert wide[0].grad is not None
    assert wide[0].grad.isfinite().all()


@pytest.mark.parametrize(("length", "expected"), [(2, 154.7), (5, 2067.0)])
def test_the_initial_loss_of_gpt2s_vocabulary(length: int, expected: float) -> None:
    """Q near 0 and rewards of mean square 25, as shaping and z-scores make them."""
    q = torch.zeros(2, length, 50257, dtype=torch.float64)
    rewards = torch.tensor([5.0, -5.0], dtype=torch.float64)
    loss = soft_q_loss("both", q, q, torch.zeros(2, length, dtype=torch.long), rewards).item()
    squares = math.log(50257) ** 2 * ((length - 1) + sum(k * k for k in range(length)))
    assert loss == pytest.approx(squares / 2 + (1 + length) / 2 * 25, abs=1e-6)
    assert loss == pytest.approx(expected, abs=0.5)


def test_against_the_uniform_policy_only_the_reward_is_left_of_the_initial_loss() -> None:
    q, rewards = torch.zeros(2, 5, 50257), torch.tensor([5.0, -5.0])
    actions = torch.zeros(2, 5, dtype=torch.long)
    loss = soft_q_loss("both", q, q, actions, rewards, baseline=math.log(50257))
    assert loss.item() == pytest.approx((1 + 5) / 2 * 25, abs=1e-3)


class Table(nn.Module):
    """Q-values of a game of two steps with three tokens: one row for the first choice, three for the second."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.second = nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))

    def forward(self, actions: Tensor) -> Tensor:
        return torch.stack((self.first.expand(len(actions), -1), self.second[actions[:, 0]]), dim=1)


# Rewards of the nine prompts; every row's mean is 0, which is the level of the second step's Q-values at the start
REWARD = torch.tensor([[1.0, -2.0, 1.0], [2.0, -1.0, -1.0], [-0.5, 2.0, -1.5]], dtype=torch.float64)
PROMPTS = torch.tensor([[i, j] for i in range(3) for j in range(3)])


def learned(kind: str, level: float) -> Table:
    """Q-values at rest after training on all prompts, from 0 in the second step and `level` in the first."""
    online, target = Table(), Table()
    for table in (online, target):
        table.first.data.fill_(level)
    optimizer = torch.optim.SGD(online.parameters(), lr=0.3)
    for _ in range(4000):
        polyak_update(target, online, 0.1)
        loss = soft_q_loss(kind, online(PROMPTS), target(PROMPTS), PROMPTS, REWARD.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if max(parameter.grad.abs().max() for parameter in online.parameters()) < 1e-10:
            break
    return online


@pytest.mark.parametrize("kind", ["one_step", "multi_step", "both", "bellman", "path"])
def test_a_small_game_converges_to_its_known_optimum(kind: str) -> None:
    """Q of the last step is the reward, Q before it the soft value after it, and the policy exp(reward) / Z."""
    table = learned(kind, level=0.0 if kind in ("bellman", "path") else REWARD.logsumexp(1).mean().item())
    torch.testing.assert_close(table.second.data, REWARD, rtol=0, atol=1e-6)
    torch.testing.assert_close(table.first.data, REWARD.logsumexp(1), rtol=0, atol=1e-6)
    policy = table.first.softmax(0).unsqueeze(1) * table.second.softmax(1)
    torch.testing.assert_close(policy.data, REWARD.flatten().softmax(0).view(3, 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["one_step", "multi_step", "both"])
def test_the_published_losses_do_not_train_the_level_of_q(kind: str, batch: tuple[Tensor, ...]) -> None:
    """So from another level a table ends near the optimum only, with the best prompt still the likeliest."""
    q, *rest = batch
    q.requires_grad_()
    soft_q_loss(kind, q, *rest).backward()
    assert q.grad is not None
    torch.testing.assert_close(q.grad.sum(-1), torch.zeros_like(q.grad.sum(-1)), rtol=0, atol=1e-9)
    table = learned(kind, level=0.0)
    policy = (table.first.softmax(0).unsqueeze(1) * table.second.softmax(1)).data
    best = REWARD.flatten().softmax(0).view(3, 3)
    assert 0.01 < (policy - best).abs().max() < 0.15
    assert policy.argmax() == best.argmax()


def test_polyak_averaging_moves_the_target_by_its_rate() -> None:
    slow, fast = nn.Linear(2, 2), nn.Linear(2, 2)
    before, there = slow.weight.clone(), fast.weight.clone()
    polyak_update(slow, fast, 0.001)
    torch.testing.assert_close(slow.weight.data, 0.999 * before.data + 0.001 * there.data)
    assert torch.equal(fast.weight, there)


def test_bad_arguments_are_named(batch: tuple[Tensor, ...]) -> None:
    with pytest.raises(ValueError, match=r"`loss='v2'` is unknown; use one of one_step"):
        soft_q_loss("v2", *batch)
    with pytest.raises(ValueError, match="do not fit"):
        soft_q_loss("both", batch[0], batch[1], batch[2][:, :3], batch[3])

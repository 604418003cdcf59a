"""Hidden states of a prompt and a text: equal for the same prompt, apart for one that turns the labels around."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp import compare_activations
from peft_interp.explain.activations import linear_cka, mean_cosine

Build = Callable[..., Any]
PLANTED = "What do people think of this movie?"


@pytest.mark.parametrize("kind", ["ours", "stock"])
def test_a_prompt_and_its_own_text_are_the_same_everywhere(
    planted: Build, tokenizer: Any, rows: Any, kind: str
) -> None:
    found = compare_activations(planted(kind=kind), tokenizer, rows, PLANTED)
    assert [layer.layer for layer in found.layers] == [0, 1, 2, 3, 4]
    assert (found.parts_at, found.rows) == (None, len(rows))
    for layer in found.layers:
        values = [layer.answer_cosine, layer.token_cosine, layer.token_cka, layer.prompt_cosine]
        assert values == pytest.approx([1.0] * 4, abs=1e-5)
    assert found.layers[-1].answer_cka == pytest.approx(1, abs=1e-5)
    assert found.layers[-1].nothing_cosine < 0.999
    assert "stay together through all 4 layers" in found.words()


def test_another_text_parts_from_it_more_and_more(planted: Build, tokenizer: Any, rows: Any) -> None:
    found = compare_activations(planted(), tokenizer, rows, "cooking")
    first, last = found.layers[0], found.layers[-1]
    assert last.answer_cosine < first.answer_cosine < 1  # the same token at another place, and then what it reads
    assert last.prompt_cosine is None  # one token beside eight
    assert last.answer_cka < 0.999


def test_a_layer_by_hand(planted: Build, tokenizer: Any, rows: Any) -> None:
    model = planted(noise=1.0)
    found = compare_activations(model, tokenizer, rows[:8], "the best film ever, they say.")
    base, first, second = model.get_base_model(), [], []
    vectors = model.prompt_encoder["default"].embedding.weight.detach()
    text = tokenizer.encode("the best film ever, they say.")
    with torch.no_grad():
        for row in rows[:8]:
            ids = row["input_ids"][:-1]
            inputs = torch.cat([vectors, base.get_input_embeddings()(torch.tensor(ids))]).unsqueeze(0)
            first.append(base(inputs_embeds=inputs, output_hidden_states=True).hidden_states[2][0, -1])
            both = torch.tensor([[*text, *ids]])
            second.append(base(both, output_hidden_states=True).hidden_states[2][0, -1])
    cosine = torch.nn.functional.cosine_similarity(torch.stack(first), torch.stack(second), dim=-1).mean()
    assert found.layers[2].answer_cosine == pytest.approx(cosine.item(), abs=1e-5)


def test_cka_by_hand() -> None:
    x = torch.randn(12, 5, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    assert linear_cka(x, 3 * x @ turn + 7) == pytest.approx(1)  # blind to rotation, scale and shift
    y = torch.randn(12, 3, dtype=torch.float64)
    a, b = x - x.mean(0), y - y.mean(0)
    expected = (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    assert linear_cka(x, y) == pytest.approx(expected.item())
    assert linear_cka(x[:4], y[:4]) == pytest.approx(
        ((x[:4] - x[:4].mean(0)).T @ (y[:4] - y[:4].mean(0))).norm().item() ** 2
        / (
            ((x[:4] - x[:4].mean(0)).T @ (x[:4] - x[:4].mean(0))).norm()
            * ((y[:4] - y[:4].mean(0)).T @ (y[:4] - y[:4].mean(0))).norm()
        ).item()
    )
    assert math.isnan(linear_cka(torch.ones(4, 3), torch.randn(4, 3)))
    assert math.isnan(mean_cosine(torch.zeros(0, 3), torch.zeros(0, 3)))
    assert mean_cosine(torch.zeros(2, 3), torch.zeros(2, 3)) == 1


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("prefix", "Hi there", "PREFIX_TUNING puts keys and values into the layers"),
        ("stock", "", "is empty; give the text"),
        ("stock", ["Hi"], "must be one text"),
    ],
)
def test_what_cannot_be_compared_is_said(
    planted: Build, tokenizer: Any, rows: Any, kind: str, text: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        compare_activations(planted(kind=kind), tokenizer, rows, text)


def test_too_few_rows_are_said(planted: Build, tokenizer: Any, rows: Any) -> None:
    with pytest.raises(ValueError, match="`rows` holds 7 rows; at least 8 are needed"):
        compare_activations(planted(), tokenizer, rows[:7], "Hi there")

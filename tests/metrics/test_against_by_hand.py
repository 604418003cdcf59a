"""Every number of `measure_faithfulness` against a slow computation, one row at a time and without padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp.metrics.faithfulness import measure_faithfulness
from peft_interp.metrics.reading import read_prompt

Build = Callable[..., Any]


@torch.no_grad()
def by_hand(model: Any, tokenizer: Any, rows: Any, choices: list[int] | None, positions: str) -> dict[str, float]:
    """Plain loops over rows, positions and the vocabulary."""
    base, ids = model.get_base_model(), read_prompt(model, tokenizer).ids
    sums = dict.fromkeys(["mse", "kl", "js", "top1"], 0.0)
    losses: dict[str, list[float]] = {"prompt": [], "text": [], "without": []}
    right = dict.fromkeys(losses, 0)
    count = 0
    for row in rows:
        words, labels = row["input_ids"], row["labels"]
        text = tokenizer.decode(ids) + " " + tokenizer.decode(words)
        again = tokenizer.encode(text, add_special_tokens=False)
        whole = {
            "prompt": model(input_ids=torch.tensor([words])).logits[0],
            "text": base(input_ids=torch.tensor([again])).logits[0],
            "without": base(input_ids=torch.tensor([words])).logits[0],
        }
        for place, (word, label) in enumerate(zip(words, labels, strict=True)):
            back = len(words) - place + 1  # the column that predicts it, from the end
            if label != -100:
                for side, logits in whole.items():
                    losses[side].append(-logits[-back].log_softmax(-1)[word].item())
                    if choices and labels.index(label) == place and all(x == -100 for x in labels[:place]):
                        best = max(choices, key=lambda i, row=logits[-back]: row[i].item())
                        right[side] += best == word
            if label == -100 and positions == "answers":
                continue
            first, second = whole["prompt"][-back], whole["text"][-back]
            p, q = first.softmax(-1), second.softmax(-1)
            m = (p + q) / 2
            sums["mse"] += ((first - second) ** 2).mean().item()
            sums["kl"] += (p * (p / q).log()).sum().item()
            sums["js"] += ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()).item() / 2
            sums["top1"] += float(first.argmax() == second.argmax())
            count += 1
    found = {name: total / count for name, total in sums.items()}
    found |= {f"{side} loss": sum(values) / len(values) for side, values in losses.items()}
    return found | {f"{side} accuracy": hits / len(rows) for side, hits in right.items()}


@pytest.fixture
def labelled(word_rows: Build) -> Any:
    """One label a row, one of two words."""
    rows = word_rows(count=12)
    for i, row in enumerate(rows):
        row["input_ids"][-1] = 10 + i % 2
        row["labels"] = [-100] * (len(row["input_ids"]) - 1) + row["input_ids"][-1:]
    return rows


@pytest.mark.parametrize("positions", ["answers", "all"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_every_number(request: Any, with_prompt: Build, words: Any, labelled: Any, name: str, positions: str) -> None:
    model = with_prompt(request.getfixturevalue(name)()).eval()
    found = measure_faithfulness(model, words, labelled, [10, 11], positions, progress=False)
    expected = by_hand(model, words, labelled, [10, 11], positions)
    assert found.logit_mse > 0.01
    measured = {
        "mse": found.logit_mse,
        "kl": found.kl,
        "js": found.js,
        "top1": found.top1_agreement,
        "prompt loss": found.as_prompt.loss,
        "text loss": found.as_text.loss,
        "without loss": found.without.loss,
        "prompt accuracy": found.as_prompt.accuracy,
        "text accuracy": found.as_text.accuracy,
        "without accuracy": found.without.accuracy,
    }
    if positions == "all":  # by hand, a first word has nothing in front of it without a prompt
        assert found.rows == 12
    assert measured == pytest.approx(expected, abs=1e-5)
    assert found.accuracy_difference == pytest.approx(expected["prompt accuracy"] - expected["text accuracy"])


def test_distances_are_means_over_the_prompt(gpt2: Build, with_prompt: Build, words: Any, word_rows: Build) -> None:
    model = with_prompt(gpt2())
    found = measure_faithfulness(model, words, word_rows(), progress=False)
    vectors, table = model.prompt_encoder["default"].embedding.weight, model.get_base_model().transformer.wte.weight
    cosines = torch.nn.functional.cosine_similarity(vectors[:, None], table[None, 3:], dim=-1)
    nearest = cosines.argmax(dim=1)
    assert found.cosine_distance == pytest.approx((1 - cosines.amax(dim=1)).mean().item(), abs=1e-6)
    assert found.euclidean_distance == pytest.approx((vectors - table[3 + nearest]).norm(dim=1).mean().item(), abs=1e-5)


def test_batches_change_nothing(gpt2: Build, with_prompt: Build, words: Any, labelled: Any) -> None:
    """One row at a time, a few, all at once, and in another order."""
    model = with_prompt(gpt2())
    runs = [
        measure_faithfulness(model, words, rows, [10, 11], "all", size, progress=False)
        for size, rows in ((1, labelled), (5, labelled), (64, labelled), (64, labelled[::-1]))
    ]
    for run in runs[1:]:
        for name in ("logit_mse", "kl", "js", "top1_agreement"):
            assert getattr(run, name) == pytest.approx(getattr(runs[0], name), abs=1e-6)
        for side in ("as_prompt", "as_text", "without"):
            assert vars(getattr(run, side)) == pytest.approx(vars(getattr(runs[0], side)), abs=1e-6)
        for one, other in zip(run.token_effects, runs[0].token_effects, strict=True):
            assert vars(one) == pytest.approx(vars(other), abs=1e-6)


@torch.no_grad()
def test_token_effects_are_those_of_leaving_a_word_out(
    gpt2: Build, with_prompt: Build, words: Any, labelled: Any
) -> None:
    model = with_prompt(gpt2())
    base, ids = model.get_base_model(), read_prompt(model, words).ids
    found = measure_faithfulness(model, words, labelled, progress=False).token_effects
    for i, effect in enumerate(found):
        kl, rise = 0.0, 0.0
        for row in labelled:
            p, q = (
                base(input_ids=torch.tensor([[*prompt, *row["input_ids"]]])).logits[0, -2].log_softmax(-1)
                for prompt in (ids, ids[:i] + ids[i + 1 :])
            )
            kl += (p.exp() * (p - q)).sum().item() / 12
            rise += (p - q)[row["input_ids"][-1]].item() / 12
        assert (effect.kl, effect.loss_increase) == pytest.approx((kl, rise), abs=1e-5)
    assert len(found) == 4

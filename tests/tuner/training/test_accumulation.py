"""An update does not depend on how its rows were split into micro-batches, perplexity term included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

Build = Callable[..., Any]
Rows = list[dict[str, Any]]

WHOLE = {"per_device_train_batch_size": 8}
SPLIT = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
PLAIN = {"optim": "sgd", "max_grad_norm": 0.0, "max_steps": 3}


@pytest.fixture
def latent_after(base_for: Build, readable: Build, learner: Build, latent_of: Build, gpt2: Build) -> Build:
    """`latent_after(task, rows, config, **arguments)`: the latent after three updates, and how far it went."""

    def run(task: str, rows: Rows, config: dict[str, Any], **arguments: Any) -> torch.Tensor:
        model = readable(base_for(task), task.partition("/")[0], **config)
        if config.get("perplexity_weight") and not task.startswith("CAUSAL_LM"):
            model.set_perplexity_model(gpt2())
        start = latent_of(model)
        learner(model, rows, **PLAIN, **arguments).train()
        assert (latent_of(model) - start).norm() > 1e-3
        return latent_of(model)

    return run


def uneven(rows: Rows) -> Rows:
    """One to five labels per row, and rows of four to six tokens, padded on the right."""
    changed = []
    for i, row in enumerate(rows):
        labels, mask = row["input_ids"].clone(), torch.ones(6, dtype=torch.long)
        mask[6 - i % 3 :] = 0
        labels[: 1 + i % 3] = -100
        labels[mask == 0] = -100
        changed.append({"input_ids": row["input_ids"], "attention_mask": mask, "labels": labels})
    assert len({int((row["labels"] != -100).sum()) for row in changed}) > 1
    return changed


BOTH = {"perplexity_weight": 0.5}


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize(
    ("task", "config"),
    [
        ("CAUSAL_LM", {}),
        ("CAUSAL_LM", BOTH),
        ("CAUSAL_LM", {**BOTH, "share_prefix": False}),
        ("CAUSAL_LM", {**BOTH, "perplexity_combination": "convex", "perplexity_gradient": "target"}),
        ("CAUSAL_LM/llama", BOTH),
    ],
    ids=["task only", "both sides", "plain pass", "convex, target", "llama"],
)
def test_causal_models(task: str, even: bool, config: dict[str, Any], latent_after: Build, rows_for: Build) -> None:
    rows = rows_for("CAUSAL_LM") if even else uneven(rows_for("CAUSAL_LM"))
    whole = latent_after(task, rows, config, **WHOLE)
    split = latent_after(task, rows, config, **SPLIT)
    torch.testing.assert_close(split, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("task", ["SEQ_CLS", "SEQ_CLS/gpt2", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS"])
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_other_heads(task: str, weight: float, latent_after: Build, rows_for: Build) -> None:
    """Stock heads take four times the step here; ours scale their mean by the micro-batch's share."""
    config = {"perplexity_weight": weight}
    whole = latent_after(task, rows_for(task), config, **WHOLE)
    split = latent_after(task, rows_for(task), config, **SPLIT)
    torch.testing.assert_close(split, whole, rtol=0, atol=1e-6)


def test_token_labels_that_vary_in_number(latent_after: Build, rows_for: Build) -> None:
    rows = rows_for("TOKEN_CLS")
    for i, row in enumerate(rows):
        row["labels"][: i % 4] = -100
    config = {"perplexity_weight": 0.5}
    whole = latent_after("TOKEN_CLS", rows, config, **WHOLE)
    split = latent_after("TOKEN_CLS", rows, config, **SPLIT)
    torch.testing.assert_close(split, whole, rtol=0, atol=1e-6)

"""torch.compile: the same training, and the base model as one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import Trainer, TrainingArguments

Build = Callable[..., Any]
# The compiler looks at the gradient of what it is given, and hides the warning, which the tests turn into an error.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    counters.clear()
    yield
    counters.clear()


def losses(model: Any, run: Any, batches: list[dict[str, torch.Tensor]]) -> list[float]:
    model.train()
    optimizer = torch.optim.AdamW([model.prompt_encoder["default"].latent], lr=0.3)
    found = []
    for given in batches:
        optimizer.zero_grad()
        loss = run(**given).loss
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("share", ["auto", False])
@pytest.mark.parametrize(("name", "options"), [("gpt2", {}), ("llama", {"num_attention_heads": 4})])
def test_same_losses_in_one_graph(
    causal: Build, readable: Build, batch: Build, rows: Build, name: str, options: dict[str, Any], share: bool | str
) -> None:
    """Nothing of ours breaks the graph of the base model, nor has it compiled anew as the prompt moves."""
    given = batch(rows("no"), "left")
    given["labels"] = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    weight = 0.0 if share is False else 0.5
    plain, compiled = (
        readable(causal(name, **options), perplexity_weight=weight, share_prefix=share) for _ in range(2)
    )
    expected = losses(plain, plain, [given] * 4)
    found = losses(compiled, torch.compile(compiled, backend="aot_eager"), [given] * 4)
    assert found == pytest.approx(expected, rel=1e-5)
    assert expected[-1] != expected[0]
    if share == "auto":  # the plain pass has the breaks of the model's own loss
        assert counters["stats"]["unique_graphs"] == 1
        assert sum(counters["graph_break"].values()) == 0


def test_hooks_that_change_are_seen(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    """A soft cap after the head, or a plain pass with the term, taps the head anew in every step."""
    given = batch(rows("no"), "left")
    given["labels"] = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    for name, options in (("gemma2", {}), ("llama", {"share_prefix": False}), ("llama", {"prompt_position": "end"})):
        last = torch.arange(given["labels"].shape[1]) == given["labels"].shape[1] - 1
        labels = given["labels"].masked_fill(~last, -100) if "prompt_position" in options else given["labels"]
        batches = [{**given, "labels": labels}] * 3
        plain, compiled = (readable(causal(name), perplexity_weight=0.5, **options) for _ in range(2))
        expected = losses(plain, plain, batches)
        found = losses(compiled, torch.compile(compiled, backend="eager"), batches)
        assert found == pytest.approx(expected, rel=1e-4)
        compiled.eval()
        with torch.no_grad():
            run = torch.compile(compiled, backend="eager")
            expected_logits = plain.eval()(**batches[0]).logits
            torch.testing.assert_close(run(**batches[0]).logits, expected_logits, atol=1e-4, rtol=1e-4)


def test_trainer_with_torch_compile(causal: Build, readable: Build, batch: Build, rows: Build, tmp_path: Any) -> None:
    given = batch(rows("all"), "left")
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    data = [{**{k: v[i] for k, v in given.items()}, "labels": labels[i]} for i in range(3)] * 2
    logged = []
    for compiled in (False, True):
        model = readable(causal("llama"), perplexity_weight=0.5)
        options = {"per_device_train_batch_size": 3, "max_steps": 4, "learning_rate": 0.3, "logging_steps": 1}
        backend = {"torch_compile": True, "torch_compile_backend": "eager"} if compiled else {}
        output = {"output_dir": str(tmp_path / str(compiled)), "disable_tqdm": True, "report_to": "none"}
        arguments = TrainingArguments(use_cpu=True, **output, **options, **backend)
        trainer = Trainer(model=model, args=arguments, train_dataset=data)
        trainer.train()
        logged.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert logged[1] == pytest.approx(logged[0], abs=1e-3)
    assert counters["stats"]["unique_graphs"] > 0

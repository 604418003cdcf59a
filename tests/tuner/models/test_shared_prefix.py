"""The prompt run once per batch: the same loss and gradient as the plain pass, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

Build = Callable[..., Any]
SHARING = ["gpt2", "llama", "opt", "opt_narrow", "qwen2"]
PLAIN = ["gemma2", "gemma3", "mistral", "bloom"]


def step(model: Any, shared: bool, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Loss, gradient at the latent, and whether the prompt was run once (then no logits come back)."""
    model.train()
    model.active_peft_config.share_prefix = shared
    latent = model.prompt_encoder["default"].latent
    latent.grad = None
    output = model(**inputs)
    output.loss.backward()
    return output.loss.detach(), latent.grad.clone(), output.logits is None


def assert_same_step(model: Any, expect_sharing: bool = True, **inputs: Any) -> None:
    loss, gradient, did_share = step(model, True, **inputs)
    plain_loss, plain_gradient, did = step(model, False, **inputs)
    assert did_share == expect_sharing
    assert not did
    assert plain_gradient.norm() > 1e-4
    torch.testing.assert_close(loss, plain_loss, rtol=1e-5, atol=1e-7)
    assert (gradient - plain_gradient).norm() <= 1e-5 * plain_gradient.norm()


def labelled(given: dict[str, torch.Tensor], side: str, pattern: str) -> torch.Tensor:
    ids, mask = given["input_ids"], given["attention_mask"]
    labels = torch.full_like(ids, -100)
    first = mask.argmax(dim=1)
    last = first + mask.sum(dim=1) - 1
    every = torch.arange(len(ids))
    if pattern == "last":
        labels[every, last] = ids[every, last]
    if pattern == "first":
        labels[every, first] = ids[every, first]
    if pattern == "one row":
        labels[1, last[1]] = ids[1, last[1]]
    if pattern == "all":
        labels = ids.masked_fill(mask == 0, -100)
    if pattern == "with padding":
        labels = ids.clone()
    return labels


@pytest.mark.parametrize("pattern", ["last", "first", "one row", "all", "with padding"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_label_patterns(causal: Build, readable: Build, batch: Build, rows: Build, side: str, pattern: str) -> None:
    model = readable(causal("llama"))
    for bos in ("no", "all"):
        if bos == "all" and pattern == "first":
            continue  # a BOS is not predicted: no label is left
        given = batch(rows(bos), side)
        # what stands after padding is predicted as stock PEFT does it, by the plain pass
        assert_same_step(
            model, (side, pattern) != ("right", "with padding"), **given, labels=labelled(given, side, pattern)
        )


@pytest.mark.parametrize("name", [*SHARING, *PLAIN])
def test_models(causal: Build, readable: Build, batch: Build, rows: Build, name: str) -> None:
    """Sliding windows and models without position ids run every row with its own prompt."""
    model = readable(causal(name), perplexity_weight=0.5)
    given = batch(rows("all"), "left")
    assert_same_step(model, **given, labels=labelled(given, "left", "all"))


def test_rows_that_begin_differently(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    """BOS in some rows only: no common prefix, so the plain pass runs."""
    model = readable(causal("llama"))
    given = batch(rows("some"), "left")
    assert_same_step(model, False, **given, labels=labelled(given, "left", "all"))


def test_no_label_at_all(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    """A batch without labels has no mean; within an accumulated batch it weighs nothing."""
    model = readable(causal("llama"))
    given = batch(rows("all"), "left")
    labels = labelled(given, "left", "none")
    for shared in (True, False):
        with pytest.raises(FloatingPointError, match="labels are all -100"):
            step(model, shared, **given, labels=labels)
        loss, gradient, _ = step(model, shared, **given, labels=labels, num_items_in_batch=5)
        assert loss == 0
        assert not gradient.any()


@pytest.mark.parametrize("sides", ["both", "context", "target"])
@pytest.mark.parametrize("tied", [True, False])
def test_perplexity_term(causal: Build, readable: Build, batch: Build, rows: Build, tied: bool, sides: str) -> None:
    weights = {"perplexity_weight": 2.0, "perplexity_gradient": sides}
    given = batch(rows("all"), "left")
    labels = labelled(given, "left", "last")
    model = readable(causal("llama", tie_word_embeddings=tied), **weights)
    assert_same_step(model, **given, labels=labels)
    without = readable(causal("llama", tie_word_embeddings=tied))
    difference = step(model, True, **given, labels=labels)[1] - step(without, True, **given, labels=labels)[1]
    assert difference.norm() > 1e-3


def test_separate_scorer(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    model = readable(causal("llama"), perplexity_weight=2.0)
    model.set_perplexity_model(causal("gpt2"))
    given = batch(rows("all"), "left")
    labels = labelled(given, "left", "last")
    assert_same_step(model, **given, labels=labels)
    own = readable(causal("llama"), perplexity_weight=2.0)
    assert not torch.allclose(step(model, True, **given, labels=labels)[0], step(own, True, **given, labels=labels)[0])
    assert not any("perplexity" in name for name in model.state_dict())


@pytest.mark.parametrize("bos", ["no", "all", "some"])
def test_embeddings_act_as_ids(causal: Build, readable: Build, batch: Build, rows: Build, bos: str) -> None:
    """With BOS, too, which embeddings show by their vector only."""
    model = readable(causal("llama"), perplexity_weight=0.5)
    given = batch(rows(bos), "left")
    labels, mask = labelled(given, "left", "last"), given["attention_mask"]
    embeds = model.word_embeddings(given["input_ids"]).detach()
    expected = step(model, False, **given, labels=labels)
    for shared in (True, False):
        loss, gradient, _ = step(model, shared, inputs_embeds=embeds, attention_mask=mask, labels=labels)
        torch.testing.assert_close(loss, expected[0], rtol=1e-5, atol=1e-7)
        assert (gradient - expected[1]).norm() <= 1e-5 * expected[1].norm()


def test_embeddings_no_mask_and_counts(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    model = readable(causal("gpt2"), perplexity_weight=0.5)
    given = batch(rows("no"), "left")
    labels, mask = labelled(given, "left", "all"), given["attention_mask"]
    embeds = model.word_embeddings(given["input_ids"]).detach()
    assert_same_step(model, inputs_embeds=embeds, attention_mask=mask, labels=labels)
    assert_same_step(model, input_ids=given["input_ids"], labels=given["input_ids"])
    assert_same_step(model, **given, labels=labels, num_items_in_batch=torch.tensor(40))
    assert_same_step(model, input_ids=given["input_ids"], attention_mask=mask.bool(), labels=labels)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_equals_stock_prompt_tuning(
    causal: Build, readable: Build, with_prompt: Build, token_ids: Build, name: str
) -> None:
    """Where stock is right (no padding, no BOS), a step at the same vectors has its loss and gradient."""
    model = readable(causal(name))
    stock = with_prompt(causal(name)).train()
    vectors = stock.prompt_encoder["default"].embedding.weight
    vectors.data.copy_(model.get_prompt(1)[0])
    ids = token_ids(3, 6)
    output = stock(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)
    output.loss.backward()
    for shared in (True, False):
        loss, gradient, _ = step(model, shared, input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)
        torch.testing.assert_close(loss, output.loss.detach(), rtol=1e-5, atol=0)
        wanted = (
            vectors.grad * model.prompt_encoder["default"].unit
        )  # the latent is in units of the table's coordinates
        assert (gradient - wanted).norm() <= 1e-5 * wanted.norm()


def test_label_after_every_row_is_the_text_loss(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    """The loss is the base model's loss of the text with only the labelled words counted."""
    model = readable(causal("llama"))
    given = batch(rows("all"), "right")
    text = batch(rows("all"), "right", model.prompt_token_ids())
    labels = labelled(given, "right", "last")
    text_labels = labelled(text, "right", "last")
    expected = causal("llama")(**text, labels=text_labels).loss
    torch.testing.assert_close(step(model, True, **given, labels=labels)[0], expected, rtol=1e-5, atol=0)


def hooks(model: torch.nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def test_the_base_is_untouched(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    base = causal("gpt2")
    attributes = set(vars(base))
    model = readable(base, perplexity_weight=0.5)
    given = batch(rows("all"), "left")
    labels = labelled(given, "left", "all")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.3)
    for shared in (True, False, True):
        step(model, shared, **given, labels=labels)
        optimizer.step()
    with pytest.raises(ValueError, match="attention_mask"):
        model(input_ids=given["input_ids"], attention_mask=given["attention_mask"][:, 1:], labels=labels)
    with pytest.raises(IndexError):
        model(input_ids=given["input_ids"] + 64, attention_mask=given["attention_mask"], labels=labels)
    untouched = causal("gpt2").state_dict()
    assert all(torch.equal(value, untouched[name]) for name, value in base.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in base.parameters())
    assert hooks(model) == 0
    assert set(vars(base)) == attributes


def test_only_the_latent_is_trained(causal: Build, readable: Build) -> None:
    model = readable(causal("gpt2"))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == ["prompt_encoder.default.latent"]
    assert model.get_nb_trainable_parameters()[0] == 4 * 32


def test_training_mode_without_gradient(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    """A loss under `no_grad`, or of a frozen adapter, in training mode."""
    model = readable(causal("gpt2"), perplexity_weight=0.5).train()
    given = batch(rows("all"), "left")
    expected = step(model, False, **given, labels=given["input_ids"])[0]
    with torch.no_grad():
        torch.testing.assert_close(model(**given, labels=given["input_ids"]).loss, expected)
    model.prompt_encoder["default"].latent.requires_grad_(False)
    for shared in (True, False):
        model.active_peft_config.share_prefix = shared
        torch.testing.assert_close(model(**given, labels=given["input_ids"]).loss, expected)


def test_the_caches_of_the_rows_are_separate(causal: Build, readable: Build, batch: Build) -> None:
    """A row's loss does not depend on the rows beside it."""
    model = readable(causal("llama"))
    rows = [[1, 5, 6, 7], [1, 8, 9, 10]]
    single = [step(model, True, **batch([row]), labels=torch.tensor([row]))[0] for row in rows]
    both = step(model, True, **batch(rows), labels=torch.tensor(rows))[0]
    torch.testing.assert_close(both, torch.stack(single).mean())


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_row_without_text(causal: Build, readable: Build, batch: Build, side: str) -> None:
    """BOS alone: nothing is predicted in that row, least of all the BOS."""
    model = readable(causal("llama"))
    given = batch([[1], [1, 5, 6]], side)
    assert_same_step(model, **given, labels=labelled(given, side, "all"))
    single = batch([[1, 5, 6]])
    expected = step(model, True, **single, labels=single["input_ids"])[0]
    torch.testing.assert_close(step(model, True, **given, labels=labelled(given, side, "all"))[0], expected)

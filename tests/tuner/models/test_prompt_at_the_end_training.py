"""`prompt_position="end"`, the training step: the text without gradient gives the plain pass's loss and gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp import text_nll
from tests.builders import checkpointing

Build = Callable[..., Any]
FAST = ["gpt2", "llama", "opt", "opt_narrow", "qwen2"]
PLAIN = ["gemma2", "gemma3", "mistral", "bloom"]
ANSWERS = (2, 1, 3)


@pytest.fixture
def at_end(causal: Build, readable: Build) -> Build:
    def build(name: str, off_rows: bool = True, model: Any = None, **config: Any) -> Any:
        settings = {"prompt_position": "end", **config}
        return readable(causal(name) if model is None else model, off_rows=off_rows, **settings).train()

    return build


@pytest.fixture
def labelled(batch: Build) -> Build:
    """`labelled(rows, side, answers)`: the last tokens of each row are its answer."""

    def build(rows: list[list[int]], side: str, answers: tuple[int, ...] = ANSWERS) -> dict[str, torch.Tensor]:
        given = batch(rows, side)
        from_the_end = given["attention_mask"].flip(1).cumsum(1).flip(1)  # 1 at the last attended token
        keep = (from_the_end <= torch.tensor(answers).unsqueeze(1)) & given["attention_mask"].bool()
        return {**given, "labels": given["input_ids"].masked_fill(~keep, -100)}

    return build


def step(model: Any, fast: bool, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Loss, gradient at the latent, and whether logits were spared."""
    model.active_peft_config.share_prefix = fast
    latent = model.prompt_encoder["default"].latent
    latent.grad = None
    output = model(**inputs)
    output.loss.backward()
    return output.loss.detach(), latent.grad.clone(), output.logits is None


def assert_same_step(model: Any, expect_fast: bool = True, **inputs: Any) -> torch.Tensor:
    loss, gradient, was_fast = step(model, True, **inputs)
    plain_loss, plain_gradient, was = step(model, False, **inputs)
    assert was_fast == expect_fast
    assert not was
    assert plain_gradient.norm() > 1e-4
    torch.testing.assert_close(loss, plain_loss, rtol=1e-6, atol=1e-7)
    assert (gradient - plain_gradient).norm() <= 1e-5 * plain_gradient.norm()
    return loss


@pytest.mark.parametrize("bos", ["no", "all", "some"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_bos(at_end: Build, labelled: Build, rows: Build, side: str, bos: str) -> None:
    model = at_end("llama", perplexity_weight=0.5)
    for answers in (ANSWERS, (1, 1, 1), (0, 2, 0), (7, 1, 4)):
        assert_same_step(model, **labelled(rows(bos), side, answers))


@pytest.mark.parametrize("name", [*FAST, *PLAIN])
def test_models(at_end: Build, labelled: Build, rows: Build, name: str) -> None:
    """Sliding windows and models without position ids keep the plain pass."""
    assert_same_step(at_end(name, perplexity_weight=0.5), name in FAST, **labelled(rows("all"), "left"))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_loss_is_that_of_the_text(
    causal: Build, at_end: Build, labelled: Build, batch: Build, rows: Build, name: str
) -> None:
    model, base = at_end(name), causal(name)
    losses = []
    for row, answer in zip(rows("all"), ANSWERS, strict=True):
        ids = torch.tensor([[*row[:-answer], *model.prompt_token_ids(), *row[-answer:]]])
        log_probs = base(input_ids=ids).logits[0].log_softmax(-1)
        losses += [-log_probs[k - 1, ids[0, k]] for k in range(ids.shape[1] - answer, ids.shape[1])]
    for side in ("left", "right"):
        ours = step(model, True, **labelled(rows("all"), side))[0]
        torch.testing.assert_close(ours, torch.stack(losses).mean().detach(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_without_text(at_end: Build, labelled: Build, side: str) -> None:
    """BOS and answer only, next to other rows and alone; a prompt with nothing at all in front of it."""
    model = at_end("llama", perplexity_weight=0.5)
    rows = [[1, 9], [1, 5, 6, 7, 8], [1, 11]]
    together = assert_same_step(model, **labelled(rows, side, (1, 1, 1)))
    alone = [assert_same_step(model, **labelled([row], side, (1,))) for row in rows]
    torch.testing.assert_close(together, torch.stack(alone).mean())
    assert_same_step(model, **labelled([[9], [5, 6, 7]], side, (1, 1)))
    assert_same_step(model, **labelled([[9], [8]], side, (1, 1)))


def test_no_label_at_all(at_end: Build, batch: Build, rows: Build) -> None:
    model = at_end("llama")
    given = batch(rows("all"), "left")
    labels = torch.full_like(given["input_ids"], -100)
    for fast in (True, False):
        with pytest.raises(FloatingPointError, match="labels are all -100"):
            step(model, fast, **given, labels=labels)
        loss, gradient, _ = step(model, fast, **given, labels=labels, num_items_in_batch=5)
        assert loss == 0
        assert not gradient.any()


def test_embeddings_no_mask_and_counts(at_end: Build, labelled: Build, rows: Build) -> None:
    model = at_end("gpt2", perplexity_weight=0.5)
    for bos in ("all", "some", "no"):
        given = labelled(rows(bos), "left")
        embeds = model.word_embeddings(given["input_ids"]).detach()
        as_embeds = {"inputs_embeds": embeds, "attention_mask": given["attention_mask"], "labels": given["labels"]}
        assert_same_step(model, **as_embeds)
        torch.testing.assert_close(step(model, True, **as_embeds)[0], step(model, True, **given)[0])
    assert_same_step(model, input_ids=given["input_ids"], labels=given["labels"])
    assert_same_step(model, **given, num_items_in_batch=torch.tensor(40))
    given["attention_mask"] = given["attention_mask"].bool()
    assert_same_step(model, **given)


def test_labels_on_padding_count_as_in_the_plain_pass(at_end: Build, labelled: Build, rows: Build) -> None:
    """Some collators leave pad tokens in the labels."""
    given = labelled(rows("all"), "right")
    given["labels"] = torch.where(given["attention_mask"] == 0, given["input_ids"], given["labels"])
    assert_same_step(at_end("llama"), **given)


def test_inputs_that_want_a_gradient_of_their_own_get_it(at_end: Build, labelled: Build, rows: Build) -> None:
    model = at_end("llama")
    given = labelled(rows("no"), "left")
    gradients = []
    for fast in (True, False):
        embeds = model.word_embeddings(given["input_ids"]).detach().requires_grad_()
        step(model, fast, inputs_embeds=embeds, attention_mask=given["attention_mask"], labels=given["labels"])
        gradients.append(embeds.grad)
    assert gradients[0][:, :3].abs().sum() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sides", ["both", "context", "target"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bos", ["no", "all"])
def test_the_term_is_the_prompts_own_nll(
    causal: Build, at_end: Build, labelled: Build, rows: Build, tied: bool, sides: str, bos: str
) -> None:
    """The same number as for a prompt at the start and as `text_nll`, alive on each side."""
    settings = {"perplexity_weight": 2.0, "perplexity_gradient": sides}
    base = causal("llama", tie_word_embeddings=tied)
    given = labelled(rows(bos), "left")
    model = at_end("llama", model=base, **settings)
    assert_same_step(model, **given)
    nll = model.prompt_statistics()["prompt_nll"]
    leading = [1] if bos == "all" else []
    assert nll == pytest.approx(text_nll(causal("llama", tie_word_embeddings=tied), model.prompt_token_ids(), leading))
    without = at_end("llama", model=causal("llama", tie_word_embeddings=tied))
    term = step(model, True, **given)[1] - step(without, True, **given)[1]
    start = at_end("llama", model=causal("llama", tie_word_embeddings=tied), prompt_position="start", **settings)
    bare = at_end("llama", model=causal("llama", tie_word_embeddings=tied), prompt_position="start")
    at_start = step(start, True, **given)[1] - step(bare, True, **given)[1]
    assert term.norm() > 1e-3
    torch.testing.assert_close(term, at_start, rtol=1e-3, atol=1e-4)


def test_a_separate_scorer(causal: Build, at_end: Build, labelled: Build, rows: Build) -> None:
    model = at_end("llama", perplexity_weight=2.0)
    model.set_perplexity_model(causal("gpt2"))
    assert_same_step(model, **labelled(rows("all"), "left"))
    nll = model.prompt_statistics()["prompt_nll"]
    assert nll == pytest.approx(text_nll(causal("gpt2"), model.prompt_token_ids(), [1]))


def test_the_text_runs_once_and_without_gradient(at_end: Build, labelled: Build, rows: Build) -> None:
    model = at_end("gpt2")
    seen = []

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        given = kwargs.get("input_ids")
        given = kwargs["inputs_embeds"] if given is None else given
        seen.append((*given.shape[:2], torch.is_grad_enabled()))

    handle = model.base_model.register_forward_pre_hook(look, with_kwargs=True)
    step(model, True, **labelled(rows("all"), "left", (1, 1, 1)))
    handle.remove()
    assert seen == [(3, 7, False), (3, 4, True)]  # the label itself need not run


def test_training_mode_without_gradient(at_end: Build, labelled: Build, rows: Build) -> None:
    model = at_end("gpt2", perplexity_weight=0.5)
    given = labelled(rows("all"), "left")
    expected = step(model, False, **given)[0]
    with torch.no_grad():
        torch.testing.assert_close(model(**given).loss, expected)
    model.prompt_encoder["default"].latent.requires_grad_(False)
    for fast in (True, False):
        model.active_peft_config.share_prefix = fast
        torch.testing.assert_close(model(**given).loss, expected)


def test_gradient_checkpointing(causal: Build, at_end: Build, labelled: Build, rows: Build) -> None:
    given = labelled(rows("all"), "left")
    expected = step(at_end("llama", perplexity_weight=0.5), True, **given)
    base = causal("llama")
    checkpointing(base, use_reentrant=False)
    loss, gradient, was_fast = step(at_end("llama", model=base, perplexity_weight=0.5), True, **given)
    assert not was_fast
    torch.testing.assert_close(loss, expected[0])
    torch.testing.assert_close(gradient, expected[1], rtol=1e-4, atol=1e-6)


def test_output_options_keep_the_plain_pass(at_end: Build, labelled: Build, rows: Build) -> None:
    model = at_end("gpt2")
    output = model(**labelled(rows("no"), "left"), output_hidden_states=True)
    assert [h.shape for h in output.hidden_states] == [(3, 4 + 7, 32)] * 3

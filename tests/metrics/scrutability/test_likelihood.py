"""Batched NLL equals one prompt at a time, and perplexities equal the stock definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp import text_nll
from peft_interp.inference.batching import Batches
from peft_interp.metrics.likelihood import language_model, mean_nll, perplexities, token_nlls
from peft_interp.metrics.references import human_prompts
from peft_interp.text.tokenization import leading_ids

Build = Callable[..., Any]
TEXTS = human_prompts()[:9]
PROMPT = torch.tensor([3, 1, 4, 1])


def stock_perplexities(model: Any, tokenizer: Any, texts: list[str], start: list[int]) -> list[float]:
    """What evaluate's `perplexity` measurement computes: right padding, mask, exponential of the masked mean.

    Its script is fetched from the Hub, so the formula is written out here.
    """
    encoded = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
    front = torch.tensor([start] * len(texts), dtype=torch.long).reshape(len(texts), len(start))
    ids = torch.cat([front, encoded["input_ids"]], 1)
    mask = torch.cat([torch.ones_like(front), encoded["attention_mask"]], 1)
    with torch.no_grad():
        logits = model(ids, attention_mask=mask).logits[:, :-1]
    loss = torch.nn.CrossEntropyLoss(reduction="none")(logits.transpose(1, 2), ids[:, 1:]) * mask[:, 1:]
    return torch.exp(loss.sum(1) / mask[:, 1:].sum(1)).tolist()


def test_perplexities_equal_the_stock_measurement(model: Any, tokenizer: Any) -> None:
    expected = stock_perplexities(model, tokenizer, list(TEXTS), [])
    assert perplexities(model, tokenizer, TEXTS, batch_size=4) == pytest.approx(expected, rel=1e-4)


def test_perplexities_with_a_start_token_equal_the_stock_measurement(llama: Build, tokenizer_dir: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(tokenizer_dir), llama()
    texts = ["w5 w6 w7", "w9", "w10 w11 w12 w13 w14"]
    expected = stock_perplexities(model, tokenizer, texts, [tokenizer.bos_token_id])
    assert perplexities(model, tokenizer, texts, add_start_token=True) == pytest.approx(expected, rel=1e-4)
    assert math.isnan(perplexities(model, tokenizer, texts)[1])


def test_a_start_token_has_to_exist(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="use False"):
        perplexities(model, tokenizer, TEXTS, add_start_token=True)


def test_a_batch_gives_what_single_prompts_give(llama: Build, token_ids: Build) -> None:
    model = llama()
    sequences = [row[:length].tolist() for row, length in zip(token_ids(4, 9), (9, 2, 5, 1), strict=True)]
    for leading in ([], [1]):
        found = [mean_nll(nlls) for nlls in token_nlls(model, sequences, leading, batch_size=3)]
        assert found == pytest.approx([text_nll(model, ids, leading) for ids in sequences], rel=1e-5, nan_ok=True)


def test_out_of_memory_makes_smaller_batches(gpt2: Build, token_ids: Build) -> None:
    """Of sequences of 2 to 9 tokens, 18 at once go through; the size is remembered where batches are given."""
    model = gpt2()
    sequences = [row[: 2 + i % 8].tolist() for i, row in enumerate(token_ids(12, 9))]
    whole = token_nlls(model, sequences, [1])
    sizes: list[int] = []

    def check(module: Any, args: Any, given: dict[str, Any]) -> None:
        sizes.append(given["input_ids"].numel())
        if sizes[-1] > 18:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = model.register_forward_pre_hook(check, with_kwargs=True)
    batches = Batches()
    found = token_nlls(model, sequences, [1], batches=batches)
    for nlls, expected in zip(found, whole, strict=True):
        torch.testing.assert_close(nlls, expected, rtol=1e-5, atol=1e-5)
    assert sizes[0] > 18 >= batches.tokens
    sizes.clear()
    token_nlls(model, sequences, [1], batches=batches)
    assert max(sizes) <= 18
    assert len(token_nlls(model, sequences, [1])) == 12
    hook.remove()


def test_one_text_that_does_not_fit_is_the_callers_problem(gpt2: Build, token_ids: Build) -> None:
    model = gpt2()

    def fail(*args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model.register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        token_nlls(model, token_ids(4, 5).tolist())


def test_long_texts_are_cut_to_the_window(gpt2: Build, token_ids: Build) -> None:
    assert len(token_nlls(gpt2(n_positions=8), token_ids(1, 30).tolist())[0]) == 7


def test_leading_ids_are_what_the_tokenizer_puts_in_front(tokenizer: Any, tokenizer_dir: Any) -> None:
    from transformers import AutoTokenizer

    assert leading_ids(tokenizer) == []
    assert leading_ids(AutoTokenizer.from_pretrained(tokenizer_dir)) == [1]


def test_training_modes_are_put_back(gpt2: Build, token_ids: Build) -> None:
    model = gpt2().train()
    model.transformer.drop.eval()
    token_nlls(model, token_ids(1, 4).tolist())
    assert model.training
    assert not model.transformer.drop.training


def test_an_adapter_is_judged_without_its_prompt(gpt2: Build, with_prompt: Build) -> None:
    base = gpt2()
    assert language_model(with_prompt(base)) is base


def test_other_models_are_refused(bert: Build, t5: Build) -> None:
    for model in (bert(), t5()):
        with pytest.raises(ValueError, match="causal language model"):
            language_model(model)


def test_text_nll_agrees_with_the_models_own_loss(gpt2: Build) -> None:
    model, ids = gpt2(), torch.tensor([[5, 9, 33, 12]])
    assert text_nll(model, ids[0]) == pytest.approx(model(ids, labels=ids).loss.item(), rel=1e-5)
    assert text_nll(model, [5, 9, 33, 12]) == text_nll(model, ids[0])


def test_leading_ids_give_context_but_are_not_scored(gpt2: Build) -> None:
    model, row = gpt2(), torch.tensor([[1, 5, 9, 33]])
    labels = torch.tensor([[-100, -100, 9, 33]])  # the first prompt token is not scored either
    with_bos = text_nll(model, [5, 9, 33], leading_ids=[1])
    assert with_bos == pytest.approx(model(row, labels=labels).loss.item(), rel=1e-5)
    assert with_bos != pytest.approx(text_nll(model, [5, 9, 33]), rel=1e-3)


def test_text_nll_ignores_dropout_and_leaves_the_mode_as_it_was(gpt2: Build) -> None:
    model = gpt2(embd_pdrop=0.5)
    quiet = text_nll(model, PROMPT)
    assert not model.training
    model.train()
    assert text_nll(model, PROMPT) == quiet
    assert model.training


@pytest.mark.parametrize("ids", [[], [4]])
def test_text_nll_of_less_than_two_tokens_is_not_a_number(ids: list[int], gpt2: Build) -> None:
    assert math.isnan(text_nll(gpt2(), ids))


@pytest.mark.parametrize("ids", ["hi", ["hi"], [[5, 9, 33]], torch.tensor([[5, 9, 33]]), {"input_ids": [5, 9]}])
def test_text_nll_says_that_it_wants_ids(ids: Any, gpt2: Build) -> None:
    with pytest.raises(ValueError, match=r"`ids=.*` must be one list of token ids; it is made by `tokenizer.encode"):
        text_nll(gpt2(), ids)


def test_text_nll_of_an_adapter_is_that_of_its_base_model(gpt2: Build, with_prompt: Any) -> None:
    expected = text_nll(gpt2(), PROMPT)
    assert text_nll(with_prompt(gpt2()), PROMPT) == expected


@pytest.mark.parametrize("ids", [[4, 64], [-1, 4]])
def test_ids_the_model_does_not_have_are_named(gpt2: Build, ids: list[int]) -> None:
    for measure in (text_nll, lambda model, prompt: token_nlls(model, [prompt])):
        with pytest.raises(ValueError, match=rf"\[{ids[0]}, {ids[1]}\] do not fit a vocabulary of 64; use those of"):
            measure(gpt2(), ids)

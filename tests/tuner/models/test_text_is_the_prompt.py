"""Promise 1, forward passes: the adapter's logits are the base model's logits of the plain text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import DynamicCache

Build = Callable[..., Any]
CAUSAL = ["gpt2", "llama", "opt", "opt_narrow", "gemma2", "gemma3", "mistral", "qwen2", "bloom"]
PROMPT = 4
TIGHT = {"atol": 1e-5, "rtol": 1e-5}


def attended_equal(ours: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> None:
    keep = mask.bool()
    assert ours.shape == text.shape
    torch.testing.assert_close(ours[keep], text[keep], **TIGHT)


@pytest.mark.parametrize("bos", ["no", "all", "some"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CAUSAL)
def test_evaluation(causal: Build, readable: Build, batch: Build, rows: Build, name: str, side: str, bos: str) -> None:
    model = readable(causal(name))
    prompt = model.prompt_token_ids()
    text = batch(rows(bos), side, prompt)
    expected = causal(name)(**text, **counted(model, text)).logits
    with torch.no_grad():
        as_ids = model(**batch(rows(bos), side)).logits
    as_vectors = model(**batch(rows(bos), side)).logits
    assert as_vectors.requires_grad
    attended_equal(as_ids, expected, text["attention_mask"])
    attended_equal(as_vectors, expected, text["attention_mask"])


def counted(model: Any, text: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Position ids as `generate` makes them, for models that take any."""
    if not model._takes("position_ids"):
        return {}
    return {"position_ids": (text["attention_mask"].cumsum(1) - 1).clamp_min(0)}


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("name", CAUSAL)
def test_no_padding_and_no_mask(
    causal: Build, readable: Build, token_ids: Build, batch: Build, name: str, bos: bool
) -> None:
    """Without a mask, with the base model's own position ids."""
    model = readable(causal(name))
    plain = [[*([1] if bos else []), *row] for row in token_ids(2, 6).tolist()]
    text = batch(plain, "right", model.prompt_token_ids())["input_ids"]
    with torch.no_grad():
        ours = model(input_ids=batch(plain)["input_ids"]).logits
        theirs = model(input_ids=batch(plain)["input_ids"], attention_mask=batch(plain)["attention_mask"]).logits
        expected = causal(name)(input_ids=text).logits
    torch.testing.assert_close(ours, expected, **TIGHT)
    torch.testing.assert_close(theirs, expected, **TIGHT)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "opt_narrow", "bloom"])
def test_training_plain_pass(causal: Build, readable: Build, batch: Build, rows: Build, name: str, side: str) -> None:
    """In training without labels, and with labels when nothing is shared: logits and loss of the text."""
    model = readable(causal(name), share_prefix=False).train()
    given = batch(rows("some"), side)
    text = batch(rows("some"), side, model.prompt_token_ids())
    base = causal(name).train()
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    places = model(**given, labels=labels)
    expected = base(**text, **counted(model, text))
    attended_equal(places.logits, expected.logits, text["attention_mask"])
    attended_equal(model(**given).logits, expected.logits, text["attention_mask"])
    assert torch.allclose(places.loss, text_loss(expected.logits, text, rows("some"), side), rtol=1e-5)


def text_loss(logits: torch.Tensor, text: dict[str, torch.Tensor], rows: list[list[int]], side: str) -> torch.Tensor:
    """Cross-entropy of the words after the prompt, by hand."""
    losses = []
    width = text["input_ids"].shape[1]
    for i, row in enumerate(rows):
        words = [t for t in row if t != 1]
        total = len(row) + PROMPT
        end = width if side == "left" else total
        for k, token in enumerate(words):
            losses.append(-logits[i, end - len(words) + k - 1].log_softmax(-1)[token])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt_narrow", "gemma3"])
@pytest.mark.parametrize("bos", ["no", "all", "some"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_given_as_embeddings(
    causal: Build, readable: Build, batch: Build, rows: Build, name: str, side: str, bos: str
) -> None:
    """A leading token is known by its vector, scaled (Gemma) or narrower than the model (OPT)."""
    model = readable(causal(name))
    given = batch(rows(bos), side)
    embeds = model.word_embeddings(given["input_ids"])
    with torch.no_grad():
        ours = model(inputs_embeds=embeds, attention_mask=given["attention_mask"]).logits
        expected = model(**given).logits
    text = batch(rows(bos), side, model.prompt_token_ids())
    attended_equal(ours, expected, text["attention_mask"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_equals_the_row_alone(causal: Build, readable: Build, batch: Build, side: str) -> None:
    model = readable(causal("gpt2"))
    row = [5, 9, 11]
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([row])).logits[0, -1]
        together = model(**batch([row, [3, 4, 5, 6, 7, 8]], side)).logits[0, -1 if side == "left" else PROMPT + 2]
    torch.testing.assert_close(together, alone, **TIGHT)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom"])
def test_loop_with_a_cache(causal: Build, readable: Build, batch: Build, rows: Build, name: str) -> None:
    """A manual decoding loop: the second pass knows that the cache holds the prompt."""
    model = readable(causal(name))
    given = batch(rows("all"), "left")
    new = torch.tensor([[7], [8], [9]])
    with torch.no_grad():
        first = model(**given, use_cache=True)
        mask = torch.cat((given["attention_mask"], torch.ones_like(new)), dim=1)
        second = model(input_ids=new, attention_mask=mask, past_key_values=first.past_key_values).logits
        whole = model(input_ids=torch.cat((given["input_ids"], new), dim=1), attention_mask=mask).logits
        unmasked = model(input_ids=given["input_ids"][:1], past_key_values=DynamicCache()).past_key_values
        no_mask = model(input_ids=new[:1], past_key_values=unmasked).logits
    torch.testing.assert_close(second[:, -1], whole[:, -1], **TIGHT)
    torch.testing.assert_close(no_mask[:, -1], whole[:1, -1], **TIGHT)


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_aligned_with_labels(causal: Build, readable: Build, batch: Build, rows: Build, side: str) -> None:
    """`align_logits_with_labels`: column i is what stands after input token i."""
    stock_shape = readable(causal("llama"))
    aligned = readable(causal("llama"), align_logits_with_labels=True)
    given = batch(rows("all"), side)
    with torch.no_grad():
        long, short = stock_shape(**given).logits, aligned(**given).logits
    assert long.shape == (3, PROMPT + 8, 64)
    assert short.shape == (3, 8, 64)
    for i, row in enumerate(rows("all")):
        pads = 8 - len(row) if side == "left" else 0
        torch.testing.assert_close(short[i, pads], long[i, pads])  # BOS, in front of the prompt
        words = slice(pads + 1, pads + len(row))
        torch.testing.assert_close(short[i, words], long[i, PROMPT + pads + 1 : PROMPT + pads + len(row)])


def test_output_options(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    model = readable(causal("gpt2", attn_implementation="eager"))
    given = batch(rows("no"), "left")
    labels = given["input_ids"]
    for training in (False, True):
        model.train(training)
        output = model(**given, labels=labels, output_hidden_states=True, output_attentions=True)
        assert [h.shape for h in output.hidden_states] == [(3, PROMPT + 7, 32)] * 3
        assert output.attentions[0].shape == (3, 2, PROMPT + 7, PROMPT + 7)
        as_tuple = model(**given, labels=labels, return_dict=False)
        assert isinstance(as_tuple, tuple)
        torch.testing.assert_close(as_tuple[0], output.loss)
        torch.testing.assert_close(as_tuple[1], output.logits)


def test_stated_positions_are_accepted(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    """Position ids that only say what the mask says change nothing."""
    model = readable(causal("gpt2"))
    given = batch(rows("no"), "left")
    stated = (given["attention_mask"].cumsum(1) - 1).clamp_min(0)
    torch.testing.assert_close(model(**given, position_ids=stated).logits, model(**given).logits)

"""`prompt_position="end"`, forward passes: the adapter's logits are the base model's logits of `text prompt answer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

Build = Callable[..., Any]
CAUSAL = ["gpt2", "llama", "opt", "opt_narrow", "gemma2", "gemma3", "mistral", "qwen2", "bloom"]
PROMPT = 4
TIGHT = {"atol": 1e-5, "rtol": 1e-5}
ANSWERS = (2, 1, 3)  # tokens of the answer in each row


@pytest.fixture
def at_end(causal: Build, readable: Build) -> Build:
    return lambda name, model=None, **config: readable(model or causal(name), prompt_position="end", **config)


@pytest.fixture
def padded(batch: Build) -> Build:
    """`padded(rows, side, answers, prompt=())`: ids, mask and labels; the prompt goes before the answer."""

    def build(rows: list[list[int]], side: str, answers: Sequence[int], prompt: Sequence[int] = ()) -> dict[str, Any]:
        cuts = [len(row) - answer for row, answer in zip(rows, answers, strict=True)]
        given = batch([[*row[:cut], *prompt, *row[cut:]] for row, cut in zip(rows, cuts, strict=True)], side)
        labels = [[*[-100] * (cut + len(prompt)), *row[cut:]] for row, cut in zip(rows, cuts, strict=True)]
        width = given["input_ids"].shape[1]
        pads = [[-100] * (width - len(row)) for row in labels]
        both = zip(pads, labels, strict=True)
        given["labels"] = torch.tensor([[*p, *row] if side == "left" else [*row, *p] for p, row in both])
        return given

    return build


def plain(base: Any, model: Any, text: dict[str, torch.Tensor]) -> Any:
    places = (text["attention_mask"].cumsum(1) - 1).clamp_min(0)
    return base(**text, **({"position_ids": places} if model._takes("position_ids") else {}))


def attended_equal(ours: torch.Tensor, text: torch.Tensor, mask: torch.Tensor, **tolerance: float) -> None:
    assert ours.shape == text.shape
    torch.testing.assert_close(ours[mask.bool()], text[mask.bool()], **{**TIGHT, **tolerance})


@pytest.mark.parametrize("bos", ["no", "all", "some"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CAUSAL)
def test_evaluation_with_labels(
    causal: Build, at_end: Build, padded: Build, rows: Build, name: str, side: str, bos: str
) -> None:
    model = at_end(name)
    given = padded(rows(bos), side, ANSWERS)
    text = padded(rows(bos), side, ANSWERS, model.prompt_token_ids())
    expected = plain(causal(name), model, text)
    with torch.no_grad():
        as_ids = model(**given)
    as_vectors = model(**given)
    assert as_vectors.logits.requires_grad
    for ours in (as_ids, as_vectors):
        attended_equal(ours.logits, expected.logits, text["attention_mask"])
        torch.testing.assert_close(ours.loss, expected.loss, **TIGHT)


@pytest.mark.parametrize("bos", ["no", "all", "some"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "bloom"])
def test_without_labels_the_prompt_stands_after_the_text(
    causal: Build, at_end: Build, padded: Build, rows: Build, name: str, side: str, bos: str
) -> None:
    model = at_end(name)
    given, text = (padded(rows(bos), side, (0, 0, 0), prompt) for prompt in ((), model.prompt_token_ids()))
    given.pop("labels"), text.pop("labels")
    attended_equal(model(**given).logits, plain(causal(name), model, text).logits, text["attention_mask"])


@pytest.mark.parametrize("bos", ["no", "all"])
def test_no_mask_and_embeddings(causal: Build, at_end: Build, padded: Build, token_ids: Build, bos: str) -> None:
    model, base = at_end("llama"), causal("llama")
    rows = [[*([1] if bos == "all" else []), *row] for row in token_ids(2, 6).tolist()]
    given, text = (padded(rows, "right", (1, 3), prompt) for prompt in ((), model.prompt_token_ids()))
    expected = base(input_ids=text["input_ids"]).logits
    ids, labels = given["input_ids"], given["labels"]
    embeds = model.word_embeddings(ids)
    torch.testing.assert_close(model(input_ids=ids, labels=labels).logits, expected, **TIGHT)
    torch.testing.assert_close(model(inputs_embeds=embeds, labels=labels).logits, expected, **TIGHT)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_same_answer_is_predicted_with_and_without_the_label(
    at_end: Build, padded: Build, batch: Build, rows: Build, side: str
) -> None:
    """Training and evaluation see `text prompt answer`, inference sees `text prompt`: the next word is the same."""
    model = at_end("gpt2")
    given = padded(rows("all"), side, (1, 1, 1))
    with torch.no_grad():
        with_label = model(**given).logits
        for i, row in enumerate(rows("all")):
            column = given["labels"][i].ne(-100).int().argmax() + PROMPT - 1
            alone = model(**batch([row[:-1]])).logits[0, -1]
            torch.testing.assert_close(with_label[i, column], alone, **TIGHT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_half_precision(
    causal: Build, at_end: Build, padded: Build, rows: Build, name: str, dtype: torch.dtype
) -> None:
    model = at_end(name, causal(name).to(dtype))
    given, text = (padded(rows("all"), "left", ANSWERS, prompt) for prompt in ((), model.prompt_token_ids()))
    expected = plain(causal(name).to(dtype), model, text)
    attended_equal(model(**given).logits, expected.logits, text["attention_mask"], atol=0.0, rtol=0.0)


def test_rows_without_a_label_among_others(causal: Build, at_end: Build, padded: Build, rows: Build) -> None:
    """In a labelled batch they end in the prompt; a row that is all answer begins with it."""
    model = at_end("llama")
    answers = (0, 4, 2)
    given, text = (padded(rows("all"), "left", answers, prompt) for prompt in ((), model.prompt_token_ids()))
    assert text["input_ids"][1].tolist()[3:8] == [1, *model.prompt_token_ids()]
    expected = plain(causal("llama"), model, text)
    ours = model(**given)
    attended_equal(ours.logits, expected.logits, text["attention_mask"])
    torch.testing.assert_close(ours.loss, expected.loss, **TIGHT)


@pytest.mark.parametrize("side", ["left", "right"])
def test_aligned_logits_predict_the_next_input_token(at_end: Build, padded: Build, rows: Build, side: str) -> None:
    """`align_logits_with_labels`: shifted by one as usual, they give the model's own loss."""
    model = at_end("llama", align_logits_with_labels=True)
    given = padded(rows("all"), side, ANSWERS)
    output = model(**given)
    assert output.logits.shape == (3, 8, 64)
    labels = given["labels"][:, 1:].flatten()
    loss = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels)
    torch.testing.assert_close(loss, output.loss, **TIGHT)
    given.pop("labels")
    last = given["attention_mask"].mul(torch.arange(8)).argmax(dim=1)
    after = last + PROMPT
    every = torch.arange(3)
    with torch.no_grad():
        whole = at_end("llama")(**given).logits[every, after]
        torch.testing.assert_close(model(**given).logits[every, last], whole, **TIGHT)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bos", ["no", "all"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_language_modelling_labels_are_refused(
    at_end: Build, batch: Build, rows: Build, side: str, bos: str, training: bool
) -> None:
    model = at_end("gpt2").train(training)
    given = batch(rows(bos), side)
    labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    for share in (True, False):
        model.active_peft_config.share_prefix = share
        with pytest.raises(ValueError, match=r"every row is labelled from its first token on.*use 'start'"):
            model(**given, labels=labels)


def test_an_empty_text_before_its_label_is_fine(causal: Build, at_end: Build) -> None:
    """An empty sentence in a classification set, in a batch of its own."""
    model = at_end("gpt2")
    text = torch.tensor([[1, *model.prompt_token_ids(), 7]])
    expected = causal("gpt2")(input_ids=text).logits
    torch.testing.assert_close(
        model(input_ids=torch.tensor([[1, 7]]), labels=torch.tensor([[-100, 7]])).logits, expected, **TIGHT
    )


def test_a_wrong_mask_is_named(at_end: Build, batch: Build, rows: Build) -> None:
    model = at_end("gpt2").train()
    given = batch(rows("all"))
    labels = given["input_ids"].clone()
    labels[:, :3] = -100
    with pytest.raises(ValueError, match=r"`attention_mask` has shape \(3, 7\)"):
        model(input_ids=given["input_ids"], attention_mask=given["attention_mask"][:, 1:], labels=labels)

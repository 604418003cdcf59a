"""Promise 1, `generate`: the adapter writes what the base model writes after the plain text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig, pipeline

Build = Callable[..., Any]
PROMPT = 4
GIVEN = 8  # width of `rows("all")`

SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 20},
    "beams": {"num_beams": 3},
    "several": {"num_beams": 3, "num_return_sequences": 2},
    "several samples": {"do_sample": True, "num_return_sequences": 3},
    "repetition penalty": {"repetition_penalty": 3.0},
    "no repeated pairs": {"no_repeat_ngram_size": 2},
    "static cache": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
}


def same_text(ours: torch.Tensor, text: torch.Tensor, given: torch.Tensor) -> None:
    """Our sequences are the given ids and then what stands after the text; no prompt in them."""
    copies = len(ours) // len(given)
    assert torch.equal(ours[:, : given.shape[1]], given.repeat_interleave(copies, dim=0))
    assert torch.equal(ours[:, given.shape[1] :], text[:, given.shape[1] + PROMPT :])


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_equals_the_text(
    causal: Build, readable: Build, batch: Build, rows: Build, name: str, settings: dict[str, Any]
) -> None:
    model = readable(causal(name))
    given = batch(rows("all"), "left")
    torch.manual_seed(3)
    ours = model.generate(**given, max_new_tokens=6, **settings)
    torch.manual_seed(3)
    text = causal(name).generate(**batch(rows("all"), "left", model.prompt_token_ids()), max_new_tokens=6, **settings)
    same_text(ours, text, given["input_ids"])


@pytest.mark.parametrize("name", ["opt", "opt_narrow", "gemma2", "gemma3", "mistral", "qwen2", "bloom"])
def test_other_models(causal: Build, readable: Build, batch: Build, rows: Build, name: str) -> None:
    model = readable(causal(name))
    for bos in ("no", "some"):
        given = batch(rows(bos), "left")
        text = causal(name).generate(**batch(rows(bos), "left", model.prompt_token_ids()), max_new_tokens=5)
        same_text(model.generate(**given, max_new_tokens=5), text, given["input_ids"])


def test_batched_rows_equal_single_rows(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    model = readable(causal("gpt2"))
    settings = {"max_new_tokens": 5, "return_dict_in_generate": True, "output_scores": True, "eos_token_id": None}
    together = model.generate(**batch(rows("some"), "left"), **settings)
    for i, row in enumerate(rows("some")):
        alone = model.generate(**batch([row]), **settings)
        assert torch.equal(alone.sequences[0, -5:], together.sequences[i, -5:])
        torch.testing.assert_close(alone.scores[0][0], together.scores[0][i], atol=1e-5, rtol=1e-5)


LENGTHS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "max_length": ({"max_length": GIVEN + 3}, {"max_length": GIVEN + 3 + PROMPT}),
    "default": ({}, {}),
    "min_length": (
        {"min_length": GIVEN + 6, "max_new_tokens": 7},
        {"min_length": GIVEN + 6 + PROMPT, "max_new_tokens": 7},
    ),
    "min_new_tokens": ({"min_new_tokens": 6, "max_new_tokens": 7},) * 2,
    "in a config": (
        {"generation_config": GenerationConfig(max_length=GIVEN + 3, pad_token_id=0)},
        {"generation_config": GenerationConfig(max_length=GIVEN + 3 + PROMPT, pad_token_id=0)},
    ),
    "new tokens in a config": ({"generation_config": GenerationConfig(max_new_tokens=3, pad_token_id=0)},) * 2,
}


# transformers recommends an explicit length whenever none is given
@pytest.mark.filterwarnings("ignore:Using the model-agnostic default `max_length`:UserWarning")
@pytest.mark.parametrize(("ours", "texts"), LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("eos", [2, 40])
def test_lengths_do_not_count_the_prompt(
    causal: Build, readable: Build, batch: Build, rows: Build, ours: dict[str, Any], texts: dict[str, Any], eos: int
) -> None:
    model, base = readable(causal("llama", eos_token_id=eos)), causal("llama", eos_token_id=eos)
    given = batch(rows("all"), "left")
    text = base.generate(**batch(rows("all"), "left", model.prompt_token_ids()), **texts)
    same_text(model.generate(**given, **ours), text, given["input_ids"])


def test_dict_output(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    model = readable(causal("gpt2"))
    given = batch(rows("all"), "left")
    settings = {"max_new_tokens": 4, "num_beams": 2, "return_dict_in_generate": True, "output_scores": True}
    ours = model.generate(**given, **settings)
    text = causal("gpt2").generate(**batch(rows("all"), "left", model.prompt_token_ids()), **settings)
    same_text(ours.sequences, text.sequences, given["input_ids"])
    assert ours["sequences"] is ours.sequences
    torch.testing.assert_close(ours.sequences_scores, text.sequences_scores)


def test_positional_arguments(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    """As in transformers: the ids first, then the generation config."""
    model = readable(causal("gpt2"))
    ids = batch([rows("all")[0]])["input_ids"]
    expected = model.generate(input_ids=ids, max_new_tokens=3)
    assert torch.equal(model.generate(ids, max_new_tokens=3), expected)
    assert torch.equal(model.generate(ids, GenerationConfig(max_new_tokens=3, pad_token_id=0)), expected)
    assert torch.equal(model.generate(inputs=ids, max_new_tokens=3), expected)


def test_no_mask(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    """Without a mask, padding is what generate itself takes for padding."""
    model = readable(causal("llama"))
    given = batch(rows("all"), "left")
    expected = model.generate(**given, max_new_tokens=5)
    assert torch.equal(model.generate(given["input_ids"], max_new_tokens=5), expected)


def test_no_input(causal: Build, readable: Build) -> None:
    """Nothing given: BOS, the prompt, and on from there."""
    model = readable(causal("llama"))
    text = causal("llama").generate(torch.tensor([[1, *model.prompt_token_ids()]]), max_new_tokens=5)
    assert torch.equal(model.generate(max_new_tokens=5), torch.cat((text[:, :1], text[:, 5:]), dim=1))


def test_no_input_and_no_bos(causal: Build, readable: Build) -> None:
    model = readable(causal("gpt2", bos_token_id=None))
    with pytest.raises(ValueError, match="`input_ids`: the model has no BOS token"):
        model.generate(max_new_tokens=2)


def test_given_as_embeddings(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    """Returns only the new tokens, as transformers does."""
    model = readable(causal("llama"))
    given = batch(rows("no"), "left")
    embeds = model.word_embeddings(given["input_ids"])
    for lengths in ({"max_new_tokens": 5}, {"max_length": 12}):
        ids = model.generate(**given, **lengths)
        new = model.generate(inputs_embeds=embeds, attention_mask=given["attention_mask"], **lengths)
        assert torch.equal(new, ids[:, 7:])


def test_while_training(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    """Penalties see the prompt and the input in a model with gradients, as they see the text's tokens."""
    model = readable(causal("gpt2")).train()
    given = batch(rows("no"), "left")
    ours = model.generate(**given, max_new_tokens=6, repetition_penalty=5.0)
    base = causal("gpt2")
    text = batch(rows("no"), "left", model.prompt_token_ids())
    same_text(ours, base.generate(**text, max_new_tokens=6, repetition_penalty=5.0), given["input_ids"])
    assert model.prompt_statistics()["step"] == 0


# stock PEFT warns that it drops position ids, in every step of generate
@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")
def test_soft_prompt_equals_stock(causal: Build, readable: Build, with_prompt: Build, token_ids: Build) -> None:
    """`projection_metric="none"`: penalties see the input, as in stock prompt tuning, and no made-up tokens."""
    model = readable(causal("gpt2"), projection_metric="none")
    stock = with_prompt(causal("gpt2")).eval()
    stock.prompt_encoder["default"].embedding.weight.data.copy_(model.prompt_encoder["default"].latent.data)
    ids = token_ids(2, 6)
    for settings in ({}, {"repetition_penalty": 5.0}, {"num_beams": 2, "num_return_sequences": 2}):
        ours = model.generate(input_ids=ids, max_new_tokens=6, **settings)
        expected = stock.generate(input_ids=ids, max_new_tokens=6, use_cache=False, **settings)  # right in any version
        assert torch.equal(ours, expected)


def test_nothing_is_left_on_the_base(causal: Build, readable: Build, batch: Build, rows: Build) -> None:
    """Stock prompt tuning leaves its own `prepare_inputs_for_generation` on the base model."""
    base = causal("gpt2")
    before = set(vars(base))
    model = readable(base)
    model.generate(**batch(rows("all"), "left"), max_new_tokens=2)
    assert set(vars(base)) - before == set()
    lengths = GenerationConfig(max_length=12, pad_token_id=0)
    model.generate(**batch(rows("all"), "left"), generation_config=lengths)
    assert lengths.max_length == 12


def test_pipeline(causal: Build, readable: Build, tokenizer_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir, padding_side="left")
    model = readable(causal("llama"))
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    prompts = ["w5 w6 w7", "w8"]
    options = {"max_new_tokens": 4, "do_sample": False, "batch_size": 2, "return_full_text": False}
    written = generator(prompts, **options)
    assert "is not supported" not in caplog.text
    for prompt, (row,) in zip(prompts, written, strict=True):
        text = tokenizer(prompt, return_tensors="pt")["input_ids"]
        text = torch.cat((text[:, :1], torch.tensor([model.prompt_token_ids()]), text[:, 1:]), dim=1)
        new = causal("llama").generate(text, max_new_tokens=4)[0, text.shape[1] :]
        assert row["generated_text"] == tokenizer.decode(new, skip_special_tokens=True)

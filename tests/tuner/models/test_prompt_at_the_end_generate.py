"""`prompt_position="end"`: generate continues after `text prompt`, from caches too; what saving keeps; refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoTokenizer, DynamicCache

from peft_interp import InterpPromptConfig, continue_training

Build = Callable[..., Any]
PROMPT = 4

SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 20},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "repetition penalty": {"repetition_penalty": 3.0},
    "no repeated pairs": {"no_repeat_ngram_size": 2},
    "static cache": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
}


@pytest.fixture
def at_end(causal: Build, readable: Build) -> Build:
    return lambda name, **config: readable(causal(name), prompt_position="end", **config)


@pytest.fixture
def texts(batch: Build) -> Build:
    """`texts(rows, prompt)`: the rows with the prompt after them, padded on the left."""
    return lambda rows, prompt: batch([[*row, *prompt] for row in rows], "left")


def same_text(ours: torch.Tensor, text: torch.Tensor, given: torch.Tensor) -> None:
    """Our sequences are the given ids and then what stands after the text; no prompt in them."""
    copies = len(ours) // len(given)
    assert torch.equal(ours[:, : given.shape[1]], given.repeat_interleave(copies, dim=0))
    assert torch.equal(ours[:, given.shape[1] :], text[:, given.shape[1] + PROMPT :])


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_equals_the_text(
    causal: Build, at_end: Build, batch: Build, texts: Build, rows: Build, name: str, settings: dict[str, Any]
) -> None:
    model = at_end(name)
    for bos in ("all", "some"):
        given = batch(rows(bos), "left")
        torch.manual_seed(3)
        ours = model.generate(**given, max_new_tokens=6, **settings)
        torch.manual_seed(3)
        text = causal(name).generate(**texts(rows(bos), model.prompt_token_ids()), max_new_tokens=6, **settings)
        same_text(ours, text, given["input_ids"])


@pytest.mark.parametrize("name", ["opt", "opt_narrow", "gemma2", "gemma3", "mistral", "qwen2", "bloom"])
def test_other_models(causal: Build, at_end: Build, batch: Build, texts: Build, rows: Build, name: str) -> None:
    model = at_end(name)
    given = batch(rows("some"), "left")
    text = causal(name).generate(**texts(rows("some"), model.prompt_token_ids()), max_new_tokens=5)
    same_text(model.generate(**given, max_new_tokens=5), text, given["input_ids"])


def test_embeddings_and_nothing(causal: Build, at_end: Build, batch: Build, rows: Build) -> None:
    model = at_end("llama")
    given = batch(rows("no"), "left")
    embeds = model.word_embeddings(given["input_ids"])
    new = model.generate(inputs_embeds=embeds, attention_mask=given["attention_mask"], max_new_tokens=5)
    assert torch.equal(new, model.generate(**given, max_new_tokens=5)[:, 7:])
    text = causal("llama").generate(torch.tensor([[1, *model.prompt_token_ids()]]), max_new_tokens=5)
    assert torch.equal(model.generate(max_new_tokens=5), torch.cat((text[:, :1], text[:, 5:]), dim=1))


def test_a_soft_prompt_at_the_end(causal: Build, at_end: Build, batch: Build, rows: Build) -> None:
    """`projection_metric="none"`: its vectors stand after the text, and penalties see the input only."""
    model, base = at_end("gpt2", projection_metric="none"), causal("gpt2")
    given = batch(rows("no"), "left")
    embeds = model.word_embeddings(given["input_ids"])
    embeds = torch.cat((embeds, model.prompt_encoder["default"].latent.expand(3, -1, -1)), dim=1).detach()
    mask = torch.cat((given["attention_mask"], given["attention_mask"].new_ones(3, PROMPT)), dim=1)
    new = base.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=5)
    assert torch.equal(model.generate(**given, max_new_tokens=5)[:, 7:], new)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_loop_with_a_cache(causal: Build, at_end: Build, batch: Build, rows: Build, name: str, side: str) -> None:
    """A manual decoding loop: the second pass leaves the prompt where the first one put it."""
    if (name, side) == ("bloom", "right"):
        pytest.skip("without position ids BLOOM counts the padding in front of a new token")
    model = at_end(name)
    given = batch(rows("all"), side)
    new = torch.tensor([[7], [8], [9]])
    with torch.no_grad():
        first = model(**given, use_cache=True)
        mask = torch.cat((given["attention_mask"], torch.ones_like(new)), dim=1)
        second = model(input_ids=new, attention_mask=mask, past_key_values=first.past_key_values).logits
        unmasked = model(input_ids=given["input_ids"][:1], past_key_values=DynamicCache()).past_key_values
        no_mask = model(input_ids=new[:1], past_key_values=unmasked).logits
    for i, row in enumerate(rows("all")):
        text = torch.tensor([[*row, *model.prompt_token_ids(), int(new[i])]])
        expected = causal(name)(input_ids=text).logits[0, -1]
        torch.testing.assert_close(second[i, -1], expected, atol=1e-5, rtol=1e-5)
        if i == 0:
            torch.testing.assert_close(no_mask[0, -1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"repetition_penalty": 3.0}, {"no_repeat_ngram_size": 1}])
def test_generate_from_a_cache(
    causal: Build, at_end: Build, batch: Build, rows: Build, settings: dict[str, Any]
) -> None:
    """A second turn: the prompt stays where it stood in the first, and the new text follows."""
    model = at_end("llama")
    given = batch(rows("all"), "left")
    more = torch.tensor([[20, 21], [22, 23], [24, 25]])
    with torch.no_grad():
        cache = model(**given, use_cache=True).past_key_values
    ids = torch.cat((given["input_ids"], more), dim=1)
    mask = torch.cat((given["attention_mask"], torch.ones_like(more)), dim=1)
    ours = model.generate(ids, attention_mask=mask, past_key_values=cache, max_new_tokens=5, **settings)
    prompt = model.prompt_token_ids()
    text = batch([[*row, *prompt, *tail.tolist()] for row, tail in zip(rows("all"), more, strict=True)], "left")
    same_text(ours, causal("llama").generate(**text, max_new_tokens=5, **settings), ids)


def test_the_position_is_saved_and_comes_back(
    causal: Build, at_end: Build, batch: Build, rows: Build, tmp_path: Path
) -> None:
    model = at_end("gpt2")
    given = batch(rows("all"), "left")
    with torch.no_grad():
        expected = model(**given).logits
    model.save_pretrained(tmp_path)
    for again in (
        PeftModel.from_pretrained(causal("gpt2"), tmp_path),
        continue_training(causal("gpt2"), str(tmp_path)),
    ):
        assert again.active_peft_config.prompt_position == "end"
        with torch.no_grad():
            assert torch.equal(again.eval()(**given).logits, expected)


def test_an_adapter_saved_before_there_was_a_choice_stands_at_the_start(
    causal: Build, readable: Build, batch: Build, rows: Build, tmp_path: Path
) -> None:
    model = readable(causal("gpt2"))
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored = {**stored.pop("peft_interp"), **stored, "peft_type": "INTERP_PROMPT"}  # as it was then
    assert stored.pop("prompt_position") == "start"
    path.write_text(json.dumps(stored), encoding="utf-8")
    old = PeftModel.from_pretrained(causal("gpt2"), tmp_path)
    assert old.active_peft_config.prompt_position == "start"
    given = batch(rows("all"), "left")
    with torch.no_grad():
        assert torch.equal(old(**given).logits, model(**given).logits)


def test_start_and_end_in_one_model(causal: Build, at_end: Build, readable: Build, batch: Build, rows: Build) -> None:
    model = at_end("gpt2")
    model.add_adapter("first", InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    model.prompt_encoder["first"].latent.data.copy_(model.prompt_encoder["default"].latent.data)
    given = batch(rows("all"), "left")
    with torch.no_grad():
        after = model(**given).logits
        model.set_adapter("first")
        before = model(**given).logits
        model.set_adapter("default")
        assert torch.equal(model(**given).logits, after)
        torch.testing.assert_close(before, readable(causal("gpt2"))(**given).logits)
    assert not torch.allclose(before[:, -1], after[:, -1], atol=0.01)


def test_a_model_that_puts_every_prompt_first_refuses_it(causal: Build, with_prompt: Build, token_ids: Build) -> None:
    model = with_prompt(causal("gpt2"))
    model.add_adapter("ours", InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, prompt_position="end"))
    model.set_adapter("ours")
    with pytest.raises(ValueError, match="`prompt_position='end'`, but was added to a model made for another config"):
        model(input_ids=token_ids(2, 5))


@pytest.mark.parametrize("task", ["SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS"])
def test_other_tasks_refuse_it(task: str, roberta: Build, bart: Build) -> None:
    with pytest.raises(
        ValueError, match=rf"`prompt_position='end'`.*only CAUSAL_LM and .* have; got `task_type='{task}'`"
    ):
        InterpPromptConfig(task_type=task, prompt_position="end")
    config = InterpPromptConfig(prompt_position="end")
    config.task_type = task  # set afterwards, as some scripts do
    with pytest.raises(ValueError, match=r"`prompt_position='end'` is nothing for an? .*must be 'start'"):
        get_peft_model(bart() if task == "SEQ_2_SEQ_LM" else roberta(), config)


def test_the_text_goes_after_the_input_as_it_is(causal: Build, at_end: Build, tokenizer_dir: Path) -> None:
    """A user's check: generate from the pasted text."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    model = at_end("llama")
    model.use_prompt([5, 6, 7, 8])
    assert model.prompt_text(tokenizer) == " w5 w6 w7 w8"
    assert model.prompt_survives(tokenizer, " w10", preceding_text="w20 w21")
    pasted = tokenizer("w20 w21" + model.prompt_text(tokenizer), return_tensors="pt")["input_ids"]
    written = causal("llama").generate(pasted, max_new_tokens=5)[0, pasted.shape[1] :]
    given = tokenizer("w20 w21", return_tensors="pt")["input_ids"]
    assert torch.equal(model.generate(given, max_new_tokens=5)[0, given.shape[1] :], written)

"""Configs of base models: text settings in a part of their own, ids outside the table, one prompt config for two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3TextConfig, LlamaForCausalLM, SiglipVisionConfig

from peft_interp import InterpPromptConfig
from peft_interp.text.token_filter import unused_tail

Build = Callable[..., Any]


@pytest.fixture
def gemma() -> Any:
    """Text and image config; the special ids are named by the text's."""
    text = Gemma3TextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, pad_token_id=0, bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    images = {"boi_token_index": 60, "eoi_token_index": 61, "image_token_index": 62, "mm_tokens_per_image": 4}
    config = Gemma3Config(text_config=text.to_dict(), vision_config=vision.to_dict(), **images)
    return AutoModelForCausalLM.from_config(config).eval()


def test_a_composite_config_names_bos_and_special_tokens(gemma: Any, readable: Build) -> None:
    model = readable(gemma).eval()
    assert not model.prompt_encoder["default"].tokens.allowed[[0, 1, 2, 60, 61, 62]].any()
    ids, prompt = torch.tensor([[2, 5, 6, 7, 9]]), torch.tensor([model.prompt_token_ids()])
    pasted = torch.cat((ids[:, :1], prompt, ids[:, 1:]), dim=1)
    with torch.no_grad():
        torch.testing.assert_close(
            model(input_ids=ids).logits[:, -1], model.base_model(input_ids=pasted).logits[:, -1], atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("named", [{"pad_token_id": -1}, {"eos_token_id": [2, 100]}])
@pytest.mark.filterwarnings("ignore")
def test_special_ids_outside_the_table_are_passed_over(named: dict[str, Any], llama: Build, readable: Build) -> None:
    model = readable(llama(**named))
    assert not model.prompt_encoder["default"].tokens.allowed[[1, 2]].any()
    assert model(input_ids=torch.tensor([[5, 6]])).logits.shape == (1, 6, 64)


def test_ids_outside_the_table_that_the_user_bans_are_refused(llama: Build, readable: Build) -> None:
    with pytest.raises(ValueError, match=r"`banned_token_ids` \[64\] are not in the vocabulary"):
        readable(llama(), banned_token_ids=[64])


def test_one_config_for_two_models(gpt2: Build, llama: Build) -> None:
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    before = config.to_dict()
    first = get_peft_model(gpt2(bos_token_id=1), config)
    second = get_peft_model(llama(bos_token_id=7, hidden_size=48), config)
    assert config.to_dict() == {**before, "base_model_name_or_path": config.base_model_name_or_path}
    assert first.peft_config["default"].leading_token_ids == [1]
    assert second.peft_config["default"].leading_token_ids == [7]
    assert second.prompt_encoder["default"].latent.shape == (4, 48)
    second.add_adapter("other", config)
    assert config.to_dict() == {**before, "base_model_name_or_path": config.base_model_name_or_path}


def test_a_config_that_is_given_for_loading_is_the_models(gpt2: Build, readable: Build, tmp_path: Path) -> None:
    """As with stock PEFT; it belongs to the adapter that it describes."""
    model = readable(gpt2())
    model.save_pretrained(tmp_path)
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    loaded = PeftModel.from_pretrained(gpt2(), str(tmp_path), config=config)
    assert loaded.peft_config["default"] is config
    assert loaded.prompt_token_ids() == model.prompt_token_ids()


def test_an_encoder_decoder_is_no_causal_lm(t5: Build, readable: Build) -> None:
    with pytest.raises(ValueError, match="T5ForConditionalGeneration has an encoder too: use `task_type='SEQ_2_SEQ"):
        readable(t5())


@pytest.mark.parametrize("size", [70, 40])
@pytest.mark.filterwarnings("ignore")
def test_the_table_may_be_resized_afterwards(size: int, llama: Build, readable: Build) -> None:
    model = readable(llama())
    model.use_prompt([60, 61, 62, 63])
    model.keep_best_prompt(0.5)
    model.resize_token_embeddings(size, mean_resizing=False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.3)
    ids = torch.tensor([[5, 6, 7]])
    for _ in range(3):
        model.train()(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    assert max(model.prompt_token_ids()) < min(size, 64)
    assert (model.best_prompt() is None) == (size == 40)
    assert model.peft_config["default"].table_fingerprint[0] == size
    assert not model.prompt_encoder["default"].tokens.allowed[64:].any(), "new rows mean nothing yet"


@pytest.mark.filterwarnings("ignore")
def test_padding_rows_of_a_table_are_never_chosen(llama: Build, readable: Build) -> None:
    base: LlamaForCausalLM = llama()
    base.resize_token_embeddings(64, pad_to_multiple_of=96)  # with the mean of all rows, and a little noise
    allowed = readable(base).prompt_encoder["default"].tokens.allowed
    assert len(allowed) == 96
    assert not allowed[64:].any()
    assert allowed[3:64].all()


def test_only_rows_that_repeat_count_as_padding() -> None:
    table = torch.randn(50, 8)
    assert unused_tail(table) == 0
    assert unused_tail(torch.cat((table, table[:1].expand(3, -1)))) == 3
    assert unused_tail(torch.cat((table, table.mean(0, keepdim=True)))) == 1
    assert unused_tail(table[:1].expand(5, -1)) == 0

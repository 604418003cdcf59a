"""Which ways of loading a prompt-learning adapter PEFT allows, and what state they leave."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import (
    AutoPeftModel,
    AutoPeftModelForCausalLM,
    AutoPeftModelForSequenceClassification,
    PeftModel,
    PeftModelForCausalLM,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

Build = Callable[..., Any]
REFUSAL = "Cannot set a prompt learning adapter to trainable"


@pytest.fixture
def saved(gpt2: Build, with_prompt: Build, tmp_path: Path) -> Path:
    """An adapter beside the base model it names."""
    gpt2().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with_prompt(base).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_from_pretrained_refuses_to_train(gpt2: Build, saved: Path) -> None:
    """Promise: continuing a training is one call of ours; stock refuses `is_trainable=True`."""
    with pytest.raises(ValueError, match=REFUSAL):
        PeftModel.from_pretrained(gpt2(), saved, is_trainable=True)


def test_load_adapter_under_a_new_name_refuses_to_train(gpt2: Build, with_prompt: Build, saved: Path) -> None:
    """Promise: we continue through an adapter that exists, never through a new name."""
    with pytest.raises(ValueError, match=REFUSAL):
        with_prompt(gpt2()).load_adapter(saved, "new", is_trainable=True)


def test_load_adapter_into_an_existing_one_trains(
    gpt2: Build, with_prompt: Build, token_ids: Build, saved: Path
) -> None:
    """Promise: this is how Trainer resumes and how our continue call works."""
    model = with_prompt(gpt2()).train()
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.zero_()
    result = model.load_adapter(saved, "default", is_trainable=True)
    assert result.missing_keys == []
    assert result.unexpected_keys == ["prompt_embeddings"]
    assert model.training
    assert not model.peft_config["default"].inference_mode
    torch.testing.assert_close(model.get_prompt(1), with_prompt(gpt2()).get_prompt(1))
    ids = token_ids(2, 5)
    model(input_ids=ids, labels=ids).loss.backward()
    assert model.prompt_encoder["default"].embedding.weight.grad is not None


def test_loaded_adapter_is_in_inference_mode(gpt2: Build, saved: Path) -> None:
    """Promise: a loaded prompt is read through `.embedding.weight`; it is not frozen, though."""
    model = PeftModel.from_pretrained(gpt2(), saved)
    assert model.peft_config["default"].inference_mode
    assert not model.training
    assert model.prompt_encoder["default"].embedding.weight.requires_grad


def test_two_adapters_live_in_one_model(gpt2: Build, with_prompt: Build, saved: Path) -> None:
    """Promise: ours and plain prompt tuning share a model; the active name picks the encoder."""
    model = with_prompt(gpt2())
    model.load_adapter(saved, "second")
    assert model.active_adapter == "default"
    with torch.no_grad():
        model.prompt_encoder["second"].embedding.weight.fill_(7.0)
    model.set_adapter("second")
    assert torch.equal(model.get_prompt(1), torch.full((1, 4, 32), 7.0))
    assert all(p.requires_grad for p in model.prompt_encoder.parameters())


def test_auto_class_of_the_task_loads_the_adapter(saved: Path) -> None:
    """Promise: the README's AutoPeftModelForCausalLM line is the one that works."""
    assert type(AutoPeftModelForCausalLM.from_pretrained(saved)) is PeftModelForCausalLM
    with pytest.raises(ValueError, match="Cannot use `AutoPeftModel` with a task type"):
        AutoPeftModel.from_pretrained(saved)
    with pytest.raises(ValueError, match="Expected target PEFT class: PeftModelForCausalLM"):
        AutoPeftModelForSequenceClassification.from_pretrained(saved)


def test_transformers_refuses_prompt_adapters(saved: Path) -> None:
    """Promise: our card names AutoPeftModelFor*, because AutoModelFor* and pipeline(id) fail with every prompt."""
    base = AutoModelForCausalLM.from_pretrained(saved.parent / "base")
    for load in (
        lambda: AutoModelForCausalLM.from_pretrained(saved),
        lambda: base.load_adapter(str(saved)),
        lambda: pipeline("text-generation", str(saved)),
    ):
        with pytest.raises(ValueError, match="does not support prompt learning"):
            load()


# Stock drops position ids at every generate step and warns about it.
@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")
def test_pipeline_takes_a_peft_model(gpt2: Build, with_prompt: Build, tokenizer_dir: Path) -> None:
    """Promise: `pipeline(task, model=ours, tokenizer=tok)` needs nothing special."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    generate = pipeline("text-generation", model=with_prompt(gpt2()), tokenizer=tokenizer)
    (answer,) = generate("w5 w6", max_new_tokens=2, do_sample=False)
    assert answer["generated_text"].startswith("w5 w6")


def test_deep_copy_is_whole(gpt2: Build, with_prompt: Build) -> None:
    """Promise: sweeps may deep-copy a model; tied references point into the copy."""
    model = copy.deepcopy(with_prompt(gpt2()))
    assert model.word_embeddings is model.base_model.transformer.wte
    assert model.base_model_prepare_inputs_for_generation.__self__ is model.base_model


def test_disabling_swaps_instance_attributes(gpt2: Build, with_prompt: Build, token_ids: Build) -> None:
    """Promise: `disable_adapter` reaches the bare base through any `forward` we define."""
    model = with_prompt(gpt2())
    ids = token_ids(1, 5)
    with model.disable_adapter():
        assert torch.equal(model(input_ids=ids).logits, model.base_model(ids).logits)
    assert "forward" in vars(model)
    assert model(input_ids=ids).logits.shape == (1, 9, 64)


def test_saving_writes_a_model_card(saved: Path) -> None:
    """Promise: our card starts from this one: library peft, base model, task tag."""
    data = ModelCard.load(saved / "README.md").data
    base = str(saved.parent / "base")
    assert (data.library_name, data.base_model) == ("peft", base)
    assert data.pipeline_tag == "text-generation"
    assert data.tags == [f"base_model:adapter:{base}"]

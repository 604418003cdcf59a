"""Promise 5: what is loaded is what was saved."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    PeftConfig,
    PeftModel,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertForSequenceClassification

from peft_interp import InterpPromptConfig, continue_training

Build = Callable[..., Any]
KEYS = [
    "best_prompt_ids",
    "best_prompt_score",
    "prompt_embeddings",
    "prompt_ids",
    "prompt_latent",
    "prompt_latent_unit",
]
KEYS += ["prompt_perplexity_weight", "prompt_step"]


def train(model: Any, ids: torch.Tensor, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.3)
    model.train()
    labels = {"labels": ids} if hasattr(model.base_model, "lm_head") else {"labels": ids[:, 0] % 2}
    for _ in range(steps):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), **labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def assert_same_state(first: Any, second: Any) -> None:
    states = first.state_dict(), second.state_dict()
    assert list(states[0]) == list(states[1])
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def saved(causal: Build, readable: Build, token_ids: Build, tmp_path: Path) -> tuple[Any, Path]:
    """A trained adapter, and its folder beside the base model it names."""
    base = causal("llama")
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    model = readable(base)
    train(model, token_ids(2, 6))
    model.keep_best_prompt(0.75)
    train(model, token_ids(2, 6), steps=2)
    model.save_pretrained(tmp_path / "adapter")
    return model, tmp_path / "adapter"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["gpt2", "gemma3", "opt_narrow"])
def test_round_trip(
    causal: Build, readable: Build, token_ids: Build, tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    model = readable(causal(name).to(dtype))
    train(model, token_ids(2, 6))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(causal(name).to(dtype), tmp_path)
    assert type(loaded) is type(model)
    assert_same_state(model, loaded)
    assert loaded.prompt_token_ids() == model.prompt_token_ids()
    with torch.no_grad():
        ids = token_ids(2, 6)
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    assert torch.equal(loaded.get_prompt(1), model.get_prompt(1))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_files(saved: tuple[Any, Path]) -> None:
    model, path = saved
    tensors = load_file(path / "adapter_model.safetensors")
    assert sorted(tensors) == KEYS
    assert tensors["prompt_ids"].tolist() == model.prompt_token_ids()
    assert torch.equal(tensors["prompt_embeddings"], model.get_prompt(1)[0])
    config = json.loads((path / "adapter_config.json").read_text())
    assert config["peft_type"] == "PROMPT_TUNING"
    assert config["peft_interp"]["leading_token_ids"] == [1]
    assert isinstance(PeftConfig.from_pretrained(path), InterpPromptConfig)


def test_auto_model(saved: tuple[Any, Path], tokenizer_dir: Path, token_ids: Build) -> None:
    """`AutoPeftModelForCausalLM` finds the base by its name; text, best prompt and steps come back."""
    model, path = saved
    loaded = AutoPeftModelForCausalLM.from_pretrained(path)
    assert_same_state(model, loaded)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    assert loaded.prompt_text(tokenizer) == model.prompt_text(tokenizer)
    assert loaded.prompt_text(tokenizer).split() == [f"w{i}" for i in model.prompt_token_ids()]
    assert loaded.best_prompt() == model.best_prompt()
    assert loaded.best_prompt()[1] == 0.75
    assert loaded.prompt_statistics()["step"] == model.prompt_statistics()["step"] == 5
    ids = token_ids(1, 5)
    assert torch.equal(loaded.generate(ids, max_new_tokens=4), model.generate(ids, max_new_tokens=4))
    loaded.use_prompt(loaded.best_prompt()[0])
    assert loaded.prompt_token_ids() == loaded.best_prompt()[0]


def test_the_saved_ids_are_not_projected_again(saved: tuple[Any, Path], causal: Build) -> None:
    """What was trained counts, whatever a later version would find nearest."""
    _, path = saved
    rows = causal("llama").get_input_embeddings().weight.detach()[9:13].clone()
    broken(path, lambda t: t.update(prompt_ids=torch.tensor([9, 10, 11, 12]), prompt_embeddings=rows))
    with pytest.warns(UserWarning, match=r"prompt.json tells of another prompt than the weights hold"):
        loaded = PeftModel.from_pretrained(causal("llama"), path)
    assert loaded.prompt_token_ids() == [9, 10, 11, 12]
    assert torch.equal(loaded.get_prompt(1)[0], loaded.word_embeddings.weight[9:13])


def test_low_memory_loading(saved: tuple[Any, Path], causal: Build) -> None:
    model, path = saved
    assert_same_state(model, PeftModel.from_pretrained(causal("llama"), path, low_cpu_mem_usage=True))


def test_classifier_with_its_head(bert: Build, readable: Build, token_ids: Build, tmp_path: Path) -> None:
    model = readable(bert(BertForSequenceClassification), "SEQ_CLS")
    train(model, token_ids(2, 6))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(bert(BertForSequenceClassification), tmp_path)
    assert_same_state(model, loaded)
    ids = token_ids(3, 5)
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("how", ["continue_training", "load_adapter"])
def test_training_goes_on(saved: tuple[Any, Path], causal: Build, readable: Build, token_ids: Build, how: str) -> None:
    """Both ways give a model that trains on exactly as the saved one."""
    model, path = saved
    if how == "load_adapter":  # as Trainer does it when it resumes
        loaded = readable(causal("llama")).train()
        loaded.load_adapter(path, "default", is_trainable=True)
    else:
        base = causal("llama")
        base.name_or_path = model.peft_config["default"].base_model_name_or_path
        loaded = continue_training(base, str(path))
    assert loaded.training
    assert_same_state(model, loaded)
    for one in (model, loaded):
        train(one, token_ids(2, 6))
    assert_same_state(model, loaded)
    assert loaded.prompt_statistics()["step"] == 8


def test_continuing_another_method(causal: Build, with_prompt: Build, tmp_path: Path) -> None:
    with_prompt(causal("llama")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"PROMPT_TUNING adapter, not an InterpPrompt one.*from_pretrained"):
        continue_training(causal("llama"), str(tmp_path))


def test_stock_peft_reads_the_rows(saved: tuple[Any, Path], causal: Build, token_ids: Build, tmp_path: Path) -> None:
    """A plain prompt-tuning adapter of `prompt_embeddings` has the same logits."""
    model, path = saved
    plain = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, token_dim=32, inference_mode=True)
    plain.save_pretrained(tmp_path / "plain")
    rows = load_file(path / "adapter_model.safetensors")["prompt_embeddings"]
    save_file({"prompt_embeddings": rows}, tmp_path / "plain" / "adapter_model.safetensors")
    loaded = PeftModel.from_pretrained(causal("llama"), tmp_path / "plain")
    ids = token_ids(2, 5)
    with torch.no_grad():
        ours, theirs = model(input_ids=ids).logits, loaded(input_ids=ids).logits
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_config_copies(causal: Build, duplicate: Callable[[Any], Any]) -> None:
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, banned_token_ids=[7])
    copied = duplicate(config)
    assert copied == config
    assert copied.to_dict() == config.to_dict()
    assert type(get_peft_model(causal("llama"), copied)).__qualname__ == "InterpPromptModelForCausalLM"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_model_copies(causal: Build, readable: Build, token_ids: Build, duplicate: Callable[[Any], Any]) -> None:
    """A copy has its own latent and reads its own table."""
    model = readable(causal("llama"))
    copied = duplicate(model)
    assert_same_state(model, copied)
    encoder = copied.prompt_encoder["default"]
    assert encoder.table.data_ptr() == copied.get_input_embeddings().weight.data_ptr()
    assert encoder.table.data_ptr() != model.get_input_embeddings().weight.data_ptr()
    before = model.prompt_token_ids()
    copied.use_prompt([9, 9, 9, 9])
    assert model.prompt_token_ids() == before
    copied.prompt_encoder["default"].latent.data.add_(torch.randn(4, 32))
    assert torch.equal(copied.get_prompt(1)[0], copied.word_embeddings(torch.tensor(copied.prompt_token_ids())))


def test_another_base_model_is_named(saved: tuple[Any, Path], causal: Build, llama: Build) -> None:
    """The fingerprint says which two base models are meant; half precision is no other model."""
    _, path = saved
    torch.manual_seed(5)
    other = type(causal("llama"))(causal("llama").config)
    other.name_or_path = "another/base"
    with pytest.warns(UserWarning, match=r"trained on base model '/.*/base' .*but 'another/base' has another"):
        PeftModel.from_pretrained(other, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        PeftModel.from_pretrained(causal("llama").to(torch.bfloat16), path)


def test_another_base_model_when_training_goes_on(saved: tuple[Any, Path], causal: Build) -> None:
    _, path = saved
    torch.manual_seed(5)
    other = type(causal("llama"))(causal("llama").config)
    other.name_or_path = "another/base"
    with pytest.warns(UserWarning, match=r"trained on base model '/.*/base' .*but 'another/base' has another"):
        continue_training(other, str(path))


def broken(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    tensors = load_file(path / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, path / "adapter_model.safetensors")
    return path


BROKEN: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "missing": (lambda t: t.pop("prompt_latent"), r"no tensor 'prompt_latent' \(it has .*Save it again"),
    "shape": (
        lambda t: t.update(prompt_latent=torch.zeros(5, 32)),
        r"'prompt_latent' has shape \(5, 32\), this prompt needs \(4, 32\); use the `num_virtual_tokens`",
    ),
    "id": (
        lambda t: t.update(prompt_ids=torch.tensor([3, 4, 5, 64])),
        r"'prompt_ids' \[3, 4, 5, 64\] do not fit a vocabulary of 64; load the base",
    ),
    "negative id": (lambda t: t.update(prompt_ids=torch.tensor([3, 4, 5, -1])), "must be token ids from 0"),
    "best id": (lambda t: t.update(best_prompt_ids=torch.tensor([3, 4, 5, 99])), "'best_prompt_ids'"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_bad_checkpoint_changes_nothing(
    bert: Build, readable: Build, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    """Neither the prompt nor the classifier that PEFT loads before it, nor a half-loaded adapter."""
    other = readable(bert(BertForSequenceClassification), "SEQ_CLS")
    for p in other.parameters():
        if p.requires_grad:
            p.data.add_(1.0)
    other.save_pretrained(tmp_path)
    path = broken(tmp_path, change)
    model = readable(bert(BertForSequenceClassification), "SEQ_CLS")
    before = copy.deepcopy(model.state_dict())
    for name in ("default", "fresh"):
        with pytest.raises(ValueError, match=message):
            model.load_adapter(path, name)
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(v, before[k]) or k.endswith("best_score") for k, v in after.items())
        assert list(model.peft_config) == ["default"]
        assert model.active_adapter == "default"
    with pytest.raises(ValueError, match=message):
        PeftModel.from_pretrained(bert(BertForSequenceClassification), path)

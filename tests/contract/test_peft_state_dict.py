"""The hooks through which a prompt encoder decides what is saved and loaded."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from peft import (
    PEFT_TYPE_TO_TUNER_MAPPING,
    PeftModel,
    PeftType,
    PromptEmbedding,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BasePromptEncoder
from safetensors.torch import load_file, save_file
from transformers import GPT2ForSequenceClassification

Build = Callable[..., Any]
WEIGHTS = "adapter_model.safetensors"


class ExtraEmbedding(PromptEmbedding):
    """Stock, plus one tensor of ids and a look at what the hooks receive."""

    received: ClassVar[dict[str, Any]] = {}

    @classmethod
    def _get_adapter_state_dict(cls, **kwargs: Any) -> dict[str, torch.Tensor]:
        cls.received["get"] = kwargs
        stock = super()._get_adapter_state_dict(**kwargs)
        return {**stock, "ids": torch.arange(4), "part.default": torch.ones(1)}

    def _load_adapter_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        self.received["load"] = (self, state_dict)
        super()._load_adapter_state_dict(state_dict)


@pytest.fixture
def extra_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEFT_TYPE_TO_TUNER_MAPPING, PeftType.PROMPT_TUNING, ExtraEmbedding)
    monkeypatch.setattr(ExtraEmbedding, "received", {})


def test_hook_signatures() -> None:
    """Promise: latent and ids travel through these two hooks (PEFT >= 0.21)."""
    get = inspect.signature(BasePromptEncoder._get_adapter_state_dict)
    assert list(get.parameters) == [*("model", "config", "adapter_name", "state_dict", "unwanted_adapter_names")]
    assert isinstance(inspect.getattr_static(BasePromptEncoder, "_get_adapter_state_dict"), classmethod)
    load = inspect.signature(BasePromptEncoder._load_adapter_state_dict)
    assert list(load.parameters) == ["self", "state_dict"]
    assert issubclass(PromptEmbedding, BasePromptEncoder)


@pytest.mark.usefixtures("extra_encoder")
def test_saving_asks_the_registered_class(gpt2: Build, with_prompt: Build) -> None:
    """Promise: the tuner row forwards this call by `config`; extra keys of any dtype are kept."""
    model = with_prompt(gpt2())
    saved = get_peft_model_state_dict(model)
    asked = ExtraEmbedding.received["get"]
    assert asked["model"] is model
    assert asked["config"] is model.peft_config["default"]
    assert asked["adapter_name"] == "default"
    assert asked["unwanted_adapter_names"] == []
    assert set(asked["state_dict"]) == set(model.state_dict())
    # A key that ends in the adapter's name loses it: our keys have no dots.
    assert set(saved) == {"prompt_embeddings", "ids", "part"}


@pytest.mark.usefixtures("extra_encoder")
def test_loading_asks_the_encoder_itself_with_everything(gpt2: Build, with_prompt: Build, tmp_path: Path) -> None:
    """Promise: our encoder finds its keys in one dictionary, beside those of a trained head."""
    base = gpt2(GPT2ForSequenceClassification, num_labels=2)
    with_prompt(base, "SEQ_CLS").save_pretrained(tmp_path)
    assert load_file(tmp_path / WEIGHTS)["ids"].dtype is torch.int64
    base = gpt2(GPT2ForSequenceClassification, num_labels=2)
    model = PeftModel.from_pretrained(base, tmp_path)
    encoder, state_dict = ExtraEmbedding.received["load"]
    assert encoder is model.prompt_encoder["default"]
    assert set(state_dict) == {
        *("prompt_embeddings", "ids", "part"),
        "base_model.score.modules_to_save.default.weight",
    }


def test_plain_encoder_saves_its_rows_only(gpt2: Build, with_prompt: Build) -> None:
    """Promise: `prompt_embeddings` is the one key of ours that stock PEFT reads."""
    model = with_prompt(gpt2())
    weight = model.prompt_encoder["default"].embedding.weight
    for inference_mode in (False, True):
        model.peft_config["default"].inference_mode = inference_mode
        saved = get_peft_model_state_dict(model)
        assert list(saved) == ["prompt_embeddings"]
        assert torch.equal(saved["prompt_embeddings"], weight)


def test_saving_in_training_mode_calls_the_encoder(gpt2: Build, with_prompt: Build) -> None:
    """Promise: what is saved is what the forward used: the projected rows, detached."""
    model = with_prompt(gpt2())
    model.prompt_encoder["default"].register_forward_hook(lambda m, args, rows: rows + 1.0)
    rows = model.get_prompt_embedding_to_save("default")
    assert torch.equal(rows, model.prompt_encoder["default"].embedding.weight + 1.0)
    assert not rows.requires_grad


def test_foreign_keys_load_in_silence(gpt2: Build, with_prompt: Build, tmp_path: Path) -> None:
    """Promise: stock PEFT reads our adapter's rows; we check for missing keys ourselves."""
    model = with_prompt(gpt2())
    model.save_pretrained(tmp_path)
    save_file({**load_file(tmp_path / WEIGHTS), "latent": torch.zeros(4, 32)}, tmp_path / WEIGHTS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = PeftModel.from_pretrained(gpt2(), tmp_path)
    assert {w.category for w in caught} <= {FutureWarning}
    assert torch.equal(loaded.get_prompt(1), model.get_prompt(1))
    result = set_peft_model_state_dict(model, load_file(tmp_path / WEIGHTS))
    assert set(result.unexpected_keys) == {"prompt_embeddings", "latent"}


def test_wrong_or_missing_rows_are_errors_of_the_encoder(gpt2: Build, with_prompt: Build) -> None:
    """Promise: shapes are checked in our hook; nobody above it looks."""
    model = with_prompt(gpt2())
    with pytest.raises(RuntimeError, match="size mismatch"):
        set_peft_model_state_dict(model, {"prompt_embeddings": torch.zeros(5, 32)})
    with pytest.raises(KeyError, match="prompt_embeddings"):
        set_peft_model_state_dict(model, {})


def test_reload_restores_every_key(gpt2: Build, with_prompt: Build, tmp_path: Path) -> None:
    """Promise: nothing is lost; every key of the full state dict is equal after a reload."""
    model = with_prompt(gpt2())
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.mul_(3.0)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(gpt2(), tmp_path)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)

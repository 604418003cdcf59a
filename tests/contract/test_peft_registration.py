"""PEFT's registries: closed by name, open as dictionaries, and who reads them how."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import (
    MODEL_TYPE_TO_PEFT_MODEL_MAPPING,
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
    AutoPeftModelForCausalLM,
    PeftModel,
    PeftModelForCausalLM,
    PeftType,
    PromptEmbedding,
    PromptTuningConfig,
    get_peft_model,
)
from peft.utils import register_peft_method
from peft.utils.save_and_load import get_peft_model_state_dict

from tests.builders import CHECKPOINTING

Build = Callable[..., Any]
PROMPT_TUNING = PeftType.PROMPT_TUNING


def test_peft_type_is_a_closed_enum() -> None:
    """Promise: we enter as an alias of PROMPT_TUNING, because no new PeftType can be made."""
    with pytest.raises(ValueError, match="CONTRACT_PROMPT"):
        PeftType("CONTRACT_PROMPT")
    with pytest.raises(TypeError, match="cannot extend"):
        enum.Enum("More", {"CONTRACT_PROMPT": "CONTRACT_PROMPT"}, type=PeftType)


def test_register_peft_method_refuses_new_names() -> None:
    """Promise: registration.py writes dictionary rows, because PEFT's own function refuses us."""
    with pytest.raises(ValueError, match="Unknown PEFT type CONTRACT_PROMPT"):
        register_peft_method(name="contract_prompt", config_cls=PromptTuningConfig, model_cls=PromptEmbedding)


def test_setup_prompt_encoder_refuses_types_outside_the_enum(gpt2: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: in memory our config stays PROMPT_TUNING; a tuner row alone is not enough."""
    monkeypatch.setitem(PEFT_TYPE_TO_TUNER_MAPPING, "CONTRACT_PROMPT", PromptEmbedding)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    config.peft_type = "CONTRACT_PROMPT"
    with pytest.raises(ValueError, match="Not supported"):
        get_peft_model(gpt2(), config)


def test_a_string_key_and_an_enum_key_are_one_key() -> None:
    """Promise: our rows are found by the string in adapter_config.json; ours for prompt tuning is stock's subclass."""
    assert hash(PROMPT_TUNING) == hash("PROMPT_TUNING")
    assert PEFT_TYPE_TO_CONFIG_MAPPING["PROMPT_TUNING"] is PEFT_TYPE_TO_CONFIG_MAPPING[PROMPT_TUNING]
    assert issubclass(PEFT_TYPE_TO_CONFIG_MAPPING["PROMPT_TUNING"], PromptTuningConfig)


def test_all_readers_share_the_same_dictionaries() -> None:
    """Promise: one write in registration.py reaches every place that reads the registries."""
    from peft import auto, mapping, mapping_func, peft_model
    from peft.utils import save_and_load

    for module in (peft, peft_model):
        assert module.PEFT_TYPE_TO_CONFIG_MAPPING is mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    for module in (peft, peft_model, save_and_load):
        assert module.PEFT_TYPE_TO_TUNER_MAPPING is mapping.PEFT_TYPE_TO_TUNER_MAPPING
    for module in (peft, mapping_func):
        assert module.MODEL_TYPE_TO_PEFT_MODEL_MAPPING is auto.MODEL_TYPE_TO_PEFT_MODEL_MAPPING
    assert set(MODEL_TYPE_TO_PEFT_MODEL_MAPPING) == {
        *("CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS"),
        *("TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"),
    }


def test_tuner_row_is_called_with_config_and_word_embeddings(
    gpt2: Build, with_prompt: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: the tuner row may be a dispatcher that looks at the config it is called with."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def dispatch(*args: Any, **kwargs: Any) -> PromptEmbedding:
        calls.append((args, kwargs))
        return PromptEmbedding(*args, **kwargs)

    monkeypatch.setitem(PEFT_TYPE_TO_TUNER_MAPPING, PROMPT_TUNING, dispatch)
    model = with_prompt(gpt2())
    ((config, table), kwargs) = calls[0]
    assert len(calls) == 1
    assert not kwargs
    assert config is model.peft_config["default"]
    assert table is model.get_base_model().get_input_embeddings()


def test_tuner_row_must_also_carry_the_state_dict_hooks(
    gpt2: Build, with_prompt: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: our tuner dispatcher has these three methods; a plain function cannot be saved."""
    model = with_prompt(gpt2())
    monkeypatch.setitem(PEFT_TYPE_TO_TUNER_MAPPING, PROMPT_TUNING, lambda *args: None)
    with pytest.raises(AttributeError, match="_get_adapter_state_dict"):
        get_peft_model_state_dict(model)

    asked: list[str] = []

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return getattr(PromptEmbedding, name)

    monkeypatch.setitem(PEFT_TYPE_TO_TUNER_MAPPING, PROMPT_TUNING, Recorder())
    peft.set_peft_model_state_dict(model, get_peft_model_state_dict(model))
    assert asked == [
        "_get_adapter_state_dict",
        "_remove_adapter_name_from_key",
        "_remap_adapter_state_dict_for_load",
    ]


def test_get_peft_model_calls_the_task_row(gpt2: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: the task row may be a function, chosen by the config, that builds our model."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def dispatch(*args: Any, **kwargs: Any) -> PeftModel:
        calls.append((args, kwargs))
        return PeftModelForCausalLM(*args, **kwargs)

    monkeypatch.setitem(MODEL_TYPE_TO_PEFT_MODEL_MAPPING, "CAUSAL_LM", dispatch)
    base, config = gpt2(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    get_peft_model(base, config, adapter_name="mine")
    options = {"autocast_adapter_dtype": True, "low_cpu_mem_usage": False}
    assert calls == [((base, config), {"adapter_name": "mine", **options})]


def test_from_pretrained_calls_the_task_row(
    gpt2: Build, with_prompt: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: loading reaches our model class whatever class `from_pretrained` is called on."""
    with_prompt(gpt2()).save_pretrained(tmp_path)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def dispatch(*args: Any, **kwargs: Any) -> PeftModel:
        calls.append((args, kwargs))
        return PeftModelForCausalLM(*args, **kwargs)

    monkeypatch.setitem(MODEL_TYPE_TO_PEFT_MODEL_MAPPING, "CAUSAL_LM", dispatch)
    base = gpt2()
    for entry in (PeftModel, PeftModelForCausalLM):
        model = entry.from_pretrained(base, tmp_path)
        ((called_base, config, adapter_name), kwargs) = calls.pop()
        assert called_base is base
        assert config is model.peft_config["default"]
        assert adapter_name == "default"
        assert kwargs == {"autocast_adapter_dtype": True, "low_cpu_mem_usage": False}


def test_auto_class_compares_the_name_of_the_task_row(
    gpt2: Build, with_prompt: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: our task dispatcher takes over `__name__`, or AutoPeftModelFor* refuses it."""
    gpt2().save_pretrained(tmp_path / "base")
    base = type(gpt2()).from_pretrained(tmp_path / "base")
    with_prompt(base).save_pretrained(tmp_path / "adapter")

    def dispatch(*args: Any, **kwargs: Any) -> PeftModel:
        return PeftModelForCausalLM(*args, **kwargs)

    monkeypatch.setitem(MODEL_TYPE_TO_PEFT_MODEL_MAPPING, "CAUSAL_LM", dispatch)
    with pytest.raises(ValueError, match="Expected target PEFT class: dispatch"):
        AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    dispatch.__name__ = "PeftModelForCausalLM"
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert isinstance(model, PeftModelForCausalLM)


def test_auto_classes_target_the_stock_model_classes() -> None:
    """Promise: our models subclass PEFT's own, so AutoPeftModelFor* results keep their type."""
    for task in ("CausalLM", "Seq2SeqLM", "SequenceClassification", "TokenClassification"):
        auto_class = getattr(peft, f"AutoPeftModelFor{task}")
        assert auto_class._target_peft_class is getattr(peft, f"PeftModelFor{task}")


def test_plain_prompt_tuning_gets_the_stock_classes(gpt2: Build, with_prompt: Build) -> None:
    """Promise: adapters that are not ours get exactly what they got before (stock stays stock)."""
    model = with_prompt(gpt2())
    assert type(model) is PeftModelForCausalLM
    assert type(model.prompt_encoder["default"]) is PromptEmbedding
    assert type(model.peft_config["default"]) is PromptTuningConfig


def test_prompt_learning_needs_a_task_type(gpt2: Build, with_prompt: Build) -> None:
    """Promise: our config asks for `task_type` itself; stock ends in a bare KeyError(None)."""
    with pytest.raises(KeyError, match="None"):
        with_prompt(gpt2(), task_type=None)


def test_building_warns_about_gradient_checkpointing(gpt2: Build) -> None:
    """Promise: no warning of ours; this one is between PEFT and later versions of transformers, at every build."""
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        get_peft_model(gpt2(), config)
    told = ["is_gradient_checkpointing" in str(warning.message) for warning in caught]
    assert told == ([True] if CHECKPOINTING == "activation" else [])


def test_word_embeddings_are_a_submodule_of_the_peft_model(gpt2: Build, with_prompt: Build) -> None:
    """Promise: the table is reached as `model.word_embeddings`, never copied by our encoder."""
    model = with_prompt(gpt2())
    assert model.word_embeddings is model.get_base_model().transformer.wte
    own = [key for key in model.state_dict() if not key.startswith("base_model.")]
    assert own == ["prompt_encoder.default.embedding.weight", "word_embeddings.weight"]
    assert torch.equal(model.state_dict()["word_embeddings.weight"], model.word_embeddings.weight)

"""How PEFT reads, writes and changes a config object."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from peft import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PeftConfig,
    PeftModel,
    PeftType,
    PromptTuningConfig,
    get_peft_config,
    get_peft_model,
)
from transformers import GPT2ForSequenceClassification

Build = Callable[..., Any]


@dataclass
class AliasConfig(PromptTuningConfig):
    """Prompt tuning in memory, another name on disk: the shape of InterpPromptConfig."""

    extra_weight: float = field(default=0.5, metadata={"help": "Any field of our own."})

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "peft_type": "CONTRACT_PROMPT"}


@pytest.fixture
def alias_on_disk(tmp_path: Path, gpt2: Build) -> Path:
    config = AliasConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, extra_weight=0.25)
    get_peft_model(gpt2(), config).save_pretrained(tmp_path)
    return tmp_path


def test_saved_type_is_what_to_dict_says(alias_on_disk: Path) -> None:
    """Promise: a config whose `to_dict` says INTERP_PROMPT is written as that, before we rewrite the file."""
    saved = json.loads((alias_on_disk / "adapter_config.json").read_text())
    assert saved["peft_type"] == "CONTRACT_PROMPT"
    assert saved["extra_weight"] == 0.25


def test_registered_string_brings_our_class_back(
    alias_on_disk: Path, gpt2: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a saved adapter comes back as our config, through every loader, as PROMPT_TUNING."""
    monkeypatch.setitem(PEFT_TYPE_TO_CONFIG_MAPPING, "CONTRACT_PROMPT", AliasConfig)
    from_dict = get_peft_config(AliasConfig(task_type="CAUSAL_LM").to_dict())
    from_file = PeftConfig.from_pretrained(alias_on_disk)
    in_model = PeftModel.from_pretrained(gpt2(), alias_on_disk)
    in_model.load_adapter(alias_on_disk, "second")
    for config in (from_dict, from_file, *in_model.peft_config.values()):
        assert type(config) is AliasConfig
        assert config.peft_type is PeftType.PROMPT_TUNING
    assert in_model.peft_config["second"].extra_weight == 0.25


def test_unregistered_string_is_a_bare_key_error(alias_on_disk: Path, gpt2: Build) -> None:
    """Promise: the type of a prompt that plain PEFT cannot place says what to do, since this is all people see."""
    with pytest.raises(KeyError, match=r"^'CONTRACT_PROMPT'$"):
        PeftConfig.from_pretrained(alias_on_disk)
    with pytest.raises(KeyError, match=r"^'CONTRACT_PROMPT'$"):
        PeftModel.from_pretrained(gpt2(), alias_on_disk)


def test_unknown_keys_give_one_warning(alias_on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: plain PEFT loads our folders, with one warning that names the one key of ours."""
    monkeypatch.setitem(PEFT_TYPE_TO_CONFIG_MAPPING, "CONTRACT_PROMPT", PromptTuningConfig)
    with pytest.warns(UserWarning, match=r"\['extra_weight'\].*upgrade the PEFT") as caught:
        config = PeftConfig.from_pretrained(alias_on_disk)
    assert len(caught) == 1
    assert type(config) is PromptTuningConfig
    assert not hasattr(config, "extra_weight")


def test_config_is_built_from_whatever_was_saved() -> None:
    """Promise: our config has no required arguments; PEFT builds it with whatever was saved."""
    assert PromptTuningConfig().num_virtual_tokens is None
    assert AliasConfig.from_peft_type(extra_weight=1.0).extra_weight == 1.0


def test_plain_config_file_holds_exactly_the_fields(gpt2: Build, with_prompt: Build, tmp_path: Path) -> None:
    """Promise: ours beside these keys is one key; a stock copy has these and no others."""
    with_prompt(gpt2()).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert set(saved) == {f.name for f in dataclasses.fields(PromptTuningConfig)}
    assert saved["peft_type"] == "PROMPT_TUNING"


def test_config_pickles_and_copies() -> None:
    """Promise: our config pickles and deep-copies as stock does (sweeps, worker processes)."""
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    assert pickle.loads(pickle.dumps(config)) == config
    assert copy.deepcopy(config) == config


def test_building_writes_into_the_users_config(gpt2: Build) -> None:
    """Promise: reuse a config only as a copy; PEFT fills this object in and keeps it."""
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    before = config.to_dict()
    model = get_peft_model(gpt2(), config)
    assert model.peft_config["default"] is config
    changed = {key for key, value in config.to_dict().items() if before[key] != value}
    assert changed == {
        *("token_dim", "num_layers", "num_attention_heads"),
        "num_transformer_submodules",
    }


def test_token_dim_is_not_corrected_on_reuse(gpt2: Build) -> None:
    """Promise: we take the width from the table, not from a config another model filled in."""
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    get_peft_model(gpt2(), config)
    model = get_peft_model(gpt2(n_embd=16), config)
    assert model.prompt_encoder["default"].embedding.weight.shape == (4, 32)


def test_classification_grows_modules_to_save(gpt2: Build, tmp_path: Path) -> None:
    """Promise: comparing configs for equality ignores `modules_to_save`; it grows on each load."""
    base = gpt2(GPT2ForSequenceClassification, num_labels=2)
    config = PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
    get_peft_model(base, config).save_pretrained(tmp_path)
    assert config.modules_to_save == ["classifier", "score"] * 2
    again = PeftModel.from_pretrained(gpt2(GPT2ForSequenceClassification, num_labels=2), tmp_path)
    assert again.peft_config["default"].modules_to_save == ["classifier", "score"] * 4


def test_saving_sets_inference_mode_in_the_file_only(gpt2: Build, with_prompt: Build, tmp_path: Path) -> None:
    """Promise: `inference_mode` on disk is always true, so it cannot carry training state."""
    model = with_prompt(gpt2())
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["inference_mode"] is True
    assert model.peft_config["default"].inference_mode is False

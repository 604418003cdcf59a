"""A config comes back from disk, from a pickle and from a copy as it was."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
from peft import PeftConfig, PeftType, PromptTuningConfig, get_peft_config
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from peft_interp.tuner.config import InterpPromptConfig

EVERYTHING: dict[str, Any] = {
    "task_type": "CAUSAL_LM",
    "num_virtual_tokens": 4,
    "prompt_tuning_init": "TEXT",
    "prompt_tuning_init_text": "It was",
    "tokenizer_name_or_path": "unused",
    "init_words": ["bad", "great"],
    "init_text_fit": "repeat",
    "prompt_position": "end",
    "mask_token_id": 3,
    "projection_metric": "dot",
    "perplexity_weight": 0.25,
    "target_perplexity": 40.0,
    "perplexity_gradient": "target",
    "perplexity_combination": "convex",
    "perplexity_start_step": 5,
    "perplexity_warmup_steps": 7,
    "perplexity_model_name_or_path": "scorer",
    "allowed_tokens": "words",
    "banned_token_ids": [3, 4],
    "special_token_ids": [0, 1],
    "banned_words": ["good"],
    "leading_token_ids": [1],
    "share_prefix": False,
    "align_logits_with_labels": True,
    "stuck_patience": 9,
    "found_by": {"trainer": "RLPromptTrainer", "steps": 3},
    "label_bias": {
        **{"words": ["bad", "good"], "values": [0.5, -0.5], "calibration": "batch", "rows": 32},
        **{"template": "{prompt} {text} It was", "prompt": "0123456789abcdef"},
    },
    "table_fingerprint": [64.0, 32.0, 0.5],
}


@pytest.fixture
def config() -> InterpPromptConfig:
    return InterpPromptConfig(**EVERYTHING)


def test_the_example_sets_every_field_of_ours_away_from_its_default(config: InterpPromptConfig) -> None:
    ours = InterpPromptConfig.__annotations__
    assert [name for name in ours if getattr(config, name) == getattr(InterpPromptConfig(), name)] == []


def test_saving_and_loading_gives_the_same_config(config: InterpPromptConfig, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    for loaded in (PeftConfig.from_pretrained(tmp_path), InterpPromptConfig.from_pretrained(tmp_path)):
        assert type(loaded) is InterpPromptConfig
        assert loaded.peft_type == PeftType.PROMPT_TUNING
        assert loaded == config


def read(folder: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return stored


def test_a_prompt_that_plain_peft_can_place_is_prompt_tuning_with_one_key_more(tmp_path: Path) -> None:
    config = InterpPromptConfig(**{**EVERYTHING, "prompt_position": "start"}, modules_to_save=["score"])
    config.save_pretrained(tmp_path)
    stored = read(tmp_path)
    ours = stored.pop("peft_interp")
    stock = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, modules_to_save=["score"])
    assert stored == {**stock.to_dict(), "num_transformer_submodules": 1}
    assert {**stored, **ours} == {**config.to_dict(), "peft_type": "PROMPT_TUNING"}
    assert PeftConfig.from_pretrained(tmp_path) == config


def test_another_prompt_is_plain_json_of_a_type_that_says_what_to_do(
    config: InterpPromptConfig, tmp_path: Path
) -> None:
    config.save_pretrained(tmp_path)
    stored = read(tmp_path)
    assert stored["peft_type"].startswith("INTERP_PROMPT: plain PEFT cannot place this prompt; `import peft_interp`")
    assert {name: stored[name] for name in EVERYTHING} == EVERYTHING
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()


@pytest.mark.parametrize("position", ["start", "end"])
def test_a_dictionary_and_a_file_of_an_earlier_version_load(tmp_path: Path, position: str) -> None:
    config = InterpPromptConfig(**{**EVERYTHING, "prompt_position": position})
    assert config.to_dict()["peft_type"] == "INTERP_PROMPT"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config.to_dict()))
    for loaded in (PeftConfig.from_pretrained(tmp_path), get_peft_config(config.to_dict())):
        assert type(loaded) is InterpPromptConfig
        assert loaded == config


def test_pickles_and_copies_are_equal_and_independent(config: InterpPromptConfig) -> None:
    for other in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), dataclasses.replace(config)):
        assert type(other) is InterpPromptConfig
        assert other == config
    twin = copy.deepcopy(config)
    twin.banned_words.append("bad")
    assert config.banned_words == ["good"]


@pytest.mark.parametrize("position", ["start", "end"])
def test_unknown_keys_are_one_warning_and_are_ignored(tmp_path: Path, position: str) -> None:
    InterpPromptConfig(**{**EVERYTHING, "prompt_position": position}).save_pretrained(tmp_path)
    stored = {**read(tmp_path), "from_the_future": 1}
    stored.get("peft_interp", stored)["and_another"] = 2
    (tmp_path / "adapter_config.json").write_text(json.dumps(stored), encoding="utf-8")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = PeftConfig.from_pretrained(tmp_path)
    assert ["['and_another', 'from_the_future']" in str(warning.message) for warning in caught] == [True]
    assert loaded.perplexity_weight == 0.25


def test_a_stock_config_that_is_read_is_as_if_it_had_been_written_here(tmp_path: Path) -> None:
    """Its class is the registered one, as PEFT expects; equal to PEFT's own, of which its copies and pickles are."""
    written = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    written.save_pretrained(str(tmp_path))
    read = PeftConfig.from_pretrained(str(tmp_path))
    assert type(read) is PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.PROMPT_TUNING]
    read.inference_mode = written.inference_mode
    assert read == written
    assert written == read
    assert dataclasses.replace(read, num_virtual_tokens=5) != written
    for copied in (copy.deepcopy(read), pickle.loads(pickle.dumps(read))):
        assert type(copied) is PromptTuningConfig
        assert copied == written

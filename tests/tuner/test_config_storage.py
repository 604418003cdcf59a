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
from peft import PeftConfig, PeftType

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


def test_the_file_is_plain_json_under_our_name(config: InterpPromptConfig, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert stored["peft_type"] == "INTERP_PROMPT"
    assert {name: stored[name] for name in EVERYTHING} == EVERYTHING
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()


def test_pickles_and_copies_are_equal_and_independent(config: InterpPromptConfig) -> None:
    for other in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), dataclasses.replace(config)):
        assert type(other) is InterpPromptConfig
        assert other == config
    twin = copy.deepcopy(config)
    twin.banned_words.append("bad")
    assert config.banned_words == ["good"]


def test_unknown_keys_are_one_warning_and_are_ignored(config: InterpPromptConfig, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**stored, "from_the_future": 1, "and_another": 2}), encoding="utf-8")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = PeftConfig.from_pretrained(tmp_path)
    assert [str(warning.message) for warning in caught if "from_the_future" in str(warning.message)]
    assert len(caught) == 1
    assert loaded.perplexity_weight == 0.25

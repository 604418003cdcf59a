"""The tokenizer comes from the config's names, and its absence is an error only where it is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.initialization import load_tokenizer


def config(**settings: Any) -> InterpPromptConfig:
    return InterpPromptConfig(task_type="CAUSAL_LM", **settings)


def test_the_tokenizers_own_name_comes_before_the_models(tokenizer_dir: Path, tmp_path: Path) -> None:
    for name in ("tokenizer_name_or_path", "base_model_name_or_path"):
        loaded = load_tokenizer(config(**{name: str(tokenizer_dir)}), required=True)
        assert loaded is not None
        assert loaded.convert_tokens_to_ids("w7") == 7
    names = {"tokenizer_name_or_path": str(tokenizer_dir), "base_model_name_or_path": str(tmp_path / "none")}
    assert load_tokenizer(config(**names), required=True) is not None


@pytest.mark.parametrize("name", [None, "", "missing"])
def test_no_tokenizer_is_none_or_an_error_with_a_remedy(name: str | None, tmp_path: Path) -> None:
    path = str(tmp_path / name) if name else name
    assert load_tokenizer(config(base_model_name_or_path=path), required=False) is None
    with pytest.raises(ValueError, match=r"no tokenizer could be loaded.*set `tokenizer_name_or_path` to a hub name"):
        load_tokenizer(config(base_model_name_or_path=path), required=True)


def test_a_name_that_was_given_must_load_even_where_none_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"/missing'; set `tokenizer_name_or_path`"):
        load_tokenizer(config(tokenizer_name_or_path=str(tmp_path / "missing")), required=False)


@pytest.mark.parametrize("model_type", ["gpt2", "bert", "t5"])
def test_a_models_config_without_tokenizer_files_is_no_tokenizer(model_type: str, tmp_path: Path) -> None:
    """Transformers makes a shell of special tokens from it, which would forbid the whole vocabulary."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    assert load_tokenizer(config(base_model_name_or_path=str(tmp_path)), required=False) is None
    with pytest.raises(ValueError, match="no tokenizer could be loaded"):
        load_tokenizer(config(base_model_name_or_path=str(tmp_path)), required=True)


def test_no_code_from_a_repository_is_run(tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    received: dict[str, Any] = {}
    original = AutoTokenizer.from_pretrained

    def record(name: str, **kwargs: Any) -> Any:
        received.update(kwargs)
        return original(name, **kwargs)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", record)
    options = {"trust_remote_code": True, "padding_side": "left"}
    text = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "w3"}  # PEFT takes the options with a text only
    loaded = load_tokenizer(
        config(tokenizer_name_or_path=str(tokenizer_dir), tokenizer_kwargs=options, **text), required=True
    )
    assert received == {"padding_side": "left", "trust_remote_code": False}
    assert loaded is not None
    assert loaded.padding_side == "left"


def test_options_of_the_tokenizer_reach_it_as_they_are_given(
    tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As stock; without any, or where a saved adapter is loaded, code from the repository is refused unasked."""
    from transformers import AutoTokenizer

    received: list[dict[str, Any]] = []
    original = AutoTokenizer.from_pretrained
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name, **k: received.append(k) or original(name, **k))
    text = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "w3", "num_virtual_tokens": 4}
    text["tokenizer_name_or_path"] = str(tokenizer_dir)
    given = config(**text, tokenizer_kwargs={"padding_side": "left"})
    saved = InterpPromptConfig(**given.to_dict())
    for one in (given, config(**text), saved):
        load_tokenizer(one, required=True)
    no_code = {"trust_remote_code": False}
    assert received == [{"padding_side": "left"}, no_code, {"padding_side": "left", **no_code}]

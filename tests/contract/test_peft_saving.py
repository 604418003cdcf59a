"""What saving, cards and the Hub do in PEFT and transformers that `peft_interp.hub` has to go around."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from peft import PeftModel
from peft.utils.save_and_load import torch_load
from transformers.utils import PushToHubMixin

Build = Callable[..., Any]


def test_peft_overwrites_tags_and_names_the_base_model_by_its_path(
    gpt2: Build, with_prompt: Build, tmp_path: Path
) -> None:
    """The Hub refuses a card whose `base_model` is a path, and tags given to Trainer would be lost."""
    gpt2().save_pretrained(tmp_path / "base")
    model = with_prompt(type(gpt2()).from_pretrained(tmp_path / "base"))
    (tmp_path / "README.md").write_text("---\ntags:\n- mine\n---\n")
    model.create_or_update_model_card(str(tmp_path))
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.tags == [f"base_model:adapter:{tmp_path / 'base'}"]
    assert data.base_model == str(tmp_path / "base")


def test_the_card_is_written_before_the_adapter(gpt2: Build, with_prompt: Build, tmp_path: Path) -> None:
    model, seen = with_prompt(gpt2()), []
    model.create_or_update_model_card = lambda folder: seen.append(list(Path(folder).iterdir()))
    model.save_pretrained(str(tmp_path / "saved"))
    assert seen == [[]]


def test_peft_models_are_pushed_by_transformers_with_a_card_of_its_own() -> None:
    assert PeftModel.push_to_hub is PushToHubMixin.push_to_hub
    source = inspect.getsource(PushToHubMixin.push_to_hub)
    assert source.index("self.save_pretrained(") < source.index("model_card.save(")


def test_trainer_resumes_every_subfolder_with_adapter_weights_as_one_more_adapter(
    gpt2: Build, with_prompt: Build, make_trainer: Build, token_ids: Build, tmp_path: Path
) -> None:
    """Hence no copy is exported into a checkpoint."""
    ids = token_ids(1, 4)[0]
    trainer = make_trainer(with_prompt(gpt2()), [{"input_ids": ids, "labels": ids}])
    trainer.model.save_pretrained(tmp_path / "checkpoint")
    trainer.model.save_pretrained(tmp_path / "checkpoint" / "portable")
    trainer._load_from_checkpoint(str(tmp_path / "checkpoint"))
    assert sorted(trainer.model.peft_config) == ["default", "portable"]


def test_pickled_weights_are_loaded_without_running_them() -> None:
    assert inspect.signature(torch_load).parameters["weights_only"].default is True

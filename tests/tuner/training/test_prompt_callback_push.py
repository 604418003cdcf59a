"""`PromptCallback` before a push: the folder tells the prompt that is pushed, and only where it should."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, TrainerControl, TrainerState, TrainingArguments

from peft_interp import PromptCallback

Build = Callable[..., Any]


@pytest.fixture
def push(tmp_path: Path) -> Build:
    """`push(model, training=True, first=True, **kwargs)`: what lies in the output folder when the push begins."""

    def begin(model: Any, training: bool = True, first: bool = True, **kwargs: Any) -> set[str]:
        callback, control = PromptCallback(), TrainerControl()
        args = TrainingArguments(str(tmp_path / "out"), report_to="none", use_cpu=True)
        state = TrainerState(is_world_process_zero=first)
        if training:
            callback.on_train_begin(args, state, control, model=model)
        callback.on_push_begin(args, state, control, model=model, **kwargs)
        return {path.name for path in (tmp_path / "out").glob("*")}

    return begin


def test_the_folder_tells_the_prompt_that_is_pushed(
    push: Build, gpt2: Build, readable: Build, tokenizer_dir: Path, tmp_path: Path
) -> None:
    """With a text though the model knows no tokenizer: Trainer's own is written first."""
    model = readable(gpt2())
    model.save_pretrained(tmp_path / "out")
    model.use_prompt([9, 8, 7, 6])
    files = push(model, processing_class=AutoTokenizer.from_pretrained(tokenizer_dir))
    assert {"adapter_model.safetensors", "prompt.txt", "prompt.json", "README.md"} <= files
    assert (tmp_path / "out" / "prompt.txt").read_text() == "w9 w8 w7 w6"
    assert json.loads((tmp_path / "out" / "prompt.json").read_text())["ids"] == [9, 8, 7, 6]
    assert "```text\nw9 w8 w7 w6\n```" in (tmp_path / "out" / "README.md").read_text()


def test_it_writes_only_during_training_on_the_first_process_and_for_readable_prompts(
    push: Build, gpt2: Build, readable: Build, with_prompt: Build
) -> None:
    assert push(readable(gpt2()), training=False) == set()
    assert push(readable(gpt2()), first=False) == set()
    assert push(with_prompt(gpt2())) == set()

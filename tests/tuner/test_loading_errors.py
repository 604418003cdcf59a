"""What is no adapter of ours is named, with the way to load it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, PromptTuningConfig

from peft_interp.registration import continue_training


@pytest.mark.parametrize("stock", [LoraConfig(), PromptTuningConfig(num_virtual_tokens=2)])
def test_an_adapter_of_another_type_is_refused(stock: Any, tmp_path: Path, gpt2: Callable[..., Any]) -> None:
    stock.task_type = "CAUSAL_LM"
    stock.save_pretrained(tmp_path)
    name = stock.peft_type.value
    with pytest.raises(ValueError, match=rf"is a .*{name} adapter, not an InterpPrompt one; load it with `PeftModel"):
        continue_training(gpt2(), str(tmp_path))


def test_a_folder_without_an_adapter_is_named(tmp_path: Path, gpt2: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        continue_training(gpt2(), str(tmp_path))

"""Saved adapters of the embedded model, and the command line called as a user calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
import torch
from huggingface_hub import constants
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from peft_interp import InterpPromptConfig, embedded
from peft_interp.cli import main

Build: TypeAlias = Callable[..., Any]
TEXT = " Is this film review positive or negative?"


class Ran(NamedTuple):
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """`run("read", folder, ...)`: the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read from the environment when it is imported

    def call(*arguments: Any) -> Ran:
        capsys.readouterr()  # what came before does not count
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ran(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters: `ours` (says `TEXT`), `end` (after the text), `soft` (ours, vectors), `stock`, `lora`."""
    folder, tokenizer = tmp_path_factory.mktemp("adapters"), embedded.load_tokenizer()
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    text = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": TEXT, "num_virtual_tokens": len(ids)}
    common = {"task_type": "CAUSAL_LM", "tokenizer_name_or_path": embedded.MODEL_PATH}
    after = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": " The review is", "prompt_position": "end"}
    configs: dict[str, Any] = {
        "ours": InterpPromptConfig(**common, **text),
        "end": InterpPromptConfig(**common, **after),
        "soft": InterpPromptConfig(**common, projection_metric="none", num_virtual_tokens=4),
        "stock": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        "lora": LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], fan_in_fan_out=True),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, config in configs.items():
            model: Any = get_peft_model(embedded.load_model(), config)
            if name == "soft":
                model.prompt_encoder["default"].latent.data += 0.3
            model.save_pretrained(folder / name)
    return folder

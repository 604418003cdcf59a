"""Loading a prompt runs nothing of the folder it comes from."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel, get_peft_model

from peft_interp import InterpPromptConfig
from peft_interp.cli import main
from peft_interp.hub.saving import write_beside
from tests.builders import configure

Build = Callable[..., Any]


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.fixture
def trap(gpt2: Build, tmp_path: Path) -> Path:
    """An adapter with code in every place where some loader might look for it."""
    folder, code = tmp_path / "trap", f"import os; os.mkdir({str(tmp_path / 'ran')!r})\n"
    get_peft_model(gpt2(), InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)).save_pretrained(folder)
    named = {"AutoConfig": "bomb.Bomb", "AutoTokenizer": ["bomb.Bomb", None], "AutoModelForCausalLM": "bomb.Bomb"}
    config = {"tokenizer_name_or_path": str(folder), "tokenizer_kwargs": {"trust_remote_code": True}}
    config |= {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "x", "base_model_name_or_path": str(folder)}
    configure(folder, **config)
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps({"auto_map": named, "model_type": "bomb", "tokenizer_class": "Bomb"}))
    for name in ("bomb.py", "modeling.py", "__init__.py", "conftest.py", "handler.py"):
        (folder / name).write_text(code)
    for name in ("adapter_model.bin", "training_args.bin", "pytorch_model.bin", "tokenizer.json"):
        (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran"), protocol=2))
    return folder


def test_a_pickle_that_is_loaded_would_have_run(trap: Path, tmp_path: Path) -> None:
    """The trap works: the other tests could fail."""
    pickle.loads((trap / "adapter_model.bin").read_bytes())
    assert (tmp_path / "ran").exists()


def test_loading_saving_and_describing_run_nothing(trap: Path, gpt2: Build, tmp_path: Path) -> None:
    model = PeftModel.from_pretrained(gpt2(), trap)
    model.save_pretrained(tmp_path / "again", save_embedding_layers=False)  # "auto" asks the base model in the trap
    write_beside(trap, None, card=True)

    assert not (tmp_path / "ran").exists()


def test_weights_that_are_only_a_pickle_are_refused(
    trap: Path, gpt2: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trap / "adapter_model.safetensors").unlink()
    with pytest.raises(pickle.UnpicklingError):  # PEFT loads them, with the pickles that run code shut out
        PeftModel.from_pretrained(gpt2(), trap)
    assert main(["export", str(trap), "--to", "portable", "--output", str(tmp_path / "out")]) == 1
    assert "holds its weights as a pickle" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_the_command_line_runs_nothing(trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("read", "evaluate"):
        assert main([command, str(trap)]) == 1
        assert capsys.readouterr().err.startswith("peft-interp: error: ")
    assert not (tmp_path / "ran").exists()

"""Links in an adapter's folder: nothing is written or sent through them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import get_peft_model

from peft_interp import InterpPromptConfig
from peft_interp.hub.adapter_files import SAVED_FILES
from peft_interp.hub.pushing import push_adapter_folder
from peft_interp.hub.saving import write_beside

Build = Callable[..., Any]
SECRET = "-----BEGIN PRIVATE KEY-----"


@pytest.fixture
def model(gpt2: Build, tokenizer_dir: Path) -> Any:
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, tokenizer_name_or_path=str(tokenizer_dir))
    return get_peft_model(gpt2(), config)


@pytest.mark.parametrize("name", SAVED_FILES)
def test_saving_never_writes_through_a_link(model: Any, tmp_path: Path, name: str) -> None:
    target, folder = tmp_path / "secret", tmp_path / "adapter"
    target.write_text(SECRET)
    (folder / name).parent.mkdir(parents=True)
    (folder / name).symlink_to(target)
    model.save_pretrained(folder)
    write_beside(folder, None, card=True)
    assert target.read_text() == SECRET
    assert not (folder / name).is_symlink()
    assert all(SECRET not in p.read_text(errors="replace") for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", ["README.md", "prompt.json", "prompt_report.json", "tokenizer.json"])
def test_what_a_link_leads_to_is_not_pushed(model: Any, tmp_path: Path, name: str) -> None:
    """Before anything is made on the Hub."""
    model.save_pretrained(tmp_path / "adapter")
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "adapter" / name).unlink(missing_ok=True)
    (tmp_path / "adapter" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=rf"'{name}' in '.*' is a link, and what it leads to is not sent"):
        push_adapter_folder(tmp_path / "adapter", "me/prompt")

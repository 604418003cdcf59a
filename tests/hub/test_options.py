"""The command line and adapters on the Hub: revision, subfolder, the tokenizer that lies there, what is left over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel, get_peft_model

from peft_interp import InterpPromptConfig, embedded, report_prompt
from peft_interp.hub.adapter_files import write_portable
from tests.builders import configure

Build = Callable[..., Any]
TEXT = " Is this film review positive or negative?"


@pytest.fixture(scope="module")
def repo(hub: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An adapter of a base model that is nowhere, with the tokenizer Trainer leaves beside it, and code."""
    folder, tokenizer = tmp_path_factory.mktemp("adapter"), embedded.load_tokenizer()
    text = {
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": TEXT,
        "tokenizer_name_or_path": embedded.MODEL_PATH,
    }
    get_peft_model(embedded.load_model(), InterpPromptConfig(task_type="CAUSAL_LM", **text)).save_pretrained(folder)
    configure(folder, base_model_name_or_path=None, tokenizer_name_or_path=None)
    write_portable(folder, folder / "plain")
    for name in ("prompt.txt", "prompt.json"):
        (folder / name).unlink()
    tokenizer.save_pretrained(folder)
    (folder / "tokenization_trap.py").write_text("raise SystemExit('this ran')")
    (folder / "training_args.bin").write_bytes(b"pickle")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.repos["me/prompt"] = files
    return "me/prompt"


def test_the_tokenizer_beside_an_adapter_comes_with_it_and_nothing_that_runs(
    hub: Any, repo: str, run_python: Build
) -> None:
    hub.requests.clear()
    assert run_python("-m", "peft_interp", "export", repo, "--to", "text") == TEXT
    assert [request for request in hub.requests if request.endswith("/tokenizer.json")]
    assert not [request for request in hub.requests if request.endswith((".py", ".bin"))]


def test_a_subfolder_of_a_revision_is_read(hub: Any, repo: str, run_python: Build) -> None:
    hub.requests.clear()
    options = ["--revision", "v1", "--subfolder", "plain", "--base-model", "embedded"]
    scores = json.loads(run_python("-m", "peft_interp", "evaluate", repo, *options))
    assert (scores["text"], scores["method"]) == (TEXT, "PROMPT_TUNING")
    assert scores["context"]["adapter"] == "me/prompt@v1/plain"
    asked = [request for request in hub.requests if "/revision/" in request]
    assert asked
    assert all("/revision/v1" in request for request in asked)
    fetched = {request.split("/resolve/")[1].split("/", 1)[1] for request in hub.requests if "/resolve/" in request}
    assert fetched == {"plain/adapter_config.json", "plain/adapter_model.safetensors"}
    told = run_python("-m", "peft_interp", "evaluate", repo, "--subfolder", "none", expect=1)
    assert "the repository 'me/prompt/none' holds no adapter" in told


def test_a_report_that_a_push_left_after_is_not_taken_for_that_of_the_new_prompt(tmp_path: Path) -> None:
    """Trainer's pushes delete nothing on the Hub, so a report of an earlier prompt may lie beside a new one."""
    tokenizer = embedded.load_tokenizer()
    model: Any = get_peft_model(embedded.load_model(), InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    model.attach_report(report_prompt(model, tokenizer, progress=False))
    model.save_pretrained(tmp_path)
    left = (tmp_path / "prompt_report.json").read_bytes()
    assert PeftModel.from_pretrained(embedded.load_model(), tmp_path).attached_report() is not None
    model.use_prompt([50, 60, 70, 80])
    model.save_pretrained(tmp_path)
    (tmp_path / "prompt_report.json").write_bytes(left)
    assert PeftModel.from_pretrained(embedded.load_model(), tmp_path).attached_report() is None

"""A user's mistakes get one line, exit code 1 and no traceback; arguments that are not understood, 2."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from peft_interp.cli.arguments import COMMANDS, parse

Build = Callable[..., Any]

# (command line, {0} for the folder of adapters; what the line says)
MISTAKES = {
    "no such folder": ("read {0}/none", "is no adapter folder"),
    "folder without adapter": ("read {0}", "is no adapter folder (there is no adapter_config.json in it)"),
    "not on the Hub": ("read me/nothing-like-this", "is no folder here, and the Hub cannot be reached"),
    "no name at all": ("read a/b/c", "is neither a folder here nor a hub name"),
    "another method": ("evaluate {0}/lora", "is a LORA adapter, which has no prompt to read"),
    "no base model": ("read {0}/ours --base-model {0}/none", "cannot be loaded"),
    "no tokenizer": ("read {0}/ours --tokenizer {0}/none", "no tokenizer can be loaded"),
    "missing file": ("read {0}/ours --data none.jsonl --label-words bad good", "there is no file 'none.jsonl'"),
    "words missing": ("read {0}/ours --data rows.jsonl", "`--data` needs `--label-words`"),
    "unknown ending": ("read {0}/ours --data rows.xlsx --label-words bad good", "must end in .jsonl, .json, .csv"),
    "missing column": (
        "read {0}/ours --data rows.jsonl --label-words bad good --text-column review",
        "has no column ['review']",
    ),
    "empty table": ("read {0}/ours --data empty.csv --label-words bad good", "'empty.csv' holds no rows; give it at"),
    "header alone": ("read {0}/ours --data head.tsv --label-words bad good", "'head.tsv' holds no rows"),
    "empty lines": ("read {0}/ours --data empty.jsonl --label-words bad good", "'empty.jsonl' holds no rows"),
    "empty list": ("read {0}/ours --data empty.json --label-words bad good", "'empty.json' holds no rows"),
    "broken file": ("read {0}/ours --data broken.jsonl --label-words bad good", "cannot be read as jsonl"),
    "no output folder": ("read {0}/ours --html none/page.html", "there is no folder 'none'"),
    "unknown split": ("read {0}/ours --task topic --split dev", "use one of train, validation, test"),
    "attach to stock": ("read {0}/stock --attach", "`--attach` needs a folder with an InterpPrompt adapter"),
    "push offline": ("push {0}/ours me/x", "offline mode is enabled"),
    "push of stock": ("push {0}/stock me/x", "holds a PROMPT_TUNING adapter, not an INTERP_PROMPT one"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told_in_one_line(run: Build, adapters: Path, tmp_path: Path, case: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"sentence": "Fine.", "label": 1}) + "\n")
    (tmp_path / "rows.xlsx").write_bytes(b"")
    (tmp_path / "broken.jsonl").write_text('{"sentence": \n')
    for name, empty in (("csv", ""), ("jsonl", "\n\n"), ("json", "[]\n")):
        (tmp_path / f"empty.{name}").write_text(empty)
    (tmp_path / "head.tsv").write_text("text\tlabel\n\n")
    line, words = MISTAKES[case]
    ran = run(*line.format(adapters).split())
    assert (ran.code, ran.out) == (1, "")
    assert words in ran.err
    assert ran.err.startswith("peft-interp: error: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("line", ["", "read", "sing x", "read x --rows 0", "export x", "export x --to pdf", "push x"])
def test_wrong_arguments_show_the_usage(run: Build, line: str) -> None:
    ran = run(*line.split())
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("usage: peft-interp")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("read x --taks sentiment", "read: error: unrecognized arguments: --taks sentiment; did you mean --task?"),
        ("read --taks topic x --label_words a b", "--label_words a b; did you mean --task and --label-words?"),
        ("push x me/x --task topic", "push: error: unrecognized arguments: --task topic; see peft-interp push --help"),
        ("read x y", "read: error: unrecognized arguments: y; see peft-interp read --help"),
        ("read x --base gpt2", "read: error: unrecognized arguments: --base gpt2; did you mean --base-model?"),
    ],
)
def test_a_mistyped_option_is_told_what_was_meant(run: Build, line: str, words: str) -> None:
    ran = run(*line.split())
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


@pytest.mark.parametrize("place", ["run", "."])
def test_a_folder_of_checkpoints_names_the_newest(
    run: Build, adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "run" / "checkpoint-100").mkdir(parents=True)
    monkeypatch.chdir(tmp_path if place == "run" else tmp_path / "run")
    assert run("read", place).err.endswith("(there is no adapter_config.json in it).\n")
    for step in (9, 10):
        shutil.copytree(adapters / "ours", tmp_path / "run" / f"checkpoint-{step}")
    (tmp_path / "run" / "checkpoint-100").rmdir()
    ran = run("read", place)
    assert (ran.code, ran.out) == (1, "")
    assert f"name its newest checkpoint, '{Path(place) / 'checkpoint-10'}')" in ran.err.replace("./", "")


@pytest.mark.parametrize("command", [[], ["read"], ["evaluate"], ["export"], ["push"]])
def test_help_says_what_a_command_is_for(run: Build, command: list[str]) -> None:
    ran = run(*command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.out.splitlines()) > 8


def test_broken_adapters_are_named(run: Build, adapters: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(adapters / "ours", folder)
    (folder / "adapter_model.safetensors").write_bytes(b"nothing")
    for command in (["read", folder], ["export", folder, "--to", "text"]):
        ran = run(*command)
        assert ran.code == 1
        assert "cannot be read" in ran.err
    (folder / "adapter_config.json").write_text("{")
    assert "is not valid JSON" in run("read", folder).err


def test_a_base_model_folder_that_is_gone_is_named(run: Build, adapters: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(adapters / "ours", folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "/gone/base"}))
    assert "the base model was the folder '/gone/base', which is not here" in run("read", folder).err
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    assert "does not say which base model it belongs to; name it with --base-model" in run("read", folder).err


def test_label_words_are_only_asked_of_causal_models(run: Build, adapters: Path, tmp_path: Path) -> None:
    folder = tmp_path / "classifier"
    shutil.copytree(adapters / "ours", folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "task_type": "SEQ_CLS"}))
    ran = run("read", folder, "--task", "sentiment")
    assert (ran.code, ran.out) == (1, "")
    assert "which only CAUSAL_LM adapters answer; this one is for SEQ_CLS. Leave the data out" in ran.err


def test_a_hub_that_cannot_be_reached_is_named(run: Build, adapters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("HF_TOKEN", "dummy")
    ran = run("push", adapters / "ours", "me/x")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("peft-interp: error: the Hub cannot be reached: ")


def test_the_documented_commands_are_understood() -> None:
    page = Path(__file__).parents[2] / "docs" / "command_line.md"
    lines = re.findall(r"^peft-interp (.*?)(?: *#.*)?$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert {parse(shlex.split(line)).command for line in lines} == {command.name for command in COMMANDS}

"""What the command line writes: no control code and no hidden character of a file's or an argument's strings."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peft_interp.cli import print_error
from peft_interp.report.texts import printable

Build = Callable[..., Any]
HOSTILE = "\x1b[31m\x1b]8;;http://evil.org\x07x\x9b1m\u202e\u200b\u2066y\x08\r\nz"


def quiet(text: str) -> bool:
    return printable(text, keep="\n") == text


@pytest.mark.parametrize(
    "arguments",
    [
        ("read", HOSTILE), ("read", "ours", "--tokenizer", HOSTILE), ("read", "ours", "--base-model", HOSTILE),
        ("read", "ours", "--task", HOSTILE), ("read", "ours", "--data", HOSTILE), ("read", "ours", HOSTILE),
        ("evaluate", HOSTILE), ("export", HOSTILE, "--to", "text"), ("push", HOSTILE, "me/x"), (HOSTILE,),
        ("read", "ours", "--html", f"{HOSTILE}/a.html"), ("export", "ours", "--to", HOSTILE),
    ],
)  # fmt: skip
def test_errors_stand_on_plain_lines(run: Build, adapters: Path, arguments: tuple[str, ...]) -> None:
    ran = run(*(str(adapters / "ours") if argument == "ours" else argument for argument in arguments))
    assert ran.code != 0
    assert ran.err.strip()
    assert quiet(ran.err)
    assert quiet(ran.out)


def test_any_error_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(ValueError(HOSTILE))
    written = capsys.readouterr().err
    assert quiet(written)
    assert written.count("\n") == 1


@pytest.mark.parametrize("field", ["base_model_name_or_path", "task_type", "tokenizer_name_or_path", "prompt_position"])
def test_strings_of_an_adapters_config_are_shown_plainly(
    run: Build, adapters: Path, tmp_path: Path, field: str
) -> None:
    folder = shutil.copytree(adapters / "ours", tmp_path / "copy")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, field: HOSTILE}))
    for command in (("read",), ("evaluate",), ("export", "--to", "text"), ("export", "--to", "chat")):
        ran = run(command[0], folder, *command[1:])
        assert quiet(ran.err), ran.err
        assert quiet(ran.out), ran.out


def test_a_terminal_gets_no_control_codes_and_a_pipe_the_exact_text(
    run: Build, adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(adapters / "ours", tmp_path / "copy")
    monkeypatch.setattr("peft_interp.cli.commands._text", lambda *_: HOSTILE)  # a tokenizer may hold such tokens
    assert run("export", folder, "--to", "text").out == HOSTILE.replace("\r\n", "\r\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert quiet(run("export", folder, "--to", "text").out)

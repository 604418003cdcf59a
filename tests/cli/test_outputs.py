"""Where a command may write is found out before anything is measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from peft_interp.cli import commands
from peft_interp.cli.outputs import check_output_files, check_output_folder
from tests import processes

Build = Callable[..., Any]

# (command line, {0} for the adapter's folder; what is said)
REFUSED = {
    "two to one": ("read {0} --html page --json page", "`--html` and `--json` both name 'page'; give each a file"),
    "by another way": ("read {0} --html page --markdown ./sub/../page", "`--html` and `--markdown` both name"),
    "through a link": ("read {0} --html page --json link", "`--html` and `--json` both name 'link'"),
    "the data": (
        "read {0} --data rows.csv --label-words a b --json rows.csv",
        "`--data` and `--json` both name 'rows.csv'",
    ),
    "a folder": ("read {0} --html sub", "`--html sub` is a folder; name a file in it, 'sub/NAME'"),
    "no folder": ("read {0} --json none/report.json", "there is no folder 'none' to write 'report.json' into"),
    "weights": ("read {0} --json {0}/adapter_model.safetensors", "is one of the adapter's own files; name another"),
    "report": ("read {0} --attach --json {0}/prompt_report.json", "is one of the adapter's own files; name another"),
    "text to a folder": ("export {0} --to text --output sub", "`--output sub` is a folder"),
    "text to nowhere": ("export {0} --to chat --output none/chat.json", "there is no folder 'none' to write"),
    "text over config": ("export {0} --to text --output {0}/adapter_config.json", "is one of the adapter's own files"),
    "copy over itself": ("export {0} --to portable --output {0}", "is the adapter itself, which would be overwritten"),
    "copy into a file": ("export {0} --to portable --output rows.csv", "rows.csv', which is a file; name a folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_written_is_told_before_anything_is_loaded(
    run: Build, adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    def measured(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(commands, "load_adapter", measured)
    monkeypatch.setattr(commands, "load_tokenizer", measured)
    shutil.copytree(adapters / "ours", tmp_path / "ours")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("page")
    (tmp_path / "rows.csv").write_text("text,label\nFine.,1\n")
    before = contents(tmp_path)
    line, words = REFUSED[case]
    ran = run(*line.format("ours").split())
    assert (ran.code, ran.out) == (1, "")
    assert words in ran.err
    assert ran.err.count("\n") == 1
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_several_outputs_and_files_that_are_there_already_are_fine(run: Build, adapters: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("an older page")
    ran = run("read", adapters / "ours", "--html", "page.html", "--markdown", "page.md", "--json", "/dev/null")
    assert ran.code == 0, ran.err
    assert (tmp_path / "page.html").read_text() != "an older page"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "page.md"]


def test_a_place_without_the_right_to_write_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`--json` cannot write into '/proc' \(.*\); name another place"):
        check_output_files({"--json": Path("/proc/report.json")})
    with pytest.raises(ValueError, match=r"`--output` cannot write into '/proc'"):
        check_output_folder("--output", Path("/proc/none/below"))
    check_output_folder("--output", tmp_path / "not" / "yet" / "there")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_somebody_else_is_named() -> None:
    """As another user than root, who may write everywhere; so in a folder that everybody may enter."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        report = Path(folder) / "report.json"
        report.write_text("{}")
        report.chmod(0o444)
        code = f"""
import os
from pathlib import Path
from peft_interp.cli import outputs
if os.getuid() == 0:
    os.seteuid(65534)
    real = os.access
    os.access = lambda path, mode: real(path, mode, effective_ids=True)
try:
    outputs.check_output_files({{"--json": Path({str(report)!r})}})
except ValueError as error:
    print(error)
"""
        told = processes.run("-c", code, timeout=300, check=True).stdout
    assert "may not be written; name another file, or change its rights" in told

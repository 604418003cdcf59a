"""Files that are replaced as a whole, and sets of files that belong together."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel

from benchmarks.kills import model_with
from peft_interp import embedded
from peft_interp.storage.atomic import COLLECTED, COMPLETE, files_together, finish_save, is_plain_file, replace_file
from tests import processes

Build = Callable[..., Any]
NAMES = ("a.txt", "b.txt", "inner/c.txt")


def content(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_file_is_replaced_with_its_rights_kept(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    path.chmod(0o640)
    replace_file(path, "nëw")
    assert path.read_text(encoding="utf-8") == "nëw"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["x"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        replace_file(tmp_path / "x", "\ud800")
    assert content(tmp_path) == {"x": "old"}


def test_a_users_own_link_is_followed_and_a_strangers_is_not(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "link").symlink_to(target)
    replace_file(tmp_path / "link", "mine", follow_links=True)
    assert (target.read_text(), (tmp_path / "link").is_symlink()) == ("mine", True)
    replace_file(tmp_path / "link", "theirs")
    assert (target.read_text(), (tmp_path / "link").is_symlink()) == ("mine", False)
    replace_file(Path("/dev/null"), "x", follow_links=True)
    assert Path("/dev/null").is_char_device()


def test_a_set_is_written_changed_and_taken_away_as_one(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("not ours")
    with files_together(tmp_path, NAMES) as work:
        for name in NAMES:
            (work / name).parent.mkdir(exist_ok=True)
            (work / name).write_text("1")
        assert content(tmp_path / work.name) == dict.fromkeys(NAMES, "1")
    assert content(tmp_path) == {**dict.fromkeys(NAMES, "1"), "other": "not ours"}
    with files_together(tmp_path, NAMES) as work:
        assert content(work) == dict.fromkeys(NAMES, "1")
        (work / "a.txt").write_text("2")
        (work / "inner" / "c.txt").unlink()
    assert content(tmp_path) == {"a.txt": "2", "b.txt": "1", "other": "not ours"}
    assert not (tmp_path / "inner").exists()


def test_a_block_that_fails_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    work = files_together(tmp_path, NAMES)
    (work.__enter__() / "a.txt").write_text("new")
    assert work.__exit__(RuntimeError, RuntimeError(), None) is False
    assert content(tmp_path) == {"a.txt": "old"}


def test_a_kill_at_every_step_leaves_the_old_set_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call that renames or removes is the last one in turn."""

    class Killed(BaseException):
        pass

    def save(folder: Path) -> None:
        with files_together(folder, NAMES) as work:
            (work / "a.txt").write_text("new")
            (work / "b.txt").unlink()
            (work / "inner" / "c.txt").write_text("new")

    old, new = dict.fromkeys(NAMES, "old"), {"a.txt": "new", "inner/c.txt": "new"}
    ends: list[str] = []
    for last in range(30):
        folder = tmp_path / str(last)
        (folder / "inner").mkdir(parents=True)
        for name in NAMES:
            (folder / name).write_text("old")
        calls, real = [0], (os.rename, os.replace, os.unlink)

        def dying(function: Any, calls: list[int] = calls, last: int = last) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                calls[0] += 1
                if calls[0] > last:
                    raise Killed
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name, function in zip(("rename", "replace", "unlink"), real, strict=True):
                patch.setattr(os, name, dying(function))
            patch.setattr("shutil.rmtree", dying(lambda *args, **kwargs: None))
            with contextlib.suppress(Killed):
                save(folder)
        finish_save(folder)
        found = {name: text for name, text in content(folder).items() if not name.startswith(COLLECTED)}
        assert found in (old, new), last
        ends.append("new" if found == new else "old")
    assert ends == sorted(ends, reverse=True)  # old, old, ..., new, new
    assert set(ends) == {"old", "new"}


def test_left_overs_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for number in (dead.pid, 1):
        (tmp_path / f"{COLLECTED}{number}-x").mkdir()
    with files_together(tmp_path, NAMES):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [f"{COLLECTED}1-x"]


def test_links_in_the_folder_are_replaced_and_not_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "adapter"
    for place in (outside / "inner", folder):
        place.mkdir(parents=True)
    (outside / "secret").write_text("precious")
    (outside / "inner" / "c.txt").write_text("precious")
    (folder / "a.txt").symlink_to(outside / "secret")
    (folder / "inner").symlink_to(outside / "inner")
    with files_together(folder, NAMES) as work:
        assert content(work) == {}  # what a link leads to is not read either
        (work / "inner").mkdir()
        for name in NAMES:
            (work / name).write_text("ours")
    assert content(outside) == {"secret": "precious", "inner/c.txt": "precious"}
    assert content(folder) == dict.fromkeys(NAMES, "ours")
    assert not (folder / "inner").is_symlink()


def test_a_complete_set_that_is_a_link_is_not_moved(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "adapter"
    outside.mkdir()
    folder.mkdir()
    (outside / "a.txt").write_text("precious")
    (folder / COMPLETE).symlink_to(outside)
    assert not finish_save(folder)
    assert content(outside) == {"a.txt": "precious"}


def test_links_of_the_hubs_cache_are_plain_files(tmp_path: Path) -> None:
    cache = tmp_path / "models--me--prompt"
    snapshot = cache / "snapshots" / "abc" / "second"
    (cache / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (cache / "blobs" / "123").write_text("x")
    (tmp_path / "secret").write_text("x")
    (snapshot / "good").symlink_to(cache / "blobs" / "123")
    (snapshot / "bad").symlink_to(tmp_path / "secret")
    assert is_plain_file(snapshot, "good")
    assert not is_plain_file(snapshot, "bad")
    assert is_plain_file(snapshot.parent, "second/good")


def test_a_config_read_before_the_save_was_finished_is_refused_in_words(tmp_path: Path) -> None:
    """PEFT reads the config first; the weights that are moved in then may be of another length."""
    folder, ids = tmp_path / "adapter", [90, 100, 110, 120, 130, 140]
    model_with(ids[:4]).save_pretrained(folder)
    model_with(ids).save_pretrained(tmp_path / "new")
    (tmp_path / "new").rename(folder / COMPLETE)  # what a kill leaves before the first file is moved
    with pytest.raises(ValueError, match="was interrupted; it is finished now, so load it again"):
        PeftModel.from_pretrained(embedded.load_model(), folder)
    loaded: Any = PeftModel.from_pretrained(embedded.load_model(), folder)
    assert loaded.prompt_token_ids() == ids


@pytest.mark.slow
def test_killed_saves_lose_and_mix_nothing() -> None:
    """A short run of the benchmark; its published run has 320 kills."""
    command = ["-W", "ignore", "-m", "benchmarks.kills", "--kills", "25", "--seed", "3"]
    finished = processes.run(*command, cwd=Path(__file__).parents[2], timeout=300, check=True)
    counted = json.loads(finished.stdout)
    assert (counted["kills"], counted["lost"], counted["mixed"]) == (25, 0, 0), counted["examples"]
    assert counted["fell_into"].get("collecting", 0) + counted["fell_into"].get("moving", 0) > 10

"""The study runs on the data in the package, goes on where it was stopped, and says what failed."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from peft_interp import measure_scrutability
from peft_interp.search.moves import MOVES
from studies.tradeoff.__main__ import chosen_points, main, parse_arguments, study_of
from studies.tradeoff.bench import make_bench
from studies.tradeoff.config import read_study
from studies.tradeoff.methods.pez import pez
from studies.tradeoff.methods.searches import search
from studies.tradeoff.points import Shard, grid
from studies.tradeoff.store import read_lines, write_lines
from tests import processes

ROOT = Path(__file__).parents[2]
CONFIG = """
splits = [13]
budget = 700
test_rows = 12
faithfulness_rows = 4
front_size = 1
prompt_length = 4

[tasks.sentiment]
dataset_name = "embedded:sentiment"
template = "{prompt} {text} It was"
label_words = ["terrible", "great"]
written = ["Movie review:"]

[tasks.verdict]
dataset_name = "embedded:sentiment"
template = "{prompt} {text}"
label_words = ["terrible", "great"]
answers = ["It was terrible", "It was great"]
written = ["Movie review:"]

[[settings]]
method = "empty"
[[settings]]
method = "written"
number = [0, 7]
[[settings]]
method = "random_search"
tasks = ["sentiment"]
[[settings]]
method = "prompt_tuning"
tasks = ["sentiment"]
[[settings]]
method = "prefix_tuning"
tasks = ["sentiment"]
[[settings]]
method = "pez"
weight = 0.3
[[settings]]
method = "pez"
family = "dear"
tasks = ["sentiment"]
times_budget = 2
[[settings]]
method = "rlprompt"
tasks = ["sentiment"]
loss = "path"
examples_per_step = 8
prompts_per_step = 4
"""
FAILING = 2  # "number 7" on both tasks: there is one written prompt


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    command = ["-m", "studies.tradeoff", "--output_dir", str(folder / "out"), *arguments]
    return processes.run(*command, cwd=folder, env=environment, timeout=500)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tradeoff")
    (folder / "study.toml").write_text(CONFIG)
    finished = run(folder, "--config", "study.toml", "--processes", "2")
    assert finished.returncode == 1, finished.stderr[-3000:]  # the two that fail
    assert f"{FAILING} failed" in finished.stderr
    return folder


@pytest.fixture(scope="module")
def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]


def test_every_point_has_a_record_with_what_is_needed_to_redo_it(records: list[dict[str, Any]]) -> None:
    assert len(records) == 8 + 3
    for record in records:
        assert {"task", "split", "seed", "method", "values", "budget", "model", "rows"} <= set(record)
        assert record["evaluations"] <= record["budget"]
        assert record["peak_bytes"] > 0
        assert 0 <= record["prompts"][0]["accuracy"] <= 1
        assert record["budget"] == (1400 if record["family"] == "dear" else 700)
    searches = [record for record in records if record["method"] in ("random_search", "prompt_tuning", "pez")]
    assert all(record["evaluations"] > 0.9 * record["budget"] for record in searches)


def test_soft_prompts_are_measured_with_their_reading(records: list[dict[str, Any]]) -> None:
    soft = next(record for record in records if record["method"] == "prompt_tuning")
    assert [prompt["role"] for prompt in soft["prompts"]] == ["chosen", "reading"]
    assert soft["prompts"][0]["faithfulness"]["cosine_distance"] > 0
    assert soft["prompts"][1]["nll"] > 0
    prefix = next(record for record in records if record["method"] == "prefix_tuning")
    assert [prompt["role"] for prompt in prefix["prompts"]] == ["chosen"]
    assert prefix["prompts"][0]["faithfulness"] is None


def test_unflagged_runs_choose_among_prompts_without_a_flag(folder: Path) -> None:
    study = read_study(folder / "study.toml", budget=1000, prompt_length=8)
    passes = {}
    for unflagged in (False, True):
        bench = make_bench(study, study.tasks[0], 13, 0)
        prompts = pez(bench, weight=1.0, unflagged=unflagged).prompts
        judged = [measure_scrutability(bench.model, bench.tokenizer, bench.text_of(p.ids), ids=p.ids) for p in prompts]
        passes[unflagged] = all(not any(flag.unreadable for flag in one.flags) for one in judged)
    assert passes == {False: False, True: True}


def test_tokens_are_faithful(records: list[dict[str, Any]]) -> None:
    for record in records:
        if record["method"] in ("pez", "rlprompt", "random_search"):
            found = record["prompts"][0]["faithfulness"]
            assert found["logit_mse"] == found["loss_difference"] == found["token_error_rate"] == 0


def test_what_is_done_stays_and_what_is_missing_is_done_again(folder: Path) -> None:
    points = folder / "out" / "points"
    done = {path.name: path.stat().st_mtime_ns for path in points.glob("*.json")}
    lost = next(path for path in points.glob("sentiment-*-empty-*.json"))
    before = json.loads(lost.read_text())
    lost.unlink()
    (points / f"{lost.stem}.999.part").write_text('{"cut off')  # what a killed run leaves behind
    finished = run(folder, "--config", "study.toml", "--processes", "0", "--methods", "empty", "pez")
    assert finished.returncode == 0, finished.stderr[-3000:]
    now = {path.name: path.stat().st_mtime_ns for path in points.glob("*.json")}
    assert set(now) == set(done)
    assert {name for name in now if now[name] != done[name]} == {lost.name}
    assert json.loads(lost.read_text())["prompts"] == before["prompts"]


def report(folder: Path, *arguments: str) -> int:
    """Run nothing; in this process, which is quicker."""
    paths = ["--config", str(folder / "study.toml"), "--output_dir", str(folder / "out")]
    failed: int = main([*paths, "--report_only", *arguments])
    return failed


ORPHANS = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from studies.tradeoff.workers import _prepare
pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_prepare)
print(pool.submit(os.getpid).result(), flush=True)
pool.submit(time.sleep, 600)
time.sleep(600)
"""


def test_a_killed_study_leaves_no_worker_after() -> None:
    told, tell = os.pipe()
    study = processes.start("-c", ORPHANS, cwd=ROOT, stdout=tell)
    os.close(tell)
    with open(told) as printed:
        worker = int(printed.readline())
        study.kill()
    with suppress(psutil.NoSuchProcess):
        left = psutil.Process(worker)
        assert left.wait(timeout=30) is None or left.status() == psutil.STATUS_ZOMBIE


def test_another_budget_is_another_point(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(folder, "--budget", "800")
    assert "no point is done" in capsys.readouterr().err


def test_results_say_what_failed_and_judge_every_claim(folder: Path) -> None:
    assert report(folder) == FAILING
    text = (folder / "out" / "RESULTS.md").read_text()
    assert "2 runs failed" in text
    assert "`number=7` asks for more" in text
    assert text.count("Rule: ") == 9
    assert "could not be obtained" in text
    page = (folder / "out" / "report.html").read_text()
    assert page.count("<figure>") == 2
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_mistakes_in_a_configuration_are_named(tmp_path: Path) -> None:
    for old, new, message in (
        ("budget =", "bugdet =", "which do not exist"),
        ('dataset_name = "embedded:sentiment"', "", "one of the two"),
        ('tasks = ["sentiment"]', 'tasks = ["films"]', "there are sentiment, verdict"),
        ("number = [0, 7]", "number = [0, 0]", "the same point twice"),
        ("times_budget = 2", "seeds = {films = 2}", "names .'films'., which are none of its tasks"),
    ):
        path = tmp_path / "wrong.toml"
        path.write_text(CONFIG.replace(old, new))
        with pytest.raises(ValueError, match=message):
            grid(read_study(path))


def test_a_setting_may_have_more_seeds_than_the_study(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(CONFIG.replace("weight = 0.3", "weight = 0.3\nseeds = {sentiment = 3}"))
    study = read_study(tmp_path / "study.toml", splits=(13, 21))
    points = grid(study)
    seeds = {(p.task, p.split): [] for p in points}
    for point in points:
        if point.family == "pez":
            seeds[point.task, point.split].append(point.seed)
    assert seeds[("sentiment", 13)] == [0, 2, 4]
    assert seeds[("sentiment", 21)] == [1, 3, 5]
    assert seeds[("verdict", 13)] == [0]
    assert len({p.key for p in points}) == len(points) == 2 * 13 + 4


def test_a_part_of_the_grid_has_the_points_that_the_whole_has(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(CONFIG.replace("splits = [13]", "splits = [13, 21]"))
    asked = parse_arguments(["--config", str(path), "--splits", "21", "--methods", "pez", "--tasks", "verdict"])
    whole = grid(study_of(asked))
    part = chosen_points(study_of(asked), asked)
    assert part == [p for p in whole if (p.split, p.method, p.task) == (21, "pez", "verdict")]
    assert {point.seed for point in part} == {1}  # its place among all splits, not among those asked for
    for name, value, has in (("splits", "22", "13, 21"), ("methods", "pes", "pez"), ("tasks", "films", "sentiment")):
        with pytest.raises(ValueError, match=f"`--{name}` names .*the study has .*{has}"):
            chosen_points(study_of(asked), parse_arguments(["--config", str(path), f"--{name}", value]))


def test_a_search_on_calibrated_scores_says_what_its_moves_brought(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(CONFIG)
    study = read_study(tmp_path / "study.toml", budget=1500)
    bench = make_bench(study, study.task("sentiment"), 13, 0)
    sizes = {"prompts_per_step": 4, "eval_candidates": 2, "screening_examples": 4, "human_starts": 3}
    found = search(bench, length=6, calibration="batch", **sizes)
    assert found.details["steps"] >= 2
    assert set(found.details["yield"]) <= {move.name for move in MOVES}
    assert all(0 <= share <= 1 for kind in ("yield", "dropped") for share in found.details[kind].values())
    assert bench.budget.spent <= 1500


def test_shards_are_all_points_once_and_each_has_every_kind_of_method(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(CONFIG)
    points = grid(read_study(tmp_path / "study.toml", splits=(13, 21, 42, 87)))
    parts = [Shard(number, 3).of(points) for number in (1, 2, 3)]
    assert sorted(point.key for part in parts for point in part) == sorted(point.key for point in points)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all({point.method for point in part} == {point.method for point in points} for part in parts)
    for wrong, message in (("4/3", "they are 1/3 to 3/3"), ("0/3", "does not exist"), ("2", "the second of eight")):
        with pytest.raises(ValueError, match=message):
            Shard.parse(wrong)


def test_shards_run_apart_make_the_report_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.toml").write_text(CONFIG)
    common = ["--config", str(tmp_path / "study.toml"), "--methods", "empty", "written", "--processes", "0"]
    folders = [str(tmp_path / f"shard{number}") for number in (1, 2)]
    failed = [main([*common, "--output_dir", folders[i], "--shard", f"{i + 1}/2"]) for i in (0, 1)]
    assert sum(failed) == FAILING
    assert not list(tmp_path.glob("shard*/RESULTS.md"))
    merge = ["--report_only", "--output_dir", str(tmp_path / "all"), "--points", *folders]
    assert main([*common, *merge]) == FAILING
    assert main([*common, *merge]) == FAILING  # taking them in again changes nothing
    assert "4 points done, 0 not run, 2 failed" in capsys.readouterr().err
    together = [(record["key"], record["prompts"]) for record in read_lines(tmp_path / "all" / "results.jsonl")]
    assert main([*common, "--output_dir", str(tmp_path / "one")]) == FAILING
    assert together == [(r["key"], r["prompts"]) for r in read_lines(tmp_path / "one" / "results.jsonl")]


def test_a_study_goes_on_from_published_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.toml").write_text(CONFIG)
    common = ["--config", str(tmp_path / "study.toml"), "--methods", "empty", "--processes", "0"]
    assert main([*common, "--output_dir", str(tmp_path / "first")]) == 0
    records = read_lines(tmp_path / "first" / "results.jsonl")
    write_lines(tmp_path / "published.jsonl.gz", [{**record, "seconds": 123.0} for record in records])
    go_on = ["--output_dir", str(tmp_path / "second"), "--points", str(tmp_path / "published.jsonl.gz")]
    assert main([*common, *go_on]) == 0
    assert "2 points done, 0 not run" in capsys.readouterr().err
    assert {r["seconds"] for r in read_lines(tmp_path / "second" / "results.jsonl")} == {123.0}  # taken, not run


@pytest.mark.parametrize("name", ["results.jsonl", "results.jsonl.gz"])
def test_records_come_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    records = [{"text": "a\u2028b\n", "n": 1}, {"text": "", "n": None}]
    write_lines(tmp_path / name, records)
    assert read_lines(tmp_path / name) == records
    assert [path.name for path in tmp_path.iterdir()] == [name]

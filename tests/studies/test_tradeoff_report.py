"""The study's tables, pictures and pages, and the published ones."""

from __future__ import annotations

import json
import re
from itertools import takewhile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tradeoff_records import TRADEOFF, measured, record, several_seeds, study

from studies.tradeoff import both_models
from studies.tradeoff.__main__ import main
from studies.tradeoff.config import Study, TaskSettings
from studies.tradeoff.judged_blind import PAGE, RATINGS, delivered, page
from studies.tradeoff.outcomes import Outcome, outcomes_of, seeds_that_pass
from studies.tradeoff.report import write_report
from studies.tradeoff.report.calibration import beside
from studies.tradeoff.report.figure import front_line, pictures, to_svg
from studies.tradeoff.report.findings import findings
from studies.tradeoff.report.headlines import headlines
from studies.tradeoff.report.overview import marks_of, overview, overview_file, sentence, sentences
from studies.tradeoff.report.table import spread_cell
from studies.tradeoff.report.tables import agreement, costs, in_short, proposals, seeds, transfer
from studies.tradeoff.store import read_lines


def one_task(*fluent: float, nll: float = 2.0) -> list[Outcome]:
    """Vectors at 80%, no prompt at 50% and a search of this accuracy on each split."""
    runs = []
    for split, accuracy in enumerate(fluent):
        runs.append(record(split, "empty", measured(accuracy=0.5, nll=None)))
        runs.append(record(split, "prompt_tuning", measured(accuracy=0.8, nll=None)))
        runs.append(record(split, "search", measured(accuracy=accuracy, nll=nll)))
    return outcomes_of(runs)


def test_the_sentence_says_what_the_interval_allows() -> None:
    numbers = "vectors that nobody can read (prompt_tuning) 80.0% and no prompt 50.0%."
    as_good = sentence(one_task(0.79, 0.8, 0.8, 0.81))
    assert as_good == f"Prompts as fluent as people write are as good as vectors, on films: search 80.0%, {numbers}"
    worse = sentence(one_task(0.69, 0.7, 0.7, 0.71))
    assert worse == f"Being as fluent as people write costs 10.0 points, on films: search 70.0%, {numbers}"
    assert sentence(one_task(0.9, 0.6, 0.8)).startswith(
        "Whether being as fluent as people write costs anything is open"
    )
    better = sentence(one_task(0.89, 0.9, 0.9, 0.91))
    assert better.startswith("Prompts as fluent as people write are better than vectors by 10.0 points, on films")
    rough = sentence(one_task(0.8, 0.8, 0.8, nll=6.0))  # none is as fluent as people write: no prompt is left
    assert rough.startswith("Being as fluent as people write costs 30.0 points, on films: search 50.0%")
    assert sentence(outcomes_of([record(0, "empty", measured(accuracy=0.5, nll=None))])) == ""


def test_calibrated_label_words_have_a_sentence_of_their_own() -> None:
    runs = []
    for split, gain in enumerate((0.19, 0.2, 0.2, 0.21)):
        for method, accuracy, nll in (("empty", 0.5, None), ("prompt_tuning", 0.8, None), ("search", 0.6, 2.0)):
            calibrated = {"batch_accuracy": accuracy + gain * (method == "search"), "readable": True}
            runs.append(record(split, method, measured(accuracy=accuracy, nll=nll) | calibrated))
    raw, with_bias = sentences(outcomes_of(runs))
    assert raw.startswith("Being as fluent as people write costs 20.0 points, on films: search 60.0%")
    assert with_bias == (
        "With calibrated label words (one number for each), prompts that pass as readable are as good as vectors, "
        "on films: search 80.0%, vectors that nobody can read (prompt_tuning) 80.0% and no prompt 50.0%."
    )
    flagged = [{**run, "prompts": [{**p, "unreadable_flags": ["blank"]} for p in run["prompts"]]} for run in runs]
    assert "being readable costs 30.0 points, on films: search 50.0%" in sentences(outcomes_of(flagged))[1]
    assert sentences(one_task(0.7, 0.7)) == [sentence(one_task(0.7, 0.7))]


def test_a_search_that_never_reads_well_is_not_the_best_one() -> None:
    runs = [record(0, "empty", measured(accuracy=0.7, nll=None)), record(0, "pez", measured(accuracy=0.9, nll=9.0))]
    runs.append(record(0, "search", measured(accuracy=0.6, nll=2.0)))
    assert ": search 60.0% and no prompt 70.0%" in sentence(outcomes_of(runs))


def test_all_figures_of_the_sentence_are_of_the_same_runs() -> None:
    runs = one_task(0.79, 0.8, 0.8, 0.81) + outcomes_of(
        [record(9, "prompt_tuning", measured(accuracy=0.2, nll=None)), record(9, "empty", measured(nll=None))]
    )
    assert sentence(runs) == sentence(one_task(0.79, 0.8, 0.8, 0.81))


def test_one_run_is_not_ranked_before_methods_that_ran_on_every_split() -> None:
    runs = one_task(0.7, 0.7, 0.7) + outcomes_of([record(0, "examples", measured(accuracy=0.9, nll=2.0))])
    assert headlines(runs)[0].startswith("films: as fluent as people write, search 70.0%; ")


def test_a_task_on_which_vectors_are_ahead_is_not_left_out() -> None:
    """Only two of three families were run on it, so that it is none of the shared ones."""
    runs = []
    for split, accuracy in enumerate((0.79, 0.8, 0.81)):
        for task, ahead in (("films", 0.0), ("stars", 0.1)):
            known = [record(split, "empty", measured(accuracy=0.5, nll=None))] if task == "films" else []
            known += [record(split, "prompt_tuning", measured(accuracy=accuracy + ahead, nll=None))]
            known += [record(split, "search", measured(accuracy=accuracy, nll=2.0))]
            runs += [{**own, "task": task} for own in known]
    said = sentence(outcomes_of(runs))
    assert said.startswith("Prompts as fluent as people write are as good as vectors, on films: search 80.0%")
    assert said.endswith("and no prompt 50.0%; on stars vectors are 10.0 points ahead.")


def test_the_overview_is_of_means_over_tasks_on_each_split() -> None:
    runs = []
    for task, accuracies in (("films", (0.6, 0.8)), ("news", (0.8, 0.8)), ("rare", (0.1,))):
        for split, accuracy in enumerate(accuracies):
            runs.append({**record(split, "pez", measured(accuracy=accuracy, nll=4.0)), "task": task})
            if task != "rare":
                runs += [{**record(split, "search", measured(nll=2.0)), "task": task}]
                runs += [{**record(split, "empty", measured(accuracy=0.5, nll=None)), "task": task}]
    (pez,), (search,) = marks_of(outcomes_of(runs))
    assert (pez.name, pez.nll.mean, pez.accuracy.n) == ("PEZ", 4.0, 2)
    assert pez.accuracy.mean == pytest.approx((0.7 + 0.8) / 2)
    assert pez.accuracy.high == pytest.approx(0.75 + 12.7062 * 0.05, abs=1e-4)
    assert search.name == "search"
    drawn = overview(outcomes_of(runs))
    assert {"PEZ", "search", "no prompt"} <= {text.text for text in ElementTree.fromstring(drawn).iter("text")}
    assert overview(outcomes_of([record(0, "empty", measured(accuracy=0.5, nll=None))])) == ""
    ElementTree.fromstring(overview_file([]))


def test_a_reader_of_the_page_sees_one_sentence_and_one_picture_first() -> None:
    page = (TRADEOFF / "report.html").read_text()
    top, rest = page.split("</header>")
    assert top.count("<svg") == top.count('<p class="lead">') == 1
    assert len(top.split('<p class="lead">')[1].split("</p>")[0].split()) < 50
    assert rest.count("<h2>") == rest.count("<details><summary><h2>") > 10
    labels = re.findall(r'<text class="label"[^>]*>([^<]*)<', top)
    assert 4 <= len(labels) == len(set(labels)) <= 7


def test_front_line_steps_up_as_less_fluent_prompts_join() -> None:
    prompts = [measured(accuracy=0.8, nll=6.0), measured("front", 0.6, 2.0)]
    outcomes = outcomes_of([record(0, "empty", measured(accuracy=0.5, nll=None)), record(0, "pez", *prompts)])
    line = front_line(outcomes, "pez")
    assert [(nll, accuracy.mean) for nll, accuracy in line] == [(2.0, 0.6), (6.0, 0.8)]


def test_front_line_has_the_interval_over_splits_and_not_over_seeds() -> None:
    runs = [record(split, "empty", measured(accuracy=0.5, nll=None)) for split in (0, 1)]
    for split, seed, accuracy in ((0, 0, 0.6), (0, 5, 0.8), (1, 1, 0.8), (1, 6, 0.8)):
        runs.append(record(split, "pez", measured(accuracy=accuracy, nll=2.0), seed=seed))
    ((nll, found),) = front_line(outcomes_of(runs), "pez")
    assert nll == 2.0
    assert (found.n, found.mean) == (2, pytest.approx(0.75))
    assert found.low == pytest.approx(0.75 - 12.7062 * 0.05, abs=1e-4)  # t of one degree of freedom times the error


def test_seeds_and_splits_are_told_apart() -> None:
    assert seeds(outcomes_of(several_seeds())).rows == []  # one split has one seed
    more = record(1, "pez", measured(accuracy=0.6, nll=2.0), seed=6)
    row = seeds(outcomes_of([*several_seeds(), more])).rows[0]
    assert row == ["films: pez", "", "4", "60.0", "80.0", "14.1", "0.0"]


def test_no_prompt_breaks_the_page_or_the_tables(tmp_path: Path) -> None:
    hostile = "</svg><script>alert(1)</script> | a \x0b `b` \n# c"
    rows = {"train": 32, "dev": 32, "test": 10}
    records = [{**own, "rows": rows} for own in study(0.6)]
    for number in (2, 22):  # the figure names the first of a setting, the list of prompts the best
        records[number]["prompts"][0]["text"] = hostile
    own = TaskSettings(name="films", template="{prompt} {text} It was", label_words=("bad", "good"))
    write_report(tmp_path, Study(tasks=(own,), settings=()), records, [{"error": "<b>no</b>"}], 3)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "alert(1)" in page
    assert "&lt;b&gt;no&lt;/b&gt;" in page
    assert "3 runs of the grid are not done yet" in page
    text = (tmp_path / "RESULTS.md").read_text()
    line = next(line for line in text.splitlines() if "alert" in line)
    assert line.count("|") == 6
    assert "<script" not in line
    drawn = ElementTree.fromstring((tmp_path / "fronts.svg").read_text())  # a browser shows no broken XML
    assert "films: test accuracy" in "".join(drawn.itertext())


def test_headline_names_the_best_fluent_method_or_says_that_there_is_none() -> None:
    fluent = headlines(outcomes_of(study(0.7, nll=2.0)))
    assert fluent[0].startswith("films: as fluent as people write, pez + perplexity 69.0%, then pez 50.0%")
    assert "prompt_tuning, which nobody can read, 76.0%" in fluent[0]
    assert "no search has a prompt that helps" in headlines(outcomes_of(study(0.7, nll=6.0)))[0]
    assert fluent[-1].startswith("Front of one run: pez + perplexity covers most")


def test_what_stands_first_in_the_results_by_hand() -> None:
    rows = in_short(outcomes_of(study(0.7, nll=2.0, readable=True))).rows
    assert rows[0] == ["empty", "", "50.0", "", ""]
    # of the square 0.5 x 10 a prompt at 0.69 covers 0.19 x 8
    assert rows[-1] == ["pez + perplexity", "weight 0.3", "69.0 (2.0)", "6 of 6", "0.30"]
    assert seeds_that_pass(outcomes_of(several_seeds()), "pez") == (2, 3)


def test_a_method_that_lacks_a_task_has_no_front_over_all_of_them() -> None:
    runs = study(0.7, readable=True) + [{**own, "task": "news"} for own in study(0.7, readable=True)[:-1]]
    rare = [{**record(split, "pez", measured(readable=True)), "task": "rare"} for split in range(6)]
    runs += [*rare, *(record(split, "search", measured()) for split in range(6))]
    rows = {row[0]: row for row in in_short(outcomes_of(runs)).rows}
    assert rows["search"][2:] == ["80.0 (5.0)", "", "0 of 6", ""]
    assert rows["pez + perplexity"][4] == "11 of 11"
    assert rows["pez"][4] == "0 of 12"  # those of "rare" are none of the shared tasks
    assert rows["pez"][5]


def test_intervals_are_given_where_there_is_a_spread() -> None:
    assert (
        spread_cell({("films", 0): 0.5}, 100, 1)
        == spread_cell({("films", 0): 0.5, ("films", 1): 0.5}, 100, 1)
        == "50.0"
    )
    assert spread_cell({("films", 0): 0.5, ("films", 1): 0.6}, 100, 1).startswith("55.0 (7.1; ")
    same = [record(split, "empty", measured(accuracy=0.5, nll=None)) for split in range(2)]
    for split in range(2):
        same += [record(split, name, measured(accuracy=a, nll=2.0)) for name, a in (("written", 0.7), ("search", 0.75))]
    assert "(search less that: +5.0 points, the same on every split)" in headlines(outcomes_of(same))[0]
    assert "(search less that: +5.0 points)" in headlines(outcomes_of(same[:1] + same[2:4]))[0]


def test_the_share_of_a_gain_that_moves_is_told_of_gains_of_ten_points() -> None:
    runs = [record(0, "empty", measured(accuracy=0.5, nll=None, second_accuracy=0.5))]
    runs += [record(0, "pez", measured(accuracy=0.7, second_accuracy=0.6))]
    runs += [record(0, "search", measured(accuracy=0.59, second_accuracy=0.5))]
    rows = {row[0]: row[-1] for row in transfer(outcomes_of(runs)).rows}
    assert rows == {"pez": "50%", "search": ""}


def test_what_moves_brought_is_the_mean_over_the_runs_that_tried_them() -> None:
    kinds = [
        {"steps": 4, "yield": {"edit": 0.2}, "dropped": {"judge": 0.1}},
        {"steps": 1, "yield": {"edit": 0.4, "induce": 0.0}, "dropped": {}},
    ]
    runs = [record(split, "search", measured(), details=details) for split, details in enumerate(kinds)]
    other = record(0, "search", measured(), family="the other", details={"steps": 2, "yield": {"edit": 1.0}})
    table = proposals(outcomes_of([*runs, other, record(0, "pez", measured())]))
    assert table.columns[2:] == ["search", "the other"]
    assert {row[0]: row[2:] for row in table.rows} == {
        "steps on films": ["2 (1 to 4, n 2)", "2 (2 to 2, n 1)"],
        "`edit`": ["30 (20 to 40, n 2)", "100 (100 to 100, n 1)"],
        "`induce`": ["0 (0 to 0, n 1)", ""],
        "`judge`": ["10 (10 to 10, n 1)", ""],
    }
    assert not proposals(outcomes_of([record(0, "pez", measured())])).rows


def test_calibrated_differences_are_paired_and_their_fronts_begin_at_no_prompt() -> None:
    runs = []
    for split, found in enumerate((0.7, 0.8)):
        runs.append(record(split, "empty", measured(accuracy=0.5, nll=None, batch_accuracy=0.6)))
        runs.append(record(split, "prompt_tuning", measured(accuracy=0.9, nll=None, batch_accuracy=0.8)))
        for number, (dev, loss, test) in enumerate(((0.8, 0.4, 0.9), (0.8, 0.3, 0.7), (0.7, 0.1, 0.9))):
            values = {"batch_accuracy": test, "dev_batch_accuracy": dev, "dev_loss": loss}
            runs.append(record(split, "written", measured(**values), setting=f"number {number}"))
        calibrated = {"batch_accuracy": found, "dev_batch_accuracy": 0.7}
        runs.append(record(split, "search", measured(accuracy=0.5, nll=2.0, **calibrated)))
    vectors, people, fronts = beside(outcomes_of(runs))
    assert vectors.columns == ["method", "films", "all"]
    ((_, films, every),) = vectors.rows
    assert films == every
    assert every.startswith("-5.0 (-68.5 to +58.5; n 2)")
    assert people.rows[0][1].startswith("+5.0")  # of equally good prompts on dev the one of less loss, at 0.7
    # at nll 2 of 10: 0.1 and 0.2 above no prompt's 0.6, of 0.4 that are left
    assert fronts.rows == [["search", "0.300 (0.141; -0.971 to 1.571)", "0.300"]]
    assert not beside(outcomes_of(study(0.7)))


def test_the_judge_of_the_scores_is_named() -> None:
    def note(**values: Any) -> str:
        return agreement(outcomes_of([record(0, "pez", measured(**values))])).notes

    assert "0.07 (studies/calibration)" in note()
    assert "not fitted on: smollm2 0.61" in note(judge="smollm2")


def test_what_ran_on_a_gpu_is_told_apart() -> None:
    runs = [record(split, "pez", measured(), rows={"train": 8, "dev": 8, "test": 8}) for split in range(3)]
    runs[0]["study"] = {"versions": {"torch": "2.11.0+cu130"}, "device": "NVIDIA H100"}
    assert [row[:2] for row in costs(runs).rows] == [["pez (beside a GPU)", "1"], ["pez", "2"]]
    facts = findings(Study((), ()), runs, [], 0).facts
    assert facts["On a GPU"] == "1 runs (NVIDIA H100)"
    assert facts["Versions"] == "torch 2.11.0+cu130 and 2.13.0"
    assert "On a GPU" not in findings(Study((), ()), runs[1:], [], 0).facts


def test_the_picture_names_weights_and_has_room_for_its_legend() -> None:
    outcomes = outcomes_of(study(0.6))
    (drawn,) = pictures(outcomes).values()
    assert drawn.count(">0.3</text>") == 1
    assert drawn.count('class="band"') == 1
    varied = outcomes_of([{**own, "family": own["family"] + ", unflagged"} for own in study(0.6)])
    assert pictures(varied)["films"].count('class="band"') == 0
    many = outcomes_of([*study(0.6), *(record(0, f"m{number}", measured()) for number in range(40))])
    svg = ElementTree.fromstring(to_svg(many))
    assert float(svg.attrib["viewBox"].split()[-1]) > 43 * 20


def test_headline_sets_what_people_wrote_for_the_task_beside_the_best_search() -> None:
    written = [record(split, "written", measured(accuracy=0.72, nll=2.0)) for split in range(6)]
    said = headlines(outcomes_of(study(0.7) + written))
    assert "written for the task 72.0% (pez + perplexity less that: -3.0 points" in said[0]


@pytest.mark.parametrize(
    ("config", "published_in", "options"),
    [("embedded", TRADEOFF, ["--second_model", "outputs/second_model"]), ("smollm2", TRADEOFF / "smollm2", [])],
)
def test_the_published_results_are_what_the_published_records_say(
    tmp_path: Path, config: str, published_in: Path, options: list[str]
) -> None:
    arguments = ["--config", str(TRADEOFF / f"{config}.toml"), *options]
    arguments += ["--results", str(published_in / "results.jsonl.gz"), "--output_dir", str(tmp_path)]
    assert main(arguments) == 0
    today = r"(Made|Versions): .*?(?=\n|<br>)"  # the day and the libraries that the report was written with
    for name in ("RESULTS.md", "report.html", "fronts.svg", "tradeoff.svg"):
        found, published = (re.sub(today, "", (folder / name).read_text()) for folder in (tmp_path, published_in))
        assert found == published, name
    records = read_lines(published_in / "results.jsonl.gz")
    assert sorted(read_lines(tmp_path / "results.jsonl"), key=str) == sorted(records, key=str)


def test_the_table_of_the_docs_is_a_part_of_the_published_one() -> None:
    published = (TRADEOFF / "RESULTS.md").read_text().split("## In short")[1].split("\n## ")[0].splitlines()
    lines = (TRADEOFF.parents[1] / "docs" / "studies.md").read_text().splitlines()
    start = lines.index(next(line for line in published if line.startswith("| method")))
    shown = list(takewhile(lambda line: line.startswith("|"), lines[start:]))
    assert len(shown) > 8
    assert not set(shown) - set(published)


def test_the_readme_shows_rows_of_the_published_study_on_smollm2() -> None:
    page = (TRADEOFF / "smollm2" / "RESULTS.md").read_text()
    published = page.split("## With calibrated label words")[1].split("\n## ")[0].splitlines()
    lines = (TRADEOFF.parents[1] / "README.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| method | setting |"))
    shown = list(takewhile(lambda line: line.startswith("|"), lines[start:]))
    assert len(shown) > 5
    assert not set(shown) - set(published)


def test_the_blind_ratings_make_their_page() -> None:
    rated = json.loads(RATINGS.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(rated) + "\n"
    published = delivered(read_lines(TRADEOFF / "smollm2" / "results.jsonl.gz"))
    assert {(one["text"], one["job"]): one["methods"] for one in rated} == {
        key: sorted(methods) for key, methods in published.items()
    }
    few = [
        {"text": "Good?", "job": "films", "methods": ["a"], "english": 5, "says": 4, "task": "films"},
        {"text": "x|", "job": "news", "methods": ["a", "b"], "english": 2, "says": 1, "task": "unclear"},
    ]
    assert "| a | 2 | 3.5 | 2.5 | 1 of 1 | 0 of 1 |\n| b | 1 | 2.0 | 1.0 |  | 0 of 1 |" in page(few)
    assert "| `x/` | news | a, b | 2 | 1 | unclear |" in page(few)


def test_the_docs_say_what_both_published_studies_say() -> None:
    assert both_models.tables() in both_models.PAGE.read_text(encoding="utf-8")

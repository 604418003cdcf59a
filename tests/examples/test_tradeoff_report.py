"""The report's sums, and that its verdicts depend on the results."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

TRADEOFF = Path(__file__).parents[2] / "examples" / "tradeoff"


@pytest.fixture(scope="module", autouse=True)
def on_path() -> Iterator[None]:
    sys.path.insert(0, str(TRADEOFF))
    yield
    sys.path.remove(str(TRADEOFF))


def measured(role: str = "chosen", accuracy: float = 0.8, nll: float | None = 5.0, **values: Any) -> dict[str, Any]:
    tokens = {"ids": [1] * 8, "text": " some words", "score": 0.3, "readable": False, "survives": True, "nll": nll}
    tokens |= {"nll_human": 3.0, "nll_random": 10.0, "flags": {}, "unreadable_flags": [], "repetition": 0.0}
    exact = {"cosine_distance": 0.0, "euclidean_distance": 0.0, "logit_mse": 0.0, "kl": 0.0, "loss_difference": 0.0}
    tokens |= {"nll_percentile": 10.0, "dev_accuracy": accuracy, "dev_loss": 0.5, "faithfulness": exact}
    exact["accuracy_difference"] = 0.0
    return {"role": role, "accuracy": accuracy, "loss": 0.5, **(tokens if nll is not None else {}), **values}


def record(split: int, method: str, *prompts: dict[str, Any], weight: float = 0.0, **values: Any) -> dict[str, Any]:
    family = f"{method}{' + perplexity' if weight else ''}"
    settings = {"weight": weight} if weight else {}
    place = {"task": "films", "split": split, "seed": split, "method": method, "family": family}
    about = {"values": settings, "setting": f"weight {weight}" if weight else "", "key": f"{split}-{family}"}
    costs = {"budget": 10, "evaluations": 10, "cpu_seconds": 1.0, "cpu_seconds_measuring": 1.0, "peak_bytes": 1 << 20}
    return {**place, **about, **costs, "prompts": list(prompts), "details": {"stuck": False, "frozen": False}, **values}


def study(weighted: float, nll: float = 2.0, text_loss: float = 0.2, readable: bool = False) -> list[dict[str, Any]]:
    """Six splits: no prompt, a soft prompt and its reading, PEZ, and PEZ with perplexity at accuracy `weighted`."""
    found = []
    for split in range(6):
        jitter = 0.004 * split
        reading = measured("reading", 0.75 + jitter - text_loss, 10.0)
        soft = measured("chosen", 0.75 + jitter, None, faithfulness=measured()["faithfulness"])
        found += [
            record(split, "empty", measured(accuracy=0.5, nll=None)),
            record(split, "prompt_tuning", soft, reading),
            record(split, "pez", measured(accuracy=0.8 + jitter, nll=7.0 + jitter)),
            record(split, "pez", measured(accuracy=weighted - jitter, nll=nll, readable=readable), weight=0.3),
        ]
    return found


def claims(records: list[dict[str, Any]]) -> dict[str, str]:
    outcomes = import_module("study_outcomes").outcomes_of(records)
    return {claim.statement: claim.verdict for claim in import_module("study_claims").all_claims(outcomes)}


def verdict(records: list[dict[str, Any]], start: str) -> str:
    return next(verdict for statement, verdict in claims(records).items() if statement.startswith(start))


def test_trade_off_is_confirmed_only_where_accuracy_falls() -> None:
    start = "A perplexity objective on PEZ"
    assert verdict(study(weighted=0.6), start) == "confirmed"
    assert verdict(study(weighted=0.82), start) == "partly confirmed"
    assert verdict(study(weighted=0.82, nll=7.5), start) == "not confirmed"
    assert verdict(study(weighted=0.6), "A perplexity objective on RLPrompt") == "not testable here"


def test_faithfulness_is_judged_by_text_against_vectors() -> None:
    assert verdict(study(0.6), "Soft prompts do not meet") == "confirmed"
    assert verdict(study(0.6, text_loss=0.0), "Soft prompts do not meet") == "not confirmed"


def test_perplexity_is_gamed_only_where_fluent_prompts_are_unreadable() -> None:
    assert verdict(study(0.6), "Perplexity is a flawed") == "confirmed"
    assert verdict(study(0.6, readable=True), "Perplexity is a flawed") == "not confirmed"
    assert verdict(study(0.6, nll=5.0), "Perplexity is a flawed") == "not testable here"


def test_stuck_runs_decide_about_convergence() -> None:
    records = study(0.6)
    assert verdict(records, "PEZ with a perplexity term") == "not confirmed"
    for number, own in enumerate(records[3::4][:5]):
        own["details"] = {"stuck": True, "frozen": True}
        said = verdict(records, "PEZ with a perplexity term")
        assert said == ("partly confirmed" if number < 3 else "confirmed")  # p 0.36, 0.17, 0.08, 0.03, 0.004


def test_nothing_is_said_about_too_few_runs() -> None:
    few = [own for own in study(0.6) if own["split"] < 2]
    assert set(claims(few).values()) <= {"not testable here", "confirmed"}
    assert verdict(few, "A perplexity objective on PEZ") == "not testable here"
    assert verdict(few, "Soft prompts do not meet") == "not testable here"


def test_hypervolume_and_human_level_by_hand() -> None:
    module = import_module("study_outcomes")
    prompts = [measured(accuracy=0.75, nll=5.0), measured("front", 0.6, 2.5), measured("front", 0.55, 8.0)]
    outcomes = module.outcomes_of([record(0, "empty", measured(accuracy=0.5, nll=None)), record(0, "pez", *prompts)])
    # of the square 0.5 x 10: 0.25 x 5 under the first prompt, and 0.1 x 2.5 more under the second
    expected = (0.25 * 5 + 0.1 * 2.5) / (0.5 * 10)
    unit = ("films", 0)
    assert module.volumes(outcomes, "pez", per_run=True) == pytest.approx({unit: expected})
    assert module.at_human_level(outcomes, "pez") == {unit: 0.6}
    unread = module.outcomes_of([record(0, "empty", measured(accuracy=0.5, nll=None)), record(0, "pez", prompts[0])])
    assert module.at_human_level(unread, "pez") == {unit: 0.5}  # none is fluent enough: no prompt is left


def test_human_level_is_chosen_on_dev_not_on_test() -> None:
    module = import_module("study_outcomes")
    lucky = measured("front", 0.9, 2.0, dev_accuracy=0.5)
    solid = measured("chosen", 0.7, 2.0, dev_accuracy=0.8)
    outcomes = module.outcomes_of([record(0, "pez", solid, lucky)])
    assert module.at_human_level(outcomes, "pez") == {("films", 0): 0.7}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"flags": {"blank": "..."}}, "special tokens"),
        ({"flags": {"repetition": "...", "label_leak": "..."}}, "repetition"),
        ({"flags": {"boilerplate": "..."}}, "boilerplate"),
        ({"flags": {"label_leak": "..."}, "readable": True}, "label leakage"),
        ({}, "word salad"),
        ({"readable": True, "accuracy": 0.51}, "fluent but ignored"),
        ({"readable": True}, "readable and at work"),
        ({"text": ""}, None),
    ],
)
def test_patterns(values: dict[str, Any], expected: str | None) -> None:
    outcomes = import_module("study_outcomes").outcomes_of([record(0, "pez", measured(**values))])
    found = import_module("prompt_patterns").pattern(outcomes[0], {("films", 0): 0.5})
    assert found == expected


def test_statistics_by_hand() -> None:
    module = import_module("study_statistics")
    found = module.spread([1.0, 2.0, 3.0])
    assert (found.n, found.mean, found.sd) == (3, 2.0, 1.0)
    assert (found.low, found.high) == pytest.approx((2.0 - 4.30265 / 3**0.5, 2.0 + 4.30265 / 3**0.5), abs=1e-4)
    assert module.spread([5.0, 5.0]).low == 5.0
    assert math.isnan(module.spread([4.0]).sd)
    with pytest.raises(ValueError, match="no values"):
        module.spread([])
    compared = module.paired({"a": 1.0, "b": 3.0, "c": 9.0}, {"a": 0.0, "b": 1.0, "x": 5.0})
    assert (compared.n, compared.difference) == (2, 1.5)
    assert module.paired({"a": 1.0}, {"b": 1.0}) is None
    same = module.paired({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0})
    assert (same.t_test, same.wilcoxon) == (1.0, 1.0)
    # scipy.stats.f_oneway of these is F = 13.5: mean squares 1 within and 13.5 between, of 3 values each
    within, between = module.spread_parts([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert (within, between) == (pytest.approx(1.0), pytest.approx(((13.5 - 1) / 3) ** 0.5))
    assert module.spread_parts([[1.0, 3.0], [1.0, 3.0]])[1] == 0
    with pytest.raises(ValueError, match=r"groups of \[2, 1\] values"):
        module.spread_parts([[1.0, 2.0], [3.0]])
    assert module.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert module.rank_correlation([1, 2, 3, 4], [1, 4, 9, 16]) == (pytest.approx(1.0), 4)
    assert math.isnan(module.rank_correlation([1, 2, 3], [5, 5, 5])[0])


def test_front_line_steps_up_as_less_fluent_prompts_join() -> None:
    module = import_module("study_outcomes")
    prompts = [measured(accuracy=0.8, nll=6.0), measured("front", 0.6, 2.0)]
    outcomes = module.outcomes_of([record(0, "empty", measured(accuracy=0.5, nll=None)), record(0, "pez", *prompts)])
    line = import_module("tradeoff_figure").front_line(outcomes, "pez")
    assert [(nll, accuracy.mean) for nll, accuracy in line] == [(2.0, 0.6), (6.0, 0.8)]


def test_front_line_has_the_interval_over_splits_and_not_over_seeds() -> None:
    module = import_module("study_outcomes")
    runs = [record(split, "empty", measured(accuracy=0.5, nll=None)) for split in (0, 1)]
    for split, seed, accuracy in ((0, 0, 0.6), (0, 5, 0.8), (1, 1, 0.8), (1, 6, 0.8)):
        runs.append(record(split, "pez", measured(accuracy=accuracy, nll=2.0), seed=seed))
    ((nll, found),) = import_module("tradeoff_figure").front_line(module.outcomes_of(runs), "pez")
    assert nll == 2.0
    assert (found.n, found.mean) == (2, pytest.approx(0.75))
    assert found.low == pytest.approx(0.75 - 12.7062 * 0.05, abs=1e-4)  # t of one degree of freedom times the error


def several_seeds() -> list[dict[str, Any]]:
    """Split 0 with two seeds of PEZ, one good and fluent, one bad; split 1 with one good seed."""
    runs = [record(split, "empty", measured(accuracy=0.5, nll=None)) for split in (0, 1)]
    for split, seed, accuracy, nll in ((0, 0, 0.8, 2.0), (0, 5, 0.6, 8.0), (1, 1, 0.8, 2.0)):
        own = record(split, "pez", measured(accuracy=accuracy, nll=nll), seed=seed, key=f"{split}-{seed}")
        runs.append({**own, "details": {"stuck": seed == 5, "frozen": False}})
    return runs


def test_every_split_weighs_the_same_however_many_seeds_it_has() -> None:
    module, tables = import_module("study_outcomes"), import_module("study_tables")
    outcomes = module.outcomes_of(several_seeds())
    pez = module.select(outcomes, method="pez")
    assert module.by_unit(pez, lambda o: o.accuracy) == pytest.approx({("films", 0): 0.7, ("films", 1): 0.8})
    assert module.over_units(pez, lambda o: o.accuracy) == pytest.approx(0.75)
    assert module.over_units([], lambda o: o.accuracy) is None
    # a bad seed has no fluent prompt, so that none is left of it; a good one of the same split does not stand in
    assert module.at_human_level(outcomes, "pez") == pytest.approx({("films", 0): 0.65, ("films", 1): 0.8})
    good, bad = 0.3 * 8 / (0.5 * 10), 0.1 * 2 / (0.5 * 10)
    for per_run in (True, False):
        volumes = module.volumes(outcomes, "pez", per_run=per_run)
        assert volumes == pytest.approx({("films", 0): (good + bad) / 2, ("films", 1): good})
    assert tables.stuck(outcomes).rows == [["empty", "", "2", "0", "0", "100"], ["pez", "", "3", "25", "0", "0"]]


def test_seeds_and_splits_are_told_apart() -> None:
    module, tables = import_module("study_outcomes"), import_module("study_tables")
    assert tables.seeds(module.outcomes_of(several_seeds())).rows == []  # one split has one seed
    more = record(1, "pez", measured(accuracy=0.6, nll=2.0), seed=6)
    row = tables.seeds(module.outcomes_of([*several_seeds(), more])).rows[0]
    assert row == ["films: pez", "", "4", "60.0", "80.0", "14.1", "0.0"]


def test_no_prompt_breaks_the_page_or_the_tables(tmp_path: Path) -> None:
    config, report = import_module("study_config"), import_module("study_report")
    hostile = "</svg><script>alert(1)</script> | a \x0b `b` \n# c"
    rows = {"train": 32, "dev": 32, "test": 10}
    records = [{**own, "rows": rows} for own in study(0.6)]
    for number in (2, 22):  # the figure names the first of a setting, the list of prompts the best
        records[number]["prompts"][0]["text"] = hostile
    own = config.TaskSettings(name="films", template="{prompt} {text} It was", label_words=("bad", "good"))
    report.write_report(tmp_path, config.Study(tasks=(own,), settings=()), records, [{"error": "<b>no</b>"}], 3)
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
    module, headlines = import_module("study_outcomes"), import_module("study_headlines").headlines
    fluent = headlines(module.outcomes_of(study(0.7, nll=2.0)))
    assert fluent[0].startswith("films: as fluent as people write, pez + perplexity 69.0%, then pez 50.0%")
    assert "prompt_tuning, which nobody can read, 76.0%" in fluent[0]
    assert "no search has a prompt that helps" in headlines(module.outcomes_of(study(0.7, nll=6.0)))[0]
    assert fluent[-1].startswith("Front of one run: pez + perplexity covers most")


def rlprompt_runs(budget: int, nll: float) -> list[dict[str, Any]]:
    """Six splits of RLPrompt, plain and with perplexity at log-perplexity `nll`, both at one budget."""
    found = []
    for split in range(6):
        jitter = 0.3 * (-1) ** split
        found += [
            record(split, "empty", measured(accuracy=0.5, nll=None)),
            record(split, "rlprompt", measured(nll=7.0), budget=budget),
            record(split, "rlprompt", measured(nll=nll + jitter), weight=0.3, budget=budget),
        ]
    return found


def test_rlprompt_is_judged_by_the_largest_budget_that_has_runs_to_compare() -> None:
    start = "A perplexity objective on RLPrompt"
    small, large = rlprompt_runs(10, nll=7.0), rlprompt_runs(50, nll=3.0)
    assert verdict(small, start) == "not confirmed"
    assert verdict(small + large, start) == "partly confirmed"
    plain = [one for one in large if one["method"] == "rlprompt" and not one["values"]]
    assert verdict(small + plain, start) == "not confirmed"


def test_nothing_is_said_of_rlprompt_where_it_learned_nothing() -> None:
    empty = [record(split, "empty", measured(accuracy=0.79, nll=None)) for split in range(6)]
    for start in ("A perplexity objective on RLPrompt", "With a perplexity reward"):
        assert verdict(rlprompt_runs(10, nll=3.0), start) != "not testable here"
        runs = [one for one in rlprompt_runs(10, nll=3.0) if one["method"] == "rlprompt"]
        assert verdict(runs + empty, start) == "not testable here"


def test_hypervolume_counts_what_dev_chooses() -> None:
    module = import_module("study_outcomes")
    lucky = measured("front", 0.9, 2.0, dev_accuracy=0.5)
    prompts = [measured("chosen", 0.75, 4.0, dev_accuracy=0.8), lucky, measured("front", 0.6, 6.0, dev_accuracy=0.7)]
    empty = record(0, "empty", measured(accuracy=0.5, nll=None))
    outcomes = module.outcomes_of([empty, record(0, "pez", *prompts)])
    # 0.4 from 2 to 4 nats, where only the first is as fluent; then 0.25, since dev prefers the second to all others
    expected = (0.4 * 2 + 0.25 * 6) / (0.5 * 10)
    assert module.volumes(outcomes, "pez", per_run=True) == pytest.approx({("films", 0): expected})


def test_headline_sets_what_people_wrote_for_the_task_beside_the_best_search() -> None:
    written = [record(split, "written", measured(accuracy=0.72, nll=2.0)) for split in range(6)]
    said = import_module("study_headlines").headlines(import_module("study_outcomes").outcomes_of(study(0.7) + written))
    assert "written for the task 72.0% (pez + perplexity less that: -3.0 points" in said[0]


def test_the_published_results_are_what_the_published_records_say(tmp_path: Path) -> None:
    arguments = ["--config", str(TRADEOFF / "embedded.toml"), "--second_model", "outputs/second_model"]
    arguments += ["--results", str(TRADEOFF / "results.jsonl.gz"), "--output_dir", str(tmp_path)]
    assert import_module("run_tradeoff").main(arguments) == 0
    made = ("- Made: ", "- Versions: ")
    found, published = (
        [line for line in (folder / "RESULTS.md").read_text().splitlines() if not line.startswith(made)]
        for folder in (tmp_path, TRADEOFF)
    )
    assert found == published
    assert (tmp_path / "fronts.svg").read_text() == (TRADEOFF / "fronts.svg").read_text()

"""The study's verdicts depend on its results."""

from __future__ import annotations

from typing import Any

from tradeoff_records import measured, record, rlprompt_runs, study

from studies.tradeoff.claims import all_claims
from studies.tradeoff.outcomes import outcomes_of


def claims(records: list[dict[str, Any]]) -> list[Any]:
    outcomes = outcomes_of(records)
    found: list[Any] = all_claims(outcomes)
    return found


def verdict(records: list[dict[str, Any]], start: str) -> str:
    return next(claim.verdict for claim in claims(records) if claim.statement.startswith(start))


def evidence(records: list[dict[str, Any]], start: str) -> str:
    return "\n".join(next(claim.evidence for claim in claims(records) if claim.statement.startswith(start)))


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
    assert {claim.verdict for claim in claims(few)} <= {"not testable here", "confirmed"}
    assert verdict(few, "A perplexity objective on PEZ") == "not testable here"
    assert verdict(few, "Soft prompts do not meet") == "not testable here"


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


def test_pez_is_judged_only_on_tasks_where_it_learned_something() -> None:
    hard = [{**own, "task": "hard"} for own in study(weighted=0.75, nll=2.0)]
    for own in hard:
        if own["method"] == "pez":  # plain runs end where no prompt is, those with the term above
            own["prompts"][0]["accuracy"] = 0.7 if own["values"] else 0.505
            own["details"] = {"stuck": bool(own["values"]), "frozen": False}
    start = "A perplexity objective on PEZ"
    assert verdict(hard, start) == "not testable here"
    assert verdict(hard, "PEZ with a perplexity term") == "not testable here"
    both = study(weighted=0.75) + hard
    assert verdict(both, start) == "confirmed"
    assert verdict(both, "PEZ with a perplexity term") == "not confirmed"
    left_out, costs = evidence(both, start).splitlines()
    assert left_out.startswith("Left out: hard (plain runs gain less")
    assert "; with hard +" in costs


def test_a_variant_is_set_beside_its_own_plain_runs() -> None:
    runs = study(weighted=0.82)
    for split in range(6):
        low, name = 0.9 + 0.004 * split, ", whole vocabulary"
        runs.append(record(split, "pez", measured(accuracy=low, nll=7.0 + 0.1 * split), family=f"pez{name}"))
        beside = record(split, "pez", measured(accuracy=0.82 - 0.004 * split, nll=2.0), weight=0.3)
        runs.append({**beside, "family": f"pez + perplexity{name}"})
    main, varied = evidence(runs, "A perplexity objective on PEZ").splitlines()
    assert "pez + perplexity, weight 0.3: log-perplexity -5.01 nats" in main
    assert "accuracy -0.0 points" in main
    assert "pez + perplexity, whole vocabulary, weight 0.3" in varied
    assert "accuracy -10.0 points" in varied


def test_runs_that_never_choose_flagged_prompts_have_no_part_in_the_claims() -> None:
    start = "A perplexity objective on PEZ"
    runs = [record(split, "pez", measured(accuracy=0.5 + 0.01 * split, nll=2.0), weight=1.0) for split in range(6)]
    assert verdict(study(0.82) + runs, start) == "confirmed"
    for own in runs:
        own["values"]["unflagged"] = True
    assert verdict(study(0.82) + runs, start) == "partly confirmed"


def test_a_task_is_left_out_for_the_reason_that_it_has() -> None:
    start = "A perplexity objective on PEZ"
    without = [own for own in study(0.6) if own["method"] != "empty"]
    assert evidence(without, start) == "Left out: films (no run without a prompt)."
    dearer = [{**own, "budget": 50 if own["values"] else 10} for own in study(0.6)]
    assert evidence(dearer, start) == "Left out: films (no runs with and without the objective at one budget)."
    targets = study(0.6)
    for own in targets[3::4]:
        own["values"], own["details"] = {"target_percentile": 50.0}, {"stuck": True}
    assert verdict(targets, "PEZ with a perplexity term") == "confirmed"
    assert "a target: 6 of 6" in evidence(targets, "PEZ with a perplexity term")
    plain = [own for own in study(0.5) if not own["values"]] + study(0.5)[3::4][:5]
    assert "within 2 points of no prompt end 5 of 5 with the term and 0 of 6" in evidence(plain, "PEZ with a")


def test_discrete_prompts_are_judged_variant_by_variant() -> None:
    start, runs = "Discrete prompts are faithful", study(0.6)
    assert verdict(runs, start) == "confirmed"
    lost = [record(split, "pez", measured(survives=False), family="pez, whole") for split in range(6)]
    assert verdict(runs + lost, start) == "partly confirmed"
    assert "pez, whole: 6 of 6 texts come back as other tokens" in evidence(runs + lost, start)
    assert "2 of 3 methods and variants are exact throughout (12 prompts)" in evidence(runs + lost, start)


def test_what_makes_fluent_prompts_unreadable_is_counted() -> None:
    runs = study(0.6)
    for own in runs[3::4][:4]:
        own["prompts"][0] |= {"flags": {"repetition": "..."}, "unreadable_flags": ["repetition"]}
    runs[-1]["prompts"][0]["readable"] = True
    written = measured(nll=2.0, text=" a question", unreadable_flags=["blank"])
    said = evidence([*runs, record(0, "written", written), record(1, "written", written)], "Perplexity is a flawed")
    assert "Of those as likely, 5 (83%) are unreadable" in said
    assert "What makes them so: repetition 4, word salad 1." in said
    assert "Of the 1 different human-written prompts in these runs 1 carry such a flag." in said


def test_rlprompt_runs_say_how_long_they_were() -> None:
    runs = rlprompt_runs(50, nll=3.0)
    for own in runs:
        own["details"] = {"steps": 140}
    said = evidence(runs, "A perplexity objective on RLPrompt")
    assert "140 to 140 of the published 12,000 steps" in said

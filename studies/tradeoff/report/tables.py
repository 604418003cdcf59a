"""Every table of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from peft_interp.metrics.readability_judge import load_fit
from peft_interp.metrics.results import TASK_MODEL
from studies.tradeoff.outcomes import (
    EMPTY,
    READING,
    Outcome,
    at_human_level,
    by_unit,
    families,
    groups,
    judged,
    no_prompt,
    one_run_front,
    over_units,
    seeds_that_pass,
    select,
    shared_tasks,
    volumes,
)
from studies.tradeoff.patterns import GOOD, NAMES, is_ignored, pattern
from studies.tradeoff.report.calibration import beside, calibrated, ways
from studies.tradeoff.report.table import Table, percent, spread_cell
from studies.tradeoff.statistics import rank_correlation, spread_parts


def all_tables(outcomes: Sequence[Outcome], records: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Those that have rows."""
    tables = [
        in_short(outcomes),
        accuracies(outcomes),
        calibrated(outcomes),
        *beside(outcomes),
        ways(outcomes),
        perplexities(outcomes),
        fronts(outcomes),
        seeds(outcomes),
        faithfulness(outcomes),
    ]
    tables += [patterns(outcomes), stuck(outcomes), proposals(outcomes)]
    tables += [transfer(outcomes), agreement(outcomes), costs(records)]
    return [table for table in tables if table.rows]


def in_short(outcomes: Sequence[Outcome]) -> Table:
    """What a reader wants to see first, of every setting."""
    tasks = shared_tasks(outcomes)
    notes = (
        "Test accuracy, %, and after it log-perplexity, nats per token, mean over splits. Readable and at work: runs "
        f"on {', '.join(tasks)} whose prompt passes the calibrated score, carries no flag and changes accuracy by more "
        "than 2 points. Front of one run: hypervolume, 0 to 1, as under Fronts, mean over the same tasks."
    )
    empty, rows = no_prompt(outcomes), []
    for (family, setting), own in groups(outcomes, lambda o: (o.family, o.setting)).items():
        chosen, cells = judged(own), []
        for here in (select(chosen, task=task) for task in tasks):
            accuracy, nll = over_units(here, lambda o: o.accuracy), over_units(here, lambda o: o.number("nll"))
            beside = "" if nll is None else f" ({nll:.1f})"
            cells.append("" if accuracy is None else f"{100 * accuracy:.1f}{beside}")
        texts = [o for o in select(chosen, task=tuple(tasks)) if o.text]
        good = sum(pattern(o, empty) == GOOD for o in texts)
        cells.append(f"{good} of {len(texts)}" if texts and all(o.unit in empty for o in texts) else "")
        covered = one_run_front(outcomes, family, tasks, setting)
        rows.append([family, setting, *cells, "" if covered is None else f"{covered:.2f}"])
    return Table("In short", notes, ["method", "setting", *tasks, GOOD, "front of one run"], rows)


def accuracies(outcomes: Sequence[Outcome]) -> Table:
    """By setting and task."""
    notes = (
        "Test accuracy, %: mean over splits (sample standard deviation; 95% interval of the mean, Student's t); "
        "several seeds of a split are averaged first. The interval is that of other splits and seeds on the same test "
        "rows; none is given of one split, or where all splits are the same. Other rows would move all methods by "
        "some 4 points for 500 rows, mostly together: differences of 1 to 3 points are within what other rows could "
        "change."
    )
    return _by_task("Accuracy", notes, outcomes, lambda o: o.accuracy, 100, 1)


def perplexities(outcomes: Sequence[Outcome]) -> Table:
    """By setting and task."""
    notes = (
        "Log-perplexity of the prompt under the task's model, nats per token of tokens 2 to L, lower is more fluent; "
        "numbers as above. Vectors have none. Prompts of other lengths are not quite comparable."
    )
    return _by_task("Log-perplexity", notes, outcomes, lambda o: o.number("nll"), 1, 2)


def _by_task(title: str, notes: str, outcomes: Sequence[Outcome], value: Any, scale: float, digits: int) -> Table:
    tasks, rows = list(groups(outcomes, lambda o: o.task)), []
    for (family, setting), own in groups(judged(outcomes), lambda o: (o.family, o.setting)).items():
        found = {}
        for task in tasks:
            values = by_unit(select(own, task=task), value)
            if values:
                found[task] = spread_cell(values, scale, digits)
        if found:
            rows.append([family, setting, *(found.get(task, "") for task in tasks)])
    return Table(title, notes, ["method", "setting", *tasks], rows)


def fronts(outcomes: Sequence[Outcome]) -> Table:
    """Hypervolume, and accuracy at human perplexity."""
    notes = (
        "Hypervolume: share of the square between (accuracy without a prompt, log-perplexity of random tokens) and "
        "(100%, 0) that prompts cover, 0 to 1. One run: its own front, at one budget. All runs: the prompts of every "
        "setting of one seed together, at as many budgets. At human level: test accuracy, %, of the prompt that is "
        "best on dev among those no less fluent than the median human-written prompt of its length (no prompt where "
        "there is none; in how many seeds there is one stands after it). "
        "Mean over splits (sample standard deviation; 95% interval of the mean, Student's t)."
    )
    rows = []
    for task, here in groups(outcomes, lambda o: o.task).items():
        for family in families(o for o in here if o.number("nll") is not None):
            runs = len({o.setting for o in select(here, family=family)})
            one, every = volumes(here, family, per_run=True), volumes(here, family, per_run=False)
            human = at_human_level(here, family)
            cells = [spread_cell(one, 1, 3), spread_cell(every, 1, 3) if runs > 1 else "", spread_cell(human, 100, 1)]
            reached = "{} of {}".format(*seeds_that_pass(here, family))
            rows.append([f"{task}: {family}", str(runs), *cells, reached])
    columns = ["task and method", "settings", "one run", "all runs", "at human level", "seeds that reach it"]
    return Table("Fronts", notes, columns, rows)


def seeds(outcomes: Sequence[Outcome]) -> Table:
    """Where the spread comes from, of settings that were run with several seeds on each split."""
    notes = (
        "Test accuracy, %, of settings that were run with several seeds on every split: the worst and the best run; "
        "standard deviation over seeds on one split, and over splits with the seeds' part taken out (analysis of "
        "variance with random effects)."
    )
    rows = []
    places = groups(judged(outcomes), lambda o: (o.task, o.family, o.setting))
    for (task, family, setting), own in places.items():
        values = [[100 * o.accuracy for o in split] for split in groups(own, lambda o: o.unit).values()]
        if len(values) < 2 or min(map(len, values)) < 2:
            continue
        numbers = [min(map(min, values)), max(map(max, values)), *spread_parts(values)]
        rows.append([f"{task}: {family}", setting, str(len(own)), *(f"{number:.1f}" for number in numbers)])
    columns = ["task and method", "setting", "runs", "worst run", "best run", "sd, seeds", "sd, splits"]
    return Table("Seeds and splits", notes, columns, rows)


def faithfulness(outcomes: Sequence[Outcome]) -> Table:
    """The three differentials and what goes with them, mean over tasks and splits."""
    notes = (
        f"{averaged(outcomes)} Distance: cosine to the nearest token, and euclidean. "
        "Output: mean squared difference of logits at the answers. Performance: difference of the losses, nats, and of "
        "the accuracies, points (text less prompt). KL in nats. Survives: share of texts whose tokens come back from "
        "decode -> encode."
    )
    names = ("cosine_distance", "euclidean_distance", "logit_mse", "loss_difference", "accuracy_difference", "kl")
    rows, exact, readings = [], [], select(outcomes, role="reading", task=tuple(shared_tasks(outcomes)))
    for family, own in compared(select(outcomes, role="chosen"), outcomes).items():
        known = [o for o in own if o.measured.get("faithfulness")]
        if not known:
            if any("faithfulness" in o.measured for o in own):
                rows.append([family, *["not defined"] * len(names), "no text"])
            continue
        averages = each(known, names, lambda o, name: o.measured["faithfulness"][name])
        texts = [o for o in own if o.text] or select(readings, family=own[0].family + READING)
        survived = over_units(texts, lambda o: float(bool(o.measured["survives"])))
        if survived == 1 and all(not average for average in averages):
            exact.append(family)
            continue
        cells = ["" if average is None else f"{average + 0.0:.3f}" for average in averages]
        if (change := averages[names.index("accuracy_difference")]) is not None:
            cells[names.index("accuracy_difference")] = f"{-100 * change + 0.0:.1f}"
        rows.append([family, *cells, percent(survived)])
    if exact:
        rows.append([f"prompts of tokens: {', '.join(exact)}", *["0"] * len(names), "100"])
    columns = [
        "method",
        "distance, cosine",
        "euclidean",
        "output",
        "performance, loss",
        "accuracy, points",
        "KL",
        "survives, %",
    ]
    return Table("Faithfulness", notes, columns, rows)


def patterns(outcomes: Sequence[Outcome]) -> Table:
    """What the prompts are."""
    notes = (
        f"Share of the prompts of a method, %, over all settings. {averaged(outcomes)} Different: how many different "
        "texts they are. The first that applies counts, from left to right. Word salad: no flag, but below the "
        "calibrated score's threshold. Ignored: readable, and accuracy within 2 points of no prompt's. Readable says "
        "that a person can read the text, not that it names the task. Methods that pick tokens may not pick special "
        "ones, and pieces of characters and label words only with the whole vocabulary: other zeros there are by "
        "construction. So are those of the flags in rows of the search, and of the unflagged but where a run saw none."
        + (" Label words are no leak where a method may name them." if any(o.names_labels for o in outcomes) else "")
    )
    empty, rows = no_prompt(outcomes), []
    for family, own in compared(judged(outcomes), outcomes).items():
        known = [o for o in own if o.text]
        if known:
            shares = each(known, NAMES, lambda o, name: float(pattern(o, empty) == name))
            rows.append([family, str(len(known)), str(len({o.text for o in known})), *map(percent, shares)])
    return Table("What the prompts are", notes, ["method", "prompts", "different", *NAMES], rows)


def stuck(outcomes: Sequence[Outcome]) -> Table:
    """Runs that got nowhere."""
    notes = (
        f"Share of runs, %. {averaged(outcomes)} Stuck: nothing that the run scored answers more dev "
        "rows than where it started. Frozen: the chosen prompt is where it started. No effect: test accuracy within 2 "
        "points of no prompt's."
    )
    empty, rows = no_prompt(outcomes), []
    runs = [o for o in select(outcomes, role="chosen") if "stuck" in o.details]
    for family, of_family in compared(runs, outcomes).items():
        for setting, own in groups(of_family, lambda o: o.setting).items():
            shares = each(own, ("stuck", "frozen"), lambda o, name: float(o.details.get(name, False)))
            shares.append(over_units(own, lambda o: float(is_ignored(o, empty))))
            rows.append([family, setting, str(len(own)), *map(percent, shares)])
    return Table("Runs that got nowhere", notes, ["method", "setting", "runs", "stuck", "frozen", "no effect"], rows)


def proposals(outcomes: Sequence[Outcome]) -> Table:
    """What each move of a search brought, and what its constraints kept out; empty for records without it."""
    notes = (
        "Steps that the budget paid for. Of the prompts that each move proposed and that were scored, the share that "
        "got into the population (32 prompts; the first steps fill it); of all proposals, the share that each "
        "constraint dropped before they were scored. Mean over runs (lowest to highest of a run, n runs). "
        "docs/search.md says what the moves do."
    )
    of_search = groups([o for o in select(outcomes, role="chosen") if "yield" in o.details], lambda o: o.family)
    runs = [o for own in of_search.values() for o in own]
    rows = []
    for task in groups(runs, lambda o: o.task):
        counts = [[float(o.details["steps"]) for o in select(own, task=task)] for own in of_search.values()]
        rows.append([f"steps on {task}", "", *(_mean_and_ends(found) for found in counts)])
    for kind, words in (("yield", "of its prompts in the population, %"), ("dropped", "dropped, %")):
        for name in dict.fromkeys(name for o in runs for name in o.details.get(kind, ())):
            shares = [
                [100 * o.details[kind][name] for o in own if name in o.details.get(kind, ())]
                for own in of_search.values()
            ]
            rows.append([f"`{name}`", words, *(_mean_and_ends(found) for found in shares)])
    return Table("What the search proposed", notes, ["steps, move or constraint", "share", *of_search], rows)


def _mean_and_ends(found: Sequence[float]) -> str:
    return f"{mean(found):.0f} ({min(found):.0f} to {max(found):.0f}, n {len(found)})" if found else ""


def transfer(outcomes: Sequence[Outcome]) -> Table:
    """The text on a second model."""
    notes = (
        "Test accuracy, %, of the same text on the task's model and on the second model; gain over no prompt, points, "
        f"on each; share of the gain that moves along, of gains of 10 points or more. {averaged(outcomes)}"
    )
    empty = {model: by_unit(select(outcomes, method=EMPTY), value) for model, value in _MODELS.items()}
    rows = []
    for family, own in compared(judged(outcomes), outcomes).items():
        known = [o for o in own if o.number("second_accuracy") is not None and o.unit in empty["first"]]
        if not known or own[0].method == EMPTY:
            continue
        means = {model: over_units(known, value) or 0.0 for model, value in _MODELS.items()}
        nothing = {model: mean(empty[model][unit] for unit in groups(known, lambda o: o.unit)) for model in _MODELS}
        gains = {model: means[model] - nothing[model] for model in _MODELS}
        share = f"{gains['second'] / gains['first']:.0%}" if gains["first"] >= 0.1 else ""
        cells = [f"{100 * number:.1f}" for number in (means["first"], means["second"])]
        rows.append([family, str(len(known)), *cells, *(f"{100 * gains[m]:+.1f}" for m in _MODELS), share])
    columns = ["method", "prompts", "own model", "second model", "gain, own", "gain, second", "share kept"]
    return Table("Transfer to a second model", notes, columns, rows)


_MODELS = {"first": lambda o: o.accuracy, "second": lambda o: o.number("second_accuracy")}


def agreement(outcomes: Sequence[Outcome]) -> Table:
    """Which measures rank prompts as the calibrated score does."""
    notes = (
        "Spearman's rank correlation, over all prompts of tokens (fronts included), of each measure, turned so that "
        f"higher should be better, with the calibrated scrutability score and with test accuracy. {_of_score(outcomes)}"
    )
    known = [o for o in outcomes if o.number("score") is not None]
    score, accuracy = [o.number("score") or 0.0 for o in known], [o.accuracy for o in known]
    measures: dict[str, list[float]] = {
        "log-perplexity": [-(o.number("nll") or 0.0) for o in known],
        "percentile among human prompts": [o.number("nll_percentile") or 0.0 for o in known],
        "repetition": [-(o.number("repetition") or 0.0) for o in known],
        "no unreadable flag": [float(not o.measured["unreadable_flags"]) for o in known],
        "readable (score and flags)": [float(o.measured["readable"]) for o in known],
        "test accuracy": accuracy,
    }
    rows = []
    for name, values in measures.items():
        found = [rank_correlation(values, other)[0] for other in (score, accuracy)]
        rows.append(
            [name, str(len(known)), *(f"{number:.2f}" if number == number else "never varies" for number in found)]
        )
    columns = ["measure", "prompts", "with the calibrated score", "with test accuracy"]
    return Table("Agreement of the measures", notes, columns, rows if known else [])


def _of_score(outcomes: Sequence[Outcome]) -> str:
    """What the readability score is made of, and how far it agrees with people."""
    judges = {str(o.measured.get("judge", TASK_MODEL)) for o in outcomes if o.number("score") is not None}
    if judges == {TASK_MODEL}:
        return (
            "The score is itself made of log-perplexity, words and repetition, so agreement with those is built in. It "
            "tells text from word salad, and nothing finer: under the embedded model its rank correlation with human "
            "ratings of acceptability is 0.07 (studies/calibration)."
        )
    agreement = {name: load_fit(name).figures["acceptability_spearman"][0] for name in sorted(judges)}
    figures = ", ".join(f"{name} {figure:.2f}" for name, figure in agreement.items())
    return (
        "The score is that of a judge, a language model apart from what is judged, made of its likelihood, a probe of "
        "grammar and repeats, so agreement with those is built in. Its rank correlation with human ratings of "
        f"acceptability, on texts that it was not fitted on: {figures} (docs/metrics.md)."
    )


def costs(records: Sequence[Mapping[str, Any]]) -> Table:
    """What a run took."""
    notes = (
        "Mean of the runs. Evaluations: prompt-example pairs run forward, a training step on B rows counting 3 B. "
        "Seconds of processor time of the search alone; the measurement comes on top. Memory is the largest of a whole "
        "process, which does many runs one after another and keeps the models it measures with."
    )
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        on_gpu = record["study"].get("device", "cpu") != "cpu"
        found.setdefault(f"{record['family']} (beside a GPU)" if on_gpu else record["family"], []).append(record)
    rows = []
    for family, own in found.items():
        used, seconds, after = (_average(own, name) for name in ("evaluations", "cpu_seconds", "cpu_seconds_measuring"))
        peak = max(record["peak_bytes"] for record in own) / 2**20
        rate = f"{used / seconds:.0f}" if used else ""
        rows.append([family, str(len(own)), f"{used:.0f}", f"{seconds:.1f}", rate, f"{after:.1f}", f"{peak:.0f}"])
    columns = ["method", "runs", "evaluations", "seconds", "evaluations/s", "seconds to measure", "peak MiB"]
    return Table("What a run costs", notes, columns, rows)


def _average(records: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(float(record[name]) for record in records) / len(records)


def averaged(outcomes: Sequence[Outcome]) -> str:
    """What an average over tasks is made of, in words."""
    return (
        f"Mean over {', '.join(shared_tasks(outcomes))}, the tasks that most methods were run on, each split weighing "
        "the same; a method that was run on fewer says on which."
    )


def compared(outcomes: Sequence[Outcome], of: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes on the tasks that most families share, by family; those that lack some of them say which they have."""
    tasks, found = shared_tasks(of), {}
    for family, own in groups(select(outcomes, task=tuple(tasks)), lambda o: o.family).items():
        ran = [task for task in tasks if select(own, task=task)]
        found[family if ran == tasks else f"{family} ({', '.join(ran)})"] = own
    return found


def each(
    outcomes: Sequence[Outcome], names: Sequence[str], value: Callable[[Outcome, str], float | None]
) -> list[float | None]:
    """Mean over tasks and splits of a value under each of several names."""

    def mean_of(name: str) -> float | None:
        return over_units(outcomes, lambda o: value(o, name))

    return [mean_of(name) for name in names]

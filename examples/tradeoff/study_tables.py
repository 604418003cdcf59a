"""Every table of the report, as plain titles, notes and cells that Markdown and HTML are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prompt_patterns import NAMES, is_ignored, pattern
from study_outcomes import (
    EMPTY,
    READING,
    Outcome,
    Unit,
    at_human_level,
    by_unit,
    families,
    groups,
    judged,
    no_prompt,
    select,
    volumes,
)
from study_statistics import Spread, rank_correlation, spread

Cells = list[str]


@dataclass(frozen=True)
class Table:
    """A table. `notes` says what the columns are."""

    title: str
    notes: str
    columns: Cells
    rows: list[Cells]


def all_tables(outcomes: Sequence[Outcome], records: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Those that have rows."""
    tables = [accuracies(outcomes), perplexities(outcomes), fronts(outcomes), faithfulness(outcomes)]
    tables += [patterns(outcomes), stuck(outcomes), transfer(outcomes), agreement(outcomes), costs(records)]
    return [table for table in tables if table.rows]


def accuracies(outcomes: Sequence[Outcome]) -> Table:
    """By setting and task."""
    notes = (
        "Test accuracy, %: mean over splits (sample standard deviation; 95% interval of the mean, "
        "Student's t). The interval is that of other splits and seeds on the same test rows; other rows would move all "
        "methods together, by some 4 points for 500 rows."
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
            values = [scale * number for o in own if o.task == task and (number := value(o)) is not None]
            if values:
                found[task] = _spread(spread(values), digits)
        if found:
            rows.append([family, setting, *(found.get(task, "") for task in tasks)])
    return Table(title, notes, ["method", "setting", *tasks], rows)


def fronts(outcomes: Sequence[Outcome]) -> Table:
    """Hypervolume, and accuracy at human perplexity."""
    notes = (
        "Hypervolume: share of the square between (accuracy without a prompt, log-perplexity of random tokens) and "
        "(100%, 0) that prompts cover, 0 to 1, mean over splits. One run: its own front, at one budget. All runs: "
        "every setting's prompts together, at as many budgets. At human level: test accuracy, %, of the prompt that is "
        "best on dev among those no less fluent than the median human-written prompt (no prompt where there is none)."
    )
    tasks, rows = list(groups(outcomes, lambda o: o.task)), []
    for family in families(o for o in outcomes if o.number("nll") is not None):
        runs = len({o.setting for o in select(outcomes, family=family)})
        row = [family, str(runs)]
        for task in tasks:
            here = [o for o in outcomes if o.task == task]
            one, every = volumes(here, family, per_run=True), volumes(here, family, per_run=False)
            human = at_human_level(here, family)
            row += [_mean(one, 1, 3), _mean(every, 1, 3), _mean(human, 100, 1)]
        rows.append(row)
    names = [f"{task}: {what}" for task in tasks for what in ("one run", "all runs", "at human level")]
    return Table("Fronts", notes, ["method", "settings", *names], rows)


def faithfulness(outcomes: Sequence[Outcome]) -> Table:
    """The three differentials and what goes with them, mean over tasks and splits."""
    notes = (
        "Mean over all tasks and splits. Distance: cosine to the nearest token, and euclidean. Output: mean squared "
        "difference of logits at the answers. Performance: difference of the losses, nats, and of the accuracies (text "
        "less prompt). KL in nats. Survives: share of texts whose tokens come back from decode -> encode."
    )
    names = ("cosine_distance", "euclidean_distance", "logit_mse", "loss_difference", "accuracy_difference", "kl")
    rows = []
    for family, own in groups(select(outcomes, role="chosen"), lambda o: o.family).items():
        found = [o.measured["faithfulness"] for o in own if o.measured.get("faithfulness")]
        if not found:
            if any("faithfulness" in o.measured for o in own):
                rows.append([family, *["not defined"] * len(names), "no text"])
            continue
        row = [family]
        for name in names:
            values = [entry[name] for entry in found if entry[name] is not None]
            sign = -1 if name == "accuracy_difference" else 1
            row.append(f"{sign * sum(values) / len(values) + 0.0:.3f}" if values else "")
        tokens = [o for o in own if o.text]
        readings = select(outcomes, family=family + READING)
        known = [bool(o.measured["survives"]) for o in (tokens or readings)]
        rows.append([*row, f"{sum(known) / len(known):.0%}" if known else ""])
    columns = ["method", "distance, cosine", "euclidean", "output", "performance, loss", "accuracy", "KL", "survives"]
    return Table("Faithfulness", notes, columns, rows)


def patterns(outcomes: Sequence[Outcome]) -> Table:
    """What the prompts are."""
    notes = (
        "Share of the prompts of a method, %, over all tasks, splits and settings. The first that applies counts, from "
        "left to right. Word salad: no flag, but below the calibrated score's threshold. Ignored: readable, and "
        "accuracy within 2 points of no prompt's."
    )
    empty, rows = no_prompt(outcomes), []
    for family, own in groups(judged(outcomes), lambda o: o.family).items():
        counts = Counter(name for o in own if (name := pattern(o, empty)) is not None)
        total = sum(counts.values())
        if total:
            rows.append([family, str(total), *(f"{100 * counts[name] / total:.0f}" for name in NAMES)])
    return Table("What the prompts are", notes, ["method", "prompts", *NAMES], rows)


def stuck(outcomes: Sequence[Outcome]) -> Table:
    """Runs that got nowhere."""
    notes = (
        "Share of runs, %. Stuck: nothing that the run scored answers more dev rows than where it started. Frozen: the "
        "chosen prompt is where it started. No effect: test accuracy within 2 points of no prompt's."
    )
    empty, rows = no_prompt(outcomes), []
    runs = [o for o in select(outcomes, role="chosen") if "stuck" in o.details]
    for (family, setting), own in groups(runs, lambda o: (o.family, o.setting)).items():
        idle = sum(is_ignored(o, empty) for o in own)
        shares = [sum(bool(o.details.get(name)) for o in own) for name in ("stuck", "frozen")]
        rows.append([family, setting, str(len(own)), *(f"{100 * share / len(own):.0f}" for share in (*shares, idle))])
    return Table("Runs that got nowhere", notes, ["method", "setting", "runs", "stuck", "frozen", "no effect"], rows)


def transfer(outcomes: Sequence[Outcome]) -> Table:
    """The text on a second model."""
    notes = (
        "Test accuracy, %, of the same text on the task's model and on the second model; gain over no prompt, points, "
        "on each; share of the gain that moves along. Mean over tasks and splits."
    )
    empty = {model: by_unit(select(outcomes, method=EMPTY), value) for model, value in _MODELS.items()}
    rows = []
    for family, own in groups(judged(outcomes), lambda o: o.family).items():
        known = [o for o in own if o.number("second_accuracy") is not None and o.unit in empty["first"]]
        if not known or family == "no prompt":
            continue
        means = {model: sum(value(o) or 0.0 for o in known) / len(known) for model, value in _MODELS.items()}
        gains = {
            model: sum((value(o) or 0.0) - empty[model][o.unit] for o in known) / len(known)
            for model, value in _MODELS.items()
        }
        share = f"{gains['second'] / gains['first']:.0%}" if gains["first"] > 0.02 else ""
        cells = [f"{100 * number:.1f}" for number in (means["first"], means["second"])]
        rows.append([family, str(len(known)), *cells, *(f"{100 * gains[m]:+.1f}" for m in _MODELS), share])
    columns = ["method", "prompts", "own model", "second model", "gain, own", "gain, second", "share kept"]
    return Table("Transfer to a second model", notes, columns, rows)


_MODELS = {"first": lambda o: o.accuracy, "second": lambda o: o.number("second_accuracy")}


def agreement(outcomes: Sequence[Outcome]) -> Table:
    """Which measures rank prompts as the calibrated score does."""
    notes = (
        "Spearman's rank correlation, over all prompts of tokens (fronts included), of each measure, turned so that "
        "higher should be better, with the calibrated scrutability score and with test accuracy. The score is itself "
        "made of log-perplexity, words and repetition, so agreement with those is built in."
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


def costs(records: Sequence[Mapping[str, Any]]) -> Table:
    """What a run took."""
    notes = (
        "Mean of the runs. Evaluations: prompt-example pairs run forward, a training step on B rows counting 3 B. "
        "Seconds of processor time of the search alone; the measurement comes on top."
    )
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        found.setdefault(record["family"], []).append(record)
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


def _spread(of: Spread, digits: int) -> str:
    if of.n == 1:
        return f"{of.mean:.{digits}f}"
    return f"{of.mean:.{digits}f} ({of.sd:.{digits}f}; {of.low:.{digits}f} to {of.high:.{digits}f})"


def _mean(values: Mapping[Unit, float], scale: float, digits: int) -> str:
    return f"{scale * sum(values.values()) / len(values):.{digits}f}" if values else ""

"""Tables on calibrated label words: what each prompt does once its label prior is taken away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter, methodcaller
from statistics import mean

from studies.tradeoff.outcomes import (
    CALIBRATED,
    RAW,
    SEARCHED,
    Outcome,
    Unit,
    best_on_dev,
    by_unit,
    groups,
    judged,
    over_units,
    select,
    volumes,
)
from studies.tradeoff.report.table import Table, spread_cell
from studies.tradeoff.statistics import paired


def calibrated(outcomes: Sequence[Outcome]) -> Table:
    """Accuracy with each prompt's label prior taken away, beside that as it is; empty for records without it."""
    notes = (
        "Test accuracy, %, mean over splits, as it is / with batch calibration / with numbers fitted to labels: one "
        "number for each label word, estimated for each prompt on the run's own training rows, is added to the label "
        "words' log-probabilities (docs/reading-a-report.md). Methods searched without it unless their name says so. "
        'What "no prompt" gains is the label prior alone; a prompt\'s own work is what it adds to that.'
    )
    names = ("batch_accuracy", "fitted_accuracy")
    known = _measured(outcomes, names)
    tasks, rows = list(groups(known, lambda o: o.task)), []
    by_setting = groups(known, lambda o: (o.family, o.setting))
    for (family, setting), own in (by_setting | _best_written(known)).items():
        cells = []
        for here in (select(own, task=task) for task in tasks):
            values = [over_units(here, attrgetter("accuracy"))]
            values += [over_units(here, methodcaller("number", name)) for name in names]
            cells.append(" / ".join(f"{100 * value:.1f}" for value in values if value is not None))
        rows.append([family, setting, *cells])
    return Table("With calibrated label words", notes, ["method", "setting", *tasks], rows)


def _measured(outcomes: Sequence[Outcome], names: Iterable[str]) -> list[Outcome]:
    """The prompts that stand for their runs, where all of these figures are there."""
    wanted = list(names)
    return [o for o in judged(outcomes) if all(o.number(name) is not None for name in wanted)]


def _best_written(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], list[Outcome]]:
    """Of what people wrote for a task, the one that is best on dev with batch calibration, split by split."""
    written = [o for o in select(outcomes, method="written") if o.number(f"dev_{CALIBRATED}") is not None]
    by_unit_and_seed = groups(written, lambda o: (o.unit, o.seed)).values()
    if not any(len(own) > 1 for own in by_unit_and_seed):
        return {}
    chosen = [best for own in by_unit_and_seed if (best := best_on_dev(own, CALIBRATED)) is not None]
    return {(chosen[0].family, "the best on dev, calibrated"): chosen}


def beside(outcomes: Sequence[Outcome]) -> list[Table]:
    """Found texts beside vectors and people, and their fronts, all calibrated; none for records without it."""
    accuracy = methodcaller("number", CALIBRATED)
    known = [o for o in outcomes if accuracy(o) is not None]
    tuned = by_unit(select(known, method="prompt_tuning", role="chosen"), accuracy)
    written = by_unit((o for own in _best_written(known).values() for o in own), accuracy)
    if not tuned or not written:
        return []
    found = groups(select(known, method=SEARCHED, role="chosen"), lambda o: o.family)
    tasks = list(groups(known, lambda o: o.task))
    notes = (
        "Test accuracy with batch calibration less {than}, points: mean of the differences on the same splits (95% "
        "interval, Student's t; n runs). Several settings of a method are averaged. Above 0: the text is better."
    )
    tables = []
    for words, than, to in (
        ("vectors", "prompt tuning's", tuned),
        ("people", "that of the best hand-written prompt on dev", written),
    ):
        rows = []
        for family, own in found.items():
            values = by_unit(own, accuracy)
            rows.append([family, *(_less(_of_task(values, task), to) for task in tasks), _less(values, to)])
        tables.append(Table(f"Calibrated, beside {words}", notes.format(than=than), ["method", *tasks, "all"], rows))
    notes = (
        "Hypervolume of one run's front, as under Fronts, with batch calibration on both sides: accuracy above that of "
        "no prompt, 0 to 1, mean over splits (95% interval)."
    )
    rows = []
    for family in found:
        covered = volumes(known, family, per_run=True, scored=CALIBRATED)
        by_task = [_of_task(covered, task) for task in tasks]
        shared = f"{mean(mean(own.values()) for own in by_task):.3f}" if all(by_task) else ""
        rows.append([family, *(spread_cell(own, 1, 3) for own in by_task), shared])
    return [*tables, Table("Calibrated fronts", notes, ["method", *tasks, "mean over tasks"], rows)]


def _of_task(values: Mapping[Unit, float], task: str) -> dict[Unit, float]:
    return {unit: value for unit, value in values.items() if unit[0] == task}


def _less(values: Mapping[Unit, float], to: Mapping[Unit, float]) -> str:
    of = paired(values, to)
    if of is None:
        return ""
    around = f"{100 * of.low:+.1f} to {100 * of.high:+.1f}; " if of.n > 1 and of.low < of.high else ""
    return f"{100 * of.difference:+.1f} ({around}n {of.n})"


def ways(outcomes: Sequence[Outcome]) -> Table:
    """The ways to take the label prior away, on the runs that were measured with all of them."""
    names = {
        "as it is": RAW,
        "batch": CALIBRATED,
        "fitted": "fitted_accuracy",
        "content free": "content_free_accuracy",
    }
    notes = (
        "Test accuracy, %, mean over the splits that were measured with all of them (n runs): as it is; batch "
        "calibration on the run's training rows; numbers fitted to their labels; and from texts that say nothing "
        '("N/A", no text, "[MASK]"), which needs no rows (arXiv 2102.09690).'
    )
    known = _measured(outcomes, names.values())
    rows = []
    for (task, family), own in groups(known, lambda o: (o.task, o.family)).items():
        values = (over_units(own, methodcaller("number", name)) for name in names.values())
        rows.append(
            [f"{task}: {family}", str(len(own)), *(f"{100 * value:.1f}" for value in values if value is not None)]
        )
    return Table("Ways to calibrate", notes, ["task and method", "n", *names], rows)

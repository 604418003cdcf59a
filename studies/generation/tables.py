"""What the points say together, and the README's tables."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from peft_interp.records import markdown_table
from studies.generation.tasks import TASKS, Task
from studies.readme import code, put_tables
from studies.tradeoff.statistics import paired

README = Path(__file__).parent / "README.md"
WAYS = {"none": "no prompt", "written": "best hand-written", "shown": "the same, showing an answer", "search": "search"}

Points = Mapping[str, Mapping[str, Any]]


def of_task(points: Points, task: Task) -> list[Mapping[str, Any]]:
    """A task's points, by seed."""
    return [record for key, record in sorted(points.items()) if key.rpartition("-")[0] == task.name]


def row_scores(records: list[Mapping[str, Any]], way: str) -> dict[int, float]:
    """Of each test row the mean score over points; every point has the same rows."""
    scores = [record["test"][way]["scores"] for record in records]
    return dict(enumerate(map(mean, zip(*scores, strict=True))))


def figures(points: Points) -> dict[str, dict[str, Any]]:
    """By task: points, test rows, mean score of each way, the search less the best hand-written prompt; 0 to 100."""
    found = {}
    for task in TASKS:
        records = of_task(points, task)
        if not records:
            continue
        of_way = {way: row_scores(records, way) for way in WAYS}
        gain = paired(of_way["search"], of_way["written"])
        assert gain is not None
        found[task.name] = {
            "points": len(records),
            "rows": len(of_way["search"]),
            **{way: 100 * mean(scores.values()) for way, scores in of_way.items()},
            "gain": 100 * gain.difference,
            "low": 100 * gain.low,
            "high": 100 * gain.high,
        }
    return found


def tables(points: Points) -> str:
    """Scores, prompts, answers and what moves brought, as Markdown; what was not run is named."""
    found = figures(points)
    if not found:
        return "Nothing was run yet."
    scores = [
        [
            *(task.name, task.words, str(f["points"]), str(f["rows"]), *(f"{f[way]:.1f}" for way in WAYS)),
            *(f"{f['gain']:+.1f} ({f['low']:+.1f} to {f['high']:+.1f})", _verdict(task, f["gain"])),
        ]
        for task in TASKS
        if (f := found.get(task.name))
    ]
    columns = ("task", "rewarded, 0 to 100", "points", "test rows", *WAYS.values(), "search less hand-written", "goal")
    prompts = [
        [key, WAYS[way], code(own["text"]), " ".join(map(code, own["answers"])), _common(own)]
        for key, record in sorted(points.items())
        for way, own in record["test"].items()
        if way != "none"
    ]
    shown = ("point", "prompt", "text", "first answers", "commonest answer")
    lacking = [task.name for task in TASKS if task.name not in found]
    parts = [markdown_table(columns, scores), markdown_table(shown, prompts), _moves(points)]
    parts += [f"Not run: {', '.join(lacking)}."] if lacking else []
    return "\n\n".join(parts)


def _common(own: Mapping[str, Any]) -> str:
    return f"{own['times']} of {len(own['scores'])}: {code(own['commonest'])}"


def _verdict(task: Task, gain: float) -> str:
    if task.gain is None:
        return "none"
    return f"{task.gain:+.0f}: {'met' if gain >= task.gain else 'missed'}"


def _moves(points: Points) -> str:
    names = sorted({name for record in points.values() for name in record["search"]["yields"]})
    rows = [
        [f"`{name}`", *(_share(record["search"]["yields"].get(name)) for _, record in sorted(points.items()))]
        for name in names
    ]
    return markdown_table(("share of its prompts in the population", *sorted(points)), rows)


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}%"


def write_readme(points: Points) -> None:
    """Put the tables of what was run into the README."""
    put_tables(README, tables(points))

"""What the texts say together, and the README's tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from peft_interp.records import markdown_table
from peft_interp.report.texts import percent
from studies.readme import code, put_tables

README = Path(__file__).parent / "README.md"
COLUMNS = ("task", "texts", "how many", "validation: mean", "best", "tested", "test: mean", "lowest to highest")
SHOWN, LONGEST = 10, 160  # texts of a task, and characters of one
NOTHING = "(no prompt)"
TESTED = 10  # of the best on validation rows, and of drawn ones
Records = Mapping[str, Mapping[str, Any]]


def by_score(records: Records) -> list[str]:
    """Texts, the best on validation rows first; examples in a prompt are training rows."""
    return sorted(records, key=lambda text: -records[text]["dev"])


def tables(done: Mapping[str, Records]) -> str:
    """Kinds of texts by task, and the best of each task."""
    rows = [row for task, records in done.items() for row in _of_task(task, records)]
    found = [markdown_table(COLUMNS, rows)]
    for task, records in done.items():
        best = [
            [code(t, NOTHING, LONGEST), percent(records[t]["dev"]), _tested([records[t]])]
            for t in by_score(records)[:SHOWN]
        ]
        found.append(markdown_table((f"best on validation rows of {task}", "there", "test"), best))
    return "\n\n".join(found)


def _of_task(task: str, records: Records) -> list[list[str]]:
    best, kinds = by_score(records), dict.fromkeys(record["kind"] for record in records.values())
    groups = {kind: [record for record in records.values() if record["kind"] == kind] for kind in kinds}
    chosen = [records[text] for text in best[:TESTED] if "test" in records[text]]
    return [_row(task, kind, own) for kind, own in groups.items()] + [_row(task, f"the best {len(chosen)}", chosen)]


def _row(task: str, name: str, records: Sequence[Mapping[str, Any]]) -> list[str]:
    chosen = [record["dev"] for record in records]
    tested = [record["test"] for record in records if "test" in record]
    span = f"{percent(min(tested))} to {percent(max(tested))}" if tested else ""
    return [
        *(task, name, str(len(records)), percent(mean(chosen)), percent(max(chosen))),
        *(str(len(tested)), _tested(records), span),
    ]


def _tested(records: Sequence[Mapping[str, Any]]) -> str:
    tested = [record["test"] for record in records if "test" in record]
    return percent(mean(tested)) if tested else ""


def write_readme(done: Mapping[str, Records]) -> None:
    """Put the tables of what was run into the README."""
    put_tables(README, tables(done))

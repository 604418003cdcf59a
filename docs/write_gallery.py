"""Write `docs/gallery.md` from the records of the studies: `python docs/write_gallery.py` (a minute on one core)."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import get_peft_model

from peft_interp import InterpPromptConfig, embedded, measure_scrutability, report_prompt
from peft_interp.metrics.reading import read_text
from peft_interp.records import markdown_table
from peft_interp.report.texts import code_line, in_markdown, perplexity
from peft_interp.report.verdicts import readable
from studies.tradeoff.outcomes import EMPTY, READING, Outcome, groups, judged, no_prompt, outcomes_of, select, variant
from studies.tradeoff.store import read_lines

PAGE = Path(__file__).parent / "gallery.md"
STUDY = Path(__file__).parents[1] / "studies" / "tradeoff"
LEFT_OUT = "verdict"  # sst-2 again, with whole sentences as its answers
TASKS = {
    "sst-2": "film reviews",
    "sst-2-named": "film reviews, asked for their sentiment by name",
    "mr": "film reviews",
    "agnews": "news by topic",
    "sst-5": "film reviews, five classes",
}
ON_CARD = ("search", "sst-2")  # method and task of the prompt whose card is shown
CARD_ROWS = 200
JUDGE = "embedded"  # who judges does not depend on what is installed

INTRODUCTION = """# Gallery

{count} prompts as the studies delivered them, ugly ones included. They were chosen by a rule and not by hand: for each
task and each method in its main form, the prompt of the first run in the records (first split, setting and seed), which
that run itself chose without a look at test rows. Variants of a method are left out, and so is the task `{left_out}`,
which is `sst-2` with other answers. Of vectors the nearest tokens stand here, with what *they* answer.

- **accuracy** on test rows; the study's.
- **perplexity** of the text under the task's model, lower is more likely; the study's.
- **can a person read it?** What the package says today, of every text in the same way: what makes it unreadable, else
  the score of the judge that ships with it (`judge="embedded"`, which agrees with people weakly; SmolLM2 does better:
  [metrics](metrics.md)).

Where a "yes" looks wrong to you, it probably is: perplexity and the score are proxies. A readable prompt that says
nothing of its task is no mistake of the table; that is what searches deliver where nothing asks for more
([`names_its_task`](search.md) does).

This page is written by `docs/write_gallery.py` from the studies' records, and a test holds it to them. All runs:
[the studies](studies.md).
"""

CARD = """## The card of one of them

The {method}'s prompt for {task}, kept as an adapter with its report on {rows} test rows of the package's reviews:
`model.use_prompt(ids)`, `model.attach_report(report)`, `model.save_pretrained(folder)`. This is the `README.md` that
lies in the folder then, and that `push_to_hub` would send:

````markdown
{card}
````
"""


@dataclass(frozen=True)
class Model:
    """A study's records, and what its base model is called here."""

    title: str
    records: Path


MODELS = (
    Model("The embedded model", STUDY / "results.jsonl.gz"),
    Model("SmolLM2-135M-Instruct", STUDY / "smollm2" / "results.jsonl.gz"),
)


def chosen(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """For each task and method, in the records' order, the prompt with a text that its first run delivered."""
    main = (o for o in judged(outcomes) if variant(o) in ("", variant_of_readings()) and o.task != LEFT_OUT)
    with_text = (o for o in main if o.text and o.method != EMPTY)
    first = [own[0] for own in groups(with_text, lambda o: (o.task, o.family)).values()]
    return [o for own in groups(first, lambda o: o.task).values() for o in own]


def variant_of_readings() -> str:
    """What follows the comma in the family of a nearest-token reading."""
    return READING.removeprefix(", ")


def row(outcome: Outcome, label_words: list[str], base: Any, tokenizer: Any) -> list[str]:
    """Method, text, accuracy, perplexity, and whether a person can read it."""
    text, nll = outcome.text or "", outcome.number("nll")
    measured = measure_scrutability(base, tokenizer, text, label_words=label_words, judge=JUDGE)
    answer, words = readable(read_text(tokenizer, text), measured)
    flagged = any(flag.unreadable for flag in measured.flags)
    why = in_markdown(words) if flagged or math.isnan(measured.score) else f"score {measured.score:.2f}"
    accuracy, unlikely = f"{outcome.accuracy:.1%}", "-" if nll is None else perplexity(math.exp(nll))
    setting = f", {outcome.setting}" if outcome.setting else ""
    return [f"{outcome.family}{setting}", code_line(text), accuracy, unlikely, f"**{answer}**: {why}"]


def sections(model: Model) -> Iterator[tuple[str, int]]:
    """Markdown of each task of a study, and how many prompts it shows."""
    records = read_lines(model.records)
    outcomes = outcomes_of(records)
    words = {record["task"]: record["study"]["task"]["label_words"] for record in records}
    base, tokenizer, nothing = embedded.load_model(), embedded.load_tokenizer(), no_prompt(outcomes)
    for task, own in groups(chosen(outcomes), lambda o: o.task).items():
        rows = [row(outcome, words[task], base, tokenizer) for outcome in own]
        without = nothing[own[0].unit]
        said = f"Answers: {', '.join(words[task])}. Without a prompt {without:.1%} are right."
        table = markdown_table(["method", "prompt", "accuracy", "perplexity", "can a person read it?"], rows)
        yield f"## {model.title}: {task} ({TASKS[task]})\n\n{said}\n\n{table}\n", len(rows)


def card() -> tuple[Outcome, str]:
    """A prompt of the gallery, and the card of the adapter that holds it."""
    family, task = ON_CARD
    (prompt,) = select(chosen(outcomes_of(read_lines(MODELS[0].records))), family=family, task=task)
    base, tokenizer, verbalizer = embedded.load_model(), embedded.load_tokenizer(), embedded.TASKS["sentiment"]
    ids = prompt.measured["ids"]
    model = get_peft_model(base, InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(ids)))
    model.use_prompt(ids)
    data = embedded.load_data("sentiment")["test"].select(range(CARD_ROWS))
    rows = verbalizer.encode_dataset(tokenizer, data)
    about, by = {"data": "the film reviews of peft_interp"}, {"judge": JUDGE}
    report = report_prompt(model, tokenizer, rows, verbalizer, progress=False, context=about, scrutability=by)
    model.attach_report(report)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return prompt, (Path(folder) / "README.md").read_text(encoding="utf-8").strip()


def page() -> str:
    """The whole page."""
    parts = [part for model in MODELS for part in sections(model)]
    prompt, text = card()
    shown = CARD.format(method=prompt.family, task=prompt.task, rows=CARD_ROWS, card=text)
    count = sum(number for _, number in parts)
    return "\n".join([INTRODUCTION.format(count=count, left_out=LEFT_OUT), *(part for part, _ in parts), shown])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

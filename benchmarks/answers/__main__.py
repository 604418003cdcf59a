"""Answers per second of `AnswerWriter` against `generate`, on the embedded model.

    python -m benchmarks.answers

Three ways to the same greedy answers, by turns: ours, all prompts and rows at once; one call of `generate` for each
prompt, its rows in one batch padded in front; one call of `generate` for each prompt and row, which is the plainest.
No answer ends before its last token; single calls are made for one row in eight. Writes `results.json` and the tables
of the README beside it.
"""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_machine
from benchmarks.report import Table, goals_table, judged, make_parser, publish
from benchmarks.timing import compare, interleave, now
from peft_interp import embedded
from peft_interp.answers.settings import AnswerSettings
from peft_interp.answers.writer import AnswerWriter
from peft_interp.text.placement import END, PLACEMENTS, START
from peft_interp.text.rows import Row

PROMPTS = (
    "Is this film review positive or negative?",
    "Movie review:",
    "Tell me if the audience enjoyed this film.",
    "Say how the reviewer felt.",
    "Opinion on a new release",
    "The river flows through the north.",
    "Write one sentence about the text.",
    "Judge it.",
)
GOAL = 4.0
POSITIONS = (START.name, END.name)
SAMPLED = 8  # single calls are measured on one row in so many: they take too long for all


def make_rows(tokenizer: Any, position: str, count: int) -> list[Row]:
    """Reviews of the embedded test data, unlabelled."""
    placement, found = PLACEMENTS[position], []
    for row in list(embedded.load_data("sentiment")["test"])[:count]:
        text = f" {row['sentence']}" if placement.before_text else row["sentence"]
        ids = tuple(placement.encode_text(tokenizer, text))
        labels = (-100,) * len(ids)
        found.append(Row((), ids, labels, placement.index(labels)))
    return found


@torch.no_grad()
def generated(model: Any, inputs: list[list[int]], new: int) -> list[list[int]]:
    """One call of `generate`."""
    width = max(map(len, inputs))
    ids = torch.tensor([[0] * (width - len(i)) + i for i in inputs], device=model.device)
    mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in inputs], device=model.device)
    found = model.generate(ids, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=0)
    answers: list[list[int]] = found[:, width:].tolist()
    return answers


def measure(model: Any, tokenizer: Any, position: str, setting: dict[str, int], repetitions: int) -> dict[str, Any]:
    """Seconds of the three ways and what they gave."""
    rows = make_rows(tokenizer, position, setting["rows"])
    prompts = [PLACEMENTS[position].encode_prompt(tokenizer, text) for text in PROMPTS[: setting["prompts"]]]
    new, settings = setting["new_tokens"], AnswerSettings(setting["new_tokens"])
    inputs = [[[*row.before, *prompt, *row.after] for row in rows] for prompt in prompts]
    answers: dict[str, list[list[list[int]]]] = {}

    def ours() -> list[float]:
        begin = now(str(model.device))
        found = AnswerWriter(model, tokenizer, share=True).write(prompts, rows, settings)
        answers["ours"] = [[list(answer.ids) for answer in of_prompt] for of_prompt in found]
        return [now(str(model.device)) - begin]

    def by_prompt() -> list[float]:
        begin = now(str(model.device))
        answers["by_prompt"] = [generated(model, batch, new) for batch in inputs]
        return [now(str(model.device)) - begin]

    def by_pair() -> list[float]:  # every `SAMPLED`th row, as if all had been asked
        begin = now(str(model.device))
        answers["by_pair"] = [[generated(model, [one], new)[0] for one in batch[::SAMPLED]] for batch in inputs]
        return [(now(str(model.device)) - begin) * len(rows) / len(rows[::SAMPLED])]

    kept = interleave({"ours": ours, "by_prompt": by_prompt, "by_pair": by_pair}, repetitions, warmups=0)
    seconds = {name: [run[0] for run in runs] for name, runs in kept.items()}
    single = [ids for of_prompt in answers["by_pair"] for ids in of_prompt]
    same = [ids for of_prompt in answers["ours"] for ids in of_prompt[::SAMPLED]]
    return {
        "answers": len(prompts) * len(rows),
        "compared_with_single_calls": len(single),
        "differ_from_single_calls": sum(a != b for a, b in zip(same, single, strict=True)),
        "by_prompt": compare(seconds["ours"], seconds["by_prompt"]),
        "by_pair": compare(seconds["ours"], seconds["by_pair"]),
    }


def tables(results: dict[str, Any]) -> list[Table]:
    """Answers per second."""
    rows = []
    for position in POSITIONS:
        found = results[position]
        for way, words in (("by_prompt", "a batch of the rows for each prompt"), ("by_pair", "a call for each answer")):
            one = found[way]
            mine, other = (found["answers"] / one[f"{whose}_seconds"] for whose in ("ours", "other"))
            rows.append([position, words, f"{mine:.0f}", f"{other:.0f}", f"{mine / other:.1f}"])
    columns = ["prompt stands at the", "`generate` is called with", "ours, answers/s", "`generate`", "times"]
    return [Table("Answers per second", columns, rows), goals_table(results)]


def main() -> None:
    """Measure and publish."""
    parser = make_parser(__doc__ or "", Path(__file__).parent)
    arguments = parser.parse_args()
    setting = {"prompts": 8, "rows": 32, "new_tokens": 16}
    if arguments.quick:
        setting = {"prompts": 2, "rows": 4, "new_tokens": 4}
    machine, begin = describe_machine(arguments.device), time.perf_counter()
    model, tokenizer = embedded.load_model().to(arguments.device), embedded.load_tokenizer()
    model.generation_config.eos_token_id = None
    shape = {"width": model.config.n_embd, "layers": model.config.n_layer, "vocabulary": model.config.vocab_size}
    results: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.answers", *sys.argv[1:]]),
        "machine": machine,
        "setting": {**shape, **setting},
    }
    for position in POSITIONS:
        measure(model, tokenizer, position, {"prompts": 2, "rows": 4, "new_tokens": 4}, 1)  # warms up
        results[position] = measure(model, tokenizer, position, setting, 1 if arguments.quick else 3)
        print(f"{time.perf_counter() - begin:.0f} s: {position}", file=sys.stderr, flush=True)
    results["seconds"] = round(time.perf_counter() - begin, 1)
    names = {"by_prompt": "a batch for each prompt", "by_pair": "single calls"}
    asked = [
        (f"prompt at the {position}: times `generate`, {words}", 1 / results[position][way]["ratio"], ">=", GOAL)
        for position in POSITIONS
        for way, words in names.items()
    ]
    results["goals"] = judged(asked)
    usual = lambda found: f"{found['prompts']} prompts, {found['rows']} rows, {found['new_tokens']} new tokens"  # noqa: E731
    publish(results, arguments.output, tables, usual, "The embedded model")


if __name__ == "__main__":
    main()

"""Answers per second of `AnswerWriter` against `generate`.

    python -m benchmarks.answers    # the embedded model; two minutes of one core for a repetition
    python -m benchmarks.answers --model smollm2 --cases start end --repetitions 1    # results_smollm2.json

Three ways to the same greedy answers, by turns: ours, all prompts and rows at once; one call of `generate` for each
prompt, its rows in one batch padded in front; one call of `generate` for each prompt and row, which is the plainest.
Single calls are made for one row in eight. Seconds are processor time of all threads on a CPU. Then ours and the
batches once more, watched: how many tokens run through the model, and how long its matrix products take. Writes results
and the tables of the README beside them.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.answers.cases import CASES, PROMPTS, Case, generated, make_rows, seconds, work_of
from benchmarks.machine import describe_machine
from benchmarks.report import Table, goals_table, judged, make_parser, provenance, publish, show, write_results
from benchmarks.timing import compare, interleave
from peft_interp import embedded
from peft_interp.answers.settings import AnswerSettings
from peft_interp.answers.writer import AnswerWriter
from peft_interp.text.placement import PLACEMENTS

SMOLLM2 = "results_smollm2.json"
SAMPLED = 8  # single calls are measured on one row in so many: they take too long for all


def measure(model: Any, tokenizer: Any, case: Case, setting: dict[str, int], repetitions: int) -> dict[str, Any]:
    """Seconds of the three ways, what they gave, and what the first two ran."""
    rows = make_rows(tokenizer, case, setting["rows"])
    prompts = [PLACEMENTS[case.position].encode_prompt(tokenizer, text) for text in PROMPTS[: setting["prompts"]]]
    new, settings = setting["new_tokens"], AnswerSettings(setting["new_tokens"])
    inputs = [[[*row.before, *prompt, *row.after] for row in rows] for prompt in prompts]
    answers: dict[str, list[list[list[int]]]] = {}

    def ours() -> list[float]:
        begin = seconds(model)
        found = AnswerWriter(model, tokenizer, share=True).write(prompts, rows, settings)
        answers["ours"] = [[list(answer.ids) for answer in of_prompt] for of_prompt in found]
        return [seconds(model) - begin]

    def by_prompt() -> list[float]:
        begin = seconds(model)
        answers["by_prompt"] = [generated(model, batch, new) for batch in inputs]
        return [seconds(model) - begin]

    def by_pair() -> list[float]:  # every `SAMPLED`th row, as if all had been asked
        begin = seconds(model)
        answers["by_pair"] = [[generated(model, [one], new)[0] for one in batch[::SAMPLED]] for batch in inputs]
        return [(seconds(model) - begin) * len(rows) / len(rows[::SAMPLED])]

    kept = interleave({"ours": ours, "by_prompt": by_prompt, "by_pair": by_pair}, repetitions, warmups=0)
    work = {"ours": work_of(model, ours), "by_prompt": work_of(model, by_prompt)}
    taken = {name: [run[0] for run in runs] for name, runs in kept.items()}
    single = [ids for of_prompt in answers["by_pair"] for ids in of_prompt]
    same = [ids for of_prompt in answers["ours"] for ids in of_prompt[::SAMPLED]]
    return {
        "answers": len(prompts) * len(rows),
        "compared_with_single_calls": len(single),
        "differ_from_single_calls": sum(a != b for a, b in zip(same, single, strict=True)),
        "by_prompt": compare(taken["ours"], taken["by_prompt"]),
        "by_pair": compare(taken["ours"], taken["by_pair"]),
        "tokens": {name: one.tokens for name, one in work.items()},
        "products_seconds": {name: one.products for name, one in work.items()},
    }


def tables(results: dict[str, Any], where: str = "") -> list[Table]:
    """Answers per second, and where the time goes."""
    rates, limits = [], []
    for case in CASES:
        if case.name not in results:
            continue
        found = results[case.name]
        for way, words in (("by_prompt", "a batch of the rows for each prompt"), ("by_pair", "a call for each answer")):
            one = found[way]
            mine, other = (found["answers"] / one[f"{whose}_seconds"] for whose in ("ours", "other"))
            rates.append([case.words, words, f"{mine:.0f}", f"{other:.1f}", f"{1 / one['ratio']:.1f}"])
        tokens, products, batches = found["tokens"], found["products_seconds"], found["by_prompt"]
        limits.append(
            [
                *(case.words, f"{tokens['by_prompt']:,}", f"{tokens['ours']:,}"),
                *(f"{tokens['by_prompt'] / tokens['ours']:.1f}", f"{products['ours'] / batches['ours_seconds']:.0%}"),
                f"{batches['other_seconds'] / products['ours']:.1f}",
            ]
        )
    columns = ["the model reads", "`generate` is called with", "ours, answers/s", "`generate`", "times"]
    limit = ["the model reads", "tokens run by batches of `generate`", "by ours", "times fewer"]
    limit += ["of our time, products of linear layers", "times, if all else cost nothing"]
    found = [Table(f"Answers per second{where}", columns, rates), Table(f"What limits it{where}", limit, limits)]
    return [*found, Table(f"Goals{where}", (goal := goals_table(results)).columns, goal.rows)]


def goals(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What the project asks of itself, and whether this run shows it."""
    names = {"by_prompt": "a batch for each prompt", "by_pair": "single calls"}
    asked = [
        (f"{case.words}: times `generate`, {words}", 1 / results[case.name][way]["ratio"], ">=", case.goal)
        for case in CASES
        if case.goal is not None and case.name in results
        for way, words in names.items()
    ]
    return judged(asked)


def main() -> None:
    """Measure and publish."""
    parser = make_parser(__doc__ or "", Path(__file__).parent)
    parser.add_argument("--model", default=embedded.EMBEDDED, help="'embedded' or 'smollm2'")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], default=None)
    arguments = parser.parse_args()
    setting = {"prompts": 8, "rows": 32, "new_tokens": 16}
    if arguments.quick:
        setting = {"prompts": 2, "rows": 4, "new_tokens": 4}
    machine, begin = describe_machine(arguments.device), time.perf_counter()
    model: Any = embedded.load_model(arguments.model).to(arguments.device)
    model.generation_config.eos_token_id = None  # no answer ends before its last token
    tokenizer, config = embedded.load_tokenizer(arguments.model), model.config
    shape = {"width": config.hidden_size, "layers": config.num_hidden_layers, "vocabulary": config.vocab_size}
    results: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.answers", *sys.argv[1:]]),
        "machine": machine,
        "setting": {**shape, **setting},
    }
    own = arguments.model == embedded.EMBEDDED
    for case in CASES:
        if arguments.cases is not None and case.name not in arguments.cases:
            continue
        if own:
            measure(model, tokenizer, case, {"prompts": 2, "rows": 4, "new_tokens": 4}, 1)  # warms up
        results[case.name] = measure(model, tokenizer, case, setting, 1 if arguments.quick else arguments.repetitions)
        print(f"{time.perf_counter() - begin:.0f} s: {case.name}", file=sys.stderr, flush=True)
    results["seconds"] = round(time.perf_counter() - begin, 1)
    results["goals"] = goals(results)
    write_results(results, arguments.output if own else arguments.output.with_name(SMOLLM2))
    publish_both(arguments.output)


def publish_both(output: Path) -> None:
    """The tables of both models' results, as far as they are there."""
    usual = lambda found: f"{found['prompts']} prompts, {found['rows']} rows, {found['new_tokens']} new tokens"  # noqa: E731
    other = output.with_name(SMOLLM2)
    more = json.loads(other.read_text()) if other.exists() else None
    if not output.exists():
        assert more is not None
        show(provenance(more, usual(more["setting"]), "SmolLM2"), tables(more))
        return

    def both(results: dict[str, Any]) -> list[Table]:
        return tables(results) + ([] if more is None else tables(more, f", SmolLM2 ({more['seconds']:.0f} seconds)"))

    publish(json.loads(output.read_text()), output, both, usual, "The embedded model")


if __name__ == "__main__":
    main()

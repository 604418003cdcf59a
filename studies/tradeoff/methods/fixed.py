"""Prompts that nothing is trained for: none, hand-written ones, random tokens."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from peft_interp.metrics.references import human_prompts
from peft_interp.text.token_filter import allowed_tokens
from studies.tradeoff.bench import Bench, Found, Prompt
from studies.tradeoff.data import demonstrations
from studies.tradeoff.store import read_lines

EMBEDDED_STUDY = Path(__file__).parents[1] / "results.jsonl.gz"


def empty(bench: Bench) -> Found:
    """No prompt at all."""
    return Found([Prompt("chosen", ids=())])


def written(bench: Bench, number: int = 0) -> Found:
    """A prompt that a person wrote for the task."""
    texts = bench.data.settings.written
    if number >= len(texts):
        raise ValueError(
            f"task {bench.data.settings.name!r} has {len(texts)} written prompts; `number={number}` asks for more."
        )
    record = bench.score_on_dev([tuple(bench.tokenizer.encode(texts[number], add_special_tokens=False))])[0]
    return Found([Prompt("chosen", ids=record.ids, dev=record.scores)])


def random_tokens(bench: Bench) -> Found:
    """One prompt of random words, not searched for at all."""
    return Found([Prompt("chosen", ids=draw_prompts(bench, 1)[0])])


def random_search(bench: Bench) -> Found:
    """As many random prompts as the budget pays for; the best on dev is chosen."""
    count = bench.budget.left // len(bench.data.rows["dev"])
    return _best_on_dev(bench, draw_prompts(bench, count))


def human_search(bench: Bench, length: int) -> Found:
    """The prompts that people wrote for other tasks and that ship with the package; the best on dev is chosen.

    They are what `PromptSearchTrainer` starts from: what it finds has to be better than the best of them.

    Args:
        bench: what to work with; no more prompts are tried than the budget pays for.
        length: tokens of a prompt at most.
    """
    encoded = bench.tokenizer(list(human_prompts()), add_special_tokens=False)["input_ids"]
    short = list(dict.fromkeys(tuple(ids) for ids in encoded if 2 <= len(ids) <= length))
    random.Random(bench.seed).shuffle(short)
    return _best_on_dev(bench, short[: bench.budget.left // len(bench.data.rows["dev"])])


def moved(bench: Bench, found_by: str, with_setting: str = "") -> Found:
    """The text that a method of the published study on the embedded model chose, for the same task and seed.

    Args:
        bench: what to work with; nothing is tried on it.
        found_by: the method's family there.
        with_setting: its setting there, as the records have it.

    Raises:
        ValueError: that study has no such run.
    """
    task, wanted = bench.data.settings.name, (found_by, with_setting)
    for record in read_lines(EMBEDDED_STUDY):
        if (record["task"], record["seed"]) == (task, bench.seed) and (record["family"], record["setting"]) == wanted:
            text = record["prompts"][0]["text"]
            return Found([Prompt("chosen", ids=tuple(bench.tokenizer.encode(text, add_special_tokens=False)))])
    raise ValueError(f"{EMBEDDED_STUDY.name} has no run of {found_by!r} ({with_setting!r}) on {task}, {bench.seed}.")


def examples(bench: Bench, count: int, draws: int) -> Found:
    """Labelled training rows as text (few-shot); of some drawn sets the best on dev, with calibrated label words.

    Args:
        bench: what to work with.
        count: rows in a prompt.
        draws: sets that are tried; each is run on the training rows, for its label prior, and on the dev rows.

    Raises:
        ValueError: a task without label words to compare.
    """
    if bench.data.settings.generates:
        raise ValueError(f"{bench.data.settings.name} has written answers; labelled examples need label words.")
    texts = [demonstrations(bench.data, count, draws * bench.seed + i) for i in range(draws)]
    prompts = [tuple(bench.tokenizer.encode(text, add_special_tokens=False)) for text in dict.fromkeys(texts)]
    records = bench.score_on_dev(prompts, calibrated=True)
    best = max(records, key=lambda record: (record.scores["batch_accuracy"], -(record.scores["loss"] or 0.0)))
    return Found.of_board(bench, best.ids, start=records[0], details={"tried": len(records)})


def _best_on_dev(bench: Bench, prompts: list[tuple[int, ...]]) -> Found:
    """Of prompts that nothing is trained for: most right, then least loss."""
    records = bench.score_on_dev(prompts)
    best = max(records, key=lambda record: (record.scores["accuracy"], -(record.scores["loss"] or 0.0)))
    return Found.of_board(bench, best.ids, start=records[0], details={"tried": len(records)})


def draw_prompts(bench: Bench, count: int) -> list[tuple[int, ...]]:
    """Different prompts of random allowed tokens."""
    generator = torch.Generator().manual_seed(bench.seed)
    usable = usable_tokens(bench).nonzero().flatten()
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < count:
        places = torch.randint(len(usable), (bench.length,), generator=generator)
        drawn[tuple(usable[places].tolist())] = None
    return list(drawn)


def usable_tokens(bench: Bench) -> Any:
    """(vocabulary,) bool: what every method may write, as `Bench.prompt_config` says."""
    config = bench.prompt_config()
    table = bench.model.get_input_embeddings().weight
    return allowed_tokens(table, bench.tokenizer, config.allowed_tokens, banned_words=config.banned_words or ())

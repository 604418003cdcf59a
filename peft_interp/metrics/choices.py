"""Answers of several tokens: what each of a row's possible answers gets from a side, as a sequence.

The score of an answer is the sum of its tokens' log-probabilities, each after the tokens in front of it: log P(answer |
row). Answers of different lengths are compared as they are, without a bonus for long ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from peft_interp.metrics.comparison import ComparisonSetup, ModelRunner
from peft_interp.metrics.differentials import LabelIds, TaskTotals
from peft_interp.metrics.text_rows import PlacedRow
from peft_interp.text.rows import Row
from peft_interp.text.verbalizer import Verbalizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Place = Callable[[Sequence[Row]], list[PlacedRow]]
Choices = Sequence[Sequence[Sequence[int]]]


def choice_log_probs(
    setup: ComparisonSetup, runner: ModelRunner, rows: Sequence[Row], choices: Choices, place: Place
) -> Tensor:
    """Log-probabilities of each row's possible answers under one side.

    Args:
        setup: whose sides they are.
        runner: the side.
        rows: whose own answers do not matter.
        choices: for each row its possible answers, each a list of tokens.
        place: puts the prompt, its text or nothing into rows.

    Returns:
        (rows, most answers) fp32 in nats, <= 0, on the CPU; -inf where a row has fewer answers. NaN where an answer is
        tokenised differently there.
    """
    asked = [row.with_answer(answer) for row, answers in zip(rows, choices, strict=True) for answer in answers]
    owners = [(i, j) for i, answers in enumerate(choices) for j in range(len(answers))]
    placed = place(asked)
    targets = [setup.wanted(row, "answers") for row in asked]
    whole = [set(t) <= set(setup.predicted(row, p)) for row, p, t in zip(asked, placed, targets, strict=True)]
    targets = [found if known else [] for found, known in zip(targets, whole, strict=True)]
    as_prompt = runner is setup.prompt and not setup.is_text
    scores = torch.full((len(rows), max(map(len, choices), default=0)), -torch.inf)
    for i, known in enumerate(whole):
        scores[owners[i]] = 0.0 if known else torch.nan
    for batch in setup.batches(placed, targets):
        if batch := [i for i in batch if targets[i]]:
            logits = runner.logits([setup.request(asked[i], placed[i], targets[i], as_prompt) for i in batch])
            gold = torch.tensor([asked[i].labels[j] for i in batch for j in targets[i]], device=logits.device)
            found = iter(nn.functional.cross_entropy(logits.float(), gold, reduction="none").tolist())
            for i in batch:
                scores[owners[i]] = -sum(next(found) for _ in targets[i])
    return scores


def count_choices(
    totals: TaskTotals,
    setup: ComparisonSetup,
    runner: ModelRunner,
    rows: Sequence[Row],
    place: Place,
    numbers: Sequence[int] | None = None,
) -> None:
    """Count by whole sequences which rows are answered right; nothing where label words are single tokens.

    Args:
        totals: of the side.
        setup: whose side it is.
        runner: the side.
        rows: to be counted.
        place: puts the prompt, its text or nothing into rows.
        numbers: what the rows are called in what is told row by row; None: their index.
    """
    if totals.sequences is None:
        return
    scores = choice_log_probs(setup, runner, rows, [totals.sequences] * len(rows), place)
    known = [i for i, row in enumerate(rows) if bool(scores[i].isfinite().all())]
    if known:
        called = known if numbers is None else [numbers[i] for i in known]
        totals.add_choices(scores[known], [rows[i].answer for i in known], called)


def label_ids_of(verbalizer: Verbalizer, tokenizer: PreTrainedTokenizerBase) -> LabelIds | None:
    """The label words' tokens, one for each or a list for each; None for options of each row's own, and for any text.

    Raises:
        ValueError: label words that cannot be told apart.
    """
    if not verbalizer.label_words:
        return None
    return verbalizer.scored_ids(tokenizer) or verbalizer.label_sequences(tokenizer)

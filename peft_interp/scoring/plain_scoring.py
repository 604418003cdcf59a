"""Scores of prompts on examples by plain forward passes of whole rows: for any causal or masked language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from peft_interp.batch_memory import Batches, logits_tokens
from peft_interp.scoring.answer_head import answer_logits_at
from peft_interp.scoring.scored_rows import Answers, Position, ScoredRow, compose


class PlainScoring:
    """Every prompt-example pair is a row of its own, padded behind; logits only where an answer is.

    Args:
        model: causal or masked LM.
        rows: examples.
        position: where the prompt goes.
        label_ids: (labels,) or None.
        rows_of_head: label words may be read from their rows of the head.
        batches: how much one pass may take.
        causal: predictions come from the position in front of a token, not from the token's own.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[ScoredRow],
        position: Position,
        label_ids: Tensor | None,
        rows_of_head: bool,
        batches: Batches,
        causal: bool = True,
    ) -> None:
        self.model, self.rows, self.position, self.causal = model, rows, position, causal
        self.label_ids, self.rows_of_head, self.batches = label_ids, rows_of_head, batches
        self._position_cost = logits_tokens(model)

    def score(self, out: Tensor, prompts: Sequence[tuple[int, ...]], whole: bool) -> None:
        """Fill `out`, (prompts, rows, labels) log-probabilities or, if `whole`, (prompts, rows) losses."""
        order = sorted(range(len(self.rows)), key=lambda i: len(self.rows[i].ids))
        lengths = [len(self.rows[i].leading) + len(self.rows[i].ids) for i in order]
        labelled = [sum(label >= 0 for label in self.rows[i].labels) for i in order]

        def cost(rows: range, columns: range) -> float:
            longest = max(lengths[i] for i in rows) + max(len(prompts[i]) for i in columns)
            positions = sum(labelled[i] for i in rows) if whole else 0
            return len(columns) * (len(rows) * longest + positions * self._position_cost)

        def work(rows: range, columns: range) -> None:
            pairs = [(i, j) for i in order[rows.start : rows.stop] for j in columns]
            composed = [compose(self.rows[i], prompts[j], self.position, self.causal, whole) for i, j in pairs]
            scores = self._scores([ids for ids, _ in composed], [found for _, found in composed], whole)
            examples, numbers = torch.tensor(pairs, device=out.device).unbind(1)
            out[numbers, examples] = scores.to(out.device)

        self.batches.run(work, cost, range(len(order)), range(len(prompts)))

    def _scores(self, sequences: Sequence[tuple[int, ...]], answers: Sequence[Answers], whole: bool) -> Tensor:
        """(sequences, labels) log-probabilities or, if `whole`, (sequences,) losses; NaN where nothing is predicted."""
        width = max(len(ids) for ids in sequences)
        pad = getattr(self.model.config, "pad_token_id", None) or 0
        device = self.model.get_input_embeddings().weight.device
        ids = torch.tensor([[*i, *[pad] * (width - len(i))] for i in sequences], device=device)  # (pairs, width)
        mask = torch.tensor([[1] * len(i) + [0] * (width - len(i)) for i in sequences], device=device)
        asked = [(number, place, label) for number, found in enumerate(answers) for place, label in found]
        owner, places, targets = torch.tensor(asked, dtype=torch.long, device=device).view(-1, 3).unbind(1)
        keep = torch.zeros_like(mask, dtype=torch.bool)
        keep[owner, places] = True
        known = {"use_cache": False} if self.causal else {}
        label_ids = None if whole else self.label_ids
        logits = answer_logits_at(
            self.model, keep, label_ids, self.rows_of_head, input_ids=ids, attention_mask=mask, **known
        ).to(device)
        if not whole:
            scores = logits.new_full((len(sequences), logits.shape[-1]), torch.nan)
            scores[owner] = logits.log_softmax(-1)
            return scores
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        sums = losses.new_zeros(len(sequences)).index_add_(0, owner, losses)
        return sums / losses.new_zeros(len(sequences)).index_add_(0, owner, torch.ones_like(losses))

"""Scores of prompts on examples where the model reads what they share once.

Prompt at the end: every example is run once and kept; a batch is some examples, each followed by the tree of all
prompts. Prompt at the start: every prompt is run once; a batch is some prompts, each followed by the tree of some
examples. Either way a row of the batch is one context with a `TokenTree` after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peft_interp.inference.batching import Batches, halves, logits_tokens, moved, padded_ids, padded_rows
from peft_interp.inference.compat import with_cache
from peft_interp.inference.head import answer_logits_at
from peft_interp.inference.models import input_embeddings
from peft_interp.scoring.token_tree import Context, build_context, new_nodes, pack, token_tree, visible
from peft_interp.text.placement import IGNORED
from peft_interp.text.rows import Answers, Row
from peft_interp.text.tokenization import pad_token_id

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Branches:
    """What follows every context. A negative number -1 - j stands for the context's own entry j.

    Attributes:
        sequences: sorted; each begins with -1, the context's last token.
        answers: per sequence, places in it whose output predicts, and the token that is asked for.
        order: where each sequence stood before sorting.
    """

    sequences: list[tuple[int, ...]]
    answers: list[list[tuple[int, int]]]
    order: list[int]


def branches(sequences: Sequence[tuple[int, ...]], answers: Sequence[list[tuple[int, int]]]) -> Branches:
    """Sort, so that neighbours share most."""
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    return Branches([sequences[i] for i in order], [answers[i] for i in order], order)


def prompt_branches(prompts: Sequence[tuple[int, ...]], tail: int) -> Branches:
    """Prompts, each with the context's own `tail` tokens and `tail + 1` answers after it."""
    own = tuple(-2 - k for k in range(tail))
    answers = [[(len(prompt) + k, -1 - k) for k in range(tail + 1)] for prompt in prompts]
    return branches([(-1, *prompt, *own) for prompt in prompts], answers)


def text_branches(rows: Sequence[Row], whole: bool) -> Branches:
    """Texts up to the token in front of their last answer (of their first, unless `whole`)."""
    answers = []
    for row in rows:
        labelled = [(index, label) for index, label in enumerate(row.labels) if label != IGNORED]
        answers.append(labelled if whole else labelled[:1])
    pairs = zip(rows, answers, strict=True)
    return branches([(-1, *row.ids[: found[-1][0]]) for row, found in pairs], answers)


def own_values(values: Tensor, own: Tensor) -> Tensor:
    """(columns,) with negative stand-ins and (contexts, entries) -> (contexts, columns)."""
    values = values.unsqueeze(0).expand(len(own), -1)
    return torch.where(values < 0, own.gather(1, (-1 - values).clamp_min(0)), values)


@dataclass(frozen=True)
class Question:
    """Some neighbouring branches as one tree, on the model's device: the same after every context.

    Attributes:
        ids: (nodes,) tokens, with stand-ins.
        depths: (nodes,) how many tokens stand above each.
        below: (nodes, nodes) bool, what each node sees of the others.
        kept: (kept,) nodes whose output predicts something.
        slots: (answers,) for each answer the index in `kept` of what predicts it.
        owner: (answers,) the branch that each answer belongs to.
        targets: (answers,) the token that is asked for, with stand-ins.
    """

    ids: Tensor
    depths: Tensor
    below: Tensor
    kept: Tensor
    slots: Tensor
    owner: Tensor
    targets: Tensor


def question(following: Branches, columns: range, device: torch.device) -> Question:
    """What the branches `columns` are run as, and where they answer."""
    tree = token_tree(following.sequences[columns.start : columns.stop])
    answers = following.answers[columns.start : columns.stop]
    paths = enumerate(zip(tree.paths, answers, strict=True))
    asked = [(number, path[place], target) for number, (path, found) in paths for place, target in found]
    kept = sorted({node for _, node, _ in asked})
    slot = {node: index for index, node in enumerate(kept)}
    owner, slots, targets = moved([(number, slot[node], target) for number, node, target in asked], device).unbind(1)
    ids, depths = (values.to(device, non_blocking=True) for values in (tree.ids, tree.depths))
    return Question(
        ids, depths, visible(tree).to(device, non_blocking=True), moved(kept, device), slots, owner, targets
    )


def tree_inputs(
    model: PreTrainedModel, context: Context, asked: Question, own: Tensor, added: torch.dtype | None = None
) -> dict[str, Any]:
    """A forward pass of a question's tree after every sequence of `context`.

    Args:
        model: whose pass it is.
        context: what was run.
        asked: what follows.
        own: (contexts, entries) tokens for the tree's stand-ins.
        added: the model's dtype, for attention that adds its mask to the scores; None where it takes a bool mask.

    Returns:
        Keywords for the model; its output is (contexts, nodes, ...).
    """
    device, width = own.device, max(context.lengths)
    lengths = moved(context.lengths, device)
    distinct = lengths[:1] if min(context.lengths) == width else lengths  # without padding, one mask for all
    below = asked.below.expand(len(distinct), -1, -1)  # (1 or contexts, nodes, nodes)
    real = torch.arange(width, device=device) < distinct.unsqueeze(1)  # (1 or contexts, width)
    seen = torch.cat((real.unsqueeze(1).expand(-1, below.shape[1], -1), below), dim=2).unsqueeze(1)
    if added is not None:
        seen = torch.zeros(seen.shape, dtype=added, device=device).masked_fill_(~seen, torch.finfo(added).min)
    cache = context.cache()
    return {
        "input_ids": own_values(asked.ids, own),
        "position_ids": lengths.unsqueeze(1) + asked.depths,
        "attention_mask": seen,  # (1 or contexts, 1, nodes, width + nodes)
        "use_cache": cache is not None,
        **with_cache(model, cache),
    }


class PlainScoring:
    """Every prompt-example pair is a row of its own, padded after; logits only where an answer is.

    Args:
        model: causal or masked LM.
        rows: examples.
        label_ids: (labels,) or None.
        rows_of_head: label words may be read from their rows of the head.
        batches: how much one pass may take.
        causal: predictions come from the position in front of a token, not from the token's own.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: Sequence[Row],
        label_ids: Tensor | None,
        rows_of_head: bool,
        batches: Batches,
        causal: bool = True,
    ) -> None:
        self.model, self.rows, self.causal = model, rows, causal
        self.label_ids, self.rows_of_head, self.batches = label_ids, rows_of_head, batches
        self._position_cost = logits_tokens(model)

    def score(self, out: Tensor, prompts: Sequence[tuple[int, ...]], whole: bool) -> None:
        """Fill `out`, (prompts, rows, labels) log-probabilities or, if `whole`, (prompts, rows) losses."""
        order = sorted(range(len(self.rows)), key=lambda i: len(self.rows[i].ids))
        lengths = [self.rows[i].length for i in order]
        labelled = [sum(label >= 0 for label in self.rows[i].labels) for i in order]

        def cost(rows: range, columns: range) -> float:
            longest = max(lengths[i] for i in rows) + max(len(prompts[i]) for i in columns)
            positions = sum(labelled[i] for i in rows) if whole else 0
            return len(columns) * (len(rows) * longest + positions * self._position_cost)

        def work(rows: range, columns: range) -> None:
            pairs = [(i, j) for i in order[rows.start : rows.stop] for j in columns]
            composed = [self.rows[i].compose(prompts[j], self.causal, whole) for i, j in pairs]
            scores = self._scores([ids for ids, _ in composed], [found for _, found in composed], whole)
            examples, numbers = moved(pairs, out.device).unbind(1)
            out[numbers, examples] = scores.to(out.device)

        self.batches.run(work, cost, range(len(order)), range(len(prompts)))

    def _scores(self, sequences: Sequence[tuple[int, ...]], answers: Sequence[Answers], whole: bool) -> Tensor:
        """(sequences, labels) log-probabilities or, if `whole`, (sequences,) losses; NaN where nothing is predicted."""
        device = input_embeddings(self.model).weight.device
        ids, mask = padded_rows(sequences, pad_token_id(self.model.config) or 0, device)  # (pairs, width) each
        asked = [(number, place, label) for number, found in enumerate(answers) for place, label in found]
        owner, columns, targets = moved(asked, device).long().view(-1, 3).unbind(1)
        known = {"use_cache": False} if self.causal else {}
        label_ids = None if whole else self.label_ids
        logits = answer_logits_at(
            self.model,
            owner * ids.shape[1] + columns,
            label_ids,
            self.rows_of_head,
            input_ids=ids,
            attention_mask=mask,
            **known,
        ).to(device)
        if not whole:
            scores = logits.new_full((len(sequences), logits.shape[-1]), torch.nan)
            scores[owner] = logits.log_softmax(-1)
            return scores
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        sums = losses.new_zeros(len(sequences)).index_add_(0, owner, losses)
        return sums / losses.new_zeros(len(sequences)).index_add_(0, owner, torch.ones_like(losses))


# Siblings fill the attention's matrix with masked cells: larger trees cost more there than they save elsewhere.
MOST_NODES = 128


class SharedScoring:
    """Scores with shared contexts, for models where `continues_from_cache` holds.

    Args:
        model: causal LM.
        rows: examples.
        prompt_first: the prompt opens the rows; else it stands right before their answers.
        label_ids: (labels,) or None.
        rows_of_head: label words may be read from their rows of the head.
        batches: how much one pass may take.
        cache_bytes: how much of the examples' keys and values may be kept; the rest is built anew at every call.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: Sequence[Row],
        prompt_first: bool,
        label_ids: Tensor | None,
        rows_of_head: bool,
        batches: Batches,
        cache_bytes: int,
    ) -> None:
        self.model, self.rows, self.prompt_first = model, rows, prompt_first
        self.label_ids, self.rows_of_head = label_ids, rows_of_head
        self.batches, self.cache_bytes = batches, cache_bytes
        self._kept: dict[tuple[int, ...], Context] = {}
        self._position_cost = logits_tokens(model)

    def score(self, out: Tensor, prompts: Sequence[tuple[int, ...]], whole: bool) -> None:
        """Fill `out`, (prompts, rows, labels) log-probabilities or, if `whole`, (prompts, rows) losses."""
        if not self.prompt_first:
            self._after_rows(out, prompts, whole)
            return
        for leading in sorted({row.leading for row in self.rows}):
            members = [index for index, row in enumerate(self.rows) if row.leading == leading]
            following = text_branches([self.rows[i] for i in members], whole)
            following = Branches(following.sequences, following.answers, [members[i] for i in following.order])
            contexts = [leading + prompt for prompt in prompts]
            order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))
            for group, context in self._contexts(contexts, order, keep=False):
                own = context.last.unsqueeze(1)
                self._block(out, context, own, None, group, following, whole)

    def _after_rows(self, out: Tensor, prompts: Sequence[tuple[int, ...]], whole: bool) -> None:
        contexts = [row.before for row in self.rows]
        tails = [row.ids[row.first : row.last] if whole else () for row in self.rows]
        asked = [row.labels[row.first : row.last + 1] if whole else () for row in self.rows]
        order = sorted(range(len(contexts)), key=lambda i: (self.rows[i].last - self.rows[i].first, len(contexts[i])))
        for group, context in self._contexts(contexts, order, keep=True):
            tail = max(len(tails[i]) for i in group)
            own = padded_ids([tails[i] for i in group], tail, 0, out.device)
            own = torch.cat((context.last.unsqueeze(1), own.long()), dim=1)  # (contexts, 1 + tail)
            targets = padded_ids([asked[i] for i in group], tail + 1, IGNORED, out.device)  # (contexts, 1 + tail)
            self._block(out.transpose(0, 1), context, own, targets, group, prompt_branches(prompts, tail), whole)

    def _contexts(
        self, sequences: Sequence[Sequence[int]], order: Sequence[int], keep: bool
    ) -> Iterator[tuple[tuple[int, ...], Context]]:
        """Contexts of neighbours in `order` with the numbers of their sequences, kept where they fit the budget."""
        group = tuple(order)
        if group in self._kept:
            yield group, self._kept[group]
            return
        cost, found = len(group) * max(len(sequences[i]) for i in group), []
        if cost <= self.batches.tokens or len(group) == 1:

            def build() -> None:
                found.append(build_context(self.model, [sequences[i] for i in group]))

            if self.batches.attempt(build, cost, len(group) > 1):
                if keep and found[0].bytes() + sum(c.bytes() for c in self._kept.values()) <= self.cache_bytes:
                    self._kept[group] = found[0]
                yield group, found.pop()
                return
        for half in halves(range(len(group))):
            yield from self._contexts(sequences, group[half.start : half.stop], keep)

    def _block(
        self,
        out: Tensor,
        context: Context,
        own: Tensor,
        own_targets: Tensor | None,
        numbers: Sequence[int],
        following: Branches,
        whole: bool,
    ) -> None:
        """Fill the rows `numbers` of `out` (contexts, branches, ...)."""
        added = [0, *accumulate(new_nodes(following.sequences))]
        asked = [0, *accumulate(len(found) for found in following.answers)]
        questions: dict[range, Question] = {}  # made once for all contexts

        def cost(rows: range, columns: range) -> float:
            nodes = added[columns.stop] - added[columns.start + 1] + len(following.sequences[columns.start])
            positions = asked[columns.stop] - asked[columns.start] if whole else 0
            return len(rows) * (nodes + positions * self._position_cost)

        def work(rows: range, columns: range) -> None:
            cut = slice(rows.start, rows.stop)
            targets = None if own_targets is None else own_targets[cut]
            if columns not in questions:
                questions[columns] = question(following, columns, own.device)
            scores = self._scores(context.part(rows), own[cut], targets, questions[columns], len(columns), whole)
            places = moved(numbers[cut], out.device).unsqueeze(1)
            out[places, moved(following.order[columns.start : columns.stop], out.device)] = scores

        for columns in pack(following.sequences, MOST_NODES):
            self.batches.run(work, cost, range(len(numbers)), columns)

    def _scores(
        self,
        context: Context,
        own: Tensor,
        own_targets: Tensor | None,
        asked: Question,
        count: int,
        whole: bool,
    ) -> Tensor:
        """(contexts, count, labels) log-probabilities of `count` branches or, if `whole`, (contexts, count) losses."""
        adds_mask = self.model.config.get_text_config()._attn_implementation == "eager"
        inputs = tree_inputs(self.model, context, asked, own, self.model.dtype if adds_mask else None)
        rows = torch.arange(len(own), device=own.device).unsqueeze(1)
        places = (rows * len(asked.ids) + asked.kept).flatten()
        label_ids = None if whole else self.label_ids
        logits = answer_logits_at(self.model, places, label_ids, self.rows_of_head, **inputs)
        logits = logits.view(len(own), len(asked.kept), -1).to(own.device)
        if not whole:
            return logits.log_softmax(-1)[:, asked.slots]
        if own_targets is not None:
            wanted = own_values(asked.targets, own_targets)
        else:
            wanted = asked.targets.unsqueeze(0).expand(len(own), -1)
        return mean_by_owner(nll_at(logits, asked.slots, wanted), wanted != IGNORED, asked.owner, count)


def nll_at(logits: Tensor, slots: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood, (contexts, answers), of `targets` under the logits (contexts, slots, vocabulary)."""
    rows = torch.arange(len(logits), device=logits.device).unsqueeze(1)
    chosen = logits[rows, slots.unsqueeze(0), targets.clamp_min(0)]
    return logits.logsumexp(-1)[:, slots] - chosen


def mean_by_owner(values: Tensor, real: Tensor, owner: Tensor, owners: int) -> Tensor:
    """Mean of the real ones among `values` (contexts, answers) for each owner: (contexts, owners)."""
    sums = values.new_zeros(len(values), owners).index_add_(1, owner, values * real)
    counts = values.new_zeros(len(values), owners).index_add_(1, owner, real.to(values.dtype))
    return sums / counts

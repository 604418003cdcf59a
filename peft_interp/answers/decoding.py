"""Answers to many inputs at once, token by token: the likeliest ones, or drawn.

What several inputs begin with is run once (`Contexts`). Inputs of different lengths are padded after, where no real
token sees it, and an answer's tokens stand after the padding; a mask and positions of our own tell the model which of
its columns are an input's. Answers that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peft_interp.answers.key_values import GrowingLayer, beginnings, growing_cache, kept, layer_bytes, parts
from peft_interp.answers.settings import AnswerSettings
from peft_interp.inference.batching import padded_ids
from peft_interp.inference.compat import with_cache
from peft_interp.inference.head import answer_logits_at, nowhere, places_of, tapped_head
from peft_interp.inference.models import input_embeddings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SLOTS = 8  # inputs in a row of the batch: more make attention look at more columns of others than it saves
_MOST_TOKENS = 4096  # of inputs run at once; more gain nothing
_FEWEST_LEFT = 0.75  # as soon as no more than this share of a batch goes on, the rest is dropped


@dataclass(frozen=True)
class Contexts:
    """Token sequences that were run, each the beginning of some inputs.

    Attributes:
        layers: keys and values, (contexts, heads, longest, dim); none where all are empty.
        lengths: (contexts,) tokens of each.
    """

    layers: tuple[GrowingLayer, ...]
    lengths: Tensor

    @property
    def width(self) -> int:
        """Columns of the longest."""
        return self.layers[0].filled if self.layers else 0

    def bytes(self) -> int:
        """Memory."""
        return layer_bytes(self.layers)


def run_contexts(model: PreTrainedModel, sequences: Sequence[Sequence[int]], pad: int) -> Contexts:
    """Run sequences, empty ones too, without gradient and without logits."""
    device = input_embeddings(model).weight.device
    lengths = torch.tensor([len(ids) for ids in sequences], device=device)
    width = int(lengths.max())
    if not width:
        return Contexts((), lengths)
    ids = padded_ids(sequences, width, pad, device)
    layers = [GrowingLayer(width) for _ in range(model.config.get_text_config().num_hidden_layers)]
    places = torch.arange(width, device=device).expand_as(ids)
    below = torch.ones(1, 1, width, width, dtype=torch.bool, device=device).tril()
    with tapped_head(model, nowhere(ids)):
        model(input_ids=ids, position_ids=places, **_masked(model, below), **_cached(model, layers))
    return Contexts(tuple(layers), lengths)


class CachedInputs:
    """Inputs with what they begin with run already; every further pass runs new tokens only.

    Inputs that begin alike share a row of the batch, up to `SLOTS` of them: its columns are their beginning, then the
    rest of each, then their new tokens, a column for each input at every step. An input sees its beginning and its own
    columns. So keys and values that are shared are there once, and attention is run for several inputs at a time.

    Args:
        model: causal LM for which `takes_own_mask` holds.
        contexts: beginnings.
        owners: which of them each input begins with.
        skipped: how many tokens at a context's end are not part of the input (they are in `tails` again).
        tails: the rest of each input, a token at least.
        new: most tokens that will be added, less one.
        pad: id of padding.

    Attributes:
        order: the inputs, as the rows of what `first` and `next` return have them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        contexts: Contexts,
        owners: Sequence[int],
        skipped: Sequence[int],
        tails: Sequence[Sequence[int]],
        new: int,
        pad: int,
    ) -> None:
        self.model, self.pad, self.device = model, pad, contexts.lengths.device
        self.groups = groups_of(owners, tails)
        self.order = [i for group in self.groups for i in group]
        self.slots = max(map(len, self.groups))
        self.begin = contexts.width
        self.tails = [[token for i in group for token in tails[i]] for group in self.groups]
        width = max(map(len, self.tails))
        lengths = contexts.lengths.tolist()
        before = [[lengths[owners[i]] - skipped[i] for i in group] for group in self.groups]
        self.before = padded_ids(before, self.slots, 0, self.device)  # (groups, slots)
        sizes = [[len(tails[i]) for i in group] for group in self.groups]
        self.sizes = padded_ids(sizes, self.slots, 0, self.device)
        self.slot = padded_ids(  # (groups, width), whose column it is; no slot's where there is padding
            [[s for s, size in enumerate(group) for _ in range(size)] for group in sizes],
            width,
            self.slots,
            self.device,
        )
        self.real = padded_ids([[1] * len(group) for group in self.groups], self.slots, 0, self.device).bool()
        places = torch.arange(self.begin, device=self.device)
        own = self.slot.unsqueeze(1) == torch.arange(self.slots, device=self.device).unsqueeze(1)
        self.seen = torch.cat((places < self.before.unsqueeze(2), own), dim=2)  # (groups, slots, columns)
        self.next_position = self.before + self.sizes
        columns = self.begin + width + self.slots * new
        self.layers = beginnings(
            contexts.layers, torch.tensor([owners[g[0]] for g in self.groups], device=self.device), columns
        )
        if not self.layers:
            self.layers = [GrowingLayer(columns) for _ in range(model.config.get_text_config().num_hidden_layers)]

    def first(self) -> Tensor:
        """(inputs, vocabulary) fp32 logits after each input."""
        begun = self.layers[0].room is not None  # else nothing was run that says how large a layer is
        cuts = neighbours(self.tails) if begun else [slice(0, len(self.tails))]
        found = [self._tails(rows, parts(self.layers, rows) if begun else self.layers) for rows in cuts]
        for layer in self.layers:
            layer.filled = self.seen.shape[2]
        return torch.cat(found)

    def _tails(self, rows: slice, layers: Sequence[GrowingLayer]) -> Tensor:
        """`first` of some groups, in as many columns as they need."""
        width = max(map(len, self.tails[rows]))
        ids, slot = padded_ids(self.tails[rows], width, self.pad, self.device), self.slot[rows, :width]
        none = torch.zeros(len(ids), 1, dtype=torch.long, device=self.device)  # what padding has
        before, sizes = (torch.cat((x[rows], none), 1) for x in (self.before, self.sizes))
        ends = sizes.cumsum(1)  # (groups, slots + 1)
        inside = torch.arange(width, device=self.device) - (ends - sizes).gather(1, slot)
        positions = torch.where(slot < self.slots, before.gather(1, slot) + inside, 0)
        context = torch.arange(self.begin, device=self.device) < before.gather(1, slot).unsqueeze(2)
        own = (slot.unsqueeze(1) == slot.unsqueeze(2)).tril()
        asked = (inside == sizes.gather(1, slot) - 1) & (slot < self.slots)
        return self._logits(ids, positions, torch.cat((context, own), dim=2), asked, layers)

    def next(self, tokens: Tensor) -> Tensor:
        """The same after one more token for each, (inputs,)."""
        ids = torch.full(self.real.shape, self.pad, device=self.device)
        ids[self.real] = tokens
        self_only = torch.eye(ids.shape[1], dtype=torch.bool, device=self.device).expand(len(ids), -1, -1)
        self.seen = torch.cat((self.seen, self_only), dim=2)
        positions, self.next_position = self.next_position, self.next_position + self.real
        return self._logits(ids, positions, self.seen, self.real, self.layers)

    def keep(self, places: Tensor) -> None:
        """Go on with these inputs only."""
        cells = self.real.nonzero()[places]  # (inputs, 2), group and slot of each
        groups, counts = cells[:, 0].unique_consecutive(return_counts=True)
        slots = [cells[cells[:, 0] == group, 1].tolist() for group in groups]
        self.slots = int(counts.max())
        chosen = padded_ids(slots, self.slots, 0, self.device)
        self.real = padded_ids([[1] * len(group) for group in slots], self.slots, 0, self.device).bool()
        self.seen, self.next_position = self.seen[groups[:, None], chosen], self.next_position[groups[:, None], chosen]
        if len(groups) < len(self.groups):
            self.layers = kept(self.layers, groups)
        self.groups = [self.groups[i] for i in groups.tolist()]

    def _logits(
        self, ids: Tensor, positions: Tensor, seen: Tensor, asked: Tensor, layers: Sequence[GrowingLayer]
    ) -> Tensor:
        given = {"input_ids": ids, "position_ids": positions, **_masked(self.model, seen.unsqueeze(1))}
        return answer_logits_at(self.model, places_of(asked), None, False, **given, **_cached(self.model, layers))


def groups_of(owners: Sequence[int], tails: Sequence[Sequence[int]]) -> list[list[int]]:
    """Inputs of the same owner in groups of at most `SLOTS`, whose tails together are of about the same length.

    Returns:
        Numbers of the inputs; groups of few tokens first.
    """
    members: dict[int, list[int]] = {}
    for number in sorted(range(len(owners)), key=lambda i: len(tails[i])):
        members.setdefault(owners[number], []).append(number)
    dealt = [(some, -(-len(some) // SLOTS)) for some in members.values()]
    groups = [some[start::count] for some, count in dealt for start in range(count)]
    return sorted(groups, key=lambda group: sum(len(tails[i]) for i in group))


def neighbours(sequences: Sequence[Sequence[int]]) -> list[slice]:
    """Cuts sequences into neighbours of about the same length, so that little is padded, and of not too many tokens."""
    cuts, start, width = [], 0, 0
    for place, ids in enumerate(sequences):
        wider = max(width, len(ids))
        if place > start and (wider > 1.25 * len(sequences[start]) + 2 or (place - start + 1) * wider > _MOST_TOKENS):
            cuts.append(slice(start, place))
            start, wider = place, len(ids)
        width = wider
    return [*cuts, slice(start, len(sequences))]


class PlainInputs:
    """The same for every causal LM: each pass runs everything again.

    Args:
        model: causal LM.
        sequences: the inputs.
        pad: id of padding.
    """

    def __init__(self, model: PreTrainedModel, sequences: Sequence[Sequence[int]], pad: int) -> None:
        self.model, self.pad = model, pad
        self.sequences = [list(ids) for ids in sequences]
        self.order = list(range(len(sequences)))

    def first(self) -> Tensor:
        """(inputs, vocabulary) fp32 logits after each input."""
        device = input_embeddings(self.model).weight.device
        lengths = torch.tensor([len(ids) for ids in self.sequences], device=device)
        ids = padded_ids(self.sequences, int(lengths.max()), self.pad, device)
        columns = torch.arange(ids.shape[1], device=device)
        mask, last = columns < lengths[:, None], lengths - 1 + ids.shape[1] * torch.arange(len(ids), device=device)
        given = {"input_ids": ids, "attention_mask": mask.long(), "use_cache": False}
        return answer_logits_at(self.model, last, None, False, **given)

    def next(self, tokens: Tensor) -> Tensor:
        """The same after one more token for each, (inputs,)."""
        for ids, token in zip(self.sequences, tokens.tolist(), strict=True):
            ids.append(token)
        return self.first()

    def keep(self, places: Tensor) -> None:
        """Go on with these inputs only."""
        self.sequences = [self.sequences[i] for i in places.tolist()]


def write_answers(
    inputs: CachedInputs | PlainInputs,
    count: int,
    settings: AnswerSettings,
    draws: Tensor | None,
    ended: Callable[[Sequence[int]], bool],
) -> list[list[int]]:
    """Token ids of the answers.

    Args:
        inputs: what is answered.
        count: how many they are.
        settings: how.
        draws: (inputs, max_new_tokens) numbers from [0, 1) that choose the tokens; None for the likeliest ones.
        ended: whether an answer that has these tokens is over.

    Returns:
        One list for each input, the token that ended it included.
    """
    answers: list[list[int]] = [[] for _ in range(count)]
    going = list(inputs.order)  # the answer that each row of the logits is
    over: set[int] = set()
    logits = inputs.first()
    for step in range(settings.max_new_tokens):
        chosen = logits.argmax(-1) if draws is None else drawn(logits, draws[going, step], settings).to(logits.device)
        for number, token in zip(going, chosen.tolist(), strict=True):
            if number not in over:
                answers[number].append(token)
                if ended(answers[number]):
                    over.add(number)
        if len(over) == count or step + 1 == settings.max_new_tokens:
            break
        left = [place for place, number in enumerate(going) if number not in over]
        if len(left) <= _FEWEST_LEFT * len(going):
            places = torch.tensor(left, device=logits.device)
            inputs.keep(places)
            going, chosen = [going[i] for i in left], chosen[places]
        logits = inputs.next(chosen)
    return answers


def drawn(logits: Tensor, draws: Tensor, settings: AnswerSettings) -> Tensor:
    """Tokens by inversion: the first one at which the summed probabilities pass the number drawn.

    Args:
        logits: (inputs, vocabulary).
        draws: (inputs,) in [0, 1).
        settings: temperature, top_k and top_p, applied in this order as `generate` does.

    Returns:
        (inputs,) token ids.
    """
    logits = logits.double() / settings.temperature
    if 0 < settings.top_k < logits.shape[-1]:
        least = logits.topk(settings.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probs = logits.softmax(-1)
    if settings.top_p < 1:
        ordered, order = probs.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= settings.top_p  # the token that passes it stays
        probs = probs.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0)
    sums = probs.cumsum(-1)
    found = torch.searchsorted(sums, (draws.double().to(sums.device) * sums[:, -1]).unsqueeze(1), right=True)
    return found.squeeze(1).clamp_max(logits.shape[-1] - 1)


def _cached(model: PreTrainedModel, layers: Sequence[GrowingLayer]) -> dict[str, Any]:
    return {"use_cache": True, **with_cache(model, growing_cache(layers))}


def _masked(model: PreTrainedModel, seen: Tensor) -> dict[str, Tensor]:
    """A mask as the model's attention takes it: bool, or for the eager one numbers that are added."""
    if model.config.get_text_config()._attn_implementation != "eager":
        return {"attention_mask": seen}
    added = torch.zeros(seen.shape, dtype=model.dtype, device=seen.device)
    return {"attention_mask": added.masked_fill_(~seen, torch.finfo(model.dtype).min)}

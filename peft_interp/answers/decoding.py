"""Answers to many inputs at once, token by token: the likeliest ones, or drawn.

What several inputs begin with is run once (`Contexts`). Inputs of different lengths are padded after, where no real
token sees it, and an answer's tokens stand after the padding; a mask and positions of our own tell the model which of
its columns are real. Answers that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peft_interp.answers.key_values import GrowingLayer, beginnings, growing_cache, kept, layer_bytes, padded_ids, parts
from peft_interp.answers.settings import AnswerSettings
from peft_interp.inference.compat import with_cache
from peft_interp.inference.head import answer_logits_at, tapped_head

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


def run_contexts(model: Any, sequences: Sequence[Sequence[int]], pad: int) -> Contexts:
    """Run sequences, empty ones too, without gradient and without logits."""
    device = model.get_input_embeddings().weight.device
    lengths = torch.tensor([len(ids) for ids in sequences], device=device)
    width = int(lengths.max())
    if not width:
        return Contexts((), lengths)
    ids = padded_ids(sequences, width, pad, device)
    layers = [GrowingLayer(width) for _ in range(model.config.get_text_config().num_hidden_layers)]
    places = torch.arange(width, device=device).expand_as(ids)
    below = torch.ones(1, 1, width, width, dtype=torch.bool, device=device).tril()
    with tapped_head(model, torch.zeros_like(ids, dtype=torch.bool)):
        model(input_ids=ids, position_ids=places, **_masked(model, below), **_cached(model, layers))
    return Contexts(tuple(layers), lengths)


class CachedInputs:
    """Inputs with what they begin with run already; every further pass runs new tokens only.

    Args:
        model: causal LM for which `can_continue` holds.
        contexts: beginnings.
        owners: which of them each input begins with.
        skipped: how many tokens at a context's end are not part of the input (they are in `tails` again).
        tails: the rest of each input, a token at least; quickest where neighbours are of about the same length.
        new: most tokens that will be added, less one.
        pad: id of padding.
    """

    def __init__(
        self,
        model: Any,
        contexts: Contexts,
        owners: Sequence[int],
        skipped: Sequence[int],
        tails: Sequence[Sequence[int]],
        new: int,
        pad: int,
    ) -> None:
        self.model, self.tails, self.pad = model, tails, pad
        device = contexts.lengths.device
        owner = torch.tensor(owners, device=device)
        before = contexts.lengths[owner] - torch.tensor(skipped, device=device)  # (inputs,)
        self.tail = torch.tensor([len(tail) for tail in tails], device=device)
        self.begin, self.width = contexts.width, max(map(len, tails))
        self.length = before + self.tail  # (inputs,) position of the next token
        columns = self.begin + self.width + new
        place = torch.arange(columns, device=device)
        self.seen = place < before.unsqueeze(1)  # (inputs, columns), what is no padding
        self.seen |= (place >= self.begin) & (place < (self.begin + self.tail).unsqueeze(1))
        self.seen |= place >= self.begin + self.width
        self.count = model.config.get_text_config().num_hidden_layers
        self.layers = beginnings(contexts.layers, owner, columns)

    def first(self) -> Tensor:
        """(inputs, vocabulary) fp32 logits after each input."""
        if not self.layers:  # nothing was run yet that says how large a layer is
            self.layers = [GrowingLayer(self.seen.shape[1]) for _ in range(self.count)]
            found = self._tails(slice(0, len(self.tails)), self.layers)
        else:
            found = torch.cat([self._tails(rows, parts(self.layers, rows)) for rows in neighbours(self.tails)])
        for layer in self.layers:
            layer.filled = self.begin + self.width
        return found

    def _tails(self, rows: slice, layers: Sequence[GrowingLayer]) -> Tensor:
        """`first` of some inputs, in as many columns as they need."""
        tail = self.tail[rows]
        width = int(tail.max())
        ids = padded_ids(self.tails[rows], width, self.pad, tail.device)
        inside = torch.arange(width, device=ids.device)
        begins = (self.length[rows] - tail).unsqueeze(1)
        positions = begins + torch.minimum(inside, tail.unsqueeze(1) - 1)  # padding needs one that the model has
        below = torch.ones(width, width, dtype=torch.bool, device=ids.device).tril()
        context = self.seen[rows, None, : self.begin].expand(-1, width, -1)
        seen = torch.cat((context, below.expand(len(ids), -1, -1)), dim=2).unsqueeze(1)
        return self._logits(ids, positions, seen, inside == tail.unsqueeze(1) - 1, layers)

    def next(self, tokens: Tensor) -> Tensor:
        """The same after one more token for each, (inputs,)."""
        seen = self.seen[:, None, None, : self.layers[0].filled + 1]
        positions, self.length = self.length.unsqueeze(1), self.length + 1
        asked = torch.ones_like(positions, dtype=torch.bool)
        return self._logits(tokens.unsqueeze(1), positions, seen, asked, self.layers)

    def keep(self, places: Tensor) -> None:
        """Go on with these inputs only."""
        self.layers = kept(self.layers, places)
        self.seen, self.length = self.seen[places], self.length[places]

    def _logits(
        self, ids: Tensor, positions: Tensor, seen: Tensor, asked: Tensor, layers: Sequence[GrowingLayer]
    ) -> Tensor:
        given = {"input_ids": ids, "position_ids": positions}
        cache = _cached(self.model, layers)
        return answer_logits_at(self.model, asked, None, False, **given, **_masked(self.model, seen), **cache)


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

    def __init__(self, model: Any, sequences: Sequence[Sequence[int]], pad: int) -> None:
        self.model, self.pad = model, pad
        self.sequences = [list(ids) for ids in sequences]

    def first(self) -> Tensor:
        """(inputs, vocabulary) fp32 logits after each input."""
        device = self.model.get_input_embeddings().weight.device
        lengths = torch.tensor([len(ids) for ids in self.sequences], device=device)
        ids = padded_ids(self.sequences, int(lengths.max()), self.pad, device)
        columns = torch.arange(ids.shape[1], device=device)
        mask, asked = columns < lengths[:, None], columns == (lengths - 1)[:, None]
        given = {"input_ids": ids, "attention_mask": mask.long(), "use_cache": False}
        return answer_logits_at(self.model, asked, None, False, **given)

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
    going = list(range(count))  # the answer that each row of the batch is
    over: set[int] = set()
    logits = inputs.first().to("cpu" if draws is not None else inputs.model.get_input_embeddings().weight.device)
    for step in range(settings.max_new_tokens):
        chosen = logits.argmax(-1) if draws is None else drawn(logits, draws[going, step], settings)
        for number, token in zip(going, chosen.tolist(), strict=True):
            if number not in over:
                answers[number].append(token)
                if ended(answers[number]):
                    over.add(number)
        if len(over) == count or step + 1 == settings.max_new_tokens:
            break
        left = [place for place, number in enumerate(going) if number not in over]
        if len(left) <= _FEWEST_LEFT * len(going):
            places = torch.tensor(left, device=inputs.model.get_input_embeddings().weight.device)
            inputs.keep(places)
            going, chosen = [going[i] for i in left], chosen[places.to(chosen.device)]
        logits = inputs.next(chosen.to(inputs.model.get_input_embeddings().weight.device)).to(logits.device)
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


def _cached(model: Any, layers: Sequence[GrowingLayer]) -> dict[str, Any]:
    return {"use_cache": True, **with_cache(model, growing_cache(layers))}


def _masked(model: Any, seen: Tensor) -> dict[str, Tensor]:
    """A mask as the model's attention takes it: bool, or for the eager one numbers that are added."""
    if model.config.get_text_config()._attn_implementation != "eager":
        return {"attention_mask": seen}
    added = torch.zeros(seen.shape, dtype=model.dtype, device=seen.device)
    return {"attention_mask": added.masked_fill_(~seen, torch.finfo(model.dtype).min)}

"""`Proposer`: new prompts from old ones, by every kind of move, in shares that the user sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from peft_interp.inference.batching import drawing_batches, reading_batches
from peft_interp.search.gradient_moves import gradient_swap
from peft_interp.search.language_moves import continue_from, rewritten, sentence_ends
from peft_interp.search.prompt_features import PromptFeatures, extract_features
from peft_interp.text.tokenization import vocabulary_texts


def deleted(ids: Sequence[int], rng: Random, most: int = 2) -> list[int]:
    """Without one run of 1 to `most` tokens; at least one token stays."""
    count = rng.randint(1, max(1, min(most, len(ids) - 1)))
    start = rng.randrange(len(ids) - count + 1)
    return [*ids[:start], *ids[start + count :]] or list(ids)


def swapped(ids: Sequence[int], rng: Random) -> list[int]:
    """With two tokens in each other's place."""
    changed = list(ids)
    if len(ids) > 1:
        i, j = rng.sample(range(len(ids)), 2)
        changed[i], changed[j] = changed[j], changed[i]
    return changed


def crossover(first: Sequence[int], second: Sequence[int], rng: Random) -> list[int]:
    """The beginning of one prompt and the end of another."""
    return [*first[: rng.randint(1, len(first))], *second[rng.randrange(len(second)) :]]


GRADIENT_PARENTS = 4  # parents of a step whose gradient is taken
MOVE_KINDS = ("continue", "rewrite", "gradient", "edit")


@dataclass(frozen=True)
class Moves:
    """How proposals are made.

    Attributes:
        shares: weight of every kind in `MOVE_KINDS`.
        shortest, longest: tokens of a prompt.
        temperature, top_p: of the language model's continuations.
    """

    shares: dict[str, float]
    shortest: int
    longest: int
    temperature: float = 1.0
    top_p: float = 0.95

    def fits(self, length: int) -> bool:
        """Whether a prompt may have so many tokens."""
        return self.shortest <= length <= self.longest


class Proposer:
    """Makes prompts that a language model finds likely.

    Args:
        model: the causal LM that proposes; it shares the task model's vocabulary.
        tokenizer: its tokenizer.
        allowed: (vocabulary,) bool, the adapter's filter.
        moves: kinds and sizes.
        leading: ids that the language model wants in front (BOS).
        start_id: what it starts from where there is no BOS in front, or None.
        gains: a prompt -> (L, vocabulary) of `swap_gains`; None leaves gradient moves out.

    Attributes:
        passes: rows of prompts alone that the language model ran so far, to read them or to go on from them.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        allowed: Tensor,
        moves: Moves,
        leading: Sequence[int] = (),
        start_id: int | None = None,
        gains: Callable[[Sequence[int]], Tensor] | None = None,
    ) -> None:
        self.model, self.moves, self.gains = model, moves, gains
        size = model.get_output_embeddings().weight.shape[0]
        self.allowed = torch.zeros(size, dtype=torch.bool)
        self.allowed[: len(allowed)] = allowed.cpu()[:size]
        self.forbidden = (~self.allowed).nonzero().flatten().tolist()
        self.leading, self.start_id = list(leading), start_id
        self.passes = 0
        self._reading, self._drawing = reading_batches(model), drawing_batches()
        self.ends = [i for i in sentence_ends(vocabulary_texts(tokenizer, size)) if self.allowed[i]]

    def propose(self, parents: Sequence[Sequence[int]], count: int, seed: int) -> list[tuple[str, list[int]]]:
        """About `count` proposals, duplicates included, each with the kind of move that made it.

        Args:
            parents: prompts to start from, best first.
            count: how many.
            seed: decides everything that is drawn.
        """
        rng = Random(seed)
        kinds = [
            k for k in MOVE_KINDS if self.moves.shares.get(k, 0) > 0 and (k != "gradient" or self.gains is not None)
        ]
        drawn = rng.choices(kinds, [self.moves.shares[k] for k in kinds], k=count)
        made: list[tuple[str, list[int]]] = []
        made += [("continue", ids) for ids in self._continuations(parents, drawn.count("continue"), rng)]
        made += [("edit", self._edited(parents, rng)) for _ in range(drawn.count("edit"))]
        chosen = [rng.randrange(len(parents)) for _ in range(drawn.count("rewrite"))]
        few = rng.sample(range(len(parents)), min(GRADIENT_PARENTS, len(parents)))
        swaps = drawn.count("gradient")
        wanted = sorted({*chosen, *(few if swaps else ())})
        reading = self.read([parents[i] for i in wanted], keep_logits=True)
        logits = dict(zip(wanted, reading.next_logits, strict=True))
        for i in chosen:
            insert = rng.random() < 0.4
            made.append(("rewrite", rewritten(parents[i], logits[i], self.allowed, rng, insert)))
        if swaps and self.gains is not None:
            gains = {i: self.gains(parents[i]) for i in few}
            for i in rng.choices(few, k=swaps):
                made.append(("gradient", gradient_swap(parents[i], gains[i], logits[i], self.allowed, rng)))
        return [(kind, ids) for kind, ids in made if self.moves.fits(len(ids))]

    def read(self, prompts: Sequence[Sequence[int]], keep_logits: bool = False) -> PromptFeatures:
        """Some prompts as the language model reads them; `keep_logits` as in `extract_features`."""
        self.passes += len(prompts)
        return extract_features(
            self.model, prompts, self.leading, self.start_id, keep_logits=keep_logits, batches=self._reading
        )

    def opened(self, prompts: Sequence[Sequence[int]], count: int, seed: int) -> list[tuple[str, list[int]]]:
        """About `count` prompts that begin like some given ones, or with the language model's own first words."""
        if not prompts and not self._front:
            return []
        made = self._continuations(prompts or [[]], count, Random(seed))
        return [("continue", ids) for ids in made if self.moves.fits(len(ids))]

    @property
    def _front(self) -> list[int]:
        """What stands in front of a prompt that is not begun yet."""
        return self.leading or ([self.start_id] if self.start_id is not None else [])

    def _continuations(self, parents: Sequence[Sequence[int]], count: int, rng: Random) -> list[list[int]]:
        """Parents cut somewhere, or nothing, and gone on from."""
        front, kept = self._front, []
        for _ in range(count):
            parent = parents[rng.randrange(len(parents))]
            kept.append(list(parent[: rng.randint(0 if front else 1, max(1, len(parent) - 1))]))
        self.passes += count
        drawn = continue_from(
            self.model,
            [[*front, *prefix] for prefix in kept],
            self.moves.longest,
            self.forbidden,
            self.ends,
            seed=rng.getrandbits(62),
            temperature=self.moves.temperature,
            top_p=self.moves.top_p,
            batches=self._drawing,
        )
        return [(prefix + new)[: self.moves.longest] for prefix, new in zip(kept, drawn, strict=True)]

    def _edited(self, parents: Sequence[Sequence[int]], rng: Random) -> list[int]:
        first, second = (parents[rng.randrange(len(parents))] for _ in range(2))
        kind = rng.randrange(3)
        return crossover(first, second, rng) if kind == 0 else deleted(first, rng) if kind == 1 else swapped(first, rng)

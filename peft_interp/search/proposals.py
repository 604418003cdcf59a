"""`Proposer`: new prompts from old ones, by every move in `MOVES`, in shares that the user sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_interp.inference.batching import drawing_batches, reading_batches
from peft_interp.search.instruct_moves import InstructModel, Request, demonstration
from peft_interp.search.language_moves import continue_from, sentence_ends
from peft_interp.search.moves import Move
from peft_interp.search.prompt_features import PromptFeatures, extract_features
from peft_interp.text.placement import START, Placement
from peft_interp.text.tokenization import vocabulary_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class TaskExamples:
    """What of the task a language model may be shown, and prompts may show.

    Attributes:
        pairs: texts of training rows with their answers.
        label_words: of a classification task.
        labelled_rows: of such a task, training rows as the model is asked about them, with their label words.
        placement: where the prompt stands.
        writes: whether the task model's answers are written, not chosen among label words.
    """

    pairs: Sequence[tuple[str, str]] = ()
    label_words: Sequence[str] = ()
    labelled_rows: Sequence[tuple[str, str]] = ()
    placement: Placement = START
    writes: bool = False


@dataclass(frozen=True)
class ProposalSettings:
    """How proposals are made.

    Attributes:
        shares: weight of every move, >= 0.
        shortest, longest: tokens of a prompt.
        temperature, top_p: of the language model's continuations.
    """

    shares: Mapping[Move, float]
    shortest: int
    longest: int
    temperature: float = 1.0
    top_p: float = 0.95

    def fits(self, length: int) -> bool:
        """Whether a prompt may have so many tokens."""
        return self.shortest <= length <= self.longest


@dataclass
class _Step:
    """`MoveInputs` of one move in one step; the parents' logits are shared by all moves of the step."""

    proposer: Proposer
    parents: Sequence[Sequence[int]]
    rng: Random
    allowed: Tensor
    logits: dict[int, Tensor]

    @property
    def examples(self) -> Sequence[tuple[str, str]]:
        return self.proposer.task.pairs

    @property
    def label_words(self) -> Sequence[str]:
        return self.proposer.task.label_words

    @property
    def labelled_rows(self) -> Sequence[tuple[str, str]]:
        return self.proposer.labelled_rows

    def text_of(self, parent: Sequence[int]) -> str:
        return self.proposer.task.placement.decode_prompt(self.proposer.tokenizer, parent).strip()

    def encoded(self, texts: Sequence[str]) -> list[list[int]]:
        return self.proposer.encoded(texts)

    def has_room(self, ids: Sequence[int]) -> bool:
        return self.proposer.settings.fits(len(ids))

    def answers(self, requests: Sequence[Request]) -> list[list[int]]:
        return self.proposer.answers(requests, self.rng)

    def next_logits(self, places: Sequence[int]) -> dict[int, Tensor]:
        wanted = sorted({*places} - {*self.logits})
        reading = self.proposer.read([self.parents[i] for i in wanted], keep_logits=True)
        self.logits |= dict(zip(wanted, reading.next_logits, strict=True))
        return {i: self.logits[i] for i in places}

    def continuations(self, parents: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        return self.proposer.continuations(parents, count, self.rng)

    def gains(self, parent: Sequence[int]) -> Tensor:
        assert self.proposer.gains is not None
        return self.proposer.gains(parent)


class Proposer:
    """Makes prompts that a language model finds likely.

    Args:
        model: the causal LM that proposes; it shares the task model's vocabulary.
        tokenizer: its tokenizer.
        allowed: (vocabulary,) bool, the adapter's filter.
        settings: kinds and sizes.
        leading: ids that the language model wants in front (BOS).
        start_id: what it starts from where there is no BOS in front, or None.
        gains: a prompt -> (L, vocabulary) of `swap_gains`; None leaves out moves that need the gradient.
        task: what prompts and an instruct model may show of the task.
        instruct: the model that is asked for prompts; by default the one that proposes, if it has a chat template.

    Attributes:
        passes: rows of prompts alone, or of requests for one, that these models ran so far.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        allowed: Tensor,
        settings: ProposalSettings,
        leading: Sequence[int] = (),
        start_id: int | None = None,
        gains: Callable[[Sequence[int]], Tensor] | None = None,
        task: TaskExamples | None = None,
        instruct: InstructModel | None = None,
    ) -> None:
        self.model, self.tokenizer, self.settings, self.gains = model, tokenizer, settings, gains
        self.task = task or TaskExamples()
        size = model.get_output_embeddings().weight.shape[0]
        self.allowed = torch.zeros(size, dtype=torch.bool)
        self.allowed[: len(allowed)] = allowed.cpu()[:size]
        self.forbidden = (~self.allowed).nonzero().flatten().tolist()
        self.leading, self.start_id = list(leading), start_id
        self.passes = 0
        self._reading, self._drawing = reading_batches(model), drawing_batches()
        self.ends = [i for i in sentence_ends(vocabulary_texts(tokenizer, size)) if self.allowed[i]]
        if instruct is None and getattr(tokenizer, "chat_template", None):
            instruct = InstructModel(model, tokenizer, self.allowed)
        self.instruct = instruct

    def propose(self, parents: Sequence[Sequence[int]], count: int, seed: int) -> list[tuple[str, list[int]]]:
        """About `count` proposals, duplicates included, each with the kind of move that made it.

        Args:
            parents: prompts to start from, best first.
            count: how many.
            seed: decides everything that is drawn.
        """
        rng, shares = Random(seed), self.settings.shares
        usable = [move for move, share in shares.items() if share > 0 and self.has(move.needs)]
        drawn = Counter(rng.choices(usable, [shares[m] for m in usable], k=count))
        logits: dict[int, Tensor] = {}
        made: list[tuple[str, list[int]]] = []
        for move in usable:
            own = Random(rng.getrandbits(62))
            if drawn[move]:
                step = _Step(self, parents, own, self.allowed, logits)
                made += [(move.name, list(ids)) for ids in move.function(step, drawn[move])]
        return [(name, ids) for name, ids in made if self.settings.fits(len(ids))]

    def has(self, needs: str) -> bool:
        """Whether what a move needs is at hand."""
        if needs == "gradient":
            return self.gains is not None
        if needs == "answers":
            return self.task.writes and any(answer.strip() for _, answer in self.task.pairs)
        if needs == "labelled rows":
            return self._has_room_for_rows
        if needs and self.instruct is None:
            return False
        return {"examples": bool(self.task.pairs), "label words": bool(self.task.label_words)}.get(needs, True)

    @cached_property
    def _has_room_for_rows(self) -> bool:
        """Whether the shortest row of each label, one after the other, may be a prompt."""
        by_length = sorted(self.labelled_rows, key=lambda pair: len(pair[0]), reverse=True)
        shortest = list({answer: (text, answer) for text, answer in by_length}.values())
        if not shortest or len(shortest) < len(set(self.task.label_words)):
            return False
        (ids,) = self.encoded([demonstration(shortest, 1, Random(0))])
        return self.settings.fits(len(ids))

    @cached_property
    def labelled_rows(self) -> Sequence[tuple[str, str]]:
        """Those of the task whose tokens a prompt may have; none where the prompt does not stand in front of rows."""
        rows = self.task.labelled_rows if self.task.placement == START else ()
        encoded = self.encoded([demonstration([row], 1, Random(0)) for row in rows])
        return [row for row, ids in zip(rows, encoded, strict=True) if self.allowed[ids].all()]

    def read(self, prompts: Sequence[Sequence[int]], keep_logits: bool = False) -> PromptFeatures:
        """Some prompts as the language model reads them; `keep_logits` as in `extract_features`."""
        self.passes += len(prompts)
        return extract_features(
            self.model, prompts, self.leading, self.start_id, keep_logits=keep_logits, batches=self._reading
        )

    def opened(self, prompts: Sequence[Sequence[int]], count: int, seed: int) -> list[tuple[str, list[int]]]:
        """About `count` prompts that begin like some given ones, or with the language model's own first words.

        Half of them are made of the training rows alone where a move does that, in the moves' shares. All kinds take
        turns, for who uses only the first of them.
        """
        if not prompts and not self._front:
            return []
        rng = Random(seed)
        shares = self.settings.shares
        asked = [move for move, share in shares.items() if share > 0 and move.of_rows and self.has(move.needs)]
        each = {move: int(count * shares[move] / (2 * sum(shares[m] for m in asked))) for move in asked}
        drawn = self.continuations(prompts or [[]], count - sum(each.values()), rng)
        kinds = [[("continue", ids) for ids in drawn]]
        for move in asked:
            step = _Step(self, prompts, Random(rng.getrandbits(62)), self.allowed, {})
            kinds.append([(move.name, list(ids)) for ids in move.function(step, each[move])])
        usable = [[(name, ids) for name, ids in kind if self.settings.fits(len(ids))] for kind in kinds]
        return [made for turn in zip_longest(*usable) for made in turn if made is not None]

    @property
    def _front(self) -> list[int]:
        """What stands in front of a prompt that is not begun yet."""
        return self.leading or ([self.start_id] if self.start_id is not None else [])

    def continuations(self, parents: Sequence[Sequence[int]], count: int, rng: Random) -> list[list[int]]:
        """`count` parents cut somewhere, or nothing, and gone on from."""
        front, kept = self._front, []
        for _ in range(count):
            parent = parents[rng.randrange(len(parents))]
            kept.append(list(parent[: rng.randint(0 if front else 1, max(1, len(parent) - 1))]))
        self.passes += count
        drawn = continue_from(
            self.model,
            [[*front, *prefix] for prefix in kept],
            self.settings.longest,
            self.forbidden,
            self.ends,
            seed=rng.getrandbits(62),
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            batches=self._drawing,
        )
        return [(prefix + new)[: self.settings.longest] for prefix, new in zip(kept, drawn, strict=True)]

    def answers(self, requests: Sequence[Request], rng: Random) -> list[list[int]]:
        """What the instruct model writes when it is asked in its chat template, as prompts; only whole sentences."""
        assert self.instruct is not None  # or no move would have asked
        settings = self.settings
        self.passes += len(requests)
        return self.encoded(
            self.instruct.answers(requests, settings.longest, rng.getrandbits(62), settings.temperature, settings.top_p)
        )

    def encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Texts as prompts, in the place where prompts stand."""
        return [self.task.placement.encode_prompt(self.tokenizer, text) for text in texts]

"""Where candidates come from: one record for each source, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peft_interp.explain.demonstrations import Shown, demonstrations
from peft_interp.explain.inversion import invert, start_scores, swap_gains
from peft_interp.explain.pool import CandidatePool
from peft_interp.explain.readings import ASKING, DESCRIBING, model_blocks, read_layers, readings, vector_states
from peft_interp.inference.models import input_embeddings
from peft_interp.metrics.references import human_prompts
from peft_interp.records import markdown_table
from peft_interp.search.moves import MOVES, Move, MoveInputs, Prompts
from peft_interp.search.proposals import ProposalSettings, Proposer
from peft_interp.text.tokenization import start_id
from peft_interp.tuner.projection import nearest_rows, row_terms

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CLOSE_SHARE = 0.02  # of what there is to explain; a text that is so near is not improved any further
_CLOSEST, _CLOSE = 0.002, 0.006  # nats; nor one that is nearer than the first, and surely one that is beyond the second
_DRAWN = 2  # readings of each frame and layer
_HUMAN = 16  # prompts that people wrote, to begin with
_STEP = 24  # texts that a step of the search proposes
_PARENTS = 3
_TOP = 96  # swaps among which is drawn, by their gain
_RESTART_STEPS = 40  # of an inversion
_MOST_STEPS = 2000  # of a search whose proposals are all known already


@dataclass(frozen=True)
class Hunt:
    """What candidates are made from: the model, the prompt's vectors, and the pool they go to.

    Attributes:
        base: the base model.
        tokenizer: its tokenizer.
        vectors: (length, dim) of the prompt; None for prefix tuning.
        exact: ids of the prompt where it is tokens; None for vectors.
        allowed: (vocabulary,) bool on the CPU, tokens of a text.
        length: tokens of the texts that are made from nothing.
        pool: where candidates go.
        proposer: the language model's moves.
        examples: rows that the pool does not look at, with the prompt's answers to them.
        seed: decides everything that is drawn.
    """

    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    vectors: Tensor | None
    exact: Sequence[int] | None
    allowed: Tensor
    length: int
    pool: CandidatePool
    proposer: Proposer
    examples: Sequence[Shown]
    seed: int

    @property
    def done(self) -> bool:
        """Whether a text is so near that nothing better is wanted."""
        wanted = min(max(_CLOSE_SHARE * self.pool.target.kl_of_nothing, _CLOSEST), _CLOSE)
        return any(one.kl <= wanted for one in self.pool.best(1))

    def encode(self, text: str) -> list[int]:
        """Ids of a text in the prompt's place."""
        return self.pool.beside.placement.encode_prompt(self.tokenizer, text)

    def add_texts(self, source: str, texts: Iterable[str], budget: int) -> None:
        """Put the first of some texts that are short enough into the pool, as many as the budget pays for."""
        short = (ids for ids in map(self.encode, texts) if len(ids) <= self.pool.longest)
        self.pool.add(source, list(islice(short, max(1, budget // len(self.pool.target.rows)))))


@dataclass(frozen=True)
class Source:
    """One kind of candidates.

    Attributes:
        name: in records.
        function: puts candidates into the hunt's pool and runs at most so many pairs of text and row, roughly.
        share: of the budget; 0 where it costs next to nothing.
        words: what it does, for tables.
        needs_vectors: it reads the prompt's vectors, and is left out where there are none.
    """

    name: str
    function: Callable[[Hunt, int], None]
    share: float
    words: str
    needs_vectors: bool = True


def _nearest(hunt: Hunt, budget: int) -> None:
    assert hunt.vectors is not None
    if hunt.exact is not None:
        hunt.pool.add("nearest", [hunt.exact])
        return
    module = input_embeddings(hunt.base)
    table, blocked = module.weight.detach(), ~hunt.allowed.to(module.weight.device)
    some = hunt.allowed.nonzero()[0].to(table.device)
    scale = module(some).norm() / table[some].norm()  # Gemma's module multiplies its rows
    near = [
        nearest_rows(hunt.vectors.float() / scale, table, metric, row_terms(table, metric), blocked).tolist()
        for metric in ("cosine", "euclidean")
    ]
    hunt.pool.add("nearest", near)


def _asking(hunt: Hunt, budget: int) -> None:
    assert hunt.vectors is not None
    _add_readings(hunt, "asking", ASKING, [(None, hunt.vectors)])


def _patchscope(hunt: Hunt, budget: int) -> None:
    assert hunt.vectors is not None
    states = vector_states(hunt.base, hunt.vectors)
    layers = [(i, states[i]) for i in read_layers(len(model_blocks(hunt.base)))]
    _add_readings(hunt, "patchscope", DESCRIBING, layers)


def _add_readings(hunt: Hunt, source: str, frames: Sequence[str], states: Sequence[tuple[int | None, Tensor]]) -> None:
    forbidden, ends = hunt.proposer.forbidden, hunt.proposer.ends
    found: list[list[int]] = []
    for number, (frame, (block, vectors)) in enumerate((f, s) for f in frames for s in states):
        said = readings(
            *(hunt.base, hunt.tokenizer, frame, vectors, block, hunt.pool.longest, forbidden, ends),
            count=_DRAWN,
            seed=hunt.seed + number,
        )
        found += [hunt.encode(text) for text in said]
    hunt.pool.add(source, found)


def _demonstrations(hunt: Hunt, budget: int) -> None:
    hunt.add_texts("demonstrations", demonstrations(hunt.examples, Random(hunt.seed)), budget)


def _human(hunt: Hunt, budget: int) -> None:
    known = human_prompts()
    drawn = Random(hunt.seed).sample(known, len(known))
    hunt.add_texts("hand-written", drawn, min(budget, _HUMAN * len(hunt.pool.target.rows)))


def _inversion(hunt: Hunt, budget: int) -> None:
    """From the vectors where there are some, then from noise, until the budget is spent."""
    table = input_embeddings(hunt.base).weight.detach()
    stop, restart = hunt.pool.evaluations + budget, 0
    cost = 3 * len(hunt.pool.target.rows)
    while not hunt.done:
        steps = min(_RESTART_STEPS, (stop - hunt.pool.evaluations) // cost)
        if steps < _RESTART_STEPS // 2 and (restart or steps < 1):
            return
        vectors = hunt.vectors if not restart else None
        length = len(hunt.vectors) if hunt.vectors is not None else hunt.length
        begin = start_scores((length, len(table)), hunt.allowed, hunt.seed + restart, vectors, table)
        found = invert(hunt.pool.target, begin, steps)
        hunt.pool.spend(3 * steps)
        hunt.pool.add("inversion", found)
        restart += 1


def _coordinate(inputs: MoveInputs, count: int) -> Prompts:
    """One or two swaps among those that the gradient promises most from."""
    parent, made = list(inputs.parents[0]), []
    gains = inputs.gains(parent)
    width = min(gains.shape[-1], len(inputs.allowed))
    gains = gains[:, :width].masked_fill(~inputs.allowed[:width], -torch.inf)
    top = gains.flatten().topk(min(_TOP, gains.numel())).indices.tolist()
    for _ in range(count):
        changed = list(parent)
        for swap in inputs.rng.sample(top, min(len(top), inputs.rng.choice((1, 1, 2)))):
            changed[swap // width] = swap % width
        made.append(changed)
    return made


COORDINATE = Move("coordinate", _coordinate, 0.6, "swaps that the divergence's gradient asks for", needs="gradient")
SEARCH_MOVES = {COORDINATE: 0.6} | {move: 0.2 for move in MOVES if move.name in ("rewrite", "edit")}


def _search(hunt: Hunt, budget: int) -> None:
    """The best texts, changed, until the budget is spent."""
    pool, stop = hunt.pool, hunt.pool.evaluations + budget
    if not pool.found:
        pool.add("search", [ids for _, ids in hunt.proposer.opened([], _STEP, hunt.seed)])
    known: dict[tuple[int, ...], Tensor] = {}

    def gains(ids: Sequence[int]) -> Tensor:
        if tuple(ids) not in known:
            known[tuple(ids)] = swap_gains(pool.target, ids)
            pool.spend(3)
        return known[tuple(ids)]

    hunt.proposer.gains = gains
    for step in range(_MOST_STEPS):
        if not pool.found or pool.evaluations >= stop or hunt.done:
            return
        parents = [one.candidate.ids for one in pool.best(_PARENTS)]
        made = [ids for _, ids in hunt.proposer.propose(parents, _STEP, seed=hunt.seed * 100_003 + step)]
        room = max(1, (stop - pool.evaluations) // len(pool.target.rows))
        pool.add("search", made[:room])


SOURCES = (  # of equally near texts, that of the earlier source is delivered
    Source("nearest", _nearest, 0.0, "the tokens nearest to the vectors, by cosine and by euclidean distance"),
    Source("asking", _asking, 0.0, "what the model says after a sentence in which the vectors stand"),
    Source(
        "patchscope",
        _patchscope,
        0.0,
        "what the model says where the states that the vectors leave in a layer are patched into a sentence",
    ),
    Source(
        "demonstrations",
        _demonstrations,
        0.05,
        "the rows' last words, and rows, with the answers that the prompt gives them (few-shot)",
        needs_vectors=False,
    ),
    Source("hand-written", _human, 0.05, "prompts that people wrote", needs_vectors=False),
    Source("inversion", _inversion, 0.4, "a relaxation of the tokens, from several starts", needs_vectors=False),
    Source("search", _search, 0.5, "the best of all these, changed token by token", needs_vectors=False),
)


def make_proposer(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, allowed: Tensor, longest: int, leading: Sequence[int]
) -> Proposer:
    """The language model's moves, for texts of up to `longest` tokens."""
    settings = ProposalSettings(SEARCH_MOVES, 1, longest)
    return Proposer(base, tokenizer, allowed, settings, leading, start_id(tokenizer, base.config))


def source_table() -> str:
    """`SOURCES` as Markdown."""
    rows = [[f"`{s.name}`", s.words, "vectors" if s.needs_vectors else ""] for s in SOURCES]
    return markdown_table(("source", "what", "needs"), rows)

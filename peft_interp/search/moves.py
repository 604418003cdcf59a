"""How new prompts are made from old ones: one record for each kind of proposal in `MOVES`, functions that draw them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from torch import Tensor

from peft_interp.records import markdown_table
from peft_interp.search.gradient_moves import gradient_swap
from peft_interp.search.instruct_moves import (
    Request,
    ask_for_labels,
    demonstration,
    induction,
    paraphrase,
    shortened,
)
from peft_interp.search.language_moves import rewritten
from peft_interp.text.token_filter import LINE_END

Prompts = list[list[int]]
GRADIENT_PARENTS = 4  # parents of a step whose gradient is taken
INSERT_SHARE = 0.4  # of rewritten prompts get a token more
SHOWN_BY = "For example:"  # stands in front of an answer that a prompt shows


class MoveInputs(Protocol):
    """What a move may use; what needs a pass of a model runs it when first asked.

    Attributes:
        parents: prompts to start from, best first.
        rng: every move's own, from the step's seed, so that moves do not change each other's draws.
        allowed: (vocabulary,) bool, the adapter's filter.
    """

    parents: Sequence[Sequence[int]]
    rng: Random
    allowed: Tensor

    @property
    def examples(self) -> Sequence[tuple[str, str]]:
        """Texts of training rows with their answers."""

    @property
    def label_words(self) -> Sequence[str]:
        """Those of a classification task; empty for others."""

    @property
    def labelled_rows(self) -> Sequence[tuple[str, str]]:
        """Training rows as the model is asked about them, with their label words; those whose tokens are allowed."""

    def text_of(self, parent: Sequence[int]) -> str:
        """A prompt as a person reads it."""

    def encoded(self, texts: Sequence[str]) -> Prompts:
        """Texts as prompts, in the place where prompts stand."""

    def has_room(self, ids: Sequence[int]) -> bool:
        """Whether a prompt may have so many tokens."""

    def answers(self, requests: Sequence[Request]) -> Prompts:
        """What the language model writes when asked in its chat template: whole sentences, perhaps fewer than asked."""

    def next_logits(self, places: Sequence[int]) -> dict[int, Tensor]:
        """Of the parents at these places: (L, vocabulary), row i predicts token i under the language model."""

    def continuations(self, parents: Sequence[Sequence[int]], count: int) -> Prompts:
        """`count` parents cut somewhere, or nothing, and gone on from by the language model."""

    def gains(self, parent: Sequence[int]) -> Tensor:
        """(L, vocabulary) how far the task's loss would fall by a swap, nats; see `swap_gains`."""


@dataclass(frozen=True)
class Move:
    """One kind of proposal.

    Attributes:
        name: in records of proposals.
        function: from inputs and a count to about so many prompts. They may be of any length and may repeat; the search
            drops what it cannot use.
        default: weight of its share among the proposals, >= 0.
        words: what it does, for help texts.
        setting: the weight's name in `PromptSearchConfig`; "" takes `default` as it is.
        needs: "gradient" for what needs labels and their loss, "chat" for a language model with a chat template,
            "examples" or "label words" for one that is shown them, "answers" for a task whose answers are written and
            are known for training rows, "labelled rows" for label words and room for a row of each, line by line,
            "" for nothing but the language model.
    """

    name: str
    function: Callable[[MoveInputs, int], Prompts]
    default: float
    words: str
    setting: str = ""
    needs: str = ""

    @property
    def of_rows(self) -> bool:
        """Whether it is made of training rows alone, without parents, so that a search can begin with it."""
        return self.needs in ("examples", "label words", "labelled rows")

    @property
    def weight_help(self) -> str:
        """Help text of the weight."""
        return f"Weight of {self.words} among the proposals, >= 0."


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


def _continue(inputs: MoveInputs, count: int) -> Prompts:
    return inputs.continuations(inputs.parents, count)


def _rewrite(inputs: MoveInputs, count: int) -> Prompts:
    """One token that the language model finds likely, in another's place or between two."""
    rng = inputs.rng
    chosen = [rng.randrange(len(inputs.parents)) for _ in range(count)]
    logits = inputs.next_logits(chosen)
    return [
        rewritten(inputs.parents[i], logits[i], inputs.allowed, rng, insert=rng.random() < INSERT_SHARE) for i in chosen
    ]


def _gradient(inputs: MoveInputs, count: int) -> Prompts:
    """Swaps in a few parents, whose gradient is taken once."""
    rng = inputs.rng
    few = rng.sample(range(len(inputs.parents)), min(GRADIENT_PARENTS, len(inputs.parents)))
    logits, gains = inputs.next_logits(few), {i: inputs.gains(inputs.parents[i]) for i in few}
    return [
        gradient_swap(inputs.parents[i], gains[i], logits[i], inputs.allowed, rng) for i in rng.choices(few, k=count)
    ]


def _edit(inputs: MoveInputs, count: int) -> Prompts:
    """Crossovers, deletions and exchanges, a third each."""
    made, rng = [], inputs.rng
    for _ in range(count):
        first, second = (rng.choice(inputs.parents) for _ in range(2))
        kind = rng.randrange(3)
        made.append(
            crossover(first, second, rng) if kind == 0 else deleted(first, rng) if kind == 1 else swapped(first, rng)
        )
    return made


def _induce(inputs: MoveInputs, count: int) -> Prompts:
    return inputs.answers([induction(inputs.examples, inputs.rng) for _ in range(count)])


def _ask_for_labels(inputs: MoveInputs, count: int) -> Prompts:
    return inputs.answers([ask_for_labels(inputs.label_words, inputs.examples, inputs.rng) for _ in range(count)])


def _paraphrase(inputs: MoveInputs, count: int) -> Prompts:
    chosen = [inputs.rng.choice(inputs.parents) for _ in range(count)]
    return inputs.answers([paraphrase(inputs.text_of(parent)) for parent in chosen])


def _shorten(inputs: MoveInputs, count: int) -> Prompts:
    chosen = [inputs.rng.choice(inputs.parents) for _ in range(count)]
    return inputs.answers([shortened(inputs.text_of(parent)) for parent in chosen])


def _show(inputs: MoveInputs, count: int) -> Prompts:
    """A prompt, and after it the answer of a training row, which shows the form that is wanted."""
    rng, answers = inputs.rng, [answer.strip() for _, answer in inputs.examples if answer.strip()]
    return inputs.encoded(
        [f"{inputs.text_of(rng.choice(inputs.parents))} {SHOWN_BY} {rng.choice(answers)}" for _ in range(count)]
    )


def _demonstrate(inputs: MoveInputs, count: int) -> Prompts:
    """Labelled training rows as the model is asked about them, one or two of each label; half after a prompt."""
    made: Prompts = []
    rng = inputs.rng
    for _ in range(count):
        before = [f"{inputs.text_of(rng.choice(inputs.parents))}{LINE_END}"] if inputs.parents else []
        openings = [*before, ""] if rng.random() < 0.5 else [""]
        shown = [demonstration(inputs.labelled_rows, each, rng) for each in range(rng.randint(1, 2), 0, -1)]
        longest_first = inputs.encoded([opening + rows for rows in shown for opening in openings])
        made += [ids for ids in longest_first if inputs.has_room(ids)][:1]
    return made


MOVES = (
    Move("continue", _continue, 0.4, "the language model's continuations", "continuation_share"),
    Move("rewrite", _rewrite, 0.3, "tokens replaced or inserted by the language model", "rewrite_share"),
    Move(
        name="gradient",
        function=_gradient,
        default=0.15,
        words="swaps that the task's gradient asks for among likely tokens",
        setting="gradient_share",
        needs="gradient",
    ),
    Move("edit", _edit, 0.15, "deletions, exchanges and crossovers", "edit_share"),
    Move(
        name="induce",
        function=_induce,
        default=0.3,
        words="an instruct model's guesses of the instruction behind training rows",
        setting="induction_share",
        needs="examples",
    ),
    Move(
        name="ask_for_labels",
        function=_ask_for_labels,
        default=0.3,
        words="an instruct model's questions that the label words answer",
        setting="label_question_share",
        needs="label words",
    ),
    Move(
        name="paraphrase",
        function=_paraphrase,
        default=0.2,
        words="an instruct model's other words for a prompt",
        setting="paraphrase_share",
        needs="chat",
    ),
    Move(
        name="shorten",
        function=_shorten,
        default=0.1,
        words="an instruct model's shorter words for a prompt",
        setting="shorten_share",
        needs="chat",
    ),
    Move(
        name="show",
        function=_show,
        default=0.2,
        words="prompts that show a training row's answer, where answers are written",
        setting="example_share",
        needs="answers",
    ),
    Move(
        name="demonstrate",
        function=_demonstrate,
        default=0.3,
        words="labelled training rows as text, where lines and so many tokens are allowed",
        setting="demonstration_share",
        needs="labelled rows",
    ),
)


def shares_of(config: object, moves: Sequence[Move] = MOVES) -> dict[Move, float]:
    """The weight of every move: the config's, or the move's own where it has no setting there."""
    return {
        move: float(getattr(config, move.setting, move.default) if move.setting else move.default) for move in moves
    }


def move_table() -> str:
    """`MOVES` as Markdown."""
    rows = [[f"`{m.name}`", m.words, f"`{m.setting}`", f"{m.default:g}", m.needs] for m in MOVES]
    return markdown_table(("name", "what", "weight in `PromptSearchConfig`", "default", "needs"), rows)

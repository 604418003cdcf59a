"""What a prompt does on some rows: the answers that a text has to give, and how far a text's answers are from them.

Answers are the base model's distributions over its whole vocabulary where a label is to be predicted. Three sides give
them: the adapter as PEFT runs it, nothing at all, and any text. The divergence is KL(prompt || text), in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import torch
from peft import PeftModel, PeftType
from torch import Tensor

from peft_interp.inference.batching import Batches, default_tokens, logits_tokens, padded_rows
from peft_interp.inference.head import answer_logits_at
from peft_interp.inference.max_length import check_room
from peft_interp.metrics.comparison import ComparisonSetup, make_comparison
from peft_interp.metrics.differentials import kl_divergence
from peft_interp.metrics.reading import prompt_config
from peft_interp.metrics.text_rows import PlacedRow
from peft_interp.text.rows import Row, Rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEWEST_ROWS = 8
MOST_ANSWERS = 8  # labelled tokens of a row that are compared
_KEY_VALUES = (PeftType.PREFIX_TUNING, PeftType.CARTRIDGE)


def has_vectors(model: PeftModel, adapter_name: str | None = None) -> bool:
    """Whether the prompt stands among the input embeddings, rather than as keys and values inside the layers."""
    return PeftType(prompt_config(model, adapter_name).peft_type) not in _KEY_VALUES


def compared(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    label_token_ids: Sequence[int] | None,
    batch_size: int,
) -> ComparisonSetup:
    """Both sides of the active adapter and the rows, prefix tuning included.

    Raises:
        ValueError: another task than a causal LM's, fewer than `FEWEST_ROWS` rows, or unusable ones.
    """
    config = prompt_config(model)
    task = getattr(config.task_type, "value", config.task_type)
    if task != "CAUSAL_LM":
        raise ValueError(
            f"`task_type={task!r}` has no text in front of a causal language model that could explain it; use "
            "CAUSAL_LM, or `read_prompt` for the nearest tokens of any task's prompt."
        )
    setup = make_comparison(model, tokenizer, rows, label_token_ids, batch_size, "right")
    if len(setup.rows) < FEWEST_ROWS:
        raise ValueError(
            f"`rows` holds {len(setup.rows)} rows; at least {FEWEST_ROWS} are needed, since half of them find a text "
            "and the other half judge it. Pass more, 50 say."
        )
    if has_vectors(model):
        return setup
    return replace(setup, length=0, prompt=replace(setup.prompt, extra=0))  # its columns are the input's own


def two_halves(rows: Sequence[Row], seed: int, most: int) -> tuple[list[int], list[int]]:
    """Numbers of the rows that find a text and of those that judge it: drawn, with each answer in equal parts.

    Args:
        rows: the examples.
        seed: of the draw.
        most: rows of a half.
    """
    order = Random(seed).sample(range(len(rows)), len(rows))
    order.sort(key=lambda i: rows[i].labels[rows[i].first] if rows[i].last >= 0 else -1)
    halves = order[0::2], order[1::2]
    first, second = (sorted(half[:: max(1, -(-len(half) // most))]) for half in halves)
    return first, second


@dataclass(frozen=True)
class Target:
    """Rows with the log-probabilities that the prompt gives, and no prompt gives, at their labels.

    Attributes:
        setup: both models.
        rows: the examples, short ones first.
        places: for each row the indices of the labels that are compared, ascending.
        prompt: (answers, vocabulary) the prompt's log-probabilities, rows in order.
        nothing: (answers, vocabulary) the same with no prompt.
        owners: (answers,) index of the row.
        batches: cuts passes that are too large.
    """

    setup: ComparisonSetup
    rows: list[Row]
    places: list[list[int]]
    prompt: Tensor
    nothing: Tensor
    owners: Tensor
    batches: Batches

    def subset(self, count: int) -> Target:
        """`count` of the rows, evenly spread over their lengths."""
        if count >= len(self.rows):
            return self
        return self.part(torch.linspace(0, len(self.rows) - 1, count).round().long().unique().tolist())

    def part(self, chosen: Sequence[int]) -> Target:
        """Some of the rows, by their numbers here, ascending."""
        device, numbers = self.owners.device, torch.full((len(self.rows),), -1)
        numbers[list(chosen)] = torch.arange(len(chosen))
        owners = numbers.to(device)[self.owners]
        kept = owners >= 0
        rows, places = [self.rows[i] for i in chosen], [self.places[i] for i in chosen]
        prompt, nothing = self.prompt[kept], self.nothing[kept]
        return replace(self, rows=rows, places=places, prompt=prompt, nothing=nothing, owners=owners[kept])

    @property
    def kl_of_nothing(self) -> float:
        """KL(prompt || no prompt), nats: what there is to explain."""
        return kl_divergence(self.prompt, self.nothing).mean().item()

    def kl(self, prompts: Sequence[Sequence[int]]) -> list[float]:
        """KL(prompt || text) of some texts, as ids in the prompt's place: nats, mean over answers.

        Args:
            prompts: ids of any lengths >= 1.
        """
        sums = torch.zeros(len(prompts), dtype=torch.float64)
        base = self.setup.text.base
        answer_cost = logits_tokens(base)
        starts = torch.tensor([0, *[len(p) for p in self.places]]).cumsum(0).tolist()

        def cost(some: range, rows: range) -> float:
            longest = max(self.rows[i].length for i in rows) + max(len(prompts[i]) for i in some)
            return len(some) * (len(rows) * longest + answer_cost * (starts[rows.stop] - starts[rows.start]))

        def work(some: range, rows: range) -> None:
            pairs = [(prompts[i], row) for i in some for row in rows]
            found = self.log_probs(pairs).view(len(some), -1, self.prompt.shape[-1])
            wanted = self.prompt[starts[rows.start] : starts[rows.stop]]
            for place, i in enumerate(some):
                sums[i] += kl_divergence(wanted, found[place]).double().sum().cpu()

        self.batches.run(work, cost, range(len(prompts)), range(len(self.rows)))
        return (sums / len(self.prompt)).tolist()

    def log_probs(self, pairs: Sequence[tuple[Sequence[int], int]]) -> Tensor:
        """(answers, vocabulary) log-probabilities where a row's labels are predicted, for (prompt, row number)."""
        base = self.setup.text.base
        tokens, mask, places = self.padded(pairs)
        logits = answer_logits_at(base, places, None, False, input_ids=tokens, attention_mask=mask)
        return logits.log_softmax(-1)

    def padded(self, pairs: Sequence[tuple[Sequence[int], int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Input ids and attention mask, (pairs, length) padded on the right, and the places that predict the labels."""
        base, made = self.setup.text.base, [self._composed(prompt, row) for prompt, row in pairs]
        tokens, mask = padded_rows([ids for ids, _ in made], self.setup.text.pad_id, base.device)
        places = [number * tokens.shape[1] + column for number, (_, columns) in enumerate(made) for column in columns]
        return tokens, mask, torch.tensor(places, device=base.device)

    def _composed(self, prompt: Sequence[int], number: int) -> tuple[list[int], list[int]]:
        row, lead = self.rows[number], len(self.rows[number].leading)
        columns = [lead + j + (len(prompt) if j >= row.start else 0) - 1 for j in self.places[number]]
        ids = [*row.before, *prompt, *row.after]
        return ids[: columns[-1] + 1], columns


def make_target(setup: ComparisonSetup, numbers: Sequence[int], longest: int) -> Target:
    """The prompt's answers to some of the rows, and those with no prompt.

    Args:
        setup: both sides of the active adapter.
        numbers: of the rows.
        longest: tokens of the longest text that will be tried, for which there must be room.

    Raises:
        ValueError: rows too long for the model, or none whose answer is predicted by both sides.
    """
    rows = sorted((setup.rows[i] for i in numbers), key=lambda row: row.length)
    check_room(setup.text.base, max(longest, setup.length), max(row.length for row in rows))
    places = [common_places(setup, row) for row in rows]
    rows, places = [row for row, p in zip(rows, places, strict=True) if p], [p for p in places if p]
    if not rows:
        raise ValueError("no row has a label that is predicted with and without the prompt; pass rows with more text.")
    prompt = ask(setup, rows, places, setup.as_prompt(rows), as_prompt=True)
    nothing = ask(setup, rows, places, setup.as_text(rows, "", []), as_prompt=False)
    owners = torch.tensor([i for i, p in enumerate(places) for _ in p], device=prompt.device)
    base = setup.text.base
    return Target(setup, rows, places, prompt, nothing, owners, Batches(default_tokens(base, base.device)))


def common_places(setup: ComparisonSetup, row: Row) -> list[int]:
    """Indices of a row's first labels that are predicted with and without a prompt."""
    bare = setup.as_text([row], "", [])[0]
    known = set(setup.predicted(row, bare)) & set(setup.predicted(row, setup.as_prompt([row])[0]))
    return [j for j in setup.wanted(row, "answers") if j in known][:MOST_ANSWERS]


def ask(
    setup: ComparisonSetup,
    rows: Sequence[Row],
    places: Sequence[Sequence[int]],
    placed: Sequence[PlacedRow],
    as_prompt: bool,
) -> Tensor:
    """(answers, vocabulary) log-probabilities of one side, rows in order.

    Args:
        setup: both sides.
        rows: the examples.
        places: for each row the indices of its labels.
        placed: each row as the side gets it.
        as_prompt: the adapter's side; else the base model's.
    """
    runner = setup.prompt if as_prompt else setup.text
    found: dict[int, Tensor] = {}
    for batch in setup.batches(placed, places):
        asked = [i for i in batch if places[i]]
        if not asked:
            continue
        logits = runner.logits([setup.request(rows[i], placed[i], places[i], as_prompt) for i in asked])
        parts = logits.float().log_softmax(-1).split([len(places[i]) for i in asked])
        found |= dict(zip(asked, parts, strict=True))
    return torch.cat([found[i] for i in sorted(found)])

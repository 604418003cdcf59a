"""How the task goes under several prompts on the same labels of the same rows, so that they can be compared by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.models import AnyModel
from peft_interp.metrics.choices import Place, count_choices
from peft_interp.metrics.comparison import (
    ComparisonSetup,
    LogitRequest,
    count_task,
    make_comparison,
    make_text_comparison,
)
from peft_interp.metrics.differentials import LabelIds, TaskTotals
from peft_interp.metrics.text_rows import PlacedRow
from peft_interp.text.placement import IGNORED, Placement
from peft_interp.text.rows import Rows

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Contender:
    """One prompt on the rows.

    Attributes:
        setup: the rows and the models.
        placed: each row with the prompt in its place.
        place: puts it there.
        model: what answers, an adapter or a base model.
        adapter_name: of an adapter; None for the active one.
    """

    setup: ComparisonSetup
    placed: list[PlacedRow]
    place: Place
    model: AnyModel
    adapter_name: str | None = None

    def predicted(self, row: int) -> set[int]:
        """Labelled places of a row that are predicted, counted from its first token (a BOS included)."""
        here, known = self.setup.rows[row], self.setup.predicted(self.setup.rows[row], self.placed[row])
        return {j + len(here.leading) for j, label in enumerate(here.labels) if label != IGNORED and j in known}

    def request(self, row: int, targets: Sequence[int]) -> LogitRequest:
        """A row by its number as the model is asked it, for the logits that predict the labels `targets`."""
        setup = self.setup
        return setup.request(setup.rows[row], self.placed[row], targets, as_prompt=not setup.is_text)

    def outcome(
        self, targets: Sequence[Sequence[int]], bar: tqdm, label_bias: Sequence[float] | None = None
    ) -> TaskTotals:
        """Losses and hits at these places of each row, counted as in `predicted`; `label_bias` as in `TaskTotals`."""
        setup, totals = self.setup, TaskTotals(self.setup.label_token_ids, label_bias)
        wanted = [[j - len(row.leading) for j in places] for row, places in zip(setup.rows, targets, strict=True)]
        with eval_mode(self.model, self.adapter_name):
            for batch in setup.batches(self.placed, wanted):
                asked = [i for i in batch if wanted[i]]
                if asked:
                    here, places = [setup.rows[i] for i in asked], [wanted[i] for i in asked]
                    given = [self.request(i, wanted[i]) for i in asked]
                    count_task(totals, setup.prompt.logits(given), here, places, asked)
                bar.update(len(batch))
            asked = [i for i, places in enumerate(wanted) if places]
            count_choices(totals, setup, setup.prompt, [setup.rows[i] for i in asked], self.place, asked)
        return totals


def adapter_contender(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    label_token_ids: LabelIds | None,
    batch_size: int,
    name: str | None,
) -> Contender:
    """An adapter as PEFT runs it; arguments as for `make_comparison`, `name` None for the active one."""
    with eval_mode(model, name):
        setup = make_comparison(model, tokenizer, rows, label_token_ids, batch_size, "right")
    placed = setup.as_prompt(setup.rows)
    setup.check_room(placed, setup.length)
    return Contender(setup, placed, setup.as_prompt, model, name)


def text_contender(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    label_token_ids: LabelIds | None,
    batch_size: int,
    placement: Placement,
    text: str,
    ids: Sequence[int],
) -> Contender:
    """A text under the base model; "" for no prompt. Arguments as for `make_text_comparison`."""
    setup = make_text_comparison(model, tokenizer, rows, label_token_ids, batch_size, placement)
    placed = setup.as_text(setup.rows, text, ids)
    setup.check_room(placed)
    return Contender(setup, placed, partial(setup.as_text, text=text, prompt_ids=ids), model)


def common_targets(contenders: Sequence[Contender]) -> list[list[int]]:
    """For each row the labelled places that every contender predicts; none where the row's answer is not among them."""
    first = contenders[0].setup.rows
    found = []
    for number, row in enumerate(first):
        places = set.intersection(*(contender.predicted(number) for contender in contenders))
        answer = next((j + len(row.leading) for j, label in enumerate(row.labels) if label != IGNORED), None)
        by_word = contenders[0].setup.label_token_ids is not None
        found.append([] if by_word and answer not in places else sorted(places))
    return found

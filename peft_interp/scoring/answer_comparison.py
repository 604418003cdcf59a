"""`compare_answers`: what a model writes with a trained prompt, with its text in its place, and with neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import PreTrainedModel

from peft_interp.answers.rewards import AnswerReward
from peft_interp.answers.settings import AnswerSettings
from peft_interp.answers.writer import Answer, AnswerWriter, cut_text
from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.models import input_embeddings
from peft_interp.inference.progress import progress_bar
from peft_interp.metrics.reading import read_prompt
from peft_interp.metrics.text_rows import with_text
from peft_interp.metrics.uncertainty import mean_of
from peft_interp.records import markdown_table
from peft_interp.scoring.examples import Examples, read_examples, rows_to_answer
from peft_interp.scoring.rewards import call_answer_function, function_names
from peft_interp.text.placement import IGNORED, placement_of
from peft_interp.text.rows import Row, Rows
from peft_interp.text.verbalizer import Verbalizer

if TYPE_CHECKING:
    from peft import PeftModel
    from tqdm.auto import tqdm
    from transformers import PreTrainedTokenizerBase

_SHOWN = 3  # rows in `to_markdown`
PROMPT, TEXT, NOTHING = "prompt", "its text", "no prompt"


@dataclass(frozen=True)
class WrittenAnswers:
    """Answers to all rows with a prompt, with its text, with nothing, or with a text of the user.

    Attributes:
        name: "prompt" (the vectors, as the adapter adds them), "its text", "no prompt", or a text of the user.
        answers: of every row.
        scores: mean of every reward over the rows it applies to; None where it applies to none.
        errors: standard error of each; None for fewer than two rows.
    """

    name: str
    answers: tuple[str, ...]
    scores: dict[str, float | None]
    errors: dict[str, float | None]


@dataclass(frozen=True)
class AnswerComparison:
    """Answers with a prompt, with its text, with nothing, and with texts of the user.

    Attributes:
        inputs: text of each row.
        ways: as listed above, in this order.
        same_as_text: share of rows, 0 to 1, on which the prompt and its text write the same answer. Drawn answers
            differ by chance, so it says something of the likeliest ones only.
        changed: share of rows on which the prompt writes something else than no prompt.
    """

    inputs: tuple[str, ...]
    ways: tuple[WrittenAnswers, ...]
    same_as_text: float
    changed: float

    def way(self, name: str) -> WrittenAnswers:
        """The answers of the way that has this name.

        Raises:
            KeyError: an unknown name.
        """
        found = {way.name: way for way in self.ways}
        return found[name]

    def as_context(self) -> dict[str, str]:
        """The figures in words, for `report_prompt(context=...)`, which shows them with the report."""
        found = {}
        for name in self.ways[0].scores:
            found[f"{name} of answers"] = "; ".join(f"{way.name}: {_score(way, name)}" for way in self.ways)
        return found | {"answers": self._words()}

    def _words(self) -> str:
        return (
            f"The prompt and its text write the same on {self.same_as_text:.0%} of {len(self.inputs)} rows; the prompt "
            f"changes {self.changed:.0%} of the answers."
        )

    def to_markdown(self) -> str:
        """Tables of scores and of the first answers."""
        names = list(self.ways[0].scores)
        rows = [[_cell(way.name), *(_score(way, name) for name in names)] for way in self.ways]
        shown = [
            [_cell(text), *(_cell(way.answers[i]) for way in self.ways[:3])]
            for i, text in enumerate(self.inputs[:_SHOWN])
        ]
        first = markdown_table(("with", *names), rows)
        return f"{first}\n\n{self._words()}\n\n{markdown_table(('row', PROMPT, TEXT, NOTHING), shown)}"


def compare_answers(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Rows,
    reward_funcs: AnswerReward | Sequence[AnswerReward],
    verbalizer: Verbalizer | None = None,
    text_column: str = "sentence",
    label_column: str = "label",
    max_length: int | None = None,
    texts: Sequence[str] = (),
    progress: bool = True,
) -> AnswerComparison:
    """Answers on rows with a trained prompt as it is, with its text, with no prompt, and with other texts.

    Args:
        model: an adapter with a prompt on a causal LM: ours, or stock prompt tuning.
        tokenizer: the model's.
        dataset: rows as for the searches: text, text and label with a verbalizer, or `input_ids` and `labels`.
        reward_funcs: what `on_answers` returned; all with the same settings.
        verbalizer: template and label words.
        text_column: the text.
        label_column: the label.
        max_length: most tokens of a row that the verbalizer fills in.
        texts: further prompts to compare with, written by a person, say.
        progress: show a bar, unless `datasets` or `transformers` are told not to.

    Returns:
        Answers and their scores.

    Raises:
        ValueError: no reward on answers, or several that ask for different ones.
    """
    functions = [reward_funcs] if isinstance(reward_funcs, AnswerReward) else list(reward_funcs)
    settings = {function.settings for function in functions if isinstance(function, AnswerReward)}
    if len(settings) != 1 or not all(isinstance(function, AnswerReward) for function in functions):
        raise ValueError("`reward_funcs` must be functions of `on_answers`, all with the same settings.")
    wanted, config = settings.pop(), model.active_peft_config
    placement = placement_of(config)
    examples = read_examples(tokenizer, dataset, verbalizer, text_column, label_column, max_length, "dataset")
    rows = rows_to_answer(examples, tokenizer, placement, tuple(getattr(config, "leading_token_ids", None) or ()))
    writer = AnswerWriter(cast(PreTrainedModel, model.get_base_model()), tokenizer)
    ids = [[], *(placement.encode_prompt(tokenizer, text) for text in texts)]
    with progress_bar((3 + len(texts)) * len(rows), "Writing answers", progress) as bar:
        found = {PROMPT: _with_vectors(model, tokenizer, rows, wanted, bar)}
        found[TEXT] = _with_its_text(model, tokenizer, writer, rows, wanted)
        bar.update(len(rows))
        for name, answers in zip((NOTHING, *texts), writer.write(ids, rows, wanted), strict=True):
            found[name] = [answer.text for answer in answers]
            bar.update(len(rows))
    named = dict(zip(function_names(functions), functions, strict=True))
    ways = tuple(_scored(name, answers, named, examples) for name, answers in found.items())
    same, unchanged = (_share_alike(found[PROMPT], found[other]) for other in (TEXT, NOTHING))
    return AnswerComparison(tuple(examples.inputs), ways, same, 1 - unchanged)


def _with_vectors(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], settings: AnswerSettings, bar: tqdm
) -> list[str]:
    """As the adapter itself generates, in batches of rows of the same length: stock PEFT spoils padded ones."""
    pad = cast(PreTrainedModel, model.get_base_model()).generation_config.pad_token_id or 0
    mark = [pad] if placement_of(model.active_peft_config).marked else []  # a column that is not attended to
    given = [[*row.before, *mark, *row.ids[row.start : row.first]] for row in rows]
    options: dict[str, Any] = {"max_new_tokens": settings.max_new_tokens, "pad_token_id": pad, "do_sample": False}
    if settings.do_sample:
        options |= {"do_sample": True, "temperature": settings.temperature, "top_k": settings.top_k}
        options["top_p"] = settings.top_p
    if settings.stop_strings:
        options |= {"stop_strings": list(settings.stop_strings), "tokenizer": tokenizer}
    order = sorted(range(len(rows)), key=lambda i: len(given[i]))
    alike = [list(places) for _, places in groupby(order, key=lambda i: len(given[i]))]
    device, found = input_embeddings(model).weight.device, [""] * len(rows)
    with eval_mode(model), torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        for places in alike:
            ids = torch.tensor([given[i] for i in places], device=device)
            mask = torch.ones_like(ids)
            for line, i in enumerate(places):
                mask[line, len(rows[i].before) : len(rows[i].before) + len(mark)] = 0
            new = model.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]
            texts = tokenizer.batch_decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for place, text in zip(places, texts, strict=True):
                found[place] = cut_text(text, settings.stop_strings)
            bar.update(len(places))
    return found


def _with_its_text(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    writer: AnswerWriter,
    rows: Sequence[Row],
    settings: AnswerSettings,
) -> list[str]:
    """The prompt's text in its place, tokenised there with what stands beside it."""
    reading = read_prompt(model, tokenizer)
    asked = [Row(row.leading, row.ids[: row.first], (IGNORED,) * row.first, row.start) for row in rows]
    placed = with_text(tokenizer, asked, reading.text, reading.ids)
    whole = [Row((), tuple(row.ids), (IGNORED,) * len(row.ids)) for row in placed]
    return [answer.text for answer in writer.write([[]], whole, settings)[0]]


def _scored(
    name: str, answers: Sequence[str], functions: dict[str, AnswerReward], examples: Examples
) -> WrittenAnswers:
    written = [Answer((), text) for text in answers]
    scores: dict[str, float | None] = {}
    errors: dict[str, float | None] = {}
    for own, function in functions.items():
        ((*values,),) = call_answer_function(function, own, [name], [written], examples, None)
        known = [value for value in values if value is not None]
        found = mean_of(known)
        scores[own] = None if found is None else found.mean
        errors[own] = None if found is None else found.standard_error
    return WrittenAnswers(name, tuple(answers), scores, errors)


def _share_alike(first: Sequence[str], second: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)


def _score(way: WrittenAnswers, name: str) -> str:
    score, error = way.scores[name], way.errors[name]
    if score is None:
        return "does not apply"
    return f"{score:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def _cell(text: str) -> str:
    shown = text if len(text) <= 80 else f"{text[:80]}..."
    return f"`{' '.join(shown.split())}`" if shown.strip() else "(nothing)"

"""Whether a prompt's text does what the prompt does: measured on the user's data, for any PEFT prompt adapter.

The three differentials of "Towards Interpretable Soft Prompts" (arXiv 2504.02144): distance of the vectors to their
tokens, difference of the outputs, difference of the task losses. Two sides answer the same rows: the adapter exactly
as PEFT runs it, and the base model on the text, pasted into each row and tokenised again. A discrete prompt whose text
survives tokenising has 0 in all three. None implies another, and small ones do not make the text an explanation: see
`measure_waywardness` (arXiv 2112.08348).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from peft import PeftModel
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.model_lock import locked
from peft_interp.inference.progress import progress_bar
from peft_interp.metrics.answer_results import AnsweredRows, AnswerShares
from peft_interp.metrics.answered_rows import answered_rows, row_text
from peft_interp.metrics.choices import count_choices
from peft_interp.metrics.comparison import (
    ComparisonSetup,
    count_task,
    make_comparison,
    make_text_comparison,
    owners_of,
)
from peft_interp.metrics.differentials import LabelIds, OutputTotals, TaskTotals, kl_divergence
from peft_interp.metrics.reading import prompt_config, read_prompt, read_text
from peft_interp.metrics.results import Faithfulness, PairedEstimates, PromptReading, TokenEffect
from peft_interp.metrics.text_rows import PlacedRow
from peft_interp.metrics.uncertainty import RowValues
from peft_interp.text.placement import START
from peft_interp.text.rows import Row, Rows
from peft_interp.text.tokenization import check_text, decode_after


def measure_token_effects(
    setup: ComparisonSetup, rows: Sequence[Row], prompt_ids: Sequence[int], bar: tqdm
) -> tuple[TokenEffect, ...]:
    """KL(with || without) of the answers and the rise of the task loss, for each token of the text.

    Args:
        comparison: the text's side.
        rows: examples.
        prompt_ids: the text's ids.
        bar: moves by one for each row and variant.

    Returns:
        One effect for each id. A filler has a KL near 0; where the loss increase is below 0 the token does harm.
    """
    whole = setup.as_text(rows, _text(setup, prompt_ids), prompt_ids)
    shorter = [[*prompt_ids[:i], *prompt_ids[i + 1 :]] for i in range(len(prompt_ids))]
    variants = [setup.as_text(rows, _text(setup, ids), ids) for ids in shorter]
    targets = [
        [j for j in setup.wanted(row, "answers") if j in setup.predicted(row, placed)]
        for row, placed in zip(rows, whole, strict=True)
    ]
    sums = [_Sums() for _ in prompt_ids]
    for batch in setup.batches(whole, targets):
        batch = [i for i in batch if targets[i]]
        if not batch:
            continue
        logits = setup.text.logits([setup.request(rows[i], whole[i], targets[i]) for i in batch])
        log_probs = logits.float().log_softmax(-1)
        bar.update(len(batch))
        for total, placed in zip(sums, variants, strict=True):
            _add_variant(setup, total, rows, placed, targets, batch, log_probs)
            bar.update(len(batch))
    return tuple(total.effect() for total in sums)


class _Sums:
    """One token's effect at labelled positions, row by row."""

    def __init__(self) -> None:
        self.kl, self.loss = RowValues(), RowValues()

    def effect(self) -> TokenEffect:
        kl, loss = self.kl.estimate(), self.loss.estimate()
        if kl is None or loss is None:
            return TokenEffect(0.0, 0.0)
        return TokenEffect(kl.mean, loss.mean, kl.standard_error, loss.standard_error, kl.rows)


def _add_variant(
    setup: ComparisonSetup,
    total: _Sums,
    rows: Sequence[Row],
    placed: Sequence[PlacedRow],
    targets: Sequence[Sequence[int]],
    batch: Sequence[int],
    log_probs: Tensor,
) -> None:
    """One shorter text on one batch, at the labels that both texts predict."""
    known = {i: setup.predicted(rows[i], placed[i]) for i in batch}
    flat = [(i, j) for i in batch for j in targets[i]]
    both = [n for n, (i, j) in enumerate(flat) if j in known[i]]
    chosen = {i: [j for j in targets[i] if j in known[i]] for i in batch}
    asked = [i for i in batch if chosen[i]]
    if not asked:
        return
    logits = setup.text.logits([setup.request(rows[i], placed[i], chosen[i]) for i in asked])
    others, before = logits.float().log_softmax(-1), log_probs[both]
    gold = before.new_tensor([rows[i].labels[j] for i in asked for j in chosen[i]]).long()
    owners = [i for i in asked for _ in chosen[i]]
    total.kl.add(owners, kl_divergence(before, others).tolist())
    rise = nn.functional.nll_loss(others, gold, reduction="none") - nn.functional.nll_loss(
        before, gold, reduction="none"
    )
    total.loss.add(owners, rise.tolist())


def _text(setup: ComparisonSetup, ids: Sequence[int]) -> str:
    return setup.placement.decode_prompt(setup.tokenizer, ids) if ids else ""


ROW_EXAMPLES = 10
FEWEST_PROBES, MOST_PROBES = 64, 200  # rows for the token effects, which run each row once for every token


@locked
def measure_faithfulness(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    label_token_ids: LabelIds | None = None,
    positions: str = "answers",
    batch_size: int = 32,
    padding_side: str = "right",
    token_effects: bool = True,
    without: bool = True,
    text: str | None = None,
    adapter_name: str | None = None,
    progress: bool = True,
    effect_rows: int | None = None,
    label_bias: Sequence[float] | None = None,
    row_examples: int = ROW_EXAMPLES,
    without_bias: Sequence[float] | None = None,
) -> Faithfulness:
    """Compare a prompt with its text, row by row.

    Args:
        model: a `PeftModel` with a prompt adapter, ours or stock, for CAUSAL_LM, SEQ_2_SEQ_LM or SEQ_CLS.
        tokenizer: the base model's.
        rows: tokenised examples without a prompt: a `datasets.Dataset` or list of dicts with `input_ids`, `labels` and,
            where padded, `attention_mask`. Padding is removed; the measure pads by itself.
        label_token_ids: the label words' ids (`verbalizer.label_token_ids(tokenizer)`), for accuracies, or a list of
            them for each word (`verbalizer.label_sequences(tokenizer)`); None for none.
        positions: "answers" compares where a label is to be predicted, "all" at every token of the row.
        batch_size: rows at a time; it changes no result.
        padding_side: "right" or "left". Stock PEFT misplaces prompts in left-padded rows, which then shows.
        token_effects: leave out each token of the text in turn.
        without: measure the task with no prompt as well; a prompt that the model ignores is no better.
        text: judge this text in place of the nearest tokens'; distances remain those of the nearest tokens.
        adapter_name, progress: None for the active one; a bar, unless `datasets` or `transformers` have them off.
        effect_rows: rows that the token effects are measured on, evenly spread. None: as many as make the effects cost
            no more than half a pass over the data, but at least 64 and at most 200.
        label_bias: numbers that the prompt needs beside its text (`calibrate(...).values`), added to the label words'
            scores with the prompt and with its text, not where whole distributions are compared. None: none.
        row_examples: rows kept as text where prompt, text and no prompt do not answer alike; 0 keeps none.
        without_bias: no prompt's own (`calibrate(..., text="").values`): hold numbers against numbers.

    Returns:
        The differentials: 0 means that the text does what the prompt does. KL and loss are in nats; loss and accuracy
        are those of the compared rows. The base model, its modes and the active adapter are left as they were.

    Raises:
        ValueError: a model without a prompt adapter, unknown options, unusable rows or ones too long for the model, a
            method without input vectors (prefix tuning), a task type that cannot be compared, an answer that is no
            label word, or no comparable row.
    """
    check_text("text", text)
    _check_choice("positions", positions, ("answers", "all"))
    _check_choice("padding_side", padding_side, ("right", "left"))
    prompt_config(model, adapter_name)  # refuses what has no prompt
    effects = (max(1, effect_rows) if effect_rows is not None else None) if token_effects else 0
    with eval_mode(model, adapter_name):
        reading = read_prompt(model, tokenizer)
        setup = make_comparison(model, tokenizer, rows, label_token_ids, batch_size, padding_side)
        setup = replace(setup, label_bias=label_bias, without_bias=without_bias)
        return _measure(reading, setup, text, positions, effects, without, progress, row_examples)


@locked
def measure_text(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    text: str,
    label_token_ids: LabelIds | None = None,
    position: str = START.name,
    positions: str = "answers",
    batch_size: int = 32,
    token_effects: bool = True,
    without: bool = True,
    progress: bool = True,
    effect_rows: int | None = None,
    label_bias: Sequence[float] | None = None,
    row_examples: int = ROW_EXAMPLES,
    without_bias: Sequence[float] | None = None,
) -> Faithfulness:
    """How the task goes with a text that was written by hand, and without: as `measure_faithfulness`, no adapter.

    Args:
        model: the base model; of an adapter, its base model is asked.
        tokenizer: its tokenizer.
        rows: tokenised examples without a prompt.
        text: what to write into them.
        label_token_ids: the label words' ids, for accuracies; None for none.
        position: where the text stands, by its placement's name.
        positions: as for `measure_faithfulness`, and so are all that follow.
        batch_size: rows at a time.
        token_effects: leave out each token of the text in turn.
        without: measure the task with no prompt as well.
        progress: show a bar.
        effect_rows: rows that the token effects are measured on.
        label_bias: numbers that the text needs beside it.
        row_examples: rows kept as text.
        without_bias: no prompt's own numbers.

    Returns:
        The task as text and without; `as_prompt` equals `as_text`, all differences between them are 0.

    Raises:
        ValueError: an empty text, a model without a head that answers rows, or unusable rows.
    """
    check_text("text", text)
    _check_choice("positions", positions, ("answers", "all"))
    with eval_mode(model):
        reading = read_text(tokenizer, text, position)
        setup = make_text_comparison(model, tokenizer, rows, label_token_ids, batch_size, reading.placement)
        setup = replace(setup, label_bias=label_bias, without_bias=without_bias)
        effects = (max(1, effect_rows) if effect_rows is not None else None) if token_effects else 0
        return _measure(reading, setup, None, positions, effects, without, progress, row_examples)


def _measure(
    reading: PromptReading,
    setup: ComparisonSetup,
    text: str | None,
    positions: str,
    effect_rows: int | None,
    without: bool,
    progress: bool,
    row_examples: int,
) -> Faithfulness:
    text, ids = _judged(reading, setup, text)
    as_text = setup.as_text(setup.rows, text, ids)
    as_prompt = setup.as_prompt(setup.rows) if not setup.is_text else as_text
    setup.check_room(as_prompt, setup.length)
    setup.check_room(as_text)
    targets = [_comparable(setup, *row, positions) for row in zip(setup.rows, as_prompt, as_text, strict=True)]
    chosen = [i for i, found in enumerate(targets) if found]
    if not chosen:
        raise ValueError(
            f"the answer of every row is tokenised differently after the text {text!r}, so nothing can be compared; "
            "begin the label's word with a blank, or end the template before it."
        )
    kept, wanted = [setup.rows[i] for i in chosen], [targets[i] for i in chosen]
    as_prompt_kept, as_text_kept = [as_prompt[i] for i in chosen], [as_text[i] for i in chosen]
    if effect_rows is None:
        effect_rows = min(max(len(kept) // (2 * len(ids) + 2), FEWEST_PROBES), MOST_PROBES)
    probes = kept[:: -(-len(kept) // effect_rows)] if effect_rows else []
    total = (2 + without) * len(kept) + (len(ids) + 1) * len(probes)
    bare = setup.as_text(kept, "", [])
    shared = [_predicted_without(setup, *row) for row in zip(kept, bare, wanted, strict=True)]
    with progress_bar(total, "Comparing the prompt with its text", progress) as bar:
        sides = _compare(setup, kept, as_prompt_kept, as_text_kept, wanted, shared, bar)
        nothing = _measure_without(setup, kept, bare, shared, bar) if without else None
        effects = measure_token_effects(setup, probes, ids, bar) if probes else ()
        _count_sequences(setup, kept, text, ids, sides, nothing)
    return Faithfulness(
        rows=len(chosen),
        skipped_rows=len(setup.rows) - len(chosen),
        positions=positions,
        cosine_distance=_mean([token.cosine_distance for token in reading.tokens]),
        euclidean_distance=_mean([token.euclidean_distance for token in reading.tokens]),
        **sides.output.means(),
        as_prompt=sides.prompt.performance(),
        as_text=sides.text.performance(),
        without=nothing.performance() if nothing else None,
        token_error_rate=_mean([row.error_rate for row in as_text]),
        token_effects=effects,
        as_prompt_shared=sides.shared.performance() if nothing and nothing.labels < sides.prompt.labels else None,
        answers=_answer_shares(setup, sides, nothing),
        label_bias=None if setup.label_bias is None else tuple(setup.label_bias),
        without_bias=None if setup.without_bias is None else tuple(setup.without_bias),
        paired=_paired(sides, nothing),
        answered=_answered(setup, kept, chosen, sides, nothing, row_examples),
    )


def _count_sequences(
    setup: ComparisonSetup,
    rows: list[Row],
    text: str,
    ids: Sequence[int],
    sides: _Comparison,
    nothing: TaskTotals | None,
) -> None:
    """Accuracies of label words of several tokens, which need passes of their own."""
    as_text = partial(setup.as_text, text=text, prompt_ids=ids)
    as_prompt = as_text if setup.is_text else setup.as_prompt
    for totals in (sides.prompt, sides.shared):
        count_choices(totals, setup, setup.prompt, rows, as_prompt)
    count_choices(sides.text, setup, setup.text, rows, as_text)
    if nothing is not None:
        count_choices(nothing, setup, setup.text, rows, partial(setup.as_text, text="", prompt_ids=[]))


_DIFFERENCES, _SHARES = (-1.0, 1.0), (0.0, 1.0)  # the ends of what one row can say


def _paired(sides: _Comparison, nothing: TaskTotals | None) -> PairedEstimates | None:
    """What the rows say one by one."""
    kl, agreement = sides.output.kl.estimate(), sides.output.agreement.estimate(_SHARES)
    if kl is None or agreement is None:
        return None
    return PairedEstimates(
        kl=kl,
        top1_agreement=agreement,
        text_loss=sides.text.losses.minus(sides.prompt.losses),
        text_accuracy=sides.text.hits.minus(sides.prompt.hits, _DIFFERENCES),
        saved_loss=nothing.losses.minus(sides.shared.losses) if nothing else None,
        gained_accuracy=sides.prompt.hits.minus(nothing.hits, _DIFFERENCES) if nothing else None,
    )


def _judged(reading: PromptReading, setup: ComparisonSetup, text: str | None) -> tuple[str, list[int]]:
    """The text to judge and its ids."""
    if text is not None:
        return text, setup.tokenizer.encode(text, add_special_tokens=False)
    return reading.text, reading.ids


def _comparable(
    setup: ComparisonSetup, row: Row, as_prompt: PlacedRow, as_text: PlacedRow, positions: str
) -> list[int]:
    """Labels that both sides predict from the same token; none where the row's answer is not among them."""
    both = set(setup.predicted(row, as_prompt)) & set(setup.predicted(row, as_text))
    wanted = setup.wanted(row, positions)
    labelled = [j for j in wanted if row.labels[j] != -100]
    found = [j for j in wanted if j in both]
    if setup.label_token_ids is not None and labelled and labelled[0] not in both:
        return []
    return found if any(j in both for j in labelled) or not labelled else []


def _predicted_without(setup: ComparisonSetup, row: Row, bare: PlacedRow, targets: Sequence[int]) -> list[int]:
    """Those of the labels that are predicted with no prompt too: a first token has nothing in front of it then."""
    known = setup.predicted(row, bare)
    return [j for j in targets if row.labels[j] != -100 and j in known]


@dataclass(frozen=True)
class _Comparison:
    """What both sides amount to.

    Attributes:
        output: how far apart the outputs are.
        prompt: the task with the prompt as it acts.
        text: the task with the text in its place.
        shared: as `prompt`, at the labels that are predicted without a prompt too.
    """

    output: OutputTotals
    prompt: TaskTotals
    text: TaskTotals
    shared: TaskTotals


def _compare(
    setup: ComparisonSetup,
    rows: list[Row],
    as_prompt: list[PlacedRow],
    as_text: list[PlacedRow],
    targets: list[list[int]],
    shared: list[list[int]],
    bar: tqdm,
) -> _Comparison:
    """Both sides on all rows."""
    sides = _Comparison(OutputTotals(), *(TaskTotals(setup.label_token_ids, setup.label_bias) for _ in range(3)))
    for batch in setup.batches(as_text, targets):
        here, wanted = [rows[i] for i in batch], [targets[i] for i in batch]
        second = setup.text.logits([setup.request(rows[i], as_text[i], targets[i]) for i in batch])
        first = second
        if not setup.is_text:
            asked = [setup.request(rows[i], as_prompt[i], targets[i], as_prompt=True) for i in batch]
            first = setup.prompt.logits(asked)
        sides.output.add(first, second, owners_of(batch, wanted))
        count_task(sides.prompt, first, here, wanted, batch)
        count_task(sides.text, second, here, wanted, batch)
        _count_some(sides.shared, first, here, wanted, [shared[i] for i in batch], batch)
        bar.update(2 * len(batch))
    return sides


def _count_some(
    totals: TaskTotals,
    logits: Tensor,
    rows: list[Row],
    targets: list[list[int]],
    some: list[list[int]],
    numbers: list[int],
) -> None:
    """Count a batch at some of its positions."""
    places = [(i, j) for i, chosen in enumerate(targets) for j in chosen]
    kept = [n for n, (i, j) in enumerate(places) if j in some[i]]
    if kept:
        count_task(totals, logits[kept], rows, some, numbers)


def _measure_without(
    setup: ComparisonSetup, rows: list[Row], bare: list[PlacedRow], targets: list[list[int]], bar: tqdm
) -> TaskTotals:
    """The task with no prompt."""
    totals = TaskTotals(setup.label_token_ids, setup.without_bias)
    for batch in setup.batches(bare, targets):
        asked = [i for i in batch if targets[i]]
        if asked:
            logits = setup.text.logits([setup.request(rows[i], bare[i], targets[i]) for i in asked])
            count_task(totals, logits, [rows[i] for i in asked], [targets[i] for i in asked], asked)
        bar.update(len(batch))
    return totals


def _answer_shares(setup: ComparisonSetup, sides: _Comparison, nothing: TaskTotals | None) -> AnswerShares | None:
    """Mean answers of all sides, where label words are known."""
    prompt, text = sides.prompt.shares(), sides.text.shares()
    if prompt is None or text is None:
        return None
    bare = nothing.shares() if nothing else None
    known = tuple(sides.prompt.choices or range(len(prompt[0])))
    sequences = sides.prompt.sequences
    names = setup.names(known) if sequences is None else tuple(decode_after(setup.tokenizer, s) for s in sequences)
    return AnswerShares(known, names, prompt[1], prompt[0], text[0], bare[0] if bare else None)


def _answered(
    setup: ComparisonSetup,
    rows: Sequence[Row],
    numbers: Sequence[int],
    sides: _Comparison,
    nothing: TaskTotals | None,
    most: int,
) -> AnsweredRows | None:
    """Which rows got which answers; `numbers` are the rows' in the user's data."""

    def text_of(row: int) -> str:
        return row_text(setup.tokenizer, rows[row], answer_within=setup.task == "CAUSAL_LM")

    bare = nothing.answers if nothing else None
    return answered_rows(sides.prompt.answers, sides.text.answers, bare, numbers, text_of, most)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}={value!r}` is unknown; use one of {', '.join(allowed)}.")

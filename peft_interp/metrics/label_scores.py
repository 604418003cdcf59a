"""Label words' scores under a prompt, and the numbers that take its label prior away (`text/label_prior.py`)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import PeftModel
from torch import Tensor

from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.model_lock import locked
from peft_interp.inference.models import AnyModel, base_model_of
from peft_interp.inference.progress import progress_bar
from peft_interp.metrics.choices import choice_log_probs, label_ids_of
from peft_interp.metrics.differentials import as_sequences
from peft_interp.metrics.reading import prompt_config, read_text
from peft_interp.metrics.task_outcomes import Contender, adapter_contender, text_contender
from peft_interp.text.label_bias import LabelBias, asked_text
from peft_interp.text.label_prior import (
    CONTENT_FREE,
    check_gold,
    check_rows,
    drawn_rows,
    estimate_bias,
    warn_of_one_label,
)
from peft_interp.text.placement import IGNORED, placement_of
from peft_interp.text.rows import Row, Rows, examples, plain_ids, row_digest
from peft_interp.text.verbalizer import Verbalizer, check_verbalizer

if TYPE_CHECKING:
    from tqdm.auto import tqdm
    from transformers import PreTrainedTokenizerBase

SAME_ROWS = 0.5  # share of the calibration rows among the rows measured from which on they are taken for the test rows


@locked
def calibrate(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows | None,
    verbalizer: Verbalizer,
    text: str | None = None,
    adapter_name: str | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> LabelBias:
    """The numbers that take a prompt's label prior away, one for each label word, by `verbalizer.calibration`.

    Keep them with an adapter by `model.keep_label_bias(bias)`, or give them wherever a `label_bias` is taken.

    Args:
        model: an adapter of ours or of PEFT's with input vectors, whose active prompt counts; with `text`, the base
            model, or an adapter on it, which is left out.
        tokenizer: the base model's.
        rows: training rows as `Verbalizer.encode_dataset` makes them, of which at most 64 are read; their labels only
            for "fitted". Never those that the prompt is tested on. None for "content_free".
        verbalizer: template, label words, and which calibration.
        text: the prompt as a text; "" for no prompt.
        adapter_name: None for the active one.
        batch_size: rows at a time; it changes no result.
        progress: show a bar.

    Returns:
        The numbers. The model, its modes and the active adapter are left as they were.

    Raises:
        ValueError: `calibration="none"`, fewer than 8 rows, rows of one label for "fitted", scores that are not finite,
            and what `measure_faithfulness` refuses.
    """
    check_wanted(verbalizer)
    given = calibration_rows(tokenizer, rows, verbalizer)
    with progress_bar(len(given), "Calibrating the label words", progress) as bar:
        contender = prompt_contender(model, tokenizer, given, text, verbalizer, adapter_name, batch_size)
        return bias_of(contender, given, verbalizer, bar)


def check_wanted(verbalizer: Verbalizer) -> None:
    """Whether the verbalizer asks for a calibration.

    Raises:
        ValueError: it does not.
    """
    if verbalizer.calibration == "none":
        raise ValueError(
            "`calibration='none'` estimates nothing; make the verbalizer with 'batch', 'content_free' or 'fitted': "
            "`Verbalizer(template, label_words, calibration='batch')`."
        )


def calibration_rows(
    tokenizer: PreTrainedTokenizerBase, rows: Rows | None, verbalizer: Verbalizer
) -> list[dict[str, Any]]:
    """The rows that a prior is estimated on: at most 64 of those given, or the texts that say nothing; with a warning
    where all have one label.

    Raises:
        ValueError: too few rows, or none.
    """
    if verbalizer.calibration == "content_free":
        return content_free_rows(tokenizer, verbalizer)
    if rows is None:
        raise ValueError(
            f"`calibration={verbalizer.calibration!r}` needs training rows; pass them, or use 'content_free', which "
            "needs none."
        )
    given = [dict(row) for row in examples(rows)]
    check_rows(len(given))
    drawn = [given[i] for i in drawn_rows(len(given))]
    answers = {tuple(label for label in plain_ids(row["labels"]) if label != IGNORED) for row in drawn}
    if len(answers) == 1 and verbalizer.calibration == "batch":  # "fitted" refuses it
        warn_of_one_label(len(drawn), verbalizer.calibration)
    return drawn


def content_free_rows(tokenizer: PreTrainedTokenizerBase, verbalizer: Verbalizer) -> list[dict[str, Any]]:
    """Texts that say nothing, in the template; one that leaves nothing to read is left out."""
    known = verbalizer.label_sequences(tokenizer)
    rows = [verbalizer.encode(tokenizer, text, 0, None, known) for text in CONTENT_FREE]
    return [row for row in rows if row["labels"][0] == IGNORED]


def bias_of(contender: Contender, rows: Sequence[Any], verbalizer: Verbalizer, bar: tqdm) -> LabelBias:
    """The numbers from calibration rows with the prompt in them (`contender`); see `calibrate`."""
    scores, gold, kept = label_scores(contender, bar)
    if verbalizer.calibration == "fitted":
        check_gold(gold)
    return LabelBias.of(verbalizer, estimate_bias(verbalizer.calibration, scores, gold), [rows[i] for i in kept])


def label_scores(contender: Contender, bar: tqdm) -> tuple[Tensor, Tensor, list[int]]:
    """Log-probabilities of the label words among themselves at each row's answer, and which is right.

    Returns:
        (rows, labels) fp32, nats, and (rows,), on the CPU, of the rows whose answer is predicted; and their places.

    Raises:
        ValueError: an answer that is no label word, or no row whose answer is predicted.
    """
    setup = contender.setup
    both = zip(setup.rows, contender.placed, strict=True)
    targets = [_answer(row, setup.predicted(row, placed)) for row, placed in both]
    kept = [i for i, found in enumerate(targets) if found]
    if not kept:
        raise ValueError(
            "no row has an answer that is predicted after the prompt: nothing to calibrate on; see the template."
        )
    known: Any = setup.label_token_ids or ()
    words: list[tuple[int, ...]] = [tuple(word) for word in as_sequences(known) or [[i] for i in known]]
    single = all(len(word) == 1 for word in words)
    answers = [tuple(setup.rows[i].answer)[: 1 if single else None] for i in kept]
    if strange := sorted(set(answers) - set(words)):
        raise ValueError(
            f"calibration rows are labelled with token ids {[list(i) for i in strange]}, which are none of the label "
            f"words' ({[list(word) for word in words]}); encode them with the same verbalizer."
        )
    with eval_mode(contender.model, contender.adapter_name):
        if single:
            scores = _word_scores(contender, targets, [word[0] for word in words], bar)
        else:
            choices = [list(map(list, words))] * len(setup.rows)
            scores = choice_log_probs(setup, setup.prompt, setup.rows, choices, contender.place).log_softmax(-1)
            bar.update(len(setup.rows))
    return scores[kept], torch.tensor([words.index(answer) for answer in answers]), kept


def _word_scores(contender: Contender, targets: Sequence[Sequence[int]], ids: list[int], bar: tqdm) -> Tensor:
    """(rows, labels) log-probabilities of label words of one token each, among themselves: one pass for a row."""
    setup, scores = contender.setup, torch.zeros(len(contender.setup.rows), len(ids))
    for batch in setup.batches(contender.placed, targets):
        if asked := [i for i in batch if targets[i]]:
            given = [contender.request(i, targets[i]) for i in asked]
            scores[asked] = setup.prompt.logits(given)[:, ids].float().log_softmax(-1).cpu()
        bar.update(len(batch))
    return scores


def _answer(row: Row, predicted: dict[int, int]) -> list[int]:
    """The row's first label, if it is predicted."""
    first = row.first
    return [first] if first in predicted else []


def prompt_contender(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    text: str | None,
    verbalizer: Verbalizer,
    adapter_name: str | None,
    batch_size: int,
) -> Contender:
    """The prompt on rows; see `calibrate`."""
    ids = label_ids_of(verbalizer, tokenizer)
    if text is None:
        check_verbalizer(verbalizer, placement_of(prompt_config(model, adapter_name)))
        return adapter_contender(cast(PeftModel, model), tokenizer, rows, ids, batch_size, adapter_name)
    base = base_model_of(model)
    if not text:
        return text_contender(base, tokenizer, rows, ids, batch_size, verbalizer.placement, "", [])
    reading = read_text(tokenizer, text, verbalizer.prompt_position)
    return text_contender(base, tokenizer, rows, ids, batch_size, reading.placement, reading.text, reading.ids)


def stored_bias(
    model: AnyModel | None, verbalizer: Verbalizer | None, adapter_name: str | None = None
) -> LabelBias | None:
    """What was kept with an adapter by `keep_label_bias`, where it was estimated with this template and these words.

    Args:
        model: an adapter; None is returned for one of PEFT's own, which keeps none.
        verbalizer: with which it is asked; None is returned for none.
        adapter_name: None for the active one.
    """
    keeps = getattr(model, "label_bias", None)
    if keeps is None or verbalizer is None or not isinstance(model, PeftModel):
        return None
    config = model.peft_config[adapter_name or model.active_adapter]
    found: LabelBias | None = keeps(adapter_name) if getattr(config, "label_bias", None) else None
    if found is not None and not found.fits(verbalizer):
        warnings.warn(
            f"the label bias of this adapter is for {asked_text(found)} and is not used here; ask with those, or "
            "`calibrate` the prompt for these.",
            stacklevel=3,
        )
        return None
    return found


def bias_to_use(
    model: AnyModel | None, verbalizer: Verbalizer, given: LabelBias | None, adapter_name: str | None = None
) -> LabelBias | None:
    """What is added to the label words' scores: what was given, else what is kept with the adapter.

    Raises:
        ValueError: numbers for other label words, or a verbalizer that asks for numbers which nobody has estimated.
    """
    if given is not None:
        if not isinstance(given, LabelBias) or not given.fits(verbalizer):
            raise ValueError(
                f"`label_bias` is {_shown(given)}, which is not for {asked_text(verbalizer)}; pass what `calibrate` "
                "returned for this verbalizer."
            )
        return given
    kept = stored_bias(model, verbalizer, adapter_name)
    if kept is None and verbalizer.calibration != "none":
        found = "calibrate(model, tokenizer, training_rows, verbalizer)"
        own = f"`model.keep_label_bias({found})`, or pass `label_bias=`"  # stock prompts, and texts, keep nothing
        remedy = own if hasattr(model, "keep_label_bias") else f"pass `label_bias={found}`"
        raise ValueError(
            f"`calibration={verbalizer.calibration!r}` needs this prompt's numbers, which are not kept with it; "
            f"estimate them once: {remedy}."
        )
    return kept


def _shown(given: Any) -> str:
    return f"a bias for {asked_text(given)}" if isinstance(given, LabelBias) else repr(given)


def check_held_out(calibrating: Sequence[Any], measured: Rows) -> None:
    """Whether the rows that a prior is estimated on are other rows than those measured.

    Raises:
        ValueError: at least half of them are among the rows measured; a warning for fewer, which may be doubles.
    """
    inside = _shared([row_digest(row) for row in calibrating], measured)
    if inside >= SAME_ROWS * len(calibrating):
        raise ValueError(
            f"{inside} of the {len(calibrating)} calibration rows are among the rows that are measured; estimate the "
            "label prior on training rows, never on those that the prompt is tested on."
        )
    if inside:
        warnings.warn(
            f"{inside} of the {len(calibrating)} calibration rows are among the rows that are measured; leave them out "
            "of either.",
            stacklevel=3,
        )


def warn_of_shared_rows(bias: LabelBias | None, measured: Rows) -> None:
    """Where numbers that were estimated earlier are those of rows that are measured now; a prompt may be measured on
    its training rows, so nothing is refused.
    """
    inside = 0 if bias is None or not bias.row_digests else _shared(bias.row_digests, measured)
    if bias is not None and inside:
        warnings.warn(
            f"{inside} of the {bias.rows} rows that the prompt's label bias was estimated on are among the rows that "
            "are measured, so accuracies say too much; measure other rows, or `calibrate` on training rows.",
            stacklevel=3,
        )


def _shared(digests: Sequence[str], rows: Rows) -> int:
    """How many of the digests are those of rows."""
    known = {row_digest(row) for row in examples(rows)}
    return sum(digest in known for digest in digests)

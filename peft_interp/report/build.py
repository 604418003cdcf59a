"""`report_prompt`: everything there is to know about a model's prompt, measured and put into one report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel, PeftType
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_interp.inference.model_lock import locked
from peft_interp.inference.models import AnyModel, base_model_of
from peft_interp.metrics.changed_base import changed_base, measure_clean_base
from peft_interp.metrics.choices import label_ids_of
from peft_interp.metrics.differentials import LabelIds
from peft_interp.metrics.faithfulness import ROW_EXAMPLES, measure_faithfulness, measure_text
from peft_interp.metrics.label_prior import measure_label_prior
from peft_interp.metrics.label_scores import bias_to_use, calibration_rows, stored_bias, warn_of_shared_rows
from peft_interp.metrics.reading import prompt_config, prompt_vectors, read_prompt, read_text
from peft_interp.metrics.results import LabelPrior, PromptReading, Scrutability, Waywardness
from peft_interp.metrics.same_head import random_prompt_accuracy
from peft_interp.metrics.scrutability import measure_scrutability
from peft_interp.metrics.task_naming import TaskNaming, measure_task_naming
from peft_interp.metrics.waywardness import measure_waywardness
from peft_interp.report.explained import ExplanationData
from peft_interp.report.prompt_report import PromptReport
from peft_interp.report.provenance import describe, describe_measurement, describe_tokenizer
from peft_interp.report.record import Rival
from peft_interp.report.task_verdicts import why_no_text
from peft_interp.report.verdicts import beside_the_head, decide
from peft_interp.text.label_bias import LabelBias
from peft_interp.text.placement import IGNORED, PROMPT, START
from peft_interp.text.rows import Rows, examples, plain_ids, without_padding
from peft_interp.text.tokenization import decode, decode_after
from peft_interp.text.verbalizer import Verbalizer, check_verbalizer
from peft_interp.tuner.config import InterpPromptConfig

UNRELATED_TEXT = "Please count the apples on the table"


@locked
def report_prompt(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows | None = None,
    verbalizer: Verbalizer | None = None,
    label_token_ids: LabelIds | None = None,
    perplexity_model: PreTrainedModel | None = None,
    perplexity_tokenizer: PreTrainedTokenizerBase | None = None,
    rivals: Iterable[Rival | tuple[str, float, float]] = (),
    waywardness: bool | str | Mapping[str, Any] = False,
    adapter_name: str | None = None,
    context: Mapping[str, Any] | None = None,
    scrutability: Mapping[str, Any] | None = None,
    progress: bool = True,
    positions: str = "answers",
    batch_size: int = 32,
    padding_side: str = "right",
    token_effects: bool = True,
    effect_rows: int | None = None,
    row_examples: int = ROW_EXAMPLES,
    without: bool = True,
    task_naming: Mapping[str, Any] | None = None,
    training_rows: Rows | None = None,
    label_bias: LabelBias | None = None,
    explanation: ExplanationData | None = None,
) -> PromptReport:
    """Read a prompt, compare it with its text, judge the text, and answer the questions a reader has.

    Args:
        model: a `PeftModel` with a prompt adapter, ours or stock.
        tokenizer: the base model's.
        rows: tokenised examples, as for `measure_faithfulness`, held out from training; None: behaviour stays unknown.
        verbalizer, label_token_ids: what names the label words, for accuracies; or their ids, where there is none.
        perplexity_model, perplexity_tokenizer: another causal LM that reads the text, needed where the base is none.
        rivals: other prompts of the task, as `Rival` or (name, accuracy, nll).
        waywardness: also train a prompt to say an unrelated text: True, the text, or what `measure_waywardness` takes.
        context: what else the reader should know, in what JSON can hold: `data` (its name), `training`, ...
        scrutability: further arguments for `measure_scrutability`: `training_texts`, `task_description`, ...
        adapter_name, progress, batch_size: None for the active one; show bars; rows at a time, which changes no result.
        positions, without: compare at "answers" or at "all" tokens; measure the task with no prompt as well.
        padding_side: "right" or "left". Stock PEFT misplaces prompts in left-padded rows, which then shows.
        token_effects, effect_rows: leave out each token in turn, on so many rows (None: 64 to 200; more decide more).
        row_examples: rows that the report shows, where prompt, text and no prompt do not answer alike; not passed on.
        task_naming: for `measure_task_naming`: `task_description`, `examples`, `encoder`. None: this is not asked.
        training_rows: other rows; with them and a `calibration`, or numbers, what of the gain is the label prior.
        label_bias: what `calibrate` returned; None: what is kept with the adapter, else estimated on `training_rows`.
        explanation: what `explain_prompt` found, to be shown as a part of the report.

    Returns:
        The report. The model, its modes and the tokenizer are left as they were.

    Raises:
        ValueError: no prompt adapter, rows or a verbalizer that do not fit, or what the measures raise.
    """
    asked = {"positions": positions, "batch_size": batch_size, "padding_side": padding_side, "without": without}
    asked |= {"token_effects": token_effects, "effect_rows": effect_rows, "row_examples": row_examples}
    judging = _Reading(perplexity_model, perplexity_tokenizer, scrutability or {})
    known = (rows, verbalizer, label_token_ids, judging, rivals, context or {}, progress, asked, task_naming)
    given = _Given(*known, _Prior(training_rows, label_bias))
    return replace(_report_adapter(model, tokenizer, given, waywardness, adapter_name), explanation=explanation)


@dataclass(frozen=True)
class _Reading:
    """By whom the text is read besides the base model, and further arguments for `measure_scrutability`."""

    model: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    options: Mapping[str, Any]


@dataclass(frozen=True)
class _Prior:
    """What the user gave about the label prior."""

    training_rows: Rows | None = None
    bias: LabelBias | None = None


@dataclass(frozen=True)
class _Given:
    """What the user gave for a report of any kind; `measuring` goes to the measure."""

    rows: Rows | None
    verbalizer: Verbalizer | None
    label_token_ids: LabelIds | None
    judging: _Reading
    rivals: Iterable[Rival | tuple[str, float, float]]
    context: Mapping[str, Any]
    progress: bool
    measuring: Mapping[str, Any]
    task_naming: Mapping[str, Any] | None = None
    prior: _Prior = _Prior()

    def label_ids(self, tokenizer: PreTrainedTokenizerBase) -> LabelIds | None:
        """The label words' ids, if they are known."""
        if self.verbalizer is not None and self.label_token_ids is None:
            return label_ids_of(self.verbalizer, tokenizer)
        return self.label_token_ids

    def known_rivals(self) -> tuple[Rival, ...]:
        """The rivals as records."""
        return tuple(rival if isinstance(rival, Rival) else Rival(*rival) for rival in self.rivals)


def _report_adapter(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    given: _Given,
    waywardness: bool | str | Mapping[str, Any],
    adapter_name: str | None,
) -> PromptReport:
    reading = _read(model, tokenizer, adapter_name)
    rows, ids = _checked(reading, given, tokenizer)
    task = prompt_config(model, adapter_name).task_type
    judged = _judge(reading, model, tokenizer, given, getattr(task, "value", task))
    shared: dict[str, Any] = {"label_token_ids": ids, "progress": given.progress}
    measured = bound = None
    untested = _untested(reading, model, rows) if waywardness else ""
    prior, bias = _label_prior(model, tokenizer, given, None, adapter_name) if reading.tokens else (None, None)
    added = {"label_bias": bias.values if bias is not None else None}
    without = {"without_bias": prior.without.bias if prior is not None else None}
    if rows is not None and reading.tokens:
        options = {**shared, **added, **without, **given.measuring}
        measured = measure_faithfulness(model, tokenizer, rows, adapter_name=adapter_name, **options)
    if waywardness and not untested:
        bound = _wayward(model, tokenizer, rows, waywardness, {**shared, "position": reading.position})
    change = changed_base(model, adapter_name)
    if change is not None and measured is not None and task == "CAUSAL_LM":
        asked = added | {name: given.measuring[name] for name in ("positions", "batch_size")}
        change = measure_clean_base(model, tokenizer, rows, reading, change, ids, progress=given.progress, **asked)
    known = {**describe(model, adapter_name, rows, given.verbalizer, given.judging.model), **given.context}
    known |= describe_tokenizer(model, tokenizer, reading, adapter_name)
    about = _about(reading, given)
    verdicts = decide(reading, judged, measured, bound, _chance(ids), untested, change, about, prior)
    if (
        measured is not None
        and task == "SEQ_CLS"
        and isinstance(prompt_config(model, adapter_name), InterpPromptConfig)
    ):
        size = given.measuring["batch_size"]
        by_head = random_prompt_accuracy(model, tokenizer, rows, size, adapter_name)
        known["random_prompt_accuracy"] = by_head
        verdicts = beside_the_head(verdicts, measured, by_head)
    found = (reading, verdicts, judged, measured, bound, given.known_rivals(), known, change, about)
    return PromptReport(*found, bias, prior)


def _label_prior(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerBase,
    given: _Given,
    text: str | None,
    adapter_name: str | None = None,
) -> tuple[LabelPrior | None, LabelBias | None]:
    """What of the gain is the label prior, where there is data for it; and the numbers that act with the prompt.

    Raises:
        ValueError: a calibration is asked for, and nothing says what the numbers are.
    """
    asked, verbalizer = given.prior, given.verbalizer
    if verbalizer is None:
        return None, None
    known = stored_bias(model, verbalizer, adapter_name) if text is None and asked.bias is None else None
    if asked.bias is not None:
        known = bias_to_use(None, verbalizer, asked.bias)
    if given.rows is None:
        return None, known
    warn_of_shared_rows(known, given.rows)
    if known is not None and verbalizer.calibration == "none":  # no prompt's numbers are estimated as the prompt's were
        verbalizer = replace(verbalizer, calibration=known.calibration)
    rows, ways = asked.training_rows, verbalizer.calibration
    if ways == "none" or (rows is None and ways != "content_free"):
        return None, known or bias_to_use(model if text is None else None, verbalizer, None, adapter_name)
    options = {"progress": given.progress, "batch_size": given.measuring["batch_size"]}
    prior = measure_label_prior(model, tokenizer, given.rows, verbalizer, rows, text, adapter_name, **options)
    if known is None:
        numbers = torch.tensor(prior.as_prompt.bias, dtype=torch.float64)
        known = LabelBias.of(verbalizer, numbers, calibration_rows(tokenizer, rows, verbalizer))
    return prior, known


@locked
def report_text(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    rows: Rows | None = None,
    verbalizer: Verbalizer | None = None,
    label_token_ids: LabelIds | None = None,
    position: str | None = None,
    perplexity_model: PreTrainedModel | None = None,
    perplexity_tokenizer: PreTrainedTokenizerBase | None = None,
    rivals: Iterable[Rival | tuple[str, float, float]] = (),
    context: Mapping[str, Any] | None = None,
    scrutability: Mapping[str, Any] | None = None,
    progress: bool = True,
    positions: str = "answers",
    batch_size: int = 32,
    token_effects: bool = True,
    effect_rows: int | None = None,
    row_examples: int = ROW_EXAMPLES,
    without: bool = True,
    task_naming: Mapping[str, Any] | None = None,
    training_rows: Rows | None = None,
    label_bias: LabelBias | None = None,
) -> PromptReport:
    """Judge a prompt that was written by hand, without an adapter: can a person read it, does it help, which tokens do.

    Args:
        model: the base model; of an adapter, its base model is asked.
        tokenizer: its tokenizer.
        text: the prompt. One that stands at the end gets the blank that parts it from the input, if it has none.
        rows: tokenised examples without a prompt; None: behaviour stays unknown.
        verbalizer: names the label words, and says where the prompt stands.
        label_token_ids: the label words' ids, where there is no verbalizer.
        position: "start" or "end" of the input; None: as the verbalizer has it, else "start".
        perplexity_model: another causal LM that reads the text as well; all that follows is as for `report_prompt`.
        perplexity_tokenizer, rivals, context, scrutability, progress, positions, batch_size: as there.
        token_effects, effect_rows, row_examples, without, task_naming, training_rows, label_bias: as there.

    Returns:
        The report; its `reading.method` is "TEXT", and nothing is said about faithfulness.

    Raises:
        ValueError: no text, rows or a verbalizer that do not fit, or what the measures raise.
    """
    asked = {"positions": positions, "batch_size": batch_size, "without": without, "row_examples": row_examples}
    asked |= {"token_effects": token_effects, "effect_rows": effect_rows}
    judging = _Reading(perplexity_model, perplexity_tokenizer, scrutability or {})
    known = (rows, verbalizer, label_token_ids, judging, rivals, context or {})
    given = _Given(*known, progress, asked, task_naming, _Prior(training_rows, label_bias))
    return _report_text(model, tokenizer, text, position, given)


def _report_text(
    model: AnyModel, tokenizer: PreTrainedTokenizerBase, text: str, position: str | None, given: _Given
) -> PromptReport:
    place = position or (given.verbalizer.prompt_position if given.verbalizer is not None else START.name)
    reading, base = read_text(tokenizer, text, place), base_model_of(model)
    rows, ids = _checked(reading, given, tokenizer)
    task = "CAUSAL_LM" if is_causal(base) else None
    judged = _judge(reading, base, tokenizer, given, task)
    measured = None
    prior, bias = _label_prior(model, tokenizer, given, text)
    if rows is not None:
        options = {"progress": given.progress, **given.measuring, "label_bias": bias.values if bias else None}
        options["without_bias"] = prior.without.bias if prior else None
        measured = measure_text(model, tokenizer, rows, text, ids, place, **options)
    known = describe_measurement(base.name_or_path, task, rows, given.verbalizer, given.judging.model)
    known, about = {**known, **given.context}, _about(reading, given)
    verdicts = decide(reading, judged, measured, None, _chance(ids), task_naming=about, label_prior=prior)
    found = (reading, verdicts, judged, measured, None, given.known_rivals(), known, None, about)
    return PromptReport(*found, bias, prior)


def _about(reading: PromptReading, given: _Given) -> TaskNaming | None:
    """Whether the text names its task; None where that is not asked, or there is no text."""
    if given.task_naming is None or not reading.tokens:
        return None
    words = tuple(given.verbalizer.label_words) if given.verbalizer is not None else ()
    return measure_task_naming(reading.text, **{"label_words": words, **given.task_naming})


def is_causal(base: PreTrainedModel) -> bool:
    """Whether the model predicts next tokens, so that it can judge a text."""
    return not base.config.is_encoder_decoder and base.get_output_embeddings() is not None


def _chance(label_token_ids: LabelIds | None) -> float | None:
    return 1 / len(label_token_ids) if label_token_ids else None


def _checked(reading: PromptReading, given: _Given, tokenizer: PreTrainedTokenizerBase) -> tuple[Any, LabelIds | None]:
    """Rows and label words' ids; complains before anything is measured."""
    if given.rows is not None:
        next(examples(given.rows), None)
    if given.verbalizer is not None:
        check_verbalizer(given.verbalizer, reading.placement)
    return given.rows, given.label_ids(tokenizer)


def _read(model: PeftModel, tokenizer: PreTrainedTokenizerBase, adapter_name: str | None) -> PromptReading:
    """The prompt as text; without tokens for a method that has no vectors in their place."""
    config = prompt_config(model, adapter_name)
    try:
        prompt_vectors(model, adapter_name)
    except ValueError:
        return PromptReading(PeftType(config.peft_type).value, "", (), False, START.name, math.nan, math.nan)
    return read_prompt(model, tokenizer, adapter_name)


def _judge(
    reading: PromptReading, model: AnyModel, tokenizer: PreTrainedTokenizerBase, given: _Given, task: str | None
) -> Scrutability | None:
    """Readability under the base model, or under the perplexity model alone where the base model is no causal LM."""
    if not reading.tokens:
        return None
    other, other_tokenizer = given.judging.model, given.judging.tokenizer
    words = tuple(given.verbalizer.label_words) if given.verbalizer is not None else ()
    template = _template(reading, tokenizer, given.rows, task)
    options: dict[str, Any] = {"label_words": words, "template_text": template, **given.judging.options}
    if is_causal(base_model_of(model)):
        options |= {"ids": reading.ids, "perplexity_model": other, "perplexity_tokenizer": other_tokenizer}
        return measure_scrutability(model, tokenizer, reading.text, **options)
    return None if other is None else measure_scrutability(other, other_tokenizer or tokenizer, reading.text, **options)


def _template(
    reading: PromptReading, tokenizer: PreTrainedTokenizerBase, rows: Rows | None, task: str | None
) -> str | None:
    """The first example without its answer, with "{prompt}" where the prompt stands; None for other models."""
    if rows is None or not len(rows) or task != "CAUSAL_LM":
        return None
    ids = plain_ids(rows[0]["input_ids"])
    labels = plain_ids(rows[0]["labels"]) if rows[0].get("labels") is not None else [IGNORED] * len(ids)
    if reading.placement.marked:
        row = without_padding({**rows[0], "labels": labels})
        place, ids = reading.placement.index(row["labels"], row["attention_mask"]), row["input_ids"]
        back = [token for token, label in zip(ids, row["labels"], strict=True) if label == IGNORED][place + 1 :]
        return f"{decode(tokenizer, ids[:place])}{PROMPT}{decode_after(tokenizer, back)}"
    kept = [token for token, label in zip(ids, labels, strict=False) if label == IGNORED]
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return reading.placement.put(PROMPT, str(text))


def _untested(reading: PromptReading, model: PeftModel, rows: Rows | None) -> str:
    """Why there can be no waywardness; "" where there can."""
    if not reading.tokens:
        return f"this method {why_no_text(reading)}"
    if not is_causal(base_model_of(model)):
        return "the base model is no causal language model"
    return "no data given" if rows is None else ""


def _wayward(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    asked: bool | str | Mapping[str, Any],
    shared: Mapping[str, Any],
) -> Waywardness:
    """Trained on every other row, measured on the rest."""
    every = list(rows)
    own = dict(asked) if isinstance(asked, Mapping) else {"target_text": asked} if isinstance(asked, str) else {}
    options = {"target_text": UNRELATED_TEXT, "eval_rows": every[1::2], **shared, **own}
    return measure_waywardness(model, tokenizer, every[0::2], **options)

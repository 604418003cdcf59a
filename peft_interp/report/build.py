"""`report_prompt`: everything there is to know about a model's prompt, measured and put into one report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peft_interp.inference.model_lock import locked
from peft_interp.metrics.faithfulness import measure_faithfulness
from peft_interp.metrics.reading import prompt_config, prompt_vectors, read_prompt
from peft_interp.metrics.results import PromptReading, Scrutability, Waywardness
from peft_interp.metrics.scrutability import measure_scrutability
from peft_interp.metrics.waywardness import measure_waywardness
from peft_interp.report.origin import describe
from peft_interp.report.record import PromptReport, Rival
from peft_interp.report.verdicts import decide, why_no_text
from peft_interp.text.placement import IGNORED, PROMPT, START
from peft_interp.text.rows import examples, plain_ids
from peft_interp.text.verbalizer import Verbalizer, check_verbalizer

UNRELATED_TEXT = "Please count the apples on the table"


@locked
def report_prompt(
    model: Any,
    tokenizer: Any,
    rows: Any | None = None,
    verbalizer: Verbalizer | None = None,
    label_token_ids: Sequence[int] | None = None,
    perplexity_model: Any | None = None,
    perplexity_tokenizer: Any | None = None,
    rivals: Iterable[Rival | tuple[str, float, float]] = (),
    waywardness: bool | str | Mapping[str, Any] = False,
    adapter_name: str | None = None,
    context: Mapping[str, Any] | None = None,
    scrutability: Mapping[str, Any] | None = None,
    progress: bool = True,
    **comparison: Any,
) -> PromptReport:
    """Read a prompt, compare it with its text, judge the text, and answer the questions a reader has.

    Args:
        model: a `PeftModel` with a prompt adapter, ours or stock.
        tokenizer: the base model's.
        rows: tokenised examples, as for `measure_faithfulness`, held out from training; None: behaviour stays unknown.
        verbalizer: names the label words, for accuracies and for label words copied into the prompt.
        label_token_ids: the label words' ids, where there is no verbalizer.
        perplexity_model: another causal LM that reads the text as well; needed where the base model is no causal LM.
        perplexity_tokenizer: its tokenizer; None for `tokenizer`.
        rivals: other prompts of the task, as `Rival` or (name, accuracy, nll).
        waywardness: also train a prompt towards an unrelated text: True, the text, or a mapping of arguments for
            `measure_waywardness`. Every other row trains it, the rest measure it. A prompt of tokens gets scores only.
        adapter_name: None for the active one.
        context: what else the reader should know, in what JSON can hold: `data` (its name), `training`, ...
        scrutability: further arguments for `measure_scrutability`: `training_texts`, `task_description`, ...
        progress: show progress bars.
        **comparison: further arguments for `measure_faithfulness`, `text` excepted: `padding_side`, `positions`, ...

    Returns:
        The report. The model, its modes and the tokenizer are left as they were.

    Raises:
        ValueError: no prompt adapter, rows or a verbalizer that do not fit, another `text`, or what the measures raise.
    """
    reading = _read(model, tokenizer, adapter_name)
    _check_given(reading, rows, verbalizer, comparison)
    if verbalizer is not None and label_token_ids is None:
        label_token_ids = verbalizer.label_token_ids(tokenizer)
    template = _template(reading, model, tokenizer, rows, adapter_name)
    words = tuple(verbalizer.label_words) if verbalizer is not None else ()
    options = {"label_words": words, "template_text": template, **(scrutability or {})}
    judged = _readability(reading, model, tokenizer, perplexity_model, perplexity_tokenizer, options)
    shared: dict[str, Any] = {"label_token_ids": label_token_ids, "progress": progress}
    measured = bound = None
    untested = _untested(reading, model, rows) if waywardness else ""
    if rows is not None and reading.tokens:
        measured = measure_faithfulness(model, tokenizer, rows, adapter_name=adapter_name, **shared, **comparison)
    if waywardness and not untested:
        bound = _wayward(model, tokenizer, rows, waywardness, {**shared, "position": reading.position})
    known = {**describe(model, adapter_name, rows, verbalizer, perplexity_model), **(context or {})}
    chance = 1 / len(label_token_ids) if label_token_ids else None
    verdicts = decide(reading, judged, measured, bound, chance, untested)
    return PromptReport(reading, verdicts, judged, measured, bound, _rivals(rivals), known)


def _rivals(rivals: Iterable[Rival | tuple[str, float, float]]) -> tuple[Rival, ...]:
    return tuple(rival if isinstance(rival, Rival) else Rival(*rival) for rival in rivals)


def _check_given(reading: PromptReading, rows: Any, verbalizer: Any, comparison: Mapping[str, Any]) -> None:
    """Complain before anything is measured."""
    if rows is not None:
        next(examples(rows), None)
    if verbalizer is not None:
        check_verbalizer(verbalizer, reading.placement)
    if "text" in comparison:  # a report that compared another text than it shows and judges would mix two
        raise ValueError(
            f"`text={comparison['text']!r}` is not taken here: a report reads, judges and compares one text, the "
            "prompt's own; compare another one with `measure_faithfulness(..., text=...)`."
        )


def _read(model: Any, tokenizer: Any, adapter_name: str | None) -> PromptReading:
    """The prompt as text; without tokens for a method that has no vectors in their place."""
    config = prompt_config(model, adapter_name)
    try:
        prompt_vectors(model, adapter_name)
    except ValueError:
        return PromptReading(config.peft_type.value, "", (), False, START.name, math.nan, math.nan)
    return read_prompt(model, tokenizer, adapter_name)


def _readability(
    reading: PromptReading,
    model: Any,
    tokenizer: Any,
    other: Any | None,
    other_tokenizer: Any | None,
    options: Mapping[str, Any],
) -> Scrutability | None:
    """Under the base model, or under the perplexity model alone where the base model is no causal LM."""
    if not reading.tokens:
        return None
    if _is_causal(model.get_base_model()):
        options = {**options, "ids": reading.ids, "perplexity_model": other, "perplexity_tokenizer": other_tokenizer}
        return measure_scrutability(model, tokenizer, reading.text, **options)
    return None if other is None else measure_scrutability(other, other_tokenizer or tokenizer, reading.text, **options)


def _template(reading: PromptReading, model: Any, tokenizer: Any, rows: Any | None, adapter: str | None) -> str | None:
    """The first example without its answer, with "{prompt}" where the prompt stands; None for other models."""
    task = prompt_config(model, adapter).task_type
    if rows is None or not len(rows) or getattr(task, "value", task) != "CAUSAL_LM":
        return None
    ids = plain_ids(rows[0]["input_ids"])
    labels = plain_ids(rows[0]["labels"]) if rows[0].get("labels") is not None else [IGNORED] * len(ids)
    kept = [token for token, label in zip(ids, labels, strict=False) if label == IGNORED]
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return reading.placement.put(PROMPT, text)


def _untested(reading: PromptReading, model: Any, rows: Any | None) -> str:
    """Why there can be no waywardness; "" where there can."""
    if not reading.tokens:
        return f"this method {why_no_text(reading)}"
    if not _is_causal(model.get_base_model()):
        return "the base model is no causal language model"
    return "no data given" if rows is None else ""


def _is_causal(base: Any) -> bool:
    return not base.config.is_encoder_decoder and base.get_output_embeddings() is not None


def _wayward(
    model: Any, tokenizer: Any, rows: Any, asked: bool | str | Mapping[str, Any], shared: Mapping[str, Any]
) -> Waywardness:
    """Trained on every other row, measured on the rest."""
    every = list(rows)
    own = dict(asked) if isinstance(asked, Mapping) else {"target_text": asked} if isinstance(asked, str) else {}
    options = {"target_text": UNRELATED_TEXT, "eval_rows": every[1::2], **shared, **own}
    return measure_waywardness(model, tokenizer, every[0::2], **options)

"""`report_prompt`: everything there is to know about a model's prompt, measured and put into one report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peft_interp.metrics.faithfulness import measure_faithfulness
from peft_interp.metrics.reading import prompt_config, prompt_vectors, read_prompt
from peft_interp.metrics.results import Faithfulness, PromptReading, Scrutability, Waywardness
from peft_interp.metrics.scrutability import measure_scrutability
from peft_interp.metrics.waywardness import measure_waywardness
from peft_interp.report.origin import describe
from peft_interp.report.prompt_report import PromptReport, Rival
from peft_interp.report.verdicts import decide
from peft_interp.verbalizer import Verbalizer

UNRELATED_TEXT = "Please count the apples on the table"


def report_prompt(
    model: Any,
    tokenizer: Any,
    rows: Any | None = None,
    verbalizer: Verbalizer | None = None,
    label_token_ids: Sequence[int] | None = None,
    judge: Any | None = None,
    judge_tokenizer: Any | None = None,
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
        rows: tokenised examples, as for `measure_faithfulness`, held out from training; None: the text is read and
            judged, how it behaves stays unknown.
        verbalizer: names the label words, for accuracies and for label words copied into the prompt.
        label_token_ids: the label words' ids, where there is no verbalizer.
        judge: another causal LM that judges the text as well; needed where the base model is no causal LM.
        judge_tokenizer: its tokenizer; None for `tokenizer`.
        rivals: other prompts of the task, as `Rival` or (name, accuracy, nll).
        waywardness: also train a prompt towards an unrelated text: True, the text, or a mapping of arguments for
            `measure_waywardness`. Every other row trains it, the rest measure it. Takes longer than all else.
        adapter_name: None for the active one.
        context: what else the reader should know: `data` (its name), `training` (settings), and whatever you like, as
            long as JSON can hold it.
        scrutability: further arguments for `measure_scrutability`: `training_texts`, `task_description`, ...
        progress: show progress bars.
        **comparison: further arguments for `measure_faithfulness`: `padding_side`, `positions`, `batch_size`, ...

    Returns:
        The report. The model, its modes and the tokenizer are left as they were.

    Raises:
        ValueError: an adapter that is no prompt, or what the measures raise.
    """
    words = tuple(verbalizer.label_words) if verbalizer is not None else ()
    if label_token_ids is None and verbalizer is not None:
        label_token_ids = verbalizer.label_token_ids(tokenizer)
    reading = _read(model, tokenizer, adapter_name)
    options = {"label_words": words, "template_text": _template(reading, tokenizer, rows), **(scrutability or {})}
    judged = _judge(reading, model, tokenizer, judge, judge_tokenizer, options)
    measured: Faithfulness | None = None
    bound: Waywardness | None = None
    if rows is not None and reading.tokens:
        shared: dict[str, Any] = {"label_token_ids": label_token_ids, "progress": progress}
        measured = measure_faithfulness(model, tokenizer, rows, adapter_name=adapter_name, **shared, **comparison)
        bound = None if reading.discrete else _wayward(model, tokenizer, rows, waywardness, shared)
    chance = 1 / len(label_token_ids) if label_token_ids else None
    known = {**describe(model, adapter_name, rows, verbalizer, judge), **(context or {})}
    others = tuple(rival if isinstance(rival, Rival) else Rival(*rival) for rival in rivals)
    verdicts = decide(reading, judged, measured, bound, chance)
    return PromptReport(reading, verdicts, judged, measured, bound, others, known)


def _read(model: Any, tokenizer: Any, adapter_name: str | None) -> PromptReading:
    """The prompt as text; without tokens for a method that has no vectors in their place."""
    config = prompt_config(model, adapter_name)
    try:
        prompt_vectors(model, adapter_name)
    except ValueError:
        return PromptReading(config.peft_type.value, "", (), False, "start", math.nan, math.nan)
    return read_prompt(model, tokenizer, adapter_name)


def _judge(
    reading: PromptReading,
    model: Any,
    tokenizer: Any,
    judge: Any | None,
    judge_tokenizer: Any | None,
    options: Mapping[str, Any],
) -> Scrutability | None:
    """Readability under the base model, or under the judge alone where the base model is no causal LM."""
    if not reading.tokens:
        return None
    base = model.get_base_model()
    if base.config.is_encoder_decoder or base.get_output_embeddings() is None:
        return (
            None
            if judge is None
            else measure_scrutability(reading.text, judge, judge_tokenizer or tokenizer, **options)
        )
    return measure_scrutability(
        reading.text, model, tokenizer, ids=reading.ids, judge=judge, judge_tokenizer=judge_tokenizer, **options
    )


def _template(reading: PromptReading, tokenizer: Any, rows: Any | None) -> str | None:
    """The first example without its answer, with "{prompt}" where the prompt stands."""
    if rows is None or not len(rows):
        return None
    first = rows[0]
    labels = first.get("labels", [-100] * len(first["input_ids"]))
    if not hasattr(labels, "__len__") or len(labels) != len(first["input_ids"]):
        return None
    kept = [int(token) for token, label in zip(first["input_ids"], labels, strict=True) if int(label) == -100]
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return f"{text}{{prompt}}" if reading.position == "end" else f"{{prompt}}{text}"


def _wayward(
    model: Any, tokenizer: Any, rows: Any, asked: bool | str | Mapping[str, Any], shared: Mapping[str, Any]
) -> Waywardness | None:
    """Trained on every other row, measured on the rest; None where it was not asked for."""
    if not asked:
        return None
    every = list(rows)
    own = dict(asked) if isinstance(asked, Mapping) else {"target_text": asked} if isinstance(asked, str) else {}
    options = {"target_text": UNRELATED_TEXT, "eval_rows": every[1::2], **shared, **own}
    return measure_waywardness(model, tokenizer, every[0::2], **options)

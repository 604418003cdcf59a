"""What an adapter changed of the base model besides its prompt, and the base model as it was without that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from peft.utils.other import AuxiliaryTrainingWrapper

from peft_interp.inference.eval_mode import eval_mode
from peft_interp.metrics.differentials import LabelIds
from peft_interp.metrics.faithfulness import measure_text
from peft_interp.metrics.reading import prompt_config
from peft_interp.metrics.results import BaseChange, PromptReading
from peft_interp.text.rows import Rows
from peft_interp.tuner.saved_adapter import OVERWRITTEN

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

_HEADS = ("score", "classifier", "qa_outputs")  # as transformers names what a task puts on a model
_BY_LM_HEAD = ("CAUSAL_LM", "SEQ_2_SEQ_LM")  # tasks for which no head is trained


def changed_base(model: PeftModel, adapter_name: str | None = None) -> BaseChange | None:
    """Which parts of the base model act otherwise with an adapter than without it; None where none does.

    Args:
        model: a `PeftModel` with a prompt adapter.
        adapter_name: None for the active one.
    """
    name, config = adapter_name or model.active_adapter, prompt_config(model, adapter_name)
    trained = [place for place, module in _trained(model) if name in module._adapters]
    overwritten = list(model.__dict__.get(OVERWRITTEN, {}).get(name, ()))
    task = getattr(config.task_type, "value", config.task_type)
    own_head = task not in _BY_LM_HEAD and all(place.rsplit(".", 1)[-1] in _HEADS for place in trained)
    if not trained and not overwritten:
        return None
    return BaseChange(tuple(trained), tuple(overwritten), own_head and not overwritten)


@contextmanager
def clean_base(model: PeftModel) -> Iterator[None]:
    """While open, modules that were trained with an adapter act as those of the base model; other threads wait."""
    with eval_mode(model):
        before = [(module, module._disable_adapters) for _, module in _trained(model)]
        try:
            for module, _ in before:
                module._disable_adapters = True  # `enable_adapters` would also turn gradients on and off
            yield
        finally:
            for module, disabled in before:
                module._disable_adapters = disabled


def measure_clean_base(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    reading: PromptReading,
    change: BaseChange,
    label_token_ids: LabelIds | None,
    **options: Any,
) -> BaseChange:
    """The change with how the text alone does on the base model without it.

    Args:
        model: the adapter.
        tokenizer: the base model's.
        rows: as for `measure_text`.
        reading: the prompt as text.
        change: what was changed. Weights that a file overwrote are gone, so then nothing is measured.
        label_token_ids: as for `measure_text`.
        options: of `measure_text`.
    """
    if change.overwritten or not reading.tokens:
        return change
    effects = {"token_effects": False, "without": False}
    with clean_base(model):
        measured = measure_text(
            model, tokenizer, rows, reading.text, label_token_ids, reading.position, **{**options, **effects}
        )
    return BaseChange(change.modules, change.overwritten, change.own_head, measured.as_text)


def _trained(model: PeftModel) -> list[tuple[str, Any]]:
    """Modules that hold trained copies of base modules, by their names in the base model."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, AuxiliaryTrainingWrapper)]
    return [(name.removeprefix("base_model."), module) for name, module in found]

"""The only file that writes into PEFT's registries.

PEFT's method enum is closed, so no new method can be registered. Three registry rows are enough instead: the saved name
"INTERP_PROMPT" leads to our config, and the rows for prompt tuning and for the task types become dispatchers that give
our config our classes and every other config exactly what it got before. No function of PEFT is replaced.
"""

from __future__ import annotations

from typing import Any

from peft import PeftType
from peft.auto import MODEL_TYPE_TO_PEFT_MODEL_MAPPING
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from peft_interp.causal_lm import InterpPromptModelForCausalLM
from peft_interp.config import PEFT_TYPE_NAME, InterpPromptConfig
from peft_interp.embedding import InterpPromptEmbedding
from peft_interp.task_models import (
    InterpPromptModelForFeatureExtraction,
    InterpPromptModelForQuestionAnswering,
    InterpPromptModelForSeq2SeqLM,
    InterpPromptModelForSequenceClassification,
    InterpPromptModelForTokenClassification,
)

MODEL_CLASSES: dict[str, type] = {
    "CAUSAL_LM": InterpPromptModelForCausalLM,
    "SEQ_2_SEQ_LM": InterpPromptModelForSeq2SeqLM,
    "SEQ_CLS": InterpPromptModelForSequenceClassification,
    "TOKEN_CLS": InterpPromptModelForTokenClassification,
    "QUESTION_ANS": InterpPromptModelForQuestionAnswering,
    "FEATURE_EXTRACTION": InterpPromptModelForFeatureExtraction,
}


def register() -> None:
    """Make PEFT know `InterpPromptConfig`. Called on import; calling it again changes nothing."""
    PEFT_TYPE_TO_CONFIG_MAPPING[PEFT_TYPE_NAME] = InterpPromptConfig  # type: ignore[index]
    tuners: dict[Any, type] = PEFT_TYPE_TO_TUNER_MAPPING  # type: ignore[assignment]
    tuners[PeftType.PROMPT_TUNING] = _encoder_dispatcher(tuners[PeftType.PROMPT_TUNING])
    for task_type, ours in MODEL_CLASSES.items():
        previous = MODEL_TYPE_TO_PEFT_MODEL_MAPPING[task_type]
        MODEL_TYPE_TO_PEFT_MODEL_MAPPING[task_type] = _model_dispatcher(previous, ours)


def _is_ours(config: Any) -> bool:
    # by name, so that it is true for a reloaded class as well; subclasses count
    return any(base.__name__ == InterpPromptConfig.__name__ for base in type(config).__mro__)


def _before(registered: type) -> type:
    """What was registered before us, so that registering again does not stack dispatchers."""
    return getattr(registered, "_peft_interp_previous", registered)


def _model_dispatcher(registered: type, ours: type) -> type:
    previous = _before(registered)
    ours.__name__ = previous.__name__  # transformers' pipelines know PEFT's models by this name

    def new(cls: type, model: Any, peft_config: Any, *args: Any, **kwargs: Any) -> Any:
        return (ours if _is_ours(peft_config) else previous)(model, peft_config, *args, **kwargs)

    return type(previous.__name__, (previous,), {"__new__": new, "_peft_interp_previous": previous})


def _encoder_dispatcher(registered: type) -> type:
    previous = _before(registered)

    def new(cls: type, config: Any, word_embeddings: Any) -> Any:
        return (InterpPromptEmbedding if _is_ours(config) else previous)(config, word_embeddings)

    def adapter_state(cls: type, model: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
        chosen: Any = InterpPromptEmbedding if _is_ours(config) else previous
        return chosen._get_adapter_state_dict(model, config, *args, **kwargs)

    def before_loading(cls: type, model: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
        chosen: Any = InterpPromptEmbedding if _is_ours(config) else previous
        return chosen._remap_adapter_state_dict_for_load(model, config, *args, **kwargs)

    members = {
        "__new__": new,
        "_get_adapter_state_dict": classmethod(adapter_state),
        "_remap_adapter_state_dict_for_load": classmethod(before_loading),
        "_peft_interp_previous": previous,
    }
    return type(previous.__name__, (previous,), members)

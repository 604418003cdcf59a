"""The only file that writes into PEFT's registries; it also joins the models with their files, and goes on training.

PEFT's method enum is closed, so no new method can be registered. Rows of its registries are enough instead: the row for
prompt tuning's config becomes a dispatcher that makes ours of files of ours, and the rows for prompt tuning and for the
task types ones that give our config our classes and every other config exactly what it got before. No function of PEFT
is replaced.
"""

from __future__ import annotations

import copy
from importlib import import_module
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, PeftType, PromptTuningInit
from peft.auto import MODEL_TYPE_TO_PEFT_MODEL_MAPPING
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from transformers import PreTrainedModel

from peft_interp.hub.adapter_files import is_adapter, read_config
from peft_interp.hub.model_files import PromptFilesMixin
from peft_interp.inference.compilation import keep_out_of_graphs
from peft_interp.storage.atomic import finish_save
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.embedding import InterpPromptEmbedding
from peft_interp.tuner.saved_adapter import OVERWRITTEN
from peft_interp.tuner.saved_modules import foreign_tensors
from peft_interp.tuner.stored_config import (
    NOT_FOR_PLAIN_PEFT,
    PEFT_TYPE_NAME,
    is_stored_prompt,
    known_settings,
)
from peft_interp.tuner.task_models import TaskModelMixin
from peft_interp.tuner.task_types import TASK_TYPES, PromptTask


def _model_class(task: PromptTask) -> type:
    """The model class of a task, which also saves, describes and pushes its prompts."""
    if task.model_class:
        module, name = task.model_class.split(".")
        tuner: type = getattr(import_module(f"peft_interp.tuner.{module}"), name)
        bases: tuple[type, ...] = (PromptFilesMixin, tuner)
    else:
        tuner = _before(MODEL_TYPE_TO_PEFT_MODEL_MAPPING[task.name])
        bases = (PromptFilesMixin, TaskModelMixin, tuner)
    joined = type(tuner.__name__, bases, {"__module__": __name__, "__doc__": tuner.__doc__})
    globals()[joined.__qualname__] = joined  # where pickle looks for it
    return joined


def _before(registered: type) -> type:
    """What was registered before us, so that registering again does not stack dispatchers."""
    return getattr(registered, "_peft_interp_previous", registered)


MODEL_CLASSES: dict[str, type] = {task.name: _model_class(task) for task in TASK_TYPES}


def register() -> None:
    """Make PEFT know `InterpPromptConfig`. Called on import; calling it again changes nothing."""
    configs: dict[Any, type] = PEFT_TYPE_TO_CONFIG_MAPPING  # type: ignore[assignment]
    configs[PEFT_TYPE_NAME] = InterpPromptConfig
    for name in (NOT_FOR_PLAIN_PEFT, PeftType.PROMPT_TUNING):
        configs[name] = _config_dispatcher(configs[PeftType.PROMPT_TUNING])
    tuners: dict[Any, type] = PEFT_TYPE_TO_TUNER_MAPPING  # type: ignore[assignment]
    tuners[PeftType.PROMPT_TUNING] = _encoder_dispatcher(tuners[PeftType.PROMPT_TUNING])
    for task_type, ours in MODEL_CLASSES.items():
        previous = MODEL_TYPE_TO_PEFT_MODEL_MAPPING[task_type]
        MODEL_TYPE_TO_PEFT_MODEL_MAPPING[task_type] = _model_dispatcher(previous, ours)
    keep_out_of_graphs("peft_interp")


def _is_ours(config: PeftConfig) -> bool:
    # by name, so that it is true for a reloaded class as well; subclasses count
    return any(base.__name__ == InterpPromptConfig.__name__ for base in type(config).__mro__)


def _config_dispatcher(registered: type) -> type:
    """What PEFT makes a config with for the settings of a file: ours, or one that is and acts as the class before."""
    previous: Any = _before(registered)

    def new(cls: type, *args: Any, **settings: Any) -> Any:
        if not args and is_stored_prompt(settings):
            return InterpPromptConfig(**known_settings(settings, InterpPromptConfig))
        return object.__new__(cls) if previous.__new__ is object.__new__ else previous(*args, **settings)

    def equal(self: Any, other: Any) -> Any:
        return bool(vars(self) == vars(other)) if isinstance(other, previous) else NotImplemented

    def reduce(self: Any, protocol: Any) -> Any:  # a copy, or a pickle, is of the class before
        return previous, (), vars(self)

    members = {"__new__": new, "__eq__": equal, "__hash__": None, "__reduce_ex__": reduce}
    members |= {"_peft_interp_previous": previous, "__annotations__": previous.__annotations__}
    return type(previous.__name__, (previous,), members)


def _model_dispatcher(registered: type, ours: type) -> type:
    previous = _before(registered)
    ours.__name__ = previous.__name__  # transformers' pipelines know PEFT's models by this name

    def new(cls: type, model: PreTrainedModel, peft_config: PeftConfig, *args: Any, **kwargs: Any) -> Any:
        if not _is_ours(peft_config):
            peft_config.__class__ = _before(type(peft_config))
            return previous(model, peft_config, *args, **kwargs)
        # what is loaded belongs to one model; what the user wrote may be used for two
        config = peft_config if peft_config.inference_mode else copy.deepcopy(peft_config)
        return ours(model, config, *args, **kwargs)

    return type(previous.__name__, (previous,), {"__new__": new, "_peft_interp_previous": previous})


def _encoder_dispatcher(registered: type) -> type:
    previous = _before(registered)

    def new(cls: type, config: Any, word_embeddings: Any) -> Any:
        return (InterpPromptEmbedding if _is_ours(config) else previous)(config, word_embeddings)

    def adapter_state(cls: type, model: PeftModel, config: Any, *args: Any, **kwargs: Any) -> Any:
        chosen: Any = InterpPromptEmbedding if _is_ours(config) else previous
        return chosen._get_adapter_state_dict(model, config, *args, **kwargs)

    def before_loading(cls: type, model: PeftModel, config: Any, *args: Any, **kwargs: Any) -> Any:
        chosen: Any = InterpPromptEmbedding if _is_ours(config) else previous
        if not _is_ours(config):
            _note_overwritten(model, *args, **kwargs)
        return chosen._remap_adapter_state_dict_for_load(model, config, *args, **kwargs)

    members = {
        "__new__": new,
        "_get_adapter_state_dict": classmethod(adapter_state),
        "_remap_adapter_state_dict_for_load": classmethod(before_loading),
        "_peft_interp_previous": previous,
    }
    return type(previous.__name__, (previous,), members)


def _note_overwritten(model: PeftModel, adapter_name: str, state_dict: dict[str, Any]) -> None:
    """Remember what a stock adapter's file replaces in the base model: PEFT loads it, and reports say so."""
    foreign = foreign_tensors(model, adapter_name, state_dict)
    if foreign:
        model.__dict__.setdefault(OVERWRITTEN, {})[adapter_name] = foreign


def continue_training(
    base_model: PreTrainedModel,
    adapter: str,
    adapter_name: str = "default",
    load_named_models: bool = False,
    **hub_options: Any,
) -> PeftModel:
    """A saved adapter as a model that can be trained further, which `PeftModel.from_pretrained` refuses for prompts.

    Args:
        base_model: the model the adapter was trained on.
        adapter: folder or hub name of an InterpPrompt adapter.
        adapter_name: its name in the returned model.
        load_named_models: load the perplexity model that the adapter's config names, should there be one (from
            safetensors, without running code). Else training asks for `model.set_perplexity_model`.
        hub_options: `revision`, `token`, `cache_dir`, `subfolder`.

    Returns:
        A model as `get_peft_model` makes it, with latent, ids, best prompt and step count as they were saved. The
        optimizer's state is Trainer's business: for an exact continuation use
        `trainer.train(resume_from_checkpoint=...)`.

    Raises:
        ValueError: the adapter is of another type, or its tensors do not fit.
    """
    if Path(adapter).is_dir():
        finish_save(Path(adapter))
        if is_adapter(Path(adapter, hub_options.get("subfolder") or "")):
            read_config(Path(adapter, hub_options.get("subfolder") or ""))  # in words, whatever is wrong with it
    config = PeftConfig.from_pretrained(adapter, **hub_options)
    if not isinstance(config, InterpPromptConfig):
        raise ValueError(
            f"{adapter!r} is a {config.peft_type} adapter, not an InterpPrompt one; load it with "
            "`PeftModel.from_pretrained`."
        )
    model_class = MODEL_CLASSES.get(config.task_type or "")
    if model_class is None:
        raise ValueError(
            f"the config of {adapter!r} names no task type (`task_type={config.task_type!r}`); ask for it anew."
        )
    config.inference_mode = False
    config.load_named_models = load_named_models
    start = {name: getattr(config, name) for name in ("prompt_tuning_init", "init_words")}
    config.prompt_tuning_init, config.init_words = PromptTuningInit.RANDOM, None  # the checkpoint has the values
    # not `get_peft_model`, which would write the name of `base_model` over that of the one it was trained on
    model: PeftModel = model_class(base_model, config, adapter_name)
    for name, value in start.items():
        setattr(config, name, value)
    model.load_adapter(adapter, adapter_name, is_trainable=True, **hub_options)
    return model.train()

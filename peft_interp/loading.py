"""Going on with the training of a saved adapter."""

from __future__ import annotations

from typing import Any

from peft import PeftConfig, PeftModel, PromptTuningInit

from peft_interp.config import InterpPromptConfig
from peft_interp.registration import MODEL_CLASSES


def continue_training(base_model: Any, adapter: str, adapter_name: str = "default", **hub_options: Any) -> PeftModel:
    """A saved adapter as a model that can be trained further, which `PeftModel.from_pretrained` refuses for prompts.

    Args:
        base_model: the model the adapter was trained on.
        adapter: folder or hub name of an InterpPrompt adapter.
        adapter_name: its name in the returned model.
        hub_options: `revision`, `token`, `cache_dir`, `subfolder`.

    Returns:
        A model as `get_peft_model` makes it, with latent, ids, best prompt and step count as they were saved. The
        optimizer's state is Trainer's business: for an exact continuation use
        `trainer.train(resume_from_checkpoint=...)`.

    Raises:
        ValueError: the adapter is of another type, or its tensors do not fit.
    """
    config = PeftConfig.from_pretrained(adapter, **hub_options)
    if not isinstance(config, InterpPromptConfig):
        raise ValueError(
            f"{adapter!r} is a {config.peft_type} adapter, not an InterpPrompt one; load it with "
            "`PeftModel.from_pretrained`."
        )
    config.inference_mode = False
    start = {name: getattr(config, name) for name in ("prompt_tuning_init", "init_words")}
    config.prompt_tuning_init, config.init_words = PromptTuningInit.RANDOM, None  # the checkpoint has the values
    # not `get_peft_model`, which would write the name of `base_model` over that of the one it was trained on
    model: PeftModel = MODEL_CLASSES[config.task_type or ""](base_model, config, adapter_name)
    for name, value in start.items():
        setattr(config, name, value)
    model.load_adapter(adapter, adapter_name, is_trainable=True, **hub_options)
    return model.train()

"""Shows the prompt while any Trainer trains it, and keeps the best one."""

from __future__ import annotations

import logging
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_interp.config import InterpPromptConfig

logger = logging.getLogger(__name__)


class PromptCallback(TrainerCallback):
    """Adds the prompt and the state of its search to Trainer's logs, and keeps the prompt with the best evaluation.

    Every log entry gains `prompt_text` (with a tokenizer) and what `model.prompt_statistics()` knows, prefixed
    `prompt/`; they are kept in `trainer.state.log_history`. Given to `Trainer(callbacks=[...])` they are shown as well;
    added later, or for TensorBoard and its like, which log before any callback of the user, they are only kept.

    Every evaluation during training offers its `metric_for_best_model` (the loss by default) to
    `model.keep_best_prompt`.

    Args:
        tokenizer: turns ids to text; None leaves the text out.
        restore_best: at the end of training, move the adapter to the best prompt recorded, which is PEZ's result
            (arXiv 2302.03668). Without evaluations nothing is recorded and the last prompt stays. It also stays where
            ids are not all that was trained (a soft prompt, a classification head): use `load_best_model_at_end`.
    """

    def __init__(self, tokenizer: Any | None = None, restore_best: bool = True) -> None:
        self.tokenizer = tokenizer
        self.restore_best = restore_best
        self._training = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse label smoothing for a causal LM, and begin to keep the best prompt.

        Raises:
            ValueError: `label_smoothing_factor`, which Trainer would apply to unshifted labels.
        """
        model = _prompt_model(kwargs.get("model"))
        if model is not None and model.active_peft_config.task_type == "CAUSAL_LM" and args.label_smoothing_factor:
            raise ValueError(
                f"`label_smoothing_factor={args.label_smoothing_factor}` cannot be used with a prompt: Trainer does "
                "not recognise a causal LM inside an adapter and would compare each logit with the wrong token. Set it "
                "to 0, or pass a `compute_loss_func` (see `align_logits_with_labels`)."
            )
        self._training = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the prompt to the entry that is about to be shown."""
        model, logs = _prompt_model(kwargs.get("model")), kwargs.get("logs")
        if model is None or logs is None:
            return
        statistics = model.prompt_statistics(clear=True)  # so that a run resumed in between logs the same
        extra: dict[str, Any] = {f"prompt/{name}": value for name, value in statistics.items()}
        if self.tokenizer is not None:
            extra["prompt_text"] = model.prompt_text(self.tokenizer)
        logs.update(extra)
        if state.log_history:
            state.log_history[-1].update(extra)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Offer the evaluated prompt as the best; evaluations outside training (a test set, say) do not count."""
        model = _prompt_model(kwargs.get("model"))
        name = args.metric_for_best_model or "loss"
        score = (kwargs.get("metrics") or {}).get(name if name.startswith("eval_") else f"eval_{name}")
        if model is None or score is None or not self._training:
            return
        greater = args.greater_is_better
        model.keep_best_prompt(score, greater_is_better=not name.endswith("loss") if greater is None else greater)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the adapter to the best prompt."""
        self._training = False
        model = _prompt_model(kwargs.get("model"))
        best = model.best_prompt() if model is not None and self.restore_best else None
        if model is None or best is None or best[0] == model.prompt_token_ids():
            return
        config = model.active_peft_config
        if config.projects and not config.modules_to_save:
            model.use_prompt(best[0])
        else:
            logger.info("the last prompt stays: its ids are not all that was trained; use `load_best_model_at_end`.")


def _prompt_model(model: Any) -> Any | None:
    """The model, unwrapped from DDP, if its active adapter is a readable prompt."""
    model = getattr(model, "module", model)
    return model if isinstance(getattr(model, "active_peft_config", None), InterpPromptConfig) else None

"""Shows the prompt while any Trainer trains it, and keeps the best one."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class PromptCallback(TrainerCallback):
    """Adds the prompt and the state of its search to Trainer's logs, and keeps the prompt with the best evaluation.

    Every log entry gains `prompt_text` (with a tokenizer) and what `model.prompt_statistics()` knows, prefixed
    `prompt/`; they are kept in `trainer.state.log_history`. Every evaluation's `metric_for_best_model` (the loss by
    default) is offered to `model.keep_best_prompt`.

    Args:
        tokenizer: turns ids to text; None leaves the text out.
        restore_best: at the end of training, move the adapter to the best prompt recorded, which is PEZ's result
            (arXiv 2302.03668). Without evaluations nothing is recorded and the last prompt stays.
    """

    def __init__(self, tokenizer: Any | None = None, restore_best: bool = True) -> None:
        self.tokenizer = tokenizer
        self.restore_best = restore_best

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the prompt to the entry that is about to be shown."""
        model, logs = _prompt_model(kwargs.get("model")), kwargs.get("logs")
        if model is None or logs is None:
            return
        extra: dict[str, Any] = {f"prompt/{name}": value for name, value in model.prompt_statistics().items()}
        if self.tokenizer is not None:
            extra["prompt_text"] = model.prompt_text(self.tokenizer)
        logs.update(extra)
        if state.log_history:
            state.log_history[-1].update(extra)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Offer the evaluated prompt as the best."""
        model = _prompt_model(kwargs.get("model"))
        name = args.metric_for_best_model or "loss"
        score = (kwargs.get("metrics") or {}).get(name if name.startswith("eval_") else f"eval_{name}")
        if model is None or score is None:
            return
        greater = args.greater_is_better
        model.keep_best_prompt(score, greater_is_better=not name.endswith("loss") if greater is None else greater)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the adapter to the best prompt."""
        model = _prompt_model(kwargs.get("model"))
        best = model.best_prompt() if model is not None and self.restore_best else None
        if model is not None and best is not None and best[0] != model.prompt_token_ids():
            model.use_prompt(best[0])


def _prompt_model(model: Any) -> Any | None:
    """The model, unwrapped from DDP, if it has a readable prompt."""
    model = getattr(model, "module", model)
    return model if hasattr(model, "prompt_statistics") else None

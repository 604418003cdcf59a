"""Shows the prompt while any Trainer trains it, and keeps the best one."""

from __future__ import annotations

import html
import json
import logging
import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from peft import PeftModel, PeftType
from torch import nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import IntervalStrategy
from transformers.utils import is_in_notebook

from peft_interp.inference.compat import wait_for_uploads
from peft_interp.metrics.likelihood import mean_nll, token_nlls
from peft_interp.metrics.reading import read_prompt
from peft_interp.metrics.results import PromptReading, Scrutability
from peft_interp.metrics.scrutability import measure_scrutability
from peft_interp.report.trackers import Track, close_trackers, open_trackers
from peft_interp.scoring.choice import Contender, accuracy_error, most_readable, why
from peft_interp.storage.atomic import replace_file
from peft_interp.storage.runs import RunLock
from peft_interp.text.tokenization import named_token_ids
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.prompt_model import PromptModelMixin

IDS, OFFERED = "prompt/ids", "prompt/offered"
SCORES = ("nll", "perplexity", "readability", "readable", "cosine_distance")
HISTORY_FILE = "prompt_history.jsonl"
SHOWN_LETTERS = 60  # of the text in the progress line; Trainer shows nothing of texts above 100


def score_prompt(model: PeftModel, tokenizer: PreTrainedTokenizerBase, reading: PromptReading) -> dict[str, float]:
    """The scores of a prompt that are cheap enough for every log.

    Args:
        model: the adapter; its base model judges the text.
        tokenizer: the base model's.
        reading: the prompt as text.

    Returns:
        For tokens `nll` (nats per token), `perplexity`, `readability` (0 to 1) and `readable` (1 or 0), empty where
        the base model is no causal LM; for vectors `cosine_distance` to their nearest tokens, mean, 0 to 2.
    """
    if not reading.discrete:
        return {"cosine_distance": math.fsum(token.cosine_distance for token in reading.tokens) / len(reading.tokens)}
    base = cast(PreTrainedModel, model.get_base_model())
    if base.config.is_encoder_decoder or base.get_output_embeddings() is None:
        return {}
    judged: Scrutability = measure_scrutability(model, tokenizer, reading.text, ids=reading.ids)
    known = {"readability": judged.score, "readable": float(judged.readable)}
    for name in ("nll", "perplexity"):
        known[name] = judged.measures[name].value
    return {name: value for name, value in known.items() if math.isfinite(value)}


def reading_scores(model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> tuple[PromptReading, dict[str, float]]:
    """Any prompt adapter with vectors among the inputs, read and scored.

    Raises:
        ValueError: an adapter that is no prompt, or one without such vectors.
    """
    reading = read_prompt(model, tokenizer, neighbours=1)
    return reading, score_prompt(model, tokenizer, reading)


def history(log: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every changed prompt in Trainer's `state.log_history`, as {step, text, ids, scores}, oldest first.

    Trainer keeps that log in its checkpoints, so a resumed run has the same history as an uninterrupted one.
    """
    return [
        {
            "step": entry["step"],
            "text": entry.get("prompt_text"),
            "ids": entry[IDS],
            "scores": {name: entry[f"prompt/{name}"] for name in SCORES if f"prompt/{name}" in entry},
        }
        for entry in log
        if IDS in entry
    ]


def write_history(records: list[dict[str, Any]], kept_ids: list[int], folder: str | None) -> None:
    """One JSON line for each prompt; `kept` marks the latest one that equals the prompt training ended with."""
    if not records or folder is None:
        return
    last = max((place for place, record in enumerate(records) if record["ids"] == kept_ids), default=None)
    lines = [json.dumps({**record, "kept": place == last}, ensure_ascii=False) for place, record in enumerate(records)]
    Path(folder).mkdir(parents=True, exist_ok=True)
    replace_file(Path(folder) / HISTORY_FILE, "\n".join(lines) + "\n")


def shortened(text: str) -> str:
    """A prompt for one line of a progress bar."""
    return text if len(text) <= SHOWN_LETTERS else text[: SHOWN_LETTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"


logger = logging.getLogger(__name__)


class PromptCallback(TrainerCallback):
    """Adds the prompt and the state of its search to Trainer's logs, and keeps the prompt with the best evaluation.

    Every entry of `trainer.state.log_history` gains `prompt_text` (with a tokenizer) and what
    `model.prompt_statistics()` knows, prefixed `prompt/`; with `scores`, also `prompt/nll`, `prompt/perplexity`,
    `prompt/readability` and `prompt/readable`. The line beside the progress bar, and Jupyter's table of evaluations,
    show the text, its perplexity and whether it is readable; a callback added after the Trainer was made comes too late
    for that. What `report_to` names gets figures and text as well (TensorBoard, as a run called `prompt`, MLflow,
    Weights & Biases, trackio); a tracker that is a callback of your own gets the shown line, if it stands after this.

    `history` has every prompt that was logged, and `prompt_history.jsonl` in the output folder has it after training.

    With `hub_strategy="every_save"` and its relatives, Trainer copies only the adapter's config and weights into the
    folder it pushes; this callback puts the same prompt's text and card there, so that no commit has those of an
    earlier one. With `hub_always_push=True`, where Trainer would overwrite files that are being uploaded,
    training waits for the uploads before.

    Every evaluation during training offers its `metric_for_best_model` (the loss by default) to
    `model.keep_best_prompt`. Where that is an accuracy, the most fluent prompt within one standard error of the best
    one is kept at the end (`peft_interp.scoring.choice`; its fluency is read by the base model, if that is a causal
    LM): the best of many noisy scores is partly luck. What chose is logged as `prompt/chosen_by`. The standard error
    of other metrics is not known from what Trainer reports, so the best score itself decides there.

    Args:
        tokenizer: turns ids to text; None leaves the text out.
        restore_best: at the end of training, move the adapter to the best prompt recorded, which is PEZ's result
            (arXiv 2302.03668). Without evaluations nothing is recorded and the last prompt stays. It also stays where
            ids are not all that was trained (a soft prompt, a classification head): use `load_best_model_at_end`.
        scores: score every new prompt; the first time, human-written prompts are measured under the base model as
            well (two seconds with the embedded one). Of a soft prompt, PEFT's own included, it is read which tokens
            are nearest and how far they are, `prompt/cosine_distance`.

    Raises:
        ValueError: scores without a tokenizer.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase | None = None, restore_best: bool = True, scores: bool = False
    ) -> None:
        if scores and tokenizer is None:
            raise ValueError("`scores=True` needs the tokenizer: `PromptCallback(tokenizer, scores=True)`.")
        self.tokenizer = tokenizer
        self.restore_best = restore_best
        self._scores_too = scores
        self._training = False
        self._log: list[dict[str, Any]] = []
        self._scored: dict[tuple[int, ...], dict[str, float]] = {}
        self._trackers: list[Track] = []
        self._lock: RunLock | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """Every prompt that was logged and differs from the one before, as {step, text, ids, scores}."""
        return history(self._log)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse label smoothing for a causal LM, and begin to keep the best prompt.

        Raises:
            ValueError: `label_smoothing_factor`, which Trainer would apply to unshifted labels, or another process that
                trains in `output_dir`.
        """
        model = _prompt_model(kwargs.get("model"))
        if model is not None and model.active_peft_config.task_type == "CAUSAL_LM" and args.label_smoothing_factor:
            raise ValueError(
                f"`label_smoothing_factor={args.label_smoothing_factor}` cannot be used with a prompt: Trainer does "
                "not recognise a causal LM inside an adapter and would compare each logit with the wrong token. Set it "
                "to 0, or pass a `compute_loss_func` (see `align_logits_with_labels`)."
            )
        if state.is_world_process_zero and model is not None:
            self._lock = RunLock(str(args.output_dir))
        self._training = True
        self._log = state.log_history
        if state.is_world_process_zero and (model is not None or self._reads(kwargs.get("model"))):
            self._trackers = open_trackers(args)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for what costs extra where it is about to be logged; with logs by epoch, in the epoch's first step."""
        if (ours := _prompt_model(kwargs.get("model"))) is not None and _log_follows(args, state):
            ours.measure_perplexity_gradient()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the prompt to the entry that is about to be shown."""
        model, logs = _unwrapped(kwargs.get("model")), kwargs.get("logs")
        extra = self._extra(model)
        if not extra or logs is None:
            return
        self._log = state.log_history
        ids = extra.pop(IDS, None)
        changed = next((entry[IDS] for entry in reversed(self._log) if IDS in entry), None) != ids
        logs.update(_short(extra))
        if self._log:
            self._log[-1].update(extra, **({IDS: ids} if ids is not None and changed else {}))
        for track in self._trackers:
            track(extra, state.global_step, changed)

    def _extra(self, model: nn.Module | None) -> dict[str, Any]:
        """What is known of the prompt now; empty for models that are none of ours."""
        extra: dict[str, Any] = {}
        if (ours := _prompt_model(model)) is not None:
            statistics = ours.prompt_statistics(clear=True)  # so that a run resumed in between logs the same
            statistics.pop("changed_since_start", None)  # counts from this process's start, which a resume moves
            extra = {f"prompt/{name}": value for name, value in statistics.items()}
            extra[IDS] = ours.prompt_token_ids()
            if self.tokenizer is not None:
                extra["prompt_text"] = ours.prompt_text(self.tokenizer)
        if self.tokenizer is not None and self._reads(model):
            extra |= self._score(cast(PeftModel, model), self.tokenizer, extra)
        return extra

    def _score(self, model: PeftModel, tokenizer: PreTrainedTokenizerBase, extra: dict[str, Any]) -> dict[str, Any]:
        """Scores of the current prompt; those of tokens are looked up if the prompt was scored before."""
        known = self._scored.get(tuple(extra.get(IDS, ())))
        if known is None:
            reading, known = reading_scores(model, tokenizer)
            if reading.discrete:
                self._scored[tuple(reading.ids)] = known
            extra = {IDS: reading.ids, "prompt_text": reading.text, **extra}
        return {**extra, **{f"prompt/{name}": value for name, value in known.items()}}

    def _reads(self, model: nn.Module | None) -> bool:
        """Whether this model's prompt is to be scored: any with vectors among the inputs."""
        model = _unwrapped(model)
        config = getattr(model, "active_peft_config", None)
        if not self._scores_too or config is None or not config.is_prompt_learning:
            return False
        return config.peft_type in (PeftType.PROMPT_TUNING, PeftType.P_TUNING, PeftType.CPT)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Offer the evaluated prompt as the best; evaluations outside training (a test set, say) do not count."""
        model = _prompt_model(kwargs.get("model"))
        name = args.metric_for_best_model or "loss"
        score = (kwargs.get("metrics") or {}).get(name if name.startswith("eval_") else f"eval_{name}")
        if model is None or score is None or not self._training:
            return
        greater = args.greater_is_better
        model.keep_best_prompt(score, greater_is_better=not name.endswith("loss") if greater is None else greater)
        rows: Any = getattr(kwargs.get("eval_dataloader"), "dataset", None)
        if state.log_history and hasattr(rows, "__len__") and "accuracy" in name and greater is not False:
            entry: dict[str, Any] = state.log_history[-1]
            entry[OFFERED] = {"ids": model.prompt_token_ids(), "score": score, "rows": len(rows)}

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Complete the folder that is about to be pushed after a checkpoint, when nothing of it is being uploaded."""
        model = _prompt_model(kwargs.get("model"))
        if model is None or not self._training or not state.is_world_process_zero:
            return  # after the training, Trainer saves the whole model before it pushes
        wait_for_uploads()
        if (processing_class := kwargs.get("processing_class")) is not None:
            processing_class.save_pretrained(args.output_dir)  # first: it may be what turns the ids to text
        model.save_pretrained(str(args.output_dir))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the adapter to the best prompt, and write the history."""
        self._training = False
        if self._lock is not None:
            self._lock.release()
        _warn_of_the_head(_prompt_model(kwargs.get("model")))
        self._choose(_prompt_model(kwargs.get("model")), state.log_history)
        self._restore(_prompt_model(kwargs.get("model")))
        close_trackers(self._trackers)
        self._trackers = []
        if state.is_world_process_zero:
            if args.push_to_hub:
                wait_for_uploads()  # the history says which prompt was kept, maybe not the one that is being uploaded
            write_history(self.history, self._ids_now(kwargs.get("model")), args.output_dir)

    def _ids_now(self, model: nn.Module | None) -> list[int]:
        """The prompt's ids, or those nearest to its vectors; none for models that are not read."""
        if (ours := _prompt_model(model)) is not None:
            return list(ours.prompt_token_ids())
        if self.tokenizer is None or not self._reads(model):
            return []
        return read_prompt(_unwrapped(model), self.tokenizer, neighbours=1).ids

    def _choose(self, model: PromptModelMixin | None, log: list[dict[str, Any]]) -> None:
        """Among the evaluations' accuracies, the most fluent prompt within one standard error of the best."""
        offers = [entry[OFFERED] for entry in log if OFFERED in entry]
        if model is None or not self.restore_best or not offers or not model.active_peft_config.projects:
            return
        latest = {tuple(offer["ids"]): offer for offer in offers}  # a prompt's last evaluation counts
        prompts, told = list(latest), list(latest.values())
        nlls = _fluency(model, prompts)
        contenders = [
            Contender(offer["score"], accuracy_error(offer["score"], offer["rows"]), nll)
            for offer, nll in zip(told, nlls, strict=True)
        ]
        chosen, top = most_readable(contenders), max(contenders, key=lambda contender: contender.score)
        model.keep_best_prompt_of(prompts[chosen], contenders[chosen].score)
        log[-1]["prompt/chosen_by"] = why(contenders[chosen], top, "validation accuracy")
        logger.info("the prompt was chosen by %s", log[-1]["prompt/chosen_by"])

    def _restore(self, model: PromptModelMixin | None) -> None:
        best = model.best_prompt() if model is not None and self.restore_best else None
        if model is None or best is None or best[0] == model.prompt_token_ids():
            return
        config = model.active_peft_config
        if config.projects and not config.modules_to_save:
            model.use_prompt(best[0])
        else:
            logger.info("the last prompt stays: its ids are not all that was trained; use `load_best_model_at_end`.")


def _warn_of_the_head(model: PromptModelMixin | None) -> None:
    """Say after training that a head has learned and the prompt has not, which figures alone do not show."""
    if model is None or not model.active_peft_config.modules_to_save:
        return
    known = model.prompt_statistics()
    if known.get("step", 0) > 0 and known.get("changed_since_start") == 0:
        warnings.warn(
            f"after {known['step']:.0f} steps the prompt is the one training began with: only the head has learned. "
            "Give the prompt a learning rate of 0.1 to 0.3 in an optimizer group of its own.",
            stacklevel=2,
        )


def _log_follows(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether the step that now begins, or the epoch that begins with it, is logged."""
    step = state.global_step + 1
    if args.logging_strategy == IntervalStrategy.EPOCH:
        return float(state.epoch or 0).is_integer()
    return (step == 1 and args.logging_first_step) or (
        args.logging_strategy == IntervalStrategy.STEPS and step % max(1, int(state.logging_steps)) == 0
    )


def _fluency(model: PromptModelMixin, prompts: Sequence[tuple[int, ...]]) -> list[float | None]:
    """NLL of prompts under the base model, nats per token; None each where that is no causal LM."""
    base = cast(PreTrainedModel, cast(PeftModel, model).get_base_model())
    if base.config.is_encoder_decoder or base.get_output_embeddings() is None:
        return [None] * len(prompts)
    leading = tuple(named_token_ids(base.config, ("bos",))[:1])
    found = token_nlls(base, [list(ids) for ids in prompts], leading)
    return [mean_nll(nlls) if len(nlls) else None for nlls in found]


def _unwrapped(model: nn.Module | None) -> Any:
    """The model inside DDP."""
    return getattr(model, "module", model)


def _prompt_model(model: nn.Module | None) -> PromptModelMixin | None:
    """The model, unwrapped from DDP, if its active adapter is a readable prompt."""
    model = _unwrapped(model)
    ours = isinstance(getattr(model, "active_peft_config", None), InterpPromptConfig)
    return cast(PromptModelMixin, model) if ours else None


def _short(extra: dict[str, Any]) -> dict[str, Any]:
    """The part that fits a line, under names of which Jupyter's table makes "Text", "Perplexity", ... as headings."""
    shown: dict[str, Any] = {}
    if "prompt_text" in extra:
        text = shortened(extra["prompt_text"])
        shown["prompt_text"] = html.escape(text) if is_in_notebook() else text  # that table takes cells for markup
    if "prompt/perplexity" in extra:
        shown["prompt_perplexity"] = extra["prompt/perplexity"]
    if "prompt/readable" in extra:
        shown["prompt_readable"] = "yes" if extra["prompt/readable"] else "no"
    if "prompt/cosine_distance" in extra:
        shown["prompt_distance"] = extra["prompt/cosine_distance"]
    return shown

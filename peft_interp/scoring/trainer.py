"""`PromptScoringTrainer`: what all trainers share that score prompts instead of following the model's gradient.

Trainer's model is the adapter, as in any script: it is saved, logged and loaded, and always holds the best prompt found
so far. The archive of every scored prompt is the file `archive.jsonl` in the output folder, however a run ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME, load_peft_weights
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer
from transformers.trainer_utils import EvalLoopOutput

from peft_interp.scoring.archive import ScoredPrompt, Scores
from peft_interp.scoring.checkpointing import STATE_NAME, load_search, put_archive_aside, save_search
from peft_interp.scoring.config import RewardArguments
from peft_interp.scoring.examples import Examples, padded, read_examples
from peft_interp.scoring.scored_search import ScoredSearch
from peft_interp.scoring.setup import check_model, own_settings
from peft_interp.scoring.task_scorer import is_causal
from peft_interp.storage.runs import RunLock, last_complete_checkpoint, terminated_like_interrupted
from peft_interp.text.label_bias import LabelBias
from peft_interp.text.rows import Rows
from peft_interp.text.verbalizer import Verbalizer
from peft_interp.tuner.embedding import encoder_of

_CHECKPOINT_FILES = (STATE_NAME, "optimizer.pt", "scheduler.pt")


class PromptScoringTrainer(Trainer):
    """Base of trainers that search; a subclass sets `search` at the end of its `__init__`.

    Args:
        model: what `get_peft_model` returned for an `InterpPromptConfig`.
        args: settings.
        train_dataset: rows with `input_ids` and `labels`; or text and label, with a verbalizer; or any columns, with
            reward functions.
        eval_dataset: held-out rows of the same form.
        processing_class: the task model's tokenizer.
        verbalizer: template and label words of a classification task.
        text_column: the text, where the verbalizer fills rows in.
        label_column: the label, 0, 1, ..., for the same.
        max_length: most tokens of a filled-in row, the prompt not counted. None: no limit.
        trainer_options: Trainer's other arguments.

    Raises:
        ValueError: a model, data or settings that cannot work together.
    """

    loss_is_scaled_for_ga = False  # `compute_loss` returns a mean over the batch's prompts
    arguments: type[RewardArguments] = RewardArguments
    search: ScoredSearch
    model: PeftModel
    processing_class: PreTrainedTokenizerBase
    train_dataset: Rows
    eval_dataset: Rows | None

    def __init__(
        self,
        model: PeftModel,
        args: RewardArguments,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        verbalizer: Verbalizer | None = None,
        text_column: str = "sentence",
        label_column: str = "label",
        max_length: int | None = None,
        **trainer_options: Any,
    ) -> None:
        check_model(model, args, self.arguments, processing_class, eval_dataset, verbalizer)
        collator = trainer_options.pop("data_collator", None)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=padded if collator is None else collator,  # for stock evaluations
            **trainer_options,
        )
        self.verbalizer = verbalizer
        self._reading = (text_column, label_column, max_length)
        self._train = self._examples(train_dataset, "train_dataset")
        self._dev = None if eval_dataset is None else self._examples(eval_dataset, "eval_dataset")
        self._metrics: dict[str, list[float]] = defaultdict(list)
        self._begun = False

    def _examples(self, dataset: Rows | None, what: str) -> Examples:
        if dataset is None:
            raise ValueError("`train_dataset` is needed: prompts are scored on its examples.")
        masked = not is_causal(cast(Any, self.model).get_base_model())
        return read_examples(self.processing_class, dataset, self.verbalizer, *self._reading, what, masked)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's; at the end the best of all that was found is chosen, by the held-out data if there is any.

        However it ends, the archive is on the disk; SIGTERM, as schedulers send it, ends it like Ctrl-C. With
        `resume_from_checkpoint=True` checkpoints that a kill left half-written are passed over with a warning.

        Raises:
            ValueError: another process trains in `output_dir`, or there is no complete checkpoint to resume.
        """
        folder = str(self.args.output_dir)
        lock = RunLock(folder) if self.args.should_save else None
        try:
            if resume_from_checkpoint is True:
                resume_from_checkpoint = last_complete_checkpoint(folder, _CHECKPOINT_FILES)
                if resume_from_checkpoint is None:
                    raise ValueError(f"{folder!r} has no complete checkpoint; leave `resume_from_checkpoint` out.")
            with terminated_like_interrupted():
                output = super().train(resume_from_checkpoint, *args, **kwargs)
                self._finish()
                if self.search.best is not None:
                    self._sign()
        finally:
            self.search.write_archive()
            if lock is not None:
                lock.release()
        return output

    def _finish(self) -> None:
        """The last choice, when training is over."""
        if self._dev is not None and self.search.archive.records:
            self._select(self._dev)

    def _begin(self) -> list[int]:
        """The first step of a run that is not resumed: the adapter's prompt is where it starts."""
        model = self.model
        if not self._begun:
            self._begun = True
            if self.search.archive_path is not None:
                put_archive_aside(self.search.archive_path)
        ids: list[int] = model.prompt_token_ids()
        return ids

    def _adopt_best(self) -> None:
        """Move the adapter to the best prompt, and record it there."""
        best, model = self.search.best, self.model
        if best is not None:
            model.use_prompt(best.ids, resize=True)
            encoder_of(model, model.active_adapter).forget_best()  # of another split or another run
            model.keep_best_prompt(best.score)
            self._sign()

    def _sign(self) -> None:
        """Write into the adapter how its prompt was found, for its card, and the numbers it needs beside its text."""
        model, scorer = self.model, self.search.scorer
        if scorer.calibration is not None and self.verbalizer is not None:
            values = scorer.label_bias(model.prompt_token_ids())
            model.keep_label_bias(LabelBias.of(self.verbalizer, values, scorer.calibration.examples.rows))
        model.active_peft_config.found_by = {
            "trainer": type(self).__name__,
            "steps": self.state.global_step,
            "prompts_scored": len({record.ids for record in self.search.archive.records}),
            "rewards": {name: round(weight, 6) for name, weight in scorer.weights.items()},
            "settings": own_settings(self.args),
            "chosen_by": self.search.best.chosen_by if self.search.best is not None else "",
        }

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """As Trainer's, with the means of what was noted since the last log of a training step."""
        if "loss" in logs:
            for name, values in self._metrics.items():
                logs[name] = max(values) if name.endswith("_max") else sum(values) / len(values)
            self._metrics.clear()
            if self.search.best is not None:
                logs |= {"best_reward": self.search.best.reward, "best_prompt": self.search.best.text}
            self.search.write_archive()
        super().log(logs, start_time)

    # -- evaluation -----------------------------------------------------------------------------------------------

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Scores of prompts, and with `compute_metrics` or in `predict` the stock predictions of the adapter's."""
        dataset: Any = dataloader.dataset
        own = dataset is self.eval_dataset and self._dev is not None
        examples = self._dev if own else self._examples(dataset, "eval_dataset")
        assert examples is not None
        chooses = (
            own and self.is_in_train and self.search.archive.records
        )  # not before the first step (`eval_on_start`)
        found = self._select(examples) if chooses else {}
        found |= self._measured(examples)
        metrics: dict[str, Any] = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        nothing: Any = None
        if (self.compute_metrics is None and prediction_loss_only) or not (examples.rows or self.compute_metrics):
            return EvalLoopOutput(predictions=nothing, label_ids=None, metrics=metrics, num_samples=len(examples))
        loader = super().get_eval_dataloader(_for_the_model(dataset, examples))
        stock = super().evaluation_loop(loader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        return stock._replace(metrics={**(stock.metrics or {}), **metrics})

    def front(self, split: str | None = None) -> list[ScoredPrompt]:
        """The prompts that no other beats in both the task's reward and fluency, best reward first.

        `peft_interp.scoring.archive.front(trainer.search.archive.records, ...)` weighs other scores against each other.

        Args:
            split: "dev" for held-out scores, "train" for those on all training examples; None: "dev" if there are any.
        """
        if split is None:
            split = "dev" if self.search.front("dev") else "train"
        return self.search.front(split)

    def scores_on(self, prompts: Sequence[ScoredPrompt], dataset: Rows) -> list[Scores]:
        """Every measure of some prompts of the archive on other data, test rows say; nothing is chosen by it.

        Args:
            prompts: as `front` or `search.archive.records` give them.
            dataset: rows of the same form as the training data.

        Returns:
            For each prompt, scores by name, as `PromptScorer.measure`.
        """
        examples = self._examples(dataset, "dataset")
        candidates = [self.search.candidate(prompt.ids) for prompt in prompts]
        scores = self.search.scorer.measure(candidates, examples, self.state)
        self.search.scorer.forget(examples)
        return scores

    def _select(self, dev: Examples) -> dict[str, Any]:
        """Score prompts on the held-out data, adopt the best, and return what else an evaluation is logged with."""
        raise NotImplementedError

    def _measured(self, examples: Examples) -> dict[str, Any]:
        """The adapter's prompt on any labelled data."""
        candidate = self.search.candidate(self.model.prompt_token_ids())
        known = self.search.archive.find(candidate.ids, "dev") if examples is self._dev else None
        scores = known.scores if known else self.search.scorer.measure([candidate], examples, self.state)[0]
        if examples is not self._dev:
            self.search.scorer.forget(examples)
        known_scores = {name: value for name, value in scores.items() if value is not None}
        return {"score": self.search.total(scores), **self._reward(scores), **known_scores, "prompt": candidate.text}

    def _reward(self, scores: Scores, name: str = "reward") -> dict[str, float]:
        """The task's reward for a log; nothing where none applies."""
        return {name: self.search.scorer.reward(scores)} if self.search.scorer.applies(scores) else {}

    # -- what Trainer is told ---------------------------------------------------------------------------------------

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The data set as it is; `evaluation_loop` reads it."""
        if eval_dataset is None and self.eval_dataset is None:
            raise ValueError("evaluation needs an `eval_dataset`.")
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        return DataLoader(dataset, collate_fn=list)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """As `get_eval_dataloader`."""
        return self.get_eval_dataloader(test_dataset)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted."""
        return 0

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            save_search(self.search, dict(self._metrics), output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """As Trainer's, for a prompt that may have another length than this run's adapter began with."""
        adapter, folder = self.model, Path(resume_from_checkpoint)
        name = adapter.active_adapter
        folder = folder / name if name != "default" else folder  # where PEFT saves it
        if not any((folder / file).exists() for file in (SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # says what is missing
            return
        weights = load_peft_weights(str(folder), device="cpu")
        adapter.use_prompt(weights["prompt_ids"].tolist(), resize=True)
        encoder_of(adapter, name)._load_adapter_state_dict(weights)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._metrics = defaultdict(list, load_search(self.search, checkpoint))
            self._begun = True


def _for_the_model(dataset: Rows, examples: Examples) -> Any:
    """Rows that a stock evaluation can run: the data set itself, or where it is text, what it was encoded to.

    Raises:
        ValueError: rows without labels.
    """
    if not examples.rows:
        raise ValueError(
            "`compute_metrics` needs predictions, and the data has no labels to predict; leave it out (reward "
            "functions are logged anyway), or give rows of `input_ids` and `labels`, or a verbalizer."
        )
    return dataset if {"input_ids", "labels"} <= set(next(iter(dataset))) else examples.rows

"""`RLPromptTrainer`: prompt search by soft Q-learning (RLPrompt, arXiv 2205.12548) as a real `transformers.Trainer`.

Trainer's model is the adapter, as in any script: it is saved, logged and loaded, and always holds the best prompt found
so far. What the optimizer moves is the policy, which is wrapped for DDP in the adapter's stead. What differs from the
published method, and why, is listed in `peft_interp/rl/__init__.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_interp.rl.config import RLPromptConfig
from peft_interp.rl.search import PromptSearch, Rollout, make_search
from peft_interp.rl.soft_q import soft_q_loss
from peft_interp.scoring.examples import Examples
from peft_interp.scoring.prompt_scorer import PerplexityModel
from peft_interp.scoring.rewards import RewardFunction
from peft_interp.scoring.setup import make_scorer
from peft_interp.scoring.trainer import PromptScoringTrainer
from peft_interp.text.rows import Rows
from peft_interp.text.verbalizer import Verbalizer


class RLPromptTrainer(PromptScoringTrainer):
    """Searches the prompt of an InterpPrompt adapter with rewards instead of gradients of the model.

    Every log entry has `reward` and `reward_std` (the task's reward in its own units, over the step's prompts), mean
    and std of every measure as `rewards/<name>/mean` and `/std`, `entropy` (nats), `q_mean` and `q_max`, the shares
    `unique_prompts`, `cache_hit` (looked up), `survived` (came back from text as sampled) and `fits` (the adapter can
    hold it), and `best_reward` and `best_prompt`.

    An evaluation during training scores the greedy prompt and the best sampled ones on `eval_dataset`, and moves the
    adapter to the best prompt of all evaluations. It logs `eval_score` (what prompts are chosen by, and
    `metric_for_best_model`), `eval_reward`, `eval_greedy_reward`, `eval_prompt`, and every measure (`eval_accuracy`,
    `eval_loss`, `eval_nll`, ...) of the adapter's prompt. Outside training, and for other data, only the adapter's
    prompt is scored. When training ends, prompts found since the last evaluation are tried in the same way.

    Until the first evaluation, the best score on all training examples decides. Where steps use a part of them
    (`examples_per_step`) and there is no `eval_dataset`, the greedy prompt and the most promising ones are scored on
    all of them before a checkpoint is saved and at the end.

    Args:
        model: what `get_peft_model` returned for an `InterpPromptConfig`.
        args: settings.
        train_dataset: rows with `input_ids` and `labels`; or text and label, with a verbalizer; or any columns, with
            reward functions.
        eval_dataset: held-out rows of the same form.
        processing_class: the task model's tokenizer.
        verbalizer: template and label words of a classification task. Rows that are encoded already must be encoded
            with it. A masked LM is asked at a mask in the label word's place.
        reward_funcs: functions called as TRL calls them; see `peft_interp.scoring.rewards`. They get the prompts, or
            with `on_answers(function)` what the task model writes after them.
        policy_model: the policy's causal LM, by default the task model.
        policy_tokenizer: its tokenizer, by default the same.
        perplexity_model: the causal LM that measures the prompt's NLL, by default the task model.
        perplexity_tokenizer: its tokenizer, by default the same.
        scrutability: `f(model, tokenizer, text)` that returns a number or an object with a `score`, in place of
            `measure_scrutability`.
        text_column: the text, where the verbalizer fills rows in.
        label_column: the label, 0, 1, ..., for the same.
        max_length: most tokens of a filled-in row, the prompt not counted. None: no limit.
        trainer_options: Trainer's other arguments (callbacks, compute_metrics, ...).

    Raises:
        ValueError: a model, data or settings that cannot work together.
    """

    arguments = RLPromptConfig
    search: PromptSearch
    args: RLPromptConfig

    def __init__(
        self,
        model: PeftModel,
        args: RLPromptConfig,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        verbalizer: Verbalizer | None = None,
        reward_funcs: RewardFunction | Sequence[RewardFunction] | None = None,
        policy_model: PreTrainedModel | None = None,
        policy_tokenizer: PreTrainedTokenizerBase | None = None,
        perplexity_model: PreTrainedModel | None = None,
        perplexity_tokenizer: PreTrainedTokenizerBase | None = None,
        scrutability: Callable[..., Any] | None = None,
        text_column: str = "sentence",
        label_column: str = "label",
        max_length: int | None = None,
        **trainer_options: Any,
    ) -> None:
        super().__init__(
            model,
            args,
            train_dataset,
            eval_dataset,
            processing_class,
            verbalizer,
            text_column,
            label_column,
            max_length,
            **trainer_options,
        )
        scored_by = None if perplexity_model is None else PerplexityModel(perplexity_model, perplexity_tokenizer)
        assert processing_class is not None  # or the model would have been refused
        scorer = make_scorer(
            model,
            args,
            self._train,
            processing_class,
            verbalizer,
            reward_funcs,
            scored_by,
            scrutability,
            args.readability_weights,
        )
        self.search = make_search(model, args, self.accelerator, self._train, scorer, (policy_model, policy_tokenizer))
        self.policy = self.search.policy.to(args.device)
        self._pending: list[Rollout] = []  # what is left of the step's prompts for its accumulated batches

    # -- training -------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Soft Q-learning loss of this process's share of the step's prompts."""
        if "batch" not in inputs:  # rows for the adapter, from the stock evaluation that `compute_metrics` needs
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        rollout = self._next_rollout()
        args = self.args
        q, target_q = model(rollout.actions)
        baseline = math.log(self.policy.action_count) if args.value_baseline == "uniform" else 0.0
        loss = soft_q_loss(args.loss, q, target_q, rollout.actions, rollout.rewards, baseline=baseline)
        if not torch.isfinite(loss):
            self.search.write_archive()
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.state.global_step}. The adapter still holds the best prompt: "
                "save it if you like. Usual causes: a learning rate that is too high, or fp16 (use bf16)."
            )
        self._note_q(q.detach())
        return (loss, {"q": q}) if return_outputs else loss

    def _next_rollout(self) -> Rollout:
        """The next batch's prompts; at the beginning of an optimizer step all of the step's are sampled and scored."""
        if not self._pending:
            self.search.trainer_state = self.state
            start = self._begin() if self.state.global_step == 0 else None
            args = self.args
            self.policy.update_target(args.target_update_rate)
            batches, processes = self.current_gradient_accumulation_steps, self.search.processes
            size = args.prompts_per_step
            known = len(self.search.archive)
            whole = self.search.rollout(self.state.global_step, batches * processes.count * size, start)
            self.search.write_archive()
            first = [(batch * processes.count + processes.index) * size for batch in range(batches)]
            self._pending = [Rollout(whole.actions[i : i + size], whole.rewards[i : i + size], {}) for i in first]
            for name, value in whole.metrics.items():
                self._metrics[name].append(value)
            held_out = self.search.best is not None and self.search.best.split == "dev"
            if not held_out and self.search.offer(self.search.archive.records[known:]):
                self._adopt_best()
        return self._pending.pop(0)

    @torch.no_grad()
    def _note_q(self, q: torch.Tensor) -> None:
        """Entropy of the policy and size of its Q-values, over all processes."""
        log_probs = q.log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs.masked_fill(log_probs.isinf(), 0.0)).sum(-1)
        allowed = q.masked_select(q.isfinite())
        local = torch.stack((entropy.mean(), allowed.mean(), allowed.max())).unsqueeze(0)
        shared = self.accelerator.gather(local)  # (processes, 3)
        self._metrics["entropy"].append(shared[:, 0].mean().item())
        self._metrics["q_mean"].append(shared[:, 1].mean().item())
        self._metrics["q_max"].append(shared[:, 2].max().item())

    def _finish(self) -> None:
        """The last choice, unless all is decided or a checkpoint was loaded that another metric found the best."""
        if not self.search.undecided:
            return
        if self._dev is None:
            self._select_on_train()
        elif self._goes_by_score() or not self.args.load_best_model_at_end:
            super()._finish()

    def _goes_by_score(self) -> bool:
        return str(self.args.metric_for_best_model).removeprefix("eval_") == "score"

    # -- evaluation -----------------------------------------------------------------------------------------------

    def _select(self, dev: Examples) -> dict[str, Any]:
        """Score the greedy prompt and the most promising ones on the held-out data, and adopt the best of all."""
        return self._try(dev, "dev", self.args.eval_candidates)

    def _select_on_train(self) -> None:
        """The same on all training examples, where the steps' scores are of a part of them; as many as a step has."""
        args = self.args
        if self.search.undecided and (args.examples_per_step or math.inf) < len(self.search.train):
            self._try(self.search.train, "train", max(args.eval_candidates, args.prompts_per_step))

    def _try(self, examples: Examples, split: str, count: int) -> dict[str, Any]:
        """Score the adapter's prompt, the greedy one, the run's first and `count` promising ones; adopt the best."""
        greedy, step = self.search.greedy(), self.state.global_step
        first = [record.ids for record in self.search.archive.records[:1]]  # the prompt that the search started from
        own = self.model.prompt_token_ids()
        others = [self.search.candidate(ids) for ids in (own, *first)]
        candidates = [*others[:1], greedy, *others[1:], *self.search.promising(count, split)]
        records = self.search.score(candidates, examples, step, split)
        self.search.undecided = False
        if self.search.offer(records):
            self._adopt_best()
        self.search.write_archive()
        return {**self._reward(records[1].scores, "greedy_reward"), "greedy_prompt": greedy.text}

    # -- what Trainer is told ---------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """One number per batch: the examples are chosen with the prompts, the same on every process.

        An epoch is one pass over the examples, a single step where every step uses all of them.
        """
        args = self.args
        total = len(self.search.train)
        steps = -(-total // min(total, args.examples_per_step or total))
        numbers: Any = [{"batch": i} for i in range(steps * args.gradient_accumulation_steps)]
        return DataLoader(numbers, batch_size=1)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Trainer's optimizer for the policy's head."""
        return super().create_optimizer(self.policy)

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: Any = None) -> Any:
        """In training the policy takes the adapter's place, in DDP where there are several processes."""
        if not training:
            return super()._wrap_model(model, training, dataloader)
        return self.accelerator.prepare_model(self.policy)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self._dev is None:
            self._select_on_train()
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """As the base's; prompts are sampled at the length that the saved run had."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.search.length = len(self.model.prompt_token_ids())

    def _load_best_model(self) -> None:
        """The best prompt itself, since a checkpoint may be older; a checkpoint where another metric decides."""
        if self._goes_by_score():
            self._adopt_best()
        else:
            super()._load_best_model()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._pending = []

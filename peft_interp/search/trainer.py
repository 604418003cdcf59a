"""`PromptSearchTrainer`: fluent prompts for a task, found along the front of reward and fluency, as a real `Trainer`.

How a step goes (`search.py`): proposals are made from the population by a language model (continuations and rewritten
tokens), by the task's gradient among likely tokens, and by edits. Those that people cannot read, or that do not survive
decode -> encode, are dropped. A guess learned from the prompts scored so far chooses among the rest. What is chosen is
scored on more and more examples, and non-dominated sorting of reward, fluency and repetition keeps the population.

Sources: EPO (arXiv 2402.01702) for the front, BEAST (2402.15570) for proposals from the language model, GCG
(2307.15043) and HotFlip (1712.06751) for the gradient, NSGA-II (Deb et al. 2002) for the sorting; the guess is ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_interp.scoring.archive import ScoredPrompt
from peft_interp.scoring.examples import Examples
from peft_interp.scoring.prompt_scorer import PerplexityModel
from peft_interp.scoring.rewards import RewardFunction
from peft_interp.scoring.setup import make_scorer
from peft_interp.scoring.trainer import PromptScoringTrainer
from peft_interp.search.config import PromptSearchConfig
from peft_interp.search.constraints import changed_share, word_changes
from peft_interp.search.moves import MOVES, Move
from peft_interp.search.search import FluentSearch
from peft_interp.search.setup import instruct_model, make_search, start_prompts
from peft_interp.text.rows import Rows
from peft_interp.text.verbalizer import Verbalizer


class PromptSearchTrainer(PromptScoringTrainer):
    """Searches readable prompts for an InterpPrompt adapter and delivers the trade-off, not a point.

    After (and during) training the adapter holds the prompt that `args` asks for: the best within
    `max_perplexity` or `target_percentile`, or the knee of the front. `front()` has all of them. A prompt may be
    shorter than `num_virtual_tokens`; the adapter then becomes as short.

    Every log entry has what `RLPromptTrainer` logs of rewards and prompts, and `new_in_population`. Forward passes so
    far are `evaluations_max`, prompt-example pairs (those of gradients count three times), and `prompt_passes_max`,
    rows of prompts alone: proposals read, prompts gone on from, prompts judged. An evaluation logs `eval_front_size` of
    the front on the held-out data, its `eval_hypervolume` (from the worst reward of the first evaluation on, in which
    the prompt that training started from takes part), and every measure of the adapter's prompt. Training ends with a
    warning where no prompt can be read, or none is within the target.

    Args:
        model: what `get_peft_model` returned for an `InterpPromptConfig`. `allowed_tokens="printable"` or "ascii" lets
            prompts have punctuation, which readable ones need; "lines", given room for them, labelled examples.
        args: settings.
        train_dataset: rows with `input_ids` and `labels`; or text and label, with a verbalizer; or any columns, with
            reward functions.
        eval_dataset: held-out rows of the same form, which choose the prompt.
        processing_class: the task model's tokenizer.
        verbalizer: template and label words of a classification task.
        reward_funcs: functions called as TRL calls them; see `peft_interp.scoring.rewards`. They get the prompts, or
            with `on_answers(function)` what the task model writes after them.
        perplexity_model: the causal LM that measures fluency, and proposes token by token if it shares the tokenizer;
            by default the task model.
        perplexity_tokenizer: its tokenizer, by default the same.
        text_column: the text, where the verbalizer fills rows in.
        label_column: the label, 0, 1, ..., for the same.
        max_length: most tokens of a filled-in row, the prompt not counted. None: no limit.
        moves: kinds of proposals, `(*MOVES, mine)` say; see `peft_interp.search.moves`.
        proposal_model: the instruct model that is asked for prompts: any causal LM with a chat template, whatever its
            vocabulary, since it answers in text. By default the model that proposes, if it has a chat template.
        proposal_tokenizer: its tokenizer.
        trainer_options: Trainer's other arguments (callbacks, compute_metrics, ...).

    Raises:
        ValueError: a model, data or settings that cannot work together.
    """

    arguments = PromptSearchConfig
    search: FluentSearch
    args: PromptSearchConfig

    def __init__(
        self,
        model: PeftModel,
        args: PromptSearchConfig,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        verbalizer: Verbalizer | None = None,
        reward_funcs: RewardFunction | Sequence[RewardFunction] | None = None,
        perplexity_model: PreTrainedModel | None = None,
        perplexity_tokenizer: PreTrainedTokenizerBase | None = None,
        text_column: str = "sentence",
        label_column: str = "label",
        max_length: int | None = None,
        moves: Sequence[Move] = MOVES,
        proposal_model: PreTrainedModel | None = None,
        proposal_tokenizer: PreTrainedTokenizerBase | None = None,
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
        scorer = make_scorer(model, args, self._train, processing_class, verbalizer, reward_funcs, scored_by)
        words = () if verbalizer is None else tuple(verbalizer.label_words)
        asked = instruct_model(model, proposal_model, proposal_tokenizer, args.device)
        self.search = make_search(model, args, self.accelerator, self._train, scorer, moves, words, asked)
        self._starts = start_prompts(model, processing_class, args, self.search)
        self._stand_in = _StandIn().to(args.device)
        self._done = -1  # the last optimizer step whose prompts are scored
        self._loss = 0.0

    def changes(self) -> dict[str, str]:
        """How the adapter's prompt differs from `improve`, for `report_prompt(context=...)`.

        Raises:
            ValueError: there was no prompt to improve.
        """
        own = self.args.improve
        if own is None:
            raise ValueError("the search began from no prompt of yours; set `improve` to see what became of it.")
        text = self.model.prompt_text(self.processing_class).strip()
        words = f"{word_changes(own, text)} ({changed_share(text, own):.0%} of the words)"
        return {"improved from": own, "changes": words}

    # -- training -------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """A step of the search; the loss that Trainer logs is the negative mean reward of its prompts."""
        if "batch" not in inputs:  # rows for the adapter, from the stock evaluation that `compute_metrics` needs
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self._done != self.state.global_step:
            self._done = self.state.global_step
            self._step()
        loss = self._stand_in(self._loss)
        return (loss, {}) if return_outputs else loss

    def _step(self) -> None:
        args, search = self.args, self.search
        search.trainer_state = self.state
        starts: Sequence[Sequence[int]] = ()
        if self.state.global_step == 0:
            self._begin()
            starts = self._starts
        count = args.prompts_per_step * search.processes.count * self.current_gradient_accumulation_steps
        metrics = search.step(self.state.global_step, count, starts)
        search.write_archive()
        self._loss = -metrics["reward"]
        for name, value in metrics.items():
            self._metrics[name].append(value)
        if not search.front("dev"):
            self._adopt(search.front("train"))

    def _adopt(self, front: Sequence[ScoredPrompt]) -> None:
        chosen = self.search.chosen(front)
        if chosen is not None and self.search.adopt(chosen):
            self._adopt_best()

    def _finish(self) -> None:
        """As every trainer's that scores; says where the run did not find what was asked for."""
        super()._finish()
        shortfall = self.search.shortfall(self.front())
        if shortfall is not None and self.is_world_process_zero():
            warnings.warn(shortfall, stacklevel=3)

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """As Trainer's, without what only training by gradient has."""
        super().log({k: v for k, v in logs.items() if k not in ("grad_norm", "learning_rate")}, start_time)

    # -- evaluation -----------------------------------------------------------------------------------------------

    def _select(self, dev: Examples) -> dict[str, Any]:
        """Score the most promising prompts on the held-out data, and adopt the one that is asked for."""
        args = self.args
        own = self.search.candidate(self.model.prompt_token_ids())
        asked = [own, *self.search.promising(args.eval_candidates)]
        asked += self.search.beginning() if "dev" not in self.search.worst else []
        self.search.score(asked, dev, self.state.global_step, "dev")
        self.search.measure_from([record for record in self.search.archive.records if record.split == "dev"])
        front = self.search.front("dev")
        self._adopt(front)
        self.search.write_archive()
        return {"hypervolume": self.search.hypervolume(front), "front_size": len(front)}

    # -- what Trainer is told ---------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """One number per batch; an epoch is a step."""
        args = self.args
        numbers: Any = [{"batch": i} for i in range(args.gradient_accumulation_steps)]
        return DataLoader(numbers, batch_size=1)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """One that moves nothing: prompts are chosen, not descended to."""
        self._done = self.state.global_step - 1  # every training begins here, with a step that is not done yet
        self.optimizer = torch.optim.SGD(self._stand_in.parameters(), lr=0.0)
        return self.optimizer

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: Any = None) -> Any:
        """In training a stand-in takes the adapter's place, which has nothing to learn by gradient."""
        return self._stand_in if training else super()._wrap_model(model, training, dataloader)

    def _load_best_model(self) -> None:
        """Nothing: the front only grows, and at the end all of it chooses the prompt."""


class _StandIn(nn.Module):
    """A parameter without effect, so that Trainer's backward pass has something to run on."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, value: float) -> torch.Tensor:
        """`value`, as a loss with a gradient of zero."""
        return self.nothing * 0.0 + value

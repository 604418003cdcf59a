"""`PromptScorer`: all rewards and measures of some prompts on some examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peft_interp.answers.rewards import AnswerReward
from peft_interp.answers.settings import AnswerSettings
from peft_interp.answers.writer import Answer, AnswerWriter
from peft_interp.inference.batching import Batches
from peft_interp.metrics.likelihood import mean_nll, token_nlls
from peft_interp.metrics.references import reference_levels
from peft_interp.metrics.scrutability import scrutability_scores
from peft_interp.scoring.archive import Scores
from peft_interp.scoring.candidates import Candidate
from peft_interp.scoring.config import RewardArguments
from peft_interp.scoring.examples import Examples, rows_to_answer
from peft_interp.scoring.rewards import (
    ERROR,
    REWARDS,
    Reward,
    RewardFunction,
    RewardInputs,
    Values,
    call_answer_function,
    call_reward_function,
    function_names,
    reward_named,
    standard_errors,
    task_errors,
)
from peft_interp.scoring.task_scorer import TaskScorer
from peft_interp.text.label_prior import estimate_bias, with_bias
from peft_interp.text.placement import Placement
from peft_interp.text.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerState


@dataclass(frozen=True)
class Task:
    """The model that prompts are for, and how they stand in its inputs.

    Attributes:
        model: plain base model.
        tokenizer: its tokenizer.
        placement: where they stand.
        leading_ids: ids that stay in front of a prompt at the start (BOS).
        label_token_ids: the label words' tokens; None without label words, and where answers are sequences.
        has_choices: each example has answers to choose from.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    placement: Placement
    leading_ids: tuple[int, ...]
    label_token_ids: list[int] | None
    has_choices: bool = False

    def rows_to_answer(self, examples: Examples) -> list[Row]:
        """What the model reads of each example, beside a prompt, before it writes."""
        return rows_to_answer(examples, self.tokenizer, self.placement, self.leading_ids)


@dataclass(frozen=True)
class PerplexityModel:
    """The causal LM that says how likely a prompt is, with its tokenizer (None: the task model's) and BOS."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None = None
    leading_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """How the label prior of every prompt is taken away; see `peft_interp.text.label_prior`.

    Attributes:
        name: "batch", "content_free" or "fitted".
        examples: what the prior is estimated on: training rows, or texts that say nothing.
    """

    name: str
    examples: Examples


_NEEDS_LABELS = ("labels", "label words")


class PromptScorer:
    """Measures prompts. Which of the measures are rewards, and how much they weigh, is in `weights`.

    Args:
        task: the model that prompts are for.
        config: kinds and weights of the task's rewards.
        functions: the user's reward functions.
        perplexity_model: None where no causal LM is at hand; then there is no `nll`.
        scrutability: `f(model, tokenizer, text)` that returns a number, an object with a `score`, or None where it does
            not apply. By default the score of `measure_scrutability`, if it weighs anything.
        readability: weights of rewards that have a `setting` (`nll`, `scrutability`, ...), negative where lower is
            better; their absolute values add up to at most 1, the rest is the task's.
        calibration: takes each prompt's label prior away before its answers are scored; None: not.

    Raises:
        ValueError: a weight without what it weighs, a perplexity model that cannot tell readable from shuffled
            words where scrutability counts, or no reward at all.
    """

    def __init__(
        self,
        task: Task,
        config: RewardArguments,
        functions: Sequence[RewardFunction] = (),
        perplexity_model: PerplexityModel | None = None,
        scrutability: Callable[..., Any] | None = None,
        readability: Mapping[str, float] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.calibration = calibration
        self._biases: dict[tuple[int, ...], Tensor] = {}
        self._calibrated: set[tuple[int, ...]] = set()
        self.task, self.config, self.perplexity_model, self.scrutability = task, config, perplexity_model, scrutability
        self.functions = dict(zip(function_names(functions), functions, strict=True))
        self.task_reward = _task_reward(config, task.has_choices or task.label_token_ids is not None, bool(functions))
        readable = dict(readability or {})
        _check_parts(self, readable)
        self.raw_weights = self._raw_weights()
        rest = 1.0 - sum(map(abs, readable.values()))
        self.weights = {name: weight * rest for name, weight in self.raw_weights.items()} | readable
        self._task_scorers: dict[int, tuple[Examples, TaskScorer]] = {}
        self._rows_to_answer: dict[int, tuple[Examples, list[Row]]] = {}
        self._writer = AnswerWriter(task.model, task.tokenizer) if self.writes else None
        self._nll_batches = Batches()
        self.unfinished: list[Scores] = []  # what was known when the last measure failed

    @property
    def writes(self) -> bool:
        """Whether a reward asks for the task model's answers."""
        return any(isinstance(function, AnswerReward) for function in self.functions.values())

    @property
    def error_reward(self) -> str:
        """The reward whose standard error over the examples is known: the task's own, or a single one on answers."""
        if self.task_reward == "none" and len(self.functions) == 1 and self.writes:
            return next(iter(self.functions))
        return self.task_reward

    def _raw_weights(self) -> dict[str, float]:
        """Weights of what counts as the task: its reward and the reward functions."""
        given = self.config.reward_weights or [1.0] * len(self.functions)
        own = {} if self.task_reward == "none" else {self.task_reward: 1.0}
        return own | dict(zip(self.functions, given, strict=True))

    def reward(self, scores: Scores) -> float:
        """The task's reward in its own units: of several rewards, their weighted sum.

        One that does not apply adds nothing; where none applies the sum, 0, says nothing: ask `applies`.
        """
        return sum(w * (scores[name] or 0.0) for name, w in self.raw_weights.items())

    def applies(self, scores: Scores) -> bool:
        """Whether any of the task's rewards applies to a prompt; one to which none applies is never chosen."""
        return any(scores[name] is not None for name in self.raw_weights or self.weights)

    def measure(
        self, candidates: Sequence[Candidate], examples: Examples, state: TrainerState | None = None
    ) -> list[Scores]:
        """Every measure of every prompt.

        Args:
            candidates: the prompts.
            examples: what the task's rewards are measured on.
            state: Trainer's state, for reward functions.

        Returns:
            For each prompt, scores by name: the rewards in `weights`, and of `REWARDS` those that are measured
            `always`, where the data has what they need. None where a reward does not apply.

        Raises:
            ValueError: a reward that is not a number, naming it and the prompt.
        """
        if not candidates:
            return []
        columns: dict[str, Values] = {}
        try:
            self._measure(columns, candidates, examples, state)
        except BaseException:
            self.unfinished = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            raise
        for name, values in columns.items():
            for candidate, value in zip(candidates, values, strict=True):
                if value is not None and not math.isfinite(value):
                    raise ValueError(
                        f"the score {name!r} of the prompt {candidate.text!r} is {value}. Usual causes: a model whose "
                        "weights or logits are not finite, fp16 overflow (use bf16), or inputs without any token."
                    )
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _measure(
        self,
        columns: dict[str, Values],
        candidates: Sequence[Candidate],
        examples: Examples,
        state: TrainerState | None,
    ) -> None:
        """Fill in the columns one by one, so that those before a failure are known."""
        limit = self.config.reward_time_limit
        given: dict[str, Values] = {}
        errors: Values | None = None
        for name, function in self.functions.items():
            if not isinstance(function, AnswerReward):
                given[name] = columns[name] = call_reward_function(function, name, candidates, examples, state, limit)
        for name, function in self.functions.items():  # a model that writes costs most
            if isinstance(function, AnswerReward):
                answers = self.answers(candidates, examples, function.settings)
                texts = [candidate.text for candidate in candidates]
                values = call_answer_function(function, name, texts, answers, examples, state, limit)
                given[name] = columns[name] = [_mean_known(of_prompt) for of_prompt in values]
                errors = [_error_known(of_prompt) for of_prompt in values] if name == self.error_reward else errors
        given = {name: given[name] for name in self.functions}
        inputs, wanted = self._inputs(candidates, examples), self._wanted(examples)
        with torch.no_grad():  # those of the text first: the passes on all examples are what costs
            of_text = {r.name: r.function(inputs) for r in wanted if r.needs not in _NEEDS_LABELS}
            of_task = {r.name: r.function(inputs) for r in wanted if r.needs in _NEEDS_LABELS}
            errors = task_errors(self.task_reward, inputs) if self.task_reward in of_task else errors
        columns.clear()
        columns |= {**of_task, **given, **of_text, **({} if errors is None else {ERROR: errors})}

    def answers(
        self, candidates: Sequence[Candidate], examples: Examples, settings: AnswerSettings
    ) -> list[list[Answer]]:
        """(prompts, examples), what the task model writes.

        Raises:
            ValueError: it is no causal language model, or rows too long for it.
        """
        self._writer = self._writer or AnswerWriter(self.task.model, self.task.tokenizer)
        if id(examples) not in self._rows_to_answer:
            self._rows_to_answer[id(examples)] = (examples, self.task.rows_to_answer(examples))
        rows = self._rows_to_answer[id(examples)][1]
        return self._writer.write([candidate.ids for candidate in candidates], rows, settings)

    def forget(self, examples: Examples) -> None:
        """Drop what is kept about these examples (their key/value cache)."""
        self._task_scorers.pop(id(examples), None)
        self._rows_to_answer.pop(id(examples), None)
        if self._writer is not None:
            self._writer.forget()

    def _task_scorer(self, examples: Examples) -> TaskScorer:
        """Kept while the same examples come again; holding them keeps their `id` from being given away."""
        if id(examples) not in self._task_scorers:
            scorer = TaskScorer(
                self.task.model,
                examples.rows,
                label_token_ids=self.task.label_token_ids,
                position=self.task.placement.name,
                leading_ids=self.task.leading_ids,
                choices=examples.choices,
            )
            self._task_scorers[id(examples)] = (examples, scorer)
        return self._task_scorers[id(examples)][1]

    def _wanted(self, examples: Examples) -> list[Reward]:
        """Rewards that are measured: those that weigh something or are always measured, and have what they need.

        Where answers are written and any text may be one, the labels' loss would cost a pass more for every pair.
        """
        labels = bool(examples.rows) and not (self.writes and self.task_reward == "none" and examples.gold is None)
        known = {"": True, "labels": labels, "language model": self.perplexity_model is not None}
        known["label words"] = known["labels"] and examples.gold is not None
        named = {*self.weights, *({"scrutability"} if self.scrutability is not None else ())}
        return [r for r in REWARDS if known[r.needs] and (r.name in named if r.of_task or not r.always else True)]

    def _inputs(self, candidates: Sequence[Candidate], examples: Examples) -> RewardInputs:
        prompts = [list(candidate.ids) for candidate in candidates]

        @cache
        def log_probs() -> Tensor:
            found = self._task_scorer(examples).label_log_probs(prompts)  # (prompts, examples, labels)
            if self.calibration is None:
                return found
            if self.calibration.examples is examples:
                self._estimate([tuple(ids) for ids in prompts], found)
            return with_bias(found, torch.stack([self.label_bias(ids) for ids in self._known(prompts)]).unsqueeze(1))

        @cache
        def losses() -> Tensor:
            if examples.gold is None:
                return self._task_scorer(examples).losses(prompts).double()  # (prompts, examples)
            found = log_probs()
            places = examples.gold.to(found.device).expand(found.shape[:-1]).unsqueeze(-1)
            return -found.double().gather(-1, places).squeeze(-1)

        return RewardInputs(
            candidates=candidates,
            examples=examples,
            tokenizer=self.task.tokenizer,
            right_weight=self.config.right_weight,
            wrong_weight=self.config.wrong_weight,
            log_probs=log_probs,
            losses=losses,
            nlls=cache(lambda: self.nlls(candidates)),
            readability=cache(lambda: self._readability(candidates)),
        )

    def label_bias(self, ids: Sequence[int]) -> Tensor:
        """(labels,) what is added to the label words' log-probabilities after this prompt, nats, float64.

        Raises:
            ValueError: there is no calibration, or the scores are not finite.
        """
        if self.calibration is None:
            raise ValueError("nothing is calibrated; make the verbalizer with `calibration='batch'`, say.")
        (known,) = self._known([ids])
        return self._biases[known]

    def _known(self, prompts: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """The prompts, once all of them have their numbers."""
        assert self.calibration is not None
        wanted = [tuple(ids) for ids in prompts]
        if fresh := [ids for ids in dict.fromkeys(wanted) if ids not in self._biases]:
            self._estimate(fresh, self._task_scorer(self.calibration.examples).label_log_probs(fresh))
        return wanted

    def _estimate(self, prompts: Sequence[tuple[int, ...]], log_probs: Tensor) -> None:
        assert self.calibration is not None
        gold = self.calibration.examples.gold
        biases = estimate_bias(self.calibration.name, log_probs.cpu(), gold)
        self._biases |= dict(zip(prompts, biases, strict=True))

    def calibration_passes(self, prompts: Sequence[Sequence[int]], examples: Examples) -> int:
        """Prompt-example pairs run to calibrate prompts that are scored on `examples`, each prompt once in a run."""
        if self.calibration is None:
            return 0
        fresh = {tuple(ids) for ids in prompts} - self._calibrated
        self._calibrated |= fresh
        return 0 if self.calibration.examples is examples else len(fresh) * len(self.calibration.examples)

    def _readability(self, candidates: Sequence[Candidate]) -> Values:
        """The user's score of each text, or that of `measure_scrutability`; None where it does not apply."""
        assert self.perplexity_model is not None
        model, tokenizer = self.perplexity_model.model, self.perplexity_model.tokenizer or self.task.tokenizer
        if self.scrutability is not None:
            found = [self.scrutability(model, tokenizer, candidate.text) for candidate in candidates]
            numbers = [getattr(value, "score", value) for value in found]
            return [None if number is None else float(number) for number in numbers]
        scores = scrutability_scores(model, tokenizer, self._nll_ids(candidates))
        return [None if math.isnan(score) else score for score in scores]

    def nlls(self, candidates: Sequence[Candidate]) -> list[float | None]:
        """Nats per token under the perplexity model, lower is more fluent; None for a single token.

        Raises:
            ValueError: there is no perplexity model.
        """
        if self.perplexity_model is None:
            raise ValueError("there is no causal language model to score prompts; pass one as `perplexity_model`.")
        ids, batches = self._nll_ids(candidates), self._nll_batches
        found = token_nlls(self.perplexity_model.model, ids, self.perplexity_model.leading_ids, batches=batches)
        return [mean_nll(nlls) if len(nlls) else None for nlls in found]

    def _nll_ids(self, candidates: Sequence[Candidate]) -> list[Any]:
        tokenizer = self.perplexity_model.tokenizer if self.perplexity_model is not None else None
        if tokenizer is None:
            return [candidate.ids for candidate in candidates]
        return [tokenizer.encode(candidate.text, add_special_tokens=False) for candidate in candidates]


def _mean_known(values: Values) -> float | None:
    """Mean of those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _error_known(values: Values) -> float | None:
    """Standard error of `_mean_known`."""
    known = [value for value in values if value is not None]
    return standard_errors(torch.tensor([known]))[0]


def _task_reward(config: RewardArguments, has_label_words: bool, has_functions: bool) -> str:
    if config.task_reward == "gap" and not has_label_words:
        raise ValueError("`task_reward='gap'` needs label words; pass `verbalizer=`, or use 'negative_loss'.")
    if config.task_reward != "auto":
        return config.task_reward
    return "gap" if has_label_words else "none" if has_functions else "negative_loss"


def _check_parts(scorer: PromptScorer, readability: Mapping[str, float]) -> None:
    weights, functions, perplexity_model = scorer.config.reward_weights, len(scorer.functions), scorer.perplexity_model
    if weights is not None and (len(weights) != functions or not all(math.isfinite(weight) for weight in weights)):
        raise ValueError(
            f"`reward_weights={weights}` must be {functions} finite numbers, one for each reward function."
        )
    if scorer.task_reward == "none" and not functions and sum(map(abs, readability.values())) < 1:
        raise ValueError("`task_reward='none'` without `reward_funcs` leaves nothing to be rewarded; pass functions.")
    for name, weight in readability.items():
        reward = reward_named(name)
        if reward.needs == "language model" and perplexity_model is None:
            raise ValueError(
                f"`{reward.setting}={abs(weight)}` needs a causal language model that reads the prompt, which the task "
                "model is not; pass one as `perplexity_model`, with its tokenizer as `perplexity_tokenizer`."
            )
    if "scrutability" in readability:
        _check_scrutability(scorer, readability["scrutability"])


def _check_scrutability(scorer: PromptScorer, weight: float) -> None:
    known = scorer.perplexity_model
    if known is not None and scorer.scrutability is None:
        levels = reference_levels(known.model, known.tokenizer or scorer.task.tokenizer)
        if math.isnan(levels.nll_position(0.0)):
            raise ValueError(
                f"`scrutability_reward_weight={weight}` needs a language model that finds people's prompts likelier "
                "than the same words shuffled, and this one does not (untrained, or of another language); pass a "
                "better one as `perplexity_model`, or your own score as `scrutability=f(model, tokenizer, text)`."
            )

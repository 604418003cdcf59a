"""Rewards of a prompt: pure functions, one record for each in `REWARDS`, and how rewards are mixed.

The task reward spans about +-200 and log-perplexity 3 to 11, so nothing is added up raw: every reward is z-scored over
the prompts of the step on its own, and the z-scores are mixed. That is our choice; the paper (arXiv 2504.02144) does
not say how it weighs the two.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peft_interp.answers.rewards import AnswerReward
from peft_interp.answers.writer import Answer
from peft_interp.records import markdown_table
from peft_interp.scoring.candidates import Candidate
from peft_interp.scoring.choice import LEAST_ROWS
from peft_interp.scoring.examples import Examples
from peft_interp.scoring.time_limit import time_limit
from peft_interp.text.verbalizer import right_answers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerState

RIGHT_WEIGHT, WRONG_WEIGHT = 200.0, 180.0
Z_SCORE_EPSILON = 1e-4
MOST_REWARD = 1e12  # beyond it squares overflow where rewards are compared in fp32


def gap_reward(
    log_probs: Tensor, gold: Tensor, right_weight: float = RIGHT_WEIGHT, wrong_weight: float = WRONG_WEIGHT
) -> Tensor:
    """RLPrompt's reward for classification (arXiv 2205.12548): the gap to the best wrong label, weighed by its sign.

    gap = p(gold) - max of the others, times `right_weight` where the gap is positive, else times `wrong_weight`; mean
    over the examples. Only the ratio of the weights matters in training, since the z-score cancels the scale.

    Args:
        log_probs: (prompts, examples, labels) log-probabilities over the label words.
        gold: (examples,) index of the right label.
        right_weight: > 0.
        wrong_weight: > 0.

    Returns:
        (prompts,) in [-wrong_weight, right_weight], higher is better. A tie gives 0.
    """
    return weighed_gaps(log_probs, gold, right_weight, wrong_weight).mean(-1)


def weighed_gaps(log_probs: Tensor, gold: Tensor, right_weight: float, wrong_weight: float) -> Tensor:
    """(prompts, examples) what `gap_reward` is the mean of."""
    probs = log_probs.double().exp()
    right = _at(probs, gold)
    others = probs.scatter(-1, gold.expand(probs.shape[:-1]).unsqueeze(-1), -torch.inf)
    gap = right - others.amax(-1)
    return torch.where(gap > 0, gap * right_weight, gap * wrong_weight)


def standard_errors(values: Tensor) -> list[float | None]:
    """Of the mean over examples, for each row of (prompts, examples); None for fewer than `LEAST_ROWS`."""
    count = values.shape[-1]
    if count < LEAST_ROWS:
        return [None] * len(values)
    return (values.double().std(-1, correction=1) / math.sqrt(count)).tolist()


def label_accuracies(log_probs: Tensor, gold: Tensor) -> Tensor:
    """(prompts,) share of examples, 0 to 1, whose gold label scores strictly highest; a tie counts as wrong."""
    return right_answers(log_probs, gold).double().mean(-1)


def _at(scores: Tensor, gold: Tensor) -> Tensor:
    return scores.gather(-1, gold.expand(scores.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def repetition_penalty(ids: Sequence[int]) -> float:
    """Sum over distinct tokens of (count - 1)^1.5, per token of the prompt (FLRT): from 0, lower is better."""
    return sum((count - 1) ** 1.5 for count in Counter(ids).values()) / max(1, len(ids))


def wordless_share(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> float:
    """Share of tokens, 0 to 1, that are special or hold no letter or digit (blanks, punctuation); lower is better."""
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    empty = [i in special or not any(c.isalnum() for c in tokenizer.decode([i])) for i in ids]
    return sum(empty) / max(1, len(empty))


def z_scores(values: Tensor) -> Tensor:
    """(r - mean) / (std + 1e-4) with the population's std, over a step's prompts; all 0 where they are all equal.

    Args:
        values: (prompts,), NaN where a reward does not apply.

    Returns:
        (prompts,); 0, the mean, where a reward does not apply.
    """
    known = ~values.isnan()
    if known.sum() < 2 or (values[known] == values[known][0]).all():
        return torch.zeros_like(values)
    mean, std = values[known].mean(), values[known].std(correction=0)
    return torch.where(known, (values - mean) / (std + Z_SCORE_EPSILON), torch.zeros_like(values))


def mixed_rewards(values: Tensor, weights: Sequence[float]) -> Tensor:
    """Weighted sum of separate z-scores, `(1 - w) z_task - w z_nll` for example.

    Args:
        values: (prompts, rewards), NaN where a reward does not apply.
        weights: one for each reward; negative where lower is better.

    Returns:
        (prompts,).
    """
    return sum((w * z_scores(values[:, i]) for i, w in enumerate(weights)), torch.zeros_like(values[:, 0]))


def shaped(rewards: Tensor, scale: float = 5.0) -> Tensor:
    """RLPrompt's shaping, linear from [0, 1] to [0, scale]; what lies outside is not cut."""
    return rewards * scale


Values = Sequence[float | None]


@dataclass(frozen=True)
class RewardInputs:
    """What rewards are computed from. What needs a pass of a model is a function that runs it when first called.

    Attributes:
        candidates: the prompts.
        examples: what they are used on.
        tokenizer: the task model's.
        right_weight, wrong_weight: as for `gap_reward`.
        log_probs: (prompts, examples, labels) log-probabilities over the label words.
        losses: (prompts, examples) loss of the labels in nats, over the label words where there are any.
        nlls: NLL of each prompt under the perplexity model, nats per token; None for a single token.
        readability: score of each prompt, 0 to 1, as `measure_scrutability` gives it, or the user's in its place.
    """

    candidates: Sequence[Candidate]
    examples: Examples
    tokenizer: PreTrainedTokenizerBase
    right_weight: float
    wrong_weight: float
    log_probs: Callable[[], Tensor]
    losses: Callable[[], Tensor]
    nlls: Callable[[], Values]
    readability: Callable[[], Values]

    def gold(self, log_probs: Tensor) -> Tensor:
        """(examples,) index of the right label, where `log_probs` are.

        Raises:
            ValueError: the examples have no label words.
        """
        if self.examples.gold is None:
            raise ValueError("there are no label words, so no right one; pass a `verbalizer`.")
        return self.examples.gold.to(log_probs.device)


@dataclass(frozen=True)
class Reward:
    """One number for each prompt: logged, kept in the archive, and where it has a weight, a part of the reward.

    Attributes:
        name: in logs (`rewards/<name>/mean`, `eval_<name>`) and archives.
        function: one number for each candidate; None where it does not apply.
        better: "higher" or "lower".
        words: what it is, in a few words, with its unit and range.
        needs: "labels", "label words", "language model" (a perplexity model) or "" for nothing but the text.
        of_task: a choice of `task_reward`; computed only when chosen.
        setting: the weight's name in `RLPromptConfig`; "" for what has none.
        default: the weight there, 0 to 1.
        always: computed whether or not it weighs anything.
    """

    name: str
    function: Callable[[RewardInputs], Values]
    better: str
    words: str
    needs: str = ""
    of_task: bool = False
    setting: str = ""
    default: float = 0.0
    always: bool = True

    @property
    def sign(self) -> int:
        """Of its weight: 1 where higher is better, else -1."""
        return 1 if self.better == "higher" else -1

    @property
    def weight_help(self) -> str:
        """Help text of the weight."""
        mixed = f"(1 - w) z_task {'+' if self.sign > 0 else '-'} w z_{self.name}"
        return f"w in [0, 1]: the reward is {mixed}, {self.words}. The weights of all such rewards add up to at most 1."


def _loss(inputs: RewardInputs) -> Values:
    return inputs.losses().mean(-1).tolist()


def _negative_loss(inputs: RewardInputs) -> Values:
    return (-inputs.losses().mean(-1)).tolist()


def task_errors(name: str, inputs: RewardInputs) -> Values | None:
    """Standard errors of a task's reward over the examples; None for one that is no mean over them."""
    if name == "negative_loss":
        return standard_errors(inputs.losses())
    if name == "gap":
        log_probs = inputs.log_probs()
        gold = inputs.gold(log_probs)
        return standard_errors(weighed_gaps(log_probs, gold, inputs.right_weight, inputs.wrong_weight))
    return None


def _accuracy(inputs: RewardInputs) -> Values:
    log_probs = inputs.log_probs()
    return label_accuracies(log_probs, inputs.gold(log_probs)).tolist()


def _gap(inputs: RewardInputs) -> Values:
    log_probs = inputs.log_probs()
    return gap_reward(log_probs, inputs.gold(log_probs), inputs.right_weight, inputs.wrong_weight).tolist()


REWARDS = (
    Reward("loss", _loss, "lower", "loss of the labels, nats", "labels"),
    Reward("accuracy", _accuracy, "higher", "share of examples answered right, 0 to 1", "label words"),
    Reward("gap", _gap, "higher", "RLPrompt's gap to the best wrong label word", "label words", of_task=True),
    Reward("negative_loss", _negative_loss, "higher", "minus the loss of the labels, nats", "labels", of_task=True),
    Reward(
        name="repetition_penalty",
        function=lambda inputs: [repetition_penalty(candidate.ids) for candidate in inputs.candidates],
        better="lower",
        words="FLRT's penalty for tokens that come again, from 0",
        setting="repetition_penalty_weight",
    ),
    Reward(
        name="wordless_share",
        function=lambda inputs: [wordless_share(candidate.ids, inputs.tokenizer) for candidate in inputs.candidates],
        better="lower",
        words="the share of tokens that are special or hold no letter or digit, 0 to 1",
        setting="wordless_penalty_weight",
    ),
    Reward(
        name="nll",
        function=lambda inputs: inputs.nlls(),
        better="lower",
        words="the prompt's NLL under the task model or the perplexity model, nats per token; 0 is RLPrompt",
        needs="language model",
        setting="perplexity_reward_weight",
    ),
    Reward(
        name="scrutability",
        function=lambda inputs: inputs.readability(),
        better="higher",
        words="the score of `measure_scrutability`, 0 to 1",
        needs="language model",
        setting="scrutability_reward_weight",
        always=False,
    ),
)
RENAMED = {"repetition": "repetition_penalty", "special_tokens": "wordless_share"}  # in older archives, checkpoints


def reward_table() -> str:
    """`REWARDS` as Markdown."""
    rows = [[f"`{r.name}`", r.words, r.better, r.needs, f"`{r.setting}`" if r.setting else ""] for r in REWARDS]
    return markdown_table(("name", "what", "better", "needs", "weight in `RLPromptConfig`"), rows)


def reward_named(name: str) -> Reward:
    """The record of a reward."""
    return next(reward for reward in REWARDS if reward.name == name)


def new_names(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of an older archive or checkpoint, under the names of today."""
    old = {name for name in RENAMED if name in scores and RENAMED[name] not in scores}
    return {RENAMED[name] if name in old else name: value for name, value in scores.items()}


# What an evaluation logs beside the rewards, by this library and by Trainer
ERROR = "reward_error"  # standard error of the task's reward over the examples
LOGGED = (ERROR, "score", "reward", "prompt", "greedy_reward", "greedy_prompt", "hypervolume", "front_size")
LOGGED_BY_TRAINER = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
ARGUMENTS = ("prompts", "completions", "completion_ids", "trainer_state")
ANSWER_ARGUMENTS = (*ARGUMENTS, "searched_prompts")  # what functions of `on_answers` get
RewardFunction = Callable[..., Sequence[float | None] | Awaitable[Sequence[float | None]]]


def function_names(functions: Sequence[RewardFunction]) -> list[str]:
    """A name for each, as TRL has it: the function's own; with a number where that is taken (`score_0`, say).

    Raises:
        ValueError: something that cannot be called.
    """
    names: list[str] = []
    own = {*(reward.name for reward in REWARDS), *RENAMED}
    for function in functions:
        if not callable(function):
            raise ValueError(
                f"reward function {function!r} cannot be called; pass functions `f(prompts, completions, **columns)` "
                "that return one number for each completion."
            )
        name = getattr(function, "__name__", type(function).__name__)
        taken, number = {*names, *own, *LOGGED, *LOGGED_BY_TRAINER}, len(names)
        while f"{name}_{number}" in taken:
            number += 1
        names.append(f"{name}_{number}" if name in taken else name)
    return names


def call_reward_function(
    function: RewardFunction,
    name: str,
    candidates: Sequence[Candidate],
    examples: Examples,
    state: TrainerState | None,
    seconds: float | None = None,
) -> list[float | None]:
    """One number, or None for "does not apply", for each candidate.

    Args:
        function: see the module's text.
        name: for errors.
        candidates: the prompts.
        examples: what they are used on; columns that have an argument's name are not passed. The function gets copies,
            so that what it changes in them changes nothing else.
        state: Trainer's state, passed as `trainer_state`.
        seconds: most that the call may take; None: no limit.

    Raises:
        ValueError: the function returned NaN, an infinity, a number beyond `MOST_REWARD`, no numbers, or not one for
            each candidate.
        TimeoutError: it took too long.
        Exception: what the function raises, with a note that names the function, the prompts and what to do.
    """
    texts = [candidate.text for candidate in candidates]
    returned = _called(function, name, _reward_arguments(candidates, examples, state), texts, seconds)
    return _checked_values(returned, name, texts)


def call_answer_function(
    function: AnswerReward,
    name: str,
    texts: Sequence[str],
    answers: Sequence[Sequence[Answer]],
    examples: Examples,
    state: TrainerState | None,
    seconds: float | None = None,
) -> list[list[float | None]]:
    """One number, or None, for each answer, as (prompts, examples); else as `call_reward_function`.

    Args:
        function: what `on_answers` returned.
        name: for errors.
        texts: the prompts'.
        answers: (prompts, examples), what the task model wrote.
        examples: what the prompts are used on.
        state: Trainer's state.
        seconds: most that the call may take; None: no limit.
    """
    count = len(texts)
    written = [answer for of_prompt in answers for answer in of_prompt]
    columns = {name: deepcopy(v) * count for name, v in examples.columns.items() if name not in ANSWER_ARGUMENTS}
    arguments = {
        "prompts": list(examples.inputs) * count,
        "completions": [answer.text for answer in written],
        "completion_ids": [list(answer.ids) for answer in written],
        "searched_prompts": [text for text in texts for _ in examples.inputs],
        "trainer_state": copy(state),
        **columns,
    }
    returned = _called(function, name, arguments, texts, seconds)
    values = _checked_values(returned, name, [answer.text for answer in written], "answer")
    width = len(examples)
    return [values[i : i + width] for i in range(0, len(values), width)]


def _called(
    function: RewardFunction, name: str, arguments: dict[str, Any], texts: Sequence[str], seconds: float | None
) -> Any:
    """What a reward function returns within its time; an asynchronous one is waited for."""
    late = (
        f"reward function {name!r} took longer than `reward_time_limit={seconds}` seconds; raise it, or set it to None."
    )
    try:
        with time_limit(seconds, late):
            returned = function(**arguments)
            return _awaited(returned) if inspect.isawaitable(returned) else returned
    except Exception as error:
        error.add_note(
            f"raised by reward function {name!r} for the prompts {texts}; all earlier scores are saved. Return None "
            "for a prompt that the reward does not apply to, mend the function, and go on with "
            "`trainer.train(resume_from_checkpoint=True)`."
        )
        raise


def _awaited(returned: Awaitable[Any]) -> Any:
    """The result of an asynchronous function, in a notebook too, where an event loop runs already."""

    async def wait() -> Any:
        return await returned

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(asyncio.run, wait()).result()
    finally:
        pool.shutdown(wait=False)


def _reward_arguments(
    candidates: Sequence[Candidate], examples: Examples, state: TrainerState | None
) -> dict[str, Any]:
    """What a reward function is called with, in copies."""
    count, inputs = len(candidates), list(examples.inputs)
    columns = {name: deepcopy(values) for name, values in examples.columns.items() if name not in ARGUMENTS}
    return {
        "prompts": [inputs] * count,
        "completions": [candidate.text for candidate in candidates],
        "completion_ids": [list(candidate.ids) for candidate in candidates],
        "trainer_state": copy(state),
        **{name: [values] * count for name, values in columns.items()},
    }


def _checked_values(returned: Any, name: str, texts: Sequence[str], what: str = "prompt") -> list[float | None]:
    """One finite number, or None, for each text; `what` says what the texts are."""
    count = len(texts)
    try:
        values = [None if value is None else float(value) for value in returned]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"reward function {name!r} returned {returned!r}, which is no list of numbers; return one number, or "
            "None, for each completion."
        ) from error
    if len(values) != count:
        raise ValueError(
            f"reward function {name!r} returned {len(values)} numbers for {count} completions; return one each."
        )
    for text, value in zip(texts, values, strict=True):
        if value is not None and not abs(value) <= MOST_REWARD:  # NaN too
            raise ValueError(
                f"reward function {name!r} returned {value} for the {what} {text!r}; return a finite number from "
                f"{-MOST_REWARD:g} to {MOST_REWARD:g} (its logarithm, say, where it is larger), or None where the "
                "reward does not apply."
            )
    return values

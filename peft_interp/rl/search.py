"""`PromptSearch`: the state of a search by a policy, and its two moves: sample and score prompts, choose the best one.

Every process draws all prompts of a step and scores its share of them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from peft_interp.embedded import resolve
from peft_interp.inference.models import input_embeddings
from peft_interp.inference.named_model import load_named_model
from peft_interp.rl.config import RLPromptConfig
from peft_interp.rl.policy import Choice, PromptPolicy, example_places, prompt_noise
from peft_interp.scoring.archive import ScoredPrompt, Scores
from peft_interp.scoring.candidates import Candidate, PolicyVocabulary
from peft_interp.scoring.checkpointing import ARCHIVE_NAME
from peft_interp.scoring.examples import Examples
from peft_interp.scoring.prompt_scorer import PromptScorer
from peft_interp.scoring.rewards import REWARDS, mixed_rewards, new_names, shaped
from peft_interp.scoring.scored_search import Processes, ScoredSearch, best_unseen, mean_and_std, total_score
from peft_interp.scoring.setup import processes_of
from peft_interp.tuner.embedding import encoder_of

if TYPE_CHECKING:
    from accelerate import Accelerator
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Rollout:
    """The sampled prompts of a step.

    Attributes:
        actions: (prompts, length) the policy's tokens.
        rewards: (prompts,) z-scored, mixed and shaped.
        metrics: what the step is logged with.
    """

    actions: Tensor
    rewards: Tensor
    metrics: dict[str, float]


class PromptSearch(ScoredSearch):
    """Prompt search by soft Q-learning: prompts are sampled from the policy, scored on rows, and the best is kept.

    Args:
        policy: where prompts come from.
        vocabulary: what its tokens mean to the task model.
        scorer: what prompts are worth.
        train: the examples of the training reward.
        length: tokens of a prompt.
        config: the run's settings.
        processes: those that search together.
        archive_path: file of the archive; None for processes that do not write it.
    """

    def __init__(
        self,
        policy: PromptPolicy,
        vocabulary: PolicyVocabulary,
        scorer: PromptScorer,
        train: Examples,
        length: int,
        config: RLPromptConfig,
        processes: Processes | None = None,
        archive_path: Path | None = None,
    ) -> None:
        super().__init__(scorer, train, processes, archive_path)
        self.policy, self.vocabulary, self.length, self.config = policy, vocabulary, length, config
        self.choice = Choice(config.top_k or None, config.top_p, config.temperature, config.fluency_top_n)
        self.reference: dict[str, tuple[float, float]] = {}  # mean, std of each reward when it first applied
        self.undecided = False  # whether prompts were scored since the last choice
        self._warned_constant = False

    # -- sampling and scoring -------------------------------------------------------------------------------------

    def rollout(self, step: int, count: int, start: Sequence[int] | None = None) -> Rollout:
        """Sample `count` prompts and reward them.

        Args:
            step: optimizer step; with the seed and a prompt's place it decides what is drawn.
            count: prompts of all processes and accumulated batches.
            start: a given prompt (task model's ids) that is scored too, and takes the first place where the policy has
                its tokens.

        Raises:
            ValueError: a reward that is not a number. Whatever a reward function raises goes through; the archive is
                written first.
        """
        self.undecided = True
        noise = prompt_noise(self.config.seed, step, count, self.length)
        actions = self.policy.sample(noise, self.choice)
        given = self.vocabulary.policy_ids(start) if start is not None else None
        if given is not None:
            actions[0] = torch.tensor(given)
        actions = self.processes.agree(actions)
        candidates = [self.candidate(self.vocabulary.task_ids(row)) for row in actions.tolist()]
        places = example_places(len(self.train), self.config.examples_per_step, self.config.seed, step)
        examples = self.train if places is None else self.train.subset(places)
        known = [self.archive.find(candidate.ids, rows=places) is not None for candidate in candidates]
        others = [] if start is None or given is not None else [self.candidate(start)]
        found = self.score([*others, *candidates], examples, step, rows=places)[-count:]
        if places is not None:
            self.scorer.forget(examples)
        if missing := [name for name in self.scorer.weights if name not in self.reference]:
            self.reference |= mean_and_std([record.scores for record in found], missing)
        rewards = self._rewards(found, step)
        return Rollout(actions, rewards.to(actions.device), self.metrics(found, candidates, known))

    def candidate(self, ids: Sequence[int]) -> Candidate:
        """The prompt that these ids of the task model are as text."""
        return self.vocabulary.candidate(ids, self.beside)

    def _rewards(self, found: Sequence[ScoredPrompt], step: int) -> Tensor:
        """(prompts,) rewards of the loss."""
        values = torch.tensor([_numbers(record.scores, self.scorer.weights) for record in found], dtype=torch.float64)
        rewards = mixed_rewards(values, list(self.scorer.weights.values()))
        if not rewards.any() and len({record.ids for record in found}) > 1 and not self._warned_constant:
            self._warned_constant = True
            warnings.warn(
                f"all {len(found)} prompts of step {step} got the same reward, from which nothing can be learned. "
                "Check that prompts change the model's answers (longer prompts, other label words, examples of every "
                "label), or use `task_reward='negative_loss'`, which is never quite the same.",
                stacklevel=2,
            )
        return shaped(rewards, self.config.reward_scale).float()

    # -- choosing -------------------------------------------------------------------------------------------------

    def total(self, scores: Scores) -> float:
        """One number for a prompt, comparable over the whole run; see `total_score`."""
        applies = self.scorer.applies(scores)
        return total_score(scores, self.scorer.weights, self.reference) if applies else -math.inf

    def error(self, scores: Scores) -> float | None:
        """As the base's, in the units of `total`: standardised where rewards are mixed."""
        error = super().error(scores)
        if error is None or len(self.scorer.weights) == 1:
            return error
        _, spread = self.reference.get(self.scorer.error_reward, (0.0, 1.0))
        return error / spread

    def promising(self, count: int, split: str = "dev") -> list[Candidate]:
        """The prompts of best training score that may be chosen and have no score yet on all examples of `split`."""
        return [Candidate(r.ids, r.text, True, True) for r in best_unseen(self.archive, self.total, count, split)]

    def greedy(self) -> Candidate:
        """The prompt the policy likes best now."""
        ids = self.processes.agree(torch.tensor(self.policy.greedy(self.length, self.choice)))
        return self.candidate(self.vocabulary.task_ids(ids.tolist()))

    # -- keeping --------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs besides the archive."""
        reference = {name: list(pair) for name, pair in self.reference.items()}
        policy = {name: tensor.cpu() for name, tensor in self.policy.state_dict().items()}
        flags = {"undecided": self.undecided, "warned_constant": self._warned_constant}
        return {**super().state(), **flags, "reference": reference, "policy": policy}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        super().load_state(state)
        self.reference = {name: (mean, std) for name, (mean, std) in new_names(state["reference"]).items()}
        self.undecided = state.get("undecided", False)
        self._warned_constant = state["warned_constant"]
        self.policy.load_state_dict(state["policy"])


def _numbers(scores: Scores, names: Iterable[str]) -> list[float]:
    return [math.nan if scores[name] is None else float(scores[name] or 0.0) for name in names]


def make_search(
    model: PeftModel,
    args: RLPromptConfig,
    accelerator: Accelerator,
    train: Examples,
    scorer: PromptScorer,
    policy: tuple[PreTrainedModel | None, PreTrainedTokenizerBase | None],
) -> PromptSearch:
    """The search of an adapter's prompt.

    Args:
        model: the adapter.
        args: settings.
        accelerator: the processes.
        train: examples of the training reward.
        scorer: what prompts are worth.
        policy: the policy's language model and tokenizer, each None for the default.

    Raises:
        ValueError: fewer than two prompts to compare, or a policy that does not fit.
    """
    config, processes = model.active_peft_config, processes_of(accelerator)
    _check_sizes(args, processes.count, config.num_virtual_tokens)
    allowed = encoder_of(model, model.active_adapter).tokens.allowed
    vocabulary, language_model = _policy_parts(args, policy, scorer.task.model, scorer.task.tokenizer, allowed)
    return PromptSearch(
        PromptPolicy(language_model, vocabulary.allowed, args.policy_hidden_size),
        vocabulary,
        scorer,
        train,
        config.num_virtual_tokens,
        args,
        processes,
        Path(str(args.output_dir)) / ARCHIVE_NAME if args.should_save else None,
    )


def _check_sizes(args: RLPromptConfig, processes: int, length: int) -> None:
    if args.prompts_per_step * processes * args.gradient_accumulation_steps < 2:
        raise ValueError("a step needs at least two prompts, whose rewards are compared; raise `prompts_per_step`.")
    for name in [reward.setting for reward in REWARDS if reward.setting and reward.needs == "language model"]:
        if getattr(args, name) and length < 2:
            raise ValueError(
                f"`{name}={getattr(args, name)}` needs a prompt of at least two tokens: one has nothing to be "
                "predicted from. Raise `num_virtual_tokens`."
            )


def _policy_parts(
    args: RLPromptConfig,
    policy: tuple[PreTrainedModel | None, PreTrainedTokenizerBase | None],
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    allowed: Tensor,
) -> tuple[PolicyVocabulary, PreTrainedModel]:
    """The policy's vocabulary and language model."""
    language_model, policy_tokenizer = policy
    name = args.policy_model_name_or_path
    if language_model is None and name is not None:
        name = resolve(name)
        language_model = load_named_model(name)
        policy_tokenizer = policy_tokenizer or AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    if language_model is None:
        return PolicyVocabulary(allowed, tokenizer), base
    table = input_embeddings(language_model).weight
    if policy_tokenizer is None and len(table) != len(allowed):
        raise ValueError(
            f"the policy model has a vocabulary of {len(table)}, the task model one of {len(allowed)}; pass the "
            "policy's tokenizer as `policy_tokenizer`."
        )
    placed: PreTrainedModel = language_model.to(args.device)  # type: ignore[arg-type]
    return PolicyVocabulary(allowed, tokenizer, policy_tokenizer, table), placed

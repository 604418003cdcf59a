"""Puts a search by a policy together, and says clearly what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from peft_interp.rl.config import RLPromptConfig
from peft_interp.rl.policy import PromptPolicy
from peft_interp.rl.search import PromptSearch
from peft_interp.scoring.candidates import PolicyVocabulary
from peft_interp.scoring.checkpointing import ARCHIVE_NAME
from peft_interp.scoring.examples import Examples
from peft_interp.scoring.prompt_scorer import PromptScorer
from peft_interp.scoring.setup import processes_of


def make_search(
    model: Any,
    args: RLPromptConfig,
    accelerator: Any,
    train: Examples,
    scorer: PromptScorer,
    policy: tuple[Any, Any],
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
    allowed = model.prompt_encoder[model.active_adapter].tokens.allowed
    vocabulary, language_model = _policy_parts(args, policy, scorer.task.model, scorer.task.tokenizer, allowed)
    return PromptSearch(
        PromptPolicy(language_model, vocabulary.allowed, args.policy_hidden_size),
        vocabulary,
        scorer,
        train,
        config.num_virtual_tokens,
        config.prompt_position,
        args,
        processes,
        Path(str(args.output_dir)) / ARCHIVE_NAME if args.should_save else None,
    )


def _check_sizes(args: RLPromptConfig, processes: int, length: int) -> None:
    if args.prompts_per_step * processes * args.gradient_accumulation_steps < 2:
        raise ValueError("a step needs at least two prompts, whose rewards are compared; raise `prompts_per_step`.")
    for name in ("perplexity_reward_weight", "scrutability_reward_weight"):
        if getattr(args, name) and length < 2:
            raise ValueError(
                f"`{name}={getattr(args, name)}` needs a prompt of at least two tokens: one has nothing to be "
                "predicted from. Raise `num_virtual_tokens`."
            )


def _policy_parts(
    args: RLPromptConfig, policy: tuple[Any, Any], base: Any, tokenizer: Any, allowed: Any
) -> tuple[PolicyVocabulary, Any]:
    """The policy's vocabulary and language model."""
    language_model, policy_tokenizer = policy
    name = args.policy_model_name_or_path
    if language_model is None and name is not None:
        language_model = AutoModelForCausalLM.from_pretrained(name)
        policy_tokenizer = policy_tokenizer or AutoTokenizer.from_pretrained(name)
    if language_model is None:
        return PolicyVocabulary(allowed, tokenizer), base
    table = language_model.get_input_embeddings().weight
    if policy_tokenizer is None and len(table) != len(allowed):
        raise ValueError(
            f"the policy model has a vocabulary of {len(table)}, the task model one of {len(allowed)}; pass the "
            "policy's tokenizer as `policy_tokenizer`."
        )
    return PolicyVocabulary(allowed, tokenizer, policy_tokenizer, table), language_model.to(args.device)

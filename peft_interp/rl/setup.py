"""Puts a search together from what a user passes to the trainer, and says clearly what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast, gather_object
from transformers import AutoModelForCausalLM, AutoTokenizer

from peft_interp.config import InterpPromptConfig
from peft_interp.rl.checkpointing import ARCHIVE_NAME
from peft_interp.rl.config import RLPromptConfig
from peft_interp.rl.policy import PromptPolicy
from peft_interp.rl.search import Processes, PromptSearch
from peft_interp.scoring.candidates import PolicyVocabulary
from peft_interp.scoring.custom_rewards import RewardFunction
from peft_interp.scoring.examples import Examples
from peft_interp.scoring.prompt_scorer import Judge, PromptScorer, Task
from peft_interp.verbalizer import Verbalizer
from peft_interp.vocabulary import named_token_ids


def check_model(model: Any, args: Any, tokenizer: Any, eval_dataset: Any, verbalizer: Verbalizer | None) -> None:
    """Refuse what cannot be searched, before anything is built.

    Raises:
        ValueError: saying what is wrong and what to do.
    """
    config = getattr(model, "active_peft_config", None)
    if not isinstance(config, InterpPromptConfig):
        raise ValueError(
            f"`model` is a {type(model).__name__} without an InterpPrompt adapter; pass `get_peft_model(base, "
            "InterpPromptConfig(...))`."
        )
    if not config.projects:
        raise ValueError("`projection_metric='none'` is a soft prompt, but the search chooses tokens; use 'cosine'.")
    if not isinstance(args, RLPromptConfig):
        raise ValueError(f"`args` is a {type(args).__name__}; pass an `RLPromptConfig`, which is a TrainingArguments.")
    if tokenizer is None:
        raise ValueError("`processing_class` is needed: prompts are scored as text; pass the task model's tokenizer.")
    if isinstance(eval_dataset, dict):
        raise ValueError(
            "`eval_dataset` must be one data set, since it chooses the prompt; score others with "
            "`trainer.evaluate(other, metric_key_prefix='other')`."
        )
    if verbalizer is not None and verbalizer.prompt_position != config.prompt_position:
        raise ValueError(
            f"the template {verbalizer.template!r} has the prompt at the {verbalizer.prompt_position}, but the "
            f"adapter's `prompt_position={config.prompt_position!r}`; make them agree."
        )


def make_search(
    model: Any,
    args: RLPromptConfig,
    accelerator: Any,
    train: Examples,
    tokenizer: Any,
    verbalizer: Verbalizer | None,
    functions: Sequence[RewardFunction],
    policy: tuple[Any, Any],
    judge: Judge | None,
    scrutability: Callable[..., Any] | None,
) -> PromptSearch:
    """The search of an adapter's prompt.

    Args:
        model: the adapter.
        args: settings.
        accelerator: the processes.
        train: examples of the training reward.
        tokenizer: the task model's.
        verbalizer: template and label words, or None.
        functions: the user's reward functions.
        policy: the policy's language model and tokenizer, each None for the default.
        judge: the model of the prompt's NLL, None for the task model if that is a causal LM.
        scrutability: as `PromptScorer`.

    Raises:
        ValueError: no labels and no reward, fewer than two prompts to compare, or parts that do not fit together.
    """
    config, base = model.active_peft_config, model.get_base_model()
    processes = _processes(accelerator)
    _check_sizes(args, processes.count, config.num_virtual_tokens)
    label_ids = None if verbalizer is None or train.gold is None else verbalizer.label_token_ids(tokenizer)
    needs_labels = not functions or args.task_reward in ("gap", "negative_loss")
    if not train.rows and needs_labels:
        raise ValueError(
            "there are no labels and no reward: `train_dataset` has no columns `input_ids` and `labels`. Encode it, "
            "pass a `verbalizer` (template and label words) to fill in text and label, or pass `reward_funcs`."
        )
    leading = tuple(config.leading_token_ids or ())
    task = Task(base, tokenizer, config.prompt_position, leading, label_ids)
    if judge is not None:
        judge.model.to(args.device)
    scorer = PromptScorer(
        task, args, functions, judge or _own_judge(task, train), scrutability, args.readability_weights
    )
    allowed = model.prompt_encoder[model.active_adapter].tokens.allowed
    vocabulary, language_model = _policy_parts(args, policy, base, tokenizer, allowed)
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
    if args.perplexity_reward_weight and length < 2:
        raise ValueError(
            f"`perplexity_reward_weight={args.perplexity_reward_weight}` needs a prompt of at least two tokens: one "
            "has nothing to be predicted from. Raise `num_virtual_tokens`."
        )


def _own_judge(task: Task, train: Examples) -> Judge | None:
    """The task model as the judge, which sees a BOS in front of a prompt if inputs begin with one; None if no LM."""
    if not hasattr(task.model, "prepare_inputs_for_generation") or task.model.config.is_encoder_decoder:
        return None
    begins = bool(train.rows) and train.rows[0]["input_ids"][0] in task.leading_ids
    return Judge(task.model, None, tuple(named_token_ids(task.model.config, ("bos",))[:1]) if begins else ())


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


def _processes(accelerator: Any) -> Processes:
    if accelerator.num_processes == 1:
        return Processes()
    agree = lambda tensor: broadcast(tensor.to(accelerator.device))  # noqa: E731
    return Processes(accelerator.num_processes, accelerator.process_index, gather_object, agree)

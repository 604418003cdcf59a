"""Puts together what a user passes to a trainer that scores prompts, and says clearly what does not fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Any, cast

from accelerate.utils import broadcast, gather_object
from transformers import PreTrainedModel, TrainingArguments

from peft_interp.answers.rewards import AnswerReward
from peft_interp.inference.models import AnyModel, input_embeddings
from peft_interp.scoring.config import RewardArguments
from peft_interp.scoring.examples import Examples, read_examples
from peft_interp.scoring.prompt_scorer import Calibration, PerplexityModel, PromptScorer, Task
from peft_interp.scoring.rewards import ANSWER_ARGUMENTS, ARGUMENTS, RewardFunction
from peft_interp.scoring.scored_search import Processes
from peft_interp.scoring.task_scorer import is_causal
from peft_interp.text.label_prior import CONTENT_FREE, check_gold, check_rows, drawn_rows, warn_of_one_label
from peft_interp.text.placement import IGNORED, placement_of
from peft_interp.text.rows import Rows
from peft_interp.text.tokenization import leading_ids, named_token_ids
from peft_interp.text.verbalizer import Verbalizer, check_verbalizer
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.fluency import check_scorer

if TYPE_CHECKING:
    from accelerate import Accelerator
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


def own_settings(args: TrainingArguments) -> dict[str, Any]:
    """What was set away from its default among the fields that `TrainingArguments` does not have, JSON-ready."""
    stock = {field.name for field in fields(TrainingArguments)}
    found = {}
    for field in fields(args):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        value = getattr(args, field.name)
        if field.name not in stock and value != default and isinstance(value, str | int | float | list | None):
            found[field.name] = value
    return found


def check_model(
    model: AnyModel,
    args: object,
    kind: type[RewardArguments],
    tokenizer: PreTrainedTokenizerBase | None,
    eval_dataset: Rows | None,
    verbalizer: Verbalizer | None,
) -> None:
    """Refuse what cannot be searched, before anything is built.

    Args:
        model: must hold an adapter whose prompt consists of tokens.
        args: must be a `kind`.
        kind: the trainer's own arguments.
        tokenizer: must be there.
        eval_dataset: must not be several.
        verbalizer: must place the prompt where the adapter does.

    Raises:
        ValueError: saying what is wrong and what to do.
    """
    config = getattr(model, "active_peft_config", None)
    if not isinstance(config, InterpPromptConfig):
        raise ValueError(
            f"`model` is a {type(model).__name__} without an InterpPrompt adapter; pass `get_peft_model(base, "
            "InterpPromptConfig(...))`."
        )
    if config.has_perplexity_term:
        warnings.warn(
            f"`perplexity_weight={config.perplexity_weight}` and `target_perplexity={config.target_perplexity}` of the "
            "adapter are for training by gradient; a search by reward does not see them. Set "
            "`perplexity_reward_weight` (RLPromptConfig), or `max_perplexity` or `target_percentile` "
            "(PromptSearchConfig).",
            stacklevel=3,
        )
    if not config.projects:
        raise ValueError("`projection_metric='none'` is a soft prompt, but the search chooses tokens; use 'cosine'.")
    if not isinstance(args, kind):
        raise ValueError(
            f"`args` is a {type(args).__name__}; pass {'an' if kind.__name__[0] in 'R' else 'a'} `{kind.__name__}`, "
            "which is a TrainingArguments."
        )
    if tokenizer is None:
        raise ValueError("`processing_class` is needed: prompts are scored as text; pass the task model's tokenizer.")
    if isinstance(eval_dataset, dict):
        raise ValueError(
            "`eval_dataset` must be one data set, since it chooses the prompt; score others with "
            "`trainer.evaluate(other, metric_key_prefix='other')`."
        )
    if verbalizer is not None:
        check_verbalizer(verbalizer, placement_of(config))


def make_scorer(
    model: PeftModel,
    args: RewardArguments,
    train: Examples,
    tokenizer: PreTrainedTokenizerBase,
    verbalizer: Verbalizer | None,
    reward_funcs: RewardFunction | Sequence[RewardFunction] | None = None,
    perplexity_model: PerplexityModel | None = None,
    scrutability: Callable[..., Any] | None = None,
    readability: Mapping[str, float] | None = None,
) -> PromptScorer:
    """What an adapter's prompts are scored by.

    Args:
        model: the adapter.
        args: settings of the task's rewards.
        train: examples of the training reward.
        tokenizer: the task model's.
        verbalizer: template and label words, or None.
        reward_funcs: the user's reward functions.
        perplexity_model: the model of the prompt's NLL, None for the task model if that is a causal LM.
        scrutability, readability: as for `PromptScorer`.

    Raises:
        ValueError: no labels and no reward, or parts that do not fit together.
    """
    config, base = model.active_peft_config, cast(PreTrainedModel, model.get_base_model())
    functions = [reward_funcs] if callable(reward_funcs) else list(reward_funcs or ())
    writes = any(isinstance(function, AnswerReward) for function in functions)
    taken = ANSWER_ARGUMENTS if writes else ARGUMENTS
    if functions and (hidden := [name for name in train.columns if name in taken]):
        warnings.warn(
            f"`train_dataset` has columns {hidden}, which reward functions do not get: the search itself passes "
            f"{', '.join(taken)}. Rename the columns if a function needs them.",
            stacklevel=3,
        )
    if writes and not train.rows and not any(train.inputs):
        raise ValueError(
            f"the model has nothing to answer: `train_dataset` has no text, only {sorted(train.columns)}; name its "
            "column with `text_column`, or give rows of `input_ids` and `labels`."
        )
    label_ids = None if verbalizer is None or train.gold is None else verbalizer.scored_ids(tokenizer)
    needs_labels = not functions or args.task_reward in ("gap", "negative_loss")
    if not train.rows and needs_labels:
        raise ValueError(
            "there are no labels and no reward: `train_dataset` has no columns `input_ids` and `labels`. Encode it, "
            "pass a `verbalizer` (template and label words) to fill in text and label, or pass `reward_funcs`."
        )
    task = Task(
        base, tokenizer, placement_of(config), tuple(config.leading_token_ids or ()), label_ids, train.gold is not None
    )
    given = perplexity_model
    scored_by = own_perplexity_model(task, train) if given is None else _given_perplexity_model(given, task, args)
    calibration = _calibration(task, train, verbalizer) if label_ids is not None and verbalizer is not None else None
    return PromptScorer(task, args, functions, scored_by, scrutability, readability, calibration)


def _calibration(task: Task, train: Examples, verbalizer: Verbalizer) -> Calibration | None:
    """How each prompt's label prior is taken away: estimated on at most `MOST_ROWS` of the training rows.

    Raises:
        ValueError: too few training rows, or for "fitted" rows of one label.
    """
    name = verbalizer.calibration
    if name == "none":
        return None
    if name == "content_free":
        texts = [{"sentence": text, "label": 0} for text in CONTENT_FREE]
        found = read_examples(task.tokenizer, texts, verbalizer, masked=not is_causal(task.model))
        told = [place for place, row in enumerate(found.rows) if row["labels"][0] == IGNORED]
        return Calibration(name, found.subset(told))
    check_rows(len(train))
    places = drawn_rows(len(train))
    examples = train if len(places) == len(train) else train.subset(places)
    if name == "fitted":
        check_gold(examples.gold)
    elif examples.gold is not None and len(examples.gold.unique()) == 1:
        warn_of_one_label(len(examples), name)
    return Calibration(name, examples)


def processes_of(accelerator: Accelerator) -> Processes:
    """The processes that an accelerator knows."""
    if accelerator.num_processes == 1:
        return Processes()
    agree = lambda tensor: broadcast(tensor.to(accelerator.device))  # noqa: E731
    return Processes(accelerator.num_processes, accelerator.process_index, gather_object, agree)


def _given_perplexity_model(given: PerplexityModel, task: Task, args: RewardArguments) -> PerplexityModel:
    """The user's perplexity model, which sees in front of a prompt what its tokenizer puts there."""
    if given.tokenizer is None:
        check_scorer(given.model, input_embeddings(task.model).weight)
    return replace(
        given,
        model=given.model.to(args.device),  # type: ignore[arg-type]
        leading_ids=tuple(leading_ids(given.tokenizer or task.tokenizer)),
    )


def own_perplexity_model(task: Task, train: Examples) -> PerplexityModel | None:
    """The task model, which sees a BOS in front of a prompt if inputs begin with one; None if it is no causal LM."""
    if not hasattr(task.model, "prepare_inputs_for_generation") or task.model.config.is_encoder_decoder:
        return None
    if not train.rows:
        return PerplexityModel(task.model, None, tuple(leading_ids(task.tokenizer)))
    begins = train.rows[0]["input_ids"][0] in task.leading_ids
    return PerplexityModel(task.model, None, tuple(named_token_ids(task.model.config, ("bos",))[:1]) if begins else ())

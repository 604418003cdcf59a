"""Generating after a prompt: the base model's own `generate` on inputs that contain it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from peft_interp.inference.max_length import learned_positions
from peft_interp.inference.models import generate_of
from peft_interp.tuner.layout import PromptLayout
from peft_interp.tuner.model_inputs import Composed


def generate_after_prompt(
    base_model: PreTrainedModel, compose: Callable[..., Composed], *args: Any, **kwargs: Any
) -> Any:
    """`base_model.generate` after the prompt, with stock PEFT's result.

    Args:
        base_model: causal LM.
        compose: makes the model's inputs of `input_ids`, `inputs_embeds` and `attention_mask`.
        args: as in `transformers`, the input ids first.
        kwargs: anything `generate` takes. Lengths count the given input and the new tokens, not the prompt. A cache in
            `past_key_values` comes from this model: it holds the prompt, which is not put in again.

    Returns:
        What `generate` returns; sequences are the given ids followed by the new ones (only the new ones for inputs
        given as embeddings).

    Raises:
        ValueError: no input, and the model has no BOS token to begin with.
    """
    kwargs = named_arguments(base_model, args, kwargs)
    input_ids, embeds = kwargs.pop("input_ids", None), kwargs.pop("inputs_embeds", None)
    if embeds is not None:
        input_ids = None
    elif input_ids is None:
        input_ids = _begin(base_model)
    mask = kwargs.pop("attention_mask", None)
    if mask is None:
        mask = attended(base_model.generation_config, input_ids, embeds)
    for derived in ("position_ids", "token_type_ids", "task_ids"):
        kwargs.pop(derived, None)
    composed = compose(input_ids=input_ids, inputs_embeds=embeds, attention_mask=mask)
    kwargs.update(_longer(base_model, kwargs, composed.layout.prompt_length))
    inputs = composed.inputs
    if input_ids is not None and "input_ids" not in inputs:
        inputs = {**inputs, "input_ids": _seen_by_penalties(composed.layout, input_ids)}
    if "input_ids" in inputs:
        assert input_ids is not None
        _hide_prompt(kwargs, composed.layout, input_ids)
    output = _generated(base_model, inputs, kwargs, composed.layout.order.shape[1])
    given_length = composed.layout.order.shape[1] if "input_ids" in inputs else 0

    def without_prompt(sequences: Tensor) -> Tensor:
        new = sequences[:, given_length:]
        if input_ids is None:
            return new
        copies = len(sequences) // len(input_ids)
        return torch.cat((input_ids.repeat_interleave(copies, dim=0).to(new.device), new), dim=1)

    if isinstance(output, Tensor):
        return without_prompt(output)
    output.sequences = without_prompt(output.sequences)
    return output


class _WithoutPrompt:
    """Takes the prompt out of the ids that a generation has so far, for what the user hands to `generate`."""

    def __init__(self, layout: PromptLayout, input_ids: Tensor) -> None:
        self.given, self.composed = input_ids, layout.order.shape[1]

    def rows(self, ids: Tensor) -> Tensor:
        """(rows, prompt + length + new) -> (rows, length + new); several rows may belong to one of the input's."""
        given = self.given.to(ids.device).repeat_interleave(max(1, len(ids) // len(self.given)), dim=0)
        return torch.cat((given, ids[:, self.composed :]), dim=1)

    def row(self, index: int, ids: Tensor) -> Tensor:
        """The same for the ids of one row of the input, (prompt + length + new,)."""
        return torch.cat((self.given[index].to(ids.device), ids[self.composed :]))


class _UsersProcessor(LogitsProcessor):
    def __init__(self, processor: Any, hide: _WithoutPrompt) -> None:
        self.processor, self.hide = processor, hide

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(rows, vocabulary) of the user's processor."""
        return self.processor(self.hide.rows(input_ids), scores)  # type: ignore[no-any-return]


class _UsersCriterion(StoppingCriteria):
    def __init__(self, criterion: Any, hide: _WithoutPrompt) -> None:
        self.criterion, self.hide = criterion, hide

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Any:
        """What the user's criterion says."""
        return self.criterion(self.hide.rows(input_ids), scores, **kwargs)


class _UsersStreamer:
    """Hands on what is generated; first, as `generate` does, the input, without the prompt."""

    def __init__(self, streamer: Any, hide: _WithoutPrompt) -> None:
        self.streamer, self.hide, self.begun = streamer, hide, False

    def put(self, value: Tensor) -> None:
        """Tokens, the input's first."""
        self.streamer.put(value if self.begun else self.hide.given.to(value.device))
        self.begun = True

    def end(self) -> None:
        """Nothing follows."""
        self.streamer.end()


def _hide_prompt(kwargs: dict[str, Any], layout: PromptLayout, input_ids: Tensor) -> None:
    """Let what the user brought see the ids that it sees with stock PEFT; penalties of `generate` see the prompt."""
    hide = _WithoutPrompt(layout, input_ids)
    if kwargs.get("logits_processor"):
        kwargs["logits_processor"] = LogitsProcessorList(_UsersProcessor(x, hide) for x in kwargs["logits_processor"])
    if (criteria := kwargs.get("stopping_criteria")) is not None:
        given = criteria if isinstance(criteria, (list, tuple)) else [criteria]
        kwargs["stopping_criteria"] = StoppingCriteriaList(_UsersCriterion(x, hide) for x in given)
    if (allowed := kwargs.get("prefix_allowed_tokens_fn")) is not None:
        kwargs["prefix_allowed_tokens_fn"] = lambda index, ids: allowed(index, hide.row(index, ids))
    if (streamer := kwargs.get("streamer")) is not None:
        kwargs["streamer"] = _UsersStreamer(streamer, hide)


def _generated(base_model: PreTrainedModel, inputs: dict[str, Tensor], kwargs: dict[str, Any], given: int) -> Any:
    """What the base model generates after `given` columns, or a clear word where its positions end."""
    try:
        return generate_of(base_model)(**inputs, **kwargs)
    except IndexError as error:
        limit = learned_positions(base_model)
        if limit is None or given + _new_tokens(base_model, kwargs, given) <= limit:
            raise
        raise ValueError(
            f"prompt and text are {given} tokens, and the model has positions for {limit}: too few for what is to be "
            f"generated. Give `max_new_tokens={max(0, limit - given)}` or less, or shorten the text."
        ) from error


def _new_tokens(base_model: PreTrainedModel, kwargs: dict[str, Any], given: int) -> int:
    """How many tokens the call may generate."""
    settings = kwargs.get("generation_config") or base_model.generation_config
    new = kwargs.get("max_new_tokens") or getattr(settings, "max_new_tokens", None)
    longest = kwargs.get("max_length") or getattr(settings, "max_length", None) or 0
    return int(new if new else max(1, longest - given))


def named_arguments(base_model: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a `generate` call by name, the input ids as `input_ids`."""
    names = inspect.signature(generate_of(base_model)).parameters
    named = {**kwargs, **dict(zip(names, args, strict=False))}
    inputs = named.pop("inputs", None)
    return named if inputs is None else {**named, "input_ids": inputs}


def _seen_by_penalties(layout: PromptLayout, input_ids: Tensor) -> Tensor:
    """Ids of rows that enter as vectors; a soft prompt's columns repeat a token of the row, as it has none itself."""
    own = input_ids.gather(1, layout.start.to(input_ids.device).clamp_max(input_ids.shape[1] - 1).unsqueeze(1))
    return layout.insert(own.expand(-1, layout.prompt_length), input_ids)


def _begin(base_model: PreTrainedModel) -> Tensor:
    bos = base_model.generation_config.bos_token_id
    if bos is None:
        raise ValueError("`generate` needs `input_ids`: the model has no BOS token to begin with.")
    return torch.tensor([[bos]], device=base_model.device)


def attended(settings: GenerationConfig | PreTrainedConfig, input_ids: Tensor | None, embeds: Tensor | None) -> Tensor:
    """The mask that `generate` would infer: padding is what equals a pad token that is not also EOS.

    Args:
        settings: names `pad_token_id` and `eos_token_id`; a generation config or a model config.
        input_ids: (batch, length), or None with `embeds`, which hide their padding.
        embeds: (batch, length, dim) or None.

    Returns:
        (batch, length).
    """
    if input_ids is None:
        assert embeds is not None
        return torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    if settings.pad_token_id is None or settings.pad_token_id in ends:
        return torch.ones_like(input_ids)
    return input_ids.ne(settings.pad_token_id).long()


def _longer(base_model: PreTrainedModel, kwargs: dict[str, Any], prompt_length: int) -> dict[str, Any]:
    """Total lengths, which must make room for the prompt; `max_new_tokens` needs no change."""
    changed: dict[str, Any] = {}
    settings = kwargs.get("generation_config")
    if settings is not None:
        settings = changed["generation_config"] = copy.deepcopy(settings)
        for name in ("max_length", "min_length"):
            if getattr(settings, name, None):
                setattr(settings, name, getattr(settings, name) + prompt_length)
    for name in ("max_length", "min_length"):
        if kwargs.get(name):
            changed[name] = kwargs[name] + prompt_length
        elif settings is None and getattr(base_model.generation_config, name, None):
            changed[name] = getattr(base_model.generation_config, name) + prompt_length
    if kwargs.get("max_new_tokens"):
        changed.pop("max_length", None)
    return changed

"""Maximum sequence length: the positions a model has, and an error that says so where prompt and text need more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_TABLES = ("wpe", "position_embeddings", "embed_positions")  # a learned vector for every position


def model_max_length(model: PreTrainedModel) -> int | None:
    """The longest row that a model's configuration or its positions allow; None where nothing names a limit."""
    learned = learned_positions(model)
    if learned is not None:
        return learned
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None


def learned_positions(model: PreTrainedModel) -> int | None:
    """Rows of the model's table of positions, beyond which it fails; None where positions are computed."""
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in _TABLES and isinstance(module, nn.Embedding):
            rows, offset = int(module.weight.shape[0]), getattr(module, "offset", 0)  # OPT counts from 2
            if module.padding_idx is not None:  # RoBERTa counts from after the padding's row
                offset = module.padding_idx + 1
            return rows - offset
    return None


def check_prompt_length(length: int, config: PreTrainedConfig) -> None:
    """Refuse a prompt that leaves no room for text.

    Raises:
        ValueError: `length` tokens fill the context that the model's configuration names.
    """
    context = getattr(config, "max_position_embeddings", None)
    if isinstance(context, int) and length >= context:
        raise ValueError(
            f"`num_virtual_tokens={length}` leaves no room for text in the model's context of {context} tokens; use a "
            "shorter prompt."
        )


def may_lack_room(model: PreTrainedModel, columns: int) -> bool:
    """Whether so many columns may be too many, by the configuration alone: cheap, for every forward pass."""
    config = getattr(model, "config", None)
    known = getattr(config and config.get_text_config(), "max_position_embeddings", None)
    return isinstance(known, int) and columns >= known - 1  # RoBERTa's number is two too high


def check_room(model: PreTrainedModel, prompt_length: int, columns: int, mask: Tensor | None = None) -> None:
    """Refuse rows for which a model has no positions.

    Args:
        model: the base model.
        prompt_length: tokens of the prompt.
        columns: of the text.
        mask: (batch, columns), where padding takes no position; None where it does.

    Raises:
        ValueError: prompt and text together are longer than the model's learned positions.
    """
    if not may_lack_room(model, prompt_length + columns):
        return
    limit = learned_positions(model)
    if limit is None or prompt_length + columns <= limit:
        return
    text = columns if mask is None else int(mask.ne(0).sum(dim=1).max())
    if prompt_length + text > limit:
        raise ValueError(
            f"the longest row of the batch has {text} tokens; with a prompt of {prompt_length} that is "
            f"{prompt_length + text}, and the model has positions for {limit}. Truncate the text to "
            f"{limit - prompt_length} tokens when it is tokenised (`truncation=True, "
            f"max_length={limit - prompt_length}`), or use a shorter prompt."
        )

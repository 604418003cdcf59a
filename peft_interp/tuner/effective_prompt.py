"""What PEFT reads where it does not ask our models: the projected prompt as the weight of an embedding."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn


class EffectivePrompt(nn.Module):
    """Gives PEFT the `.embedding.weight` that it reads directly in inference mode: the projected prompt."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self._encoder = [encoder]

    @property
    def weight(self) -> Tensor:
        """(prompt, dim)."""
        encoder = self._encoder[0]
        if not encoder.placed_by_ours and not encoder.config.placement.before_text:
            raise ValueError(
                f"this InterpPrompt adapter has `prompt_position={encoder.config.prompt_position!r}`, but was added "
                "to a model made for another config, which puts every prompt first. Make the model with the "
                "InterpPrompt adapter first and add the others to it."
            )
        if not encoder.placed_by_ours:
            encoder.placed_by_ours = True
            warnings.warn(
                "this InterpPrompt adapter was added to a model made for another config, which puts the prompt in "
                "front of BOS and padding, so adapter and text differ there. Make the model with the InterpPrompt "
                "adapter first and add the others to it.",
                stacklevel=2,
            )
        vectors: Tensor = encoder.prompt().vectors
        return vectors

"""`TokenTable`: the base model's embedding table as the set of tokens a prompt may choose from."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from peft import PromptTuningInit
from peft.utils.integrations import gather_params_ctx
from torch import Tensor, nn

from peft_interp.inference.eval_mode import lasting_tensors, update_count
from peft_interp.text.token_filter import allowed_tokens
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.initialization import load_tokenizer
from peft_interp.tuner.projection import nearest_rows, row_terms, similarity

SOFT_CHOICE_TEMPERATURE = {"cosine": 0.1, "dot": 1.0, "euclidean": 1.0}


class TokenTable:
    """Looks up, and chooses among, the rows of a frozen embedding module.

    The module belongs to the base model and is neither registered nor copied; norms and filter are computed once.

    Args:
        word_embeddings: the base model's embedding module.
        config: metric and filter.
    """

    def __init__(self, word_embeddings: nn.Module, config: InterpPromptConfig) -> None:
        self.word_embeddings = word_embeddings
        self.config = config
        self._terms: tuple[Any, Tensor | None] | None = None
        self._allowed: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The embedding matrix, (vocabulary, dim)."""
        return self.word_embeddings.weight  # type: ignore[return-value]

    @cached_property
    def tokenizer(self) -> Any | None:
        """The model's tokenizer, or None where none is named and none is needed."""
        return load_tokenizer(self.config, required=needs_tokenizer(self.config))

    @property
    def metric(self) -> str:
        """The similarity tokens are chosen by; for a soft prompt, the one it is read by."""
        return self.config.projection_metric if self.config.projects else "cosine"

    @property
    def allowed(self) -> Tensor:
        """(vocabulary,) bool: which tokens the prompt may use.

        Raises:
            ValueError: the filter leaves no token, or needs a tokenizer that cannot be loaded.
        """
        if self._allowed is None:
            config = self.config
            with lasting_tensors():
                self._allowed = allowed_tokens(
                    self.weight,
                    self.tokenizer,
                    config.allowed_tokens,
                    [*(config.banned_token_ids or ()), *(config.special_token_ids or ())],
                    config.banned_words or (),
                )
        return self._allowed

    @torch.no_grad()
    def nearest(self, latent: Tensor) -> Tensor:
        """(prompt,) ids of the allowed rows nearest to `latent` (prompt, dim)."""
        with self._gathered():
            return nearest_rows(latent, self.weight, self.metric, self._row_terms(), self.allowed)

    def soft_choice(self, latent: Tensor, width: int) -> Tensor:
        """Softmax of the similarity over the allowed tokens, (prompt, width), with gradient to `latent`."""
        with self._gathered():
            scores = similarity(latent, self.weight, self.metric, self._row_terms())[:, :width]
        scores = scores.masked_fill(~self.allowed[:width].to(scores.device), -torch.inf)
        return (scores / SOFT_CHOICE_TEMPERATURE[self.metric]).softmax(-1)

    @torch.no_grad()
    def rows(self, ids: Tensor) -> Tensor:
        """(prompt, dim) the table's rows."""
        with self._gathered():
            return self.weight[ids.to(self.weight.device)].detach().to(ids.device)

    @torch.no_grad()
    def vectors(self, ids: Tensor) -> Tensor:
        """(prompt, dim) what the module makes of the ids: the rows, scaled in some models (Gemma)."""
        with self._gathered():
            # `forward`, not the module: without hooks, since NEFTune's adds noise
            return self.word_embeddings.forward(ids.to(self.weight.device)).detach().to(ids.device)

    def _gathered(self) -> Any:
        return gather_params_ctx(self.word_embeddings.parameters())  # ZeRO-3 shards the table

    def _row_terms(self) -> Tensor | None:
        """The table's norms, computed again only when the table has changed."""
        table = self.weight
        key = (self.metric, table.data_ptr(), update_count(table), table.device, table.dtype)
        known = self._terms
        if known is None or known[0] != key:
            with lasting_tensors():
                self._terms = known = (key, row_terms(table, self.metric))
        return known[1]


def needs_tokenizer(config: InterpPromptConfig) -> bool:
    """Whether the config cannot be followed without the tokens' texts."""
    named = config.allowed_tokens != "all" or bool(config.banned_words) or bool(config.init_words)
    return named or config.prompt_tuning_init == PromptTuningInit.TEXT

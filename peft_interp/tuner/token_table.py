"""`TokenTable`: the base model's embedding table as the set of tokens a prompt may choose from."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from peft import PromptTuningInit
from peft.utils.integrations import gather_params_ctx
from torch import Tensor, nn

from peft_interp.inference.eval_mode import lasting_tensors, update_count
from peft_interp.text.token_filter import allowed_tokens
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.initialization import load_tokenizer
from peft_interp.tuner.projection import equal_rows, nearest_rows, row_terms, similarity
from peft_interp.tuner.stalled_search import least_steps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REFERENCE_RMS = 0.15611551702022552  # of the embedded model's table, on which the learning rates were tried
_UNPACKED_ROWS = 4096
SOFT_CHOICE_TEMPERATURE = {"cosine": 0.1, "dot": 1.0, "euclidean": 1.0}


class TokenTable:
    """Looks up, and chooses among, the rows of a frozen embedding module.

    The module belongs to the base model and is neither registered nor copied; norms and filter are computed once.

    Args:
        word_embeddings: the base model's embedding module.
        config: metric and filter.

    Attributes:
        unit: what one unit of a latent is in the table's coordinates.
    """

    def __init__(self, word_embeddings: nn.Module, config: InterpPromptConfig) -> None:
        self.word_embeddings = word_embeddings
        self.config = config
        self._terms: tuple[Any, Tensor | None] | None = None
        self._forbidden: Tensor | None = None  # (vocabulary,) tokens that are not allowed, on the table's device
        self._blocked: Tensor | None = None  # (vocabulary,) those and zero-norm rows under cosine
        self._equal: Tensor | None = None  # as `equal_rows`
        self._allowed: Tensor | None = None
        self._made_for = self.size
        self._unpacked: tuple[Any, Tensor] | None = None
        self.unit = 1.0

    @property
    def size(self) -> int:
        """Rows of the table."""
        weight: Any = self.word_embeddings.weight
        if weight.dim() == 2 and weight.shape[0]:
            return int(weight.shape[0])
        return int(self.word_embeddings.num_embeddings)  # type: ignore[arg-type]

    @property
    def weight(self) -> Tensor:
        """The embedding matrix, (vocabulary, dim), in floats; unpacked once where it is quantised or sharded."""
        weight: Any = self.word_embeddings.weight
        if _is_plain(weight):
            return weight  # type: ignore[no-any-return]
        key = (id(weight), self.size, str(weight.device))
        if self._unpacked is None or self._unpacked[0] != key:
            with lasting_tensors():
                self._unpacked = (key, self._unpack(weight))
        return self._unpacked[1]

    def _unpack(self, weight: Any) -> Tensor:
        if hasattr(weight, "full_tensor"):  # FSDP2's shards; all processes come here together
            return weight.full_tensor().detach().clone()  # type: ignore[no-any-return]
        # what the module makes of every id: the one thing that all ways of packing have in common
        ids = torch.arange(self.size, device=weight.device)
        try:
            return torch.cat([self.word_embeddings.forward(part).detach() for part in ids.split(_UNPACKED_ROWS)])
        except Exception as error:
            raise ValueError(
                f"the embedding table is a {type(self.word_embeddings).__name__} with {type(weight).__name__} weights, "
                "whose rows cannot be read; load the model with its embeddings in floating point."
            ) from error

    def measured_unit(self) -> float:
        """RMS coordinate of the table's rows, zero ones left out, over `REFERENCE_RMS`; 1 where it is within 1%."""
        with self._gathered():
            squares = row_terms(self.weight, "euclidean")
        assert squares is not None
        used = squares[squares > 0]
        unit = float((used.mean() / self.weight.shape[1]).sqrt()) / REFERENCE_RMS if len(used) else 1.0
        return 1.0 if abs(unit - 1) < 0.01 or not math.isfinite(unit) else unit

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
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
        if self._allowed is None or len(self._allowed) != self.size:
            config = self.config
            resized = self.size != self._made_for
            with lasting_tensors():
                self._allowed = allowed_tokens(
                    self.weight,
                    self.tokenizer,
                    config.allowed_tokens,
                    [i for i in config.banned_token_ids or () if not resized or i < self.size],
                    config.banned_words or (),
                    config.special_token_ids or (),
                )
                self._allowed[self._made_for :] &= self.tokenizer is not None  # what was added means nothing yet
        return self._allowed

    @torch.no_grad()
    def nearest(self, latent: Tensor) -> Tensor:
        """(prompt,) ids of the allowed rows nearest to `latent` (prompt, dim)."""
        with self._gathered():
            terms = self._row_terms()
            return nearest_rows(latent, self.weight, self.metric, terms, self._blocked, self._equal)

    def least_steps(self, place: Tensor, step: Tensor, ids: Tensor) -> float:
        """As `stalled_search.least_steps` in this table."""
        with self._gathered():
            terms, table = self._row_terms(), self.weight
            assert self._blocked is not None
            place, step, ids = (x.to(table.device) for x in (place, step, ids))
            return least_steps(place, step, ids, table, self.metric, terms, self._blocked)

    def soft_choice(self, latent: Tensor, width: int) -> Tensor:
        """Softmax of the similarity over the allowed tokens, (prompt, width), with gradient to `latent`."""
        with self._gathered():
            scores = similarity(latent, self.weight, self.metric, self._row_terms())[:, :width]
        assert self._forbidden is not None
        scores = scores.masked_fill(self._forbidden[:width], -torch.inf)
        temperature = SOFT_CHOICE_TEMPERATURE[self.metric] * (1.0 if self.metric == "cosine" else self.unit**2)
        return (scores / temperature).softmax(-1)

    @torch.no_grad()
    def rows(self, ids: Tensor) -> Tensor:
        """(prompt, dim) the table's rows."""
        with self._gathered():
            return self.weight[ids.to(self.weight.device)].detach().to(ids.device)

    @torch.no_grad()
    def vectors(self, ids: Tensor) -> Tensor:
        """(prompt, dim) what the module makes of the ids: the rows, scaled in some models (Gemma)."""
        with self._gathered():
            if type(self.word_embeddings) is nn.Embedding and not _is_plain(self.word_embeddings.weight):
                return self.rows(ids)
            # `forward`, not the module: without hooks, since NEFTune's adds noise
            return self.word_embeddings.forward(ids.to(self.weight.device)).detach().to(ids.device)

    def _gathered(self) -> Any:
        return gather_params_ctx(self.word_embeddings.parameters())  # ZeRO-3 shards the table

    def _row_terms(self) -> Tensor | None:
        """The table's norms; they and all that depends on the table alone are made again only when it has changed."""
        table = self.weight
        key = (self.metric, table.data_ptr(), update_count(table), table.device, table.dtype)
        known = self._terms
        if known is None or known[0] != key:
            with lasting_tensors():
                terms = row_terms(table, self.metric)
                self._forbidden = ~self.allowed.to(table.device)
                never = self._forbidden if self.metric != "cosine" or terms is None else self._forbidden | (terms == 0)
                self._blocked, self._equal = never, equal_rows(table.detach(), never)
            self._terms = known = (key, terms)
        return known[1]

    @property
    def scales(self) -> bool:
        """Whether the module may return something else than rows (Gemma scales them)."""
        return type(self.word_embeddings) is not nn.Embedding or self.word_embeddings.max_norm is not None


def _is_plain(weight: Any) -> bool:
    """Whether it is a floating-point matrix that can be read like one: not packed, not sharded."""
    return (
        type(weight) in (nn.Parameter, Tensor) and weight.dim() in (1, 2) and weight.is_floating_point()
    )  # ZeRO-3 leaves an empty vector, which `_gathered` fills


def needs_tokenizer(config: InterpPromptConfig) -> bool:
    """Whether the config cannot be followed without the tokens' texts."""
    named = config.allowed_tokens != "all" or bool(config.banned_words) or bool(config.init_words)
    return named or config.prompt_tuning_init == PromptTuningInit.TEXT

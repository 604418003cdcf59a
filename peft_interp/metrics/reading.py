"""Reads any PEFT prompt adapter as text: the nearest token of every vector, and how near it is.

P_i = argmin_y D(f(y), vector_i) (arXiv 2504.02144), D the cosine distance. A small distance does not make the text an
explanation: a soft prompt can be trained to project to any text ("prompt waywardness", arXiv 2112.08348).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel, PeftType, PromptLearningConfig
from peft.utils.integrations import gather_params_ctx
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peft_interp.inference.eval_mode import eval_mode
from peft_interp.inference.model_lock import locked
from peft_interp.inference.models import base_model_of
from peft_interp.metrics.differentials import vector_distances
from peft_interp.metrics.results import TEXT, Neighbour, PromptReading, TokenReading
from peft_interp.text.placement import START, placement_named, placement_of
from peft_interp.text.token_filter import allowed_tokens
from peft_interp.text.tokenization import check_tokenizer, named_token_ids, token_texts
from peft_interp.tuner.config import InterpPromptConfig
from peft_interp.tuner.embedding import InterpPromptEmbedding
from peft_interp.tuner.projection import row_terms, similarity
from peft_interp.tuner.stored_config import PEFT_TYPE_NAME

_KEY_VALUES = (PeftType.PREFIX_TUNING, PeftType.CARTRIDGE)
_SPECIAL_NAMES = ("bos", "eos", "pad", "sep", "cls", "mask", "unk", "decoder_start")
_SAMPLE, _CHUNK = 512, 16  # tokens the typical distance is measured on; vectors compared with the table at a time


@dataclass(frozen=True)
class _Table:
    """The base model's embedding module, as what vectors are compared with.

    Attributes:
        module: the embedding module.
        weight: (vocabulary, dim).
        allowed: (vocabulary,) bool, tokens that a vector may be read as.
        scale: what the module multiplies its rows by (Gemma); 1 for others.
    """

    module: nn.Embedding
    weight: Tensor
    allowed: Tensor
    scale: float

    def made_of(self, ids: Tensor) -> Tensor:
        """(..., dim) what the module gives for the ids."""
        return self.module.forward(ids.to(self.weight.device)).detach()  # without hooks: NEFTune's adds noise


@locked
@torch.no_grad()
def read_prompt(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, adapter_name: str | None = None, neighbours: int = 5
) -> PromptReading:
    """What a prompt adapter says, token by token.

    Vectors that are exactly what the embedding module gives for a token are read as that token. Others are read as the
    nearest token by cosine; special, unused and zero-norm rows never win there.

    Args:
        model: a `PeftModel` with a prompt adapter of any method that has input vectors: ours, PROMPT_TUNING, P_TUNING,
            CPT.
        tokenizer: the base model's.
        adapter_name: None for the active one.
        neighbours: nearest tokens to list at each place.

    Returns:
        The reading. Distances are small or large only beside its `typical_cosine_distance`: how far a token of the
        table is from the nearest other one.

    Raises:
        ValueError: no `PeftModel`, no such adapter, no tokenizer, or a method without input vectors (prefix tuning) or
            with several prompts (multitask prompt tuning), for which no nearest token exists.
        FloatingPointError: the vectors are not finite.
    """
    config = prompt_config(model, adapter_name)
    check_tokenizer(tokenizer)
    name = adapter_name or model.active_adapter
    table_module: Any = model.word_embeddings
    with gather_params_ctx(table_module.parameters()):  # ZeRO-3 shards the table
        table = _table(model, tokenizer)
        vectors = prompt_vectors(model, name).to(table.weight.device)
        ids, exact = _exact_ids(vectors, table)
        nearest, distances = _neighbours(vectors, table, max(1, neighbours))
        encoder = model.prompt_encoder[name]
        if isinstance(encoder, InterpPromptEmbedding) and encoder.config.projects:
            ids, exact = encoder.prompt().ids.to(ids.device), torch.ones_like(exact)
        ids = torch.where(exact, ids, nearest[:, 0])
        typical_cosine, typical_euclidean = _typical_distances(table)
        cosine, euclidean = vector_distances(vectors.to(table.weight.dtype), table.made_of(ids))
    placement = placement_of(config)
    near = [dict(zip(x.tolist(), y.tolist(), strict=True)) for x, y in zip(nearest, distances, strict=True)]
    away = [cosine.tolist(), (euclidean / table.scale).tolist()]
    return PromptReading(
        method=PEFT_TYPE_NAME if isinstance(config, InterpPromptConfig) else PeftType(config.peft_type).value,
        text=placement.decode_prompt(tokenizer, ids.tolist()),
        tokens=_tokens(tokenizer, ids.tolist(), away, near, neighbours),
        discrete=bool(exact.all()),
        position=placement.name,
        typical_cosine_distance=typical_cosine,
        typical_euclidean_distance=typical_euclidean,
    )


def read_text(tokenizer: PreTrainedTokenizerBase, text: str, position: str = START.name) -> PromptReading:
    """A text that was written by hand, token by token, as `read_prompt` reads an adapter.

    Args:
        tokenizer: the base model's.
        text: the prompt; one that stands at the end gets the blank that parts it from the input, if it has none. Inside
            a template the blank in front is yours to write.
        position: where it stands, by its placement's name.

    Raises:
        ValueError: no tokenizer, or a text without tokens.
    """
    check_tokenizer(tokenizer)
    placement = placement_named(position)
    if placement.before_answer and text.strip() and not text[0].isspace():
        text = f" {text}"
    ids = placement.encode_prompt(tokenizer, text)
    if not ids:
        raise ValueError(f"`text={text!r}` has no tokens; give the prompt's words.")
    tokens = (TokenReading(i, piece, 0.0, 0.0) for i, piece in zip(ids, token_texts(tokenizer, ids), strict=True))
    return PromptReading(TEXT, text, tuple(tokens), True, position, 0.0, 0.0)


def _tokens(
    tokenizer: PreTrainedTokenizerBase,
    ids: list[int],
    away: list[list[float]],
    near: list[dict[int, float]],
    count: int,
) -> tuple[TokenReading, ...]:
    known = list(dict.fromkeys([*ids, *(i for place in near for i in place)]))
    texts = dict(zip(known, token_texts(tokenizer, known), strict=True))
    tokens = []
    for token, cosine, euclidean, place in zip(ids, *away, near, strict=True):
        listed = list(({token: cosine} | {i: far for i, far in place.items() if i != token}).items())[:count]
        neighbours = tuple(Neighbour(i, texts[i], far) for i, far in listed)
        tokens.append(TokenReading(token, texts[token], cosine, euclidean, neighbours))
    return tuple(tokens)


def prompt_config(model: PreTrainedModel | PeftModel, adapter_name: str | None = None) -> PromptLearningConfig:
    """The config of a prompt adapter.

    Raises:
        ValueError: no `PeftModel`, no adapter of that name, or one that is no prompt (LoRA).
    """
    if not isinstance(model, PeftModel):
        raise ValueError(
            f"`model` is {type(model).__name__}, which has no prompt adapter; pass the `PeftModel` that "
            "`get_peft_model` or `PeftModel.from_pretrained` returns."
        )
    configs, name = model.peft_config, adapter_name or model.active_adapter
    if name not in configs:
        raise ValueError(f"there is no adapter {name!r} here; adapters: {sorted(configs)}. Pass a PeftModel.")
    config = cast(PromptLearningConfig, configs[name])
    if not config.is_prompt_learning:
        method = PeftType(config.peft_type).value
        raise ValueError(
            f"adapter {name!r} is {method}, which changes weights and has no prompt; pass a prompt adapter."
        )
    return config


@locked
@torch.no_grad()
def prompt_vectors(model: PeftModel, adapter_name: str | None = None) -> Tensor:
    """(prompt, dim) the vectors that PEFT puts among the input embeddings.

    Raises:
        ValueError: a method that has none, or one for each task.
    """
    config = prompt_config(model, adapter_name)
    name, method = adapter_name or model.active_adapter, PeftType(config.peft_type)
    if method in _KEY_VALUES:
        raise ValueError(
            f"{method.value} trains keys and values inside the layers and puts no vectors among the input embeddings, "
            "so no token is nearest to them and there is no text to read; use a method with input vectors "
            "(INTERP_PROMPT, PROMPT_TUNING, P_TUNING)."
        )
    if method == PeftType.MULTITASK_PROMPT_TUNING:
        raise ValueError(
            f"{method.value} has another prompt for each task id, so there is no one text to read; save the prompt of "
            "one task as PROMPT_TUNING and read that."
        )
    encoder: Any = model.prompt_encoder[name]
    if config.inference_mode and method != PeftType.CPT:  # there PEFT reads the final vectors directly
        vectors = encoder.embedding.weight
    else:
        device = next(encoder.parameters()).device
        with eval_mode(encoder):  # P-tuning's has dropout
            vectors = encoder(model.prompt_tokens[name].unsqueeze(0).to(device))[0]
    vectors = vectors.detach()[: config.num_virtual_tokens]  # the rest is a second prompt that no forward reads
    if not torch.isfinite(vectors).all():
        raise FloatingPointError(f"the vectors of adapter {name!r} contain NaN or infinity; load another checkpoint.")
    return vectors


def _table(model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> _Table:
    module = cast(nn.Embedding, model.word_embeddings)
    weight = module.weight.detach()
    config = base_model_of(model).config
    special = [i for i in named_token_ids(config, _SPECIAL_NAMES) if 0 <= i < len(weight)]
    allowed = allowed_tokens(weight, tokenizer, banned_token_ids=special).to(weight.device)
    some = allowed.nonzero().flatten()[:8]
    made = module.forward(some).float().norm(dim=-1)
    return _Table(module, weight, allowed, (made / weight[some].float().norm(dim=-1)).median().item())


def _exact_ids(vectors: Tensor, table: _Table) -> tuple[Tensor, Tensor]:
    """For each vector the token that gives exactly it, allowed ones first, and whether there is one."""
    candidates = []
    for chunk in vectors.float().split(_CHUNK):
        scores = similarity(chunk / table.scale, table.weight, "euclidean", row_terms(table.weight, "euclidean"))
        candidates.append(scores.topk(min(8, scores.shape[-1]), dim=-1).indices)
    ids = torch.cat(candidates)  # (prompt, candidates)
    equal = (table.made_of(ids) == vectors.to(table.weight.dtype).unsqueeze(1)).all(dim=-1)
    rank = torch.where(equal, ids + len(table.weight) * (~table.allowed[ids]).long(), 2 * len(table.weight))
    best = rank.argmin(dim=-1, keepdim=True)
    return ids.gather(1, best).squeeze(1), equal.any(dim=-1)


def _neighbours(vectors: Tensor, table: _Table, count: int) -> tuple[Tensor, Tensor]:
    """(prompt, count) nearest allowed tokens by cosine, nearest first, and their cosine distances."""
    terms = row_terms(table.weight, "cosine")
    found, distances = [], []
    for chunk in vectors.float().split(_CHUNK):
        scores = similarity(chunk, table.weight, "cosine", terms).masked_fill(~table.allowed, -torch.inf)
        best = scores.topk(min(count, int(table.allowed.sum())), dim=-1)
        found.append(best.indices)
        distances.append((1 - best.values).clamp(0, 2))
    return torch.cat(found), torch.cat(distances)


def _typical_distances(table: _Table) -> tuple[float, float]:
    """Mean distance of a fixed sample of allowed tokens to the nearest other allowed token, cosine and euclidean."""
    usable = table.allowed.nonzero().flatten()
    if len(usable) < 2:
        return float("nan"), float("nan")
    sample = usable[torch.linspace(0, len(usable) - 1, min(_SAMPLE, len(usable))).long().to(usable.device)]
    inverse, squares = row_terms(table.weight, "cosine"), row_terms(table.weight, "euclidean")
    assert inverse is not None
    assert squares is not None
    cosine, euclidean = [], []
    for ids in sample.split(4 * _CHUNK):
        products = similarity(table.weight[ids], table.weight, "dot", None)  # (sample, vocabulary)
        blocked = (~table.allowed).expand_as(products).clone()
        blocked[torch.arange(len(ids)), ids] = True
        cosines = products * inverse * inverse[ids].unsqueeze(1)
        cosine.append((1 - cosines.masked_fill(blocked, -torch.inf).amax(-1)).clamp(0, 2))
        squared = squares + squares[ids].unsqueeze(1) - 2 * products
        euclidean.append(squared.masked_fill(blocked, torch.inf).amin(-1).clamp_min(0).sqrt())
    return torch.cat(cosine).mean().item(), torch.cat(euclidean).mean().item()

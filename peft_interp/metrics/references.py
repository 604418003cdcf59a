"""What a readability measure is for prompts that people wrote, for the same tokens shuffled, and for random tokens.

The levels belong to one model: 4 nats per token are good for a small model and poor for a large one. They are measured
once for each model and kept in memory as long as the model lives; nothing is stored on the model.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor

from peft_interp.inference.eval_mode import update_count
from peft_interp.inference.model_lock import locked
from peft_interp.inference.models import AnyModel, input_embeddings
from peft_interp.metrics.likelihood import language_model, mean_nll, token_nlls
from peft_interp.metrics.metric import REFERENCE_KINDS, Levels, Metric
from peft_interp.metrics.readability_metrics import METRICS, measure_tokens
from peft_interp.text.token_filter import allowed_tokens
from peft_interp.text.tokenization import encode_after, leading_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HUMAN_PROMPTS = Path(__file__).parent / "data" / "human_prompts.jsonl"
SEED = 0
LONGEST = 48  # tokens; few human prompts are longer


class _Sampled(NamedTuple):
    """What is kept for one model: the prompts with their token NLLs, and the levels measured so far."""

    prompts: dict[str, list[tuple[list[int], Tensor]]]
    levels: dict[tuple[int | None, tuple[Metric, ...]], Levels]


_levels: WeakKeyDictionary[Any, dict[Any, _Sampled]] = WeakKeyDictionary()


@cache
def human_prompts() -> tuple[str, ...]:
    """The human-written prompts that ship with the package; sources and licences stand in `metrics/data/README.md`."""
    lines = HUMAN_PROMPTS.read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line)["text"] for line in lines)


@locked
def reference_levels(
    model: AnyModel, tokenizer: PreTrainedTokenizerBase, length: int | None = None, metrics: Sequence[Metric] = METRICS
) -> Levels:
    """Measure human-written, shuffled and random prompts under a model, or return what was measured before.

    Args:
        model: a causal LM, or an adapter on one (then its base model is asked).
        tokenizer: its tokenizer.
        length: cut the prompts to this many tokens, since NLL depends on the length: the first tokens have little
            context. None leaves them whole, about 16 tokens.
        metrics: what is measured on them, of those that are `referenced`.

    Returns:
        The levels. The first call for a model runs it over 600 short prompts (two seconds of computing with the
        embedded model), a new length then takes a tenth of a second. They are measured anew when the model's weights
        have been updated in place.

    Raises:
        ValueError: no causal LM, or `length` below 2, where there is nothing to predict.
    """
    if length is not None and length < 2:
        raise ValueError(f"`length={length}` must be >= 2: the first token's likelihood is not measured.")
    base = language_model(model)
    known = _levels.setdefault(base, {})
    updates = sum(update_count(parameter) for parameter in base.parameters())
    key = (tokenizer.name_or_path, len(tokenizer), updates)
    if key not in known:
        for stale in [other for other in known if other[-1] != updates]:
            del known[stale]
        known[key] = _Sampled(_sample(base, tokenizer), {})
    sampled = known[key]
    length = None if length is None or length >= LONGEST else length
    wanted = (length, tuple(metrics))
    if wanted not in sampled.levels:
        sampled.levels[wanted] = _measure(tokenizer, sampled.prompts, length, metrics)
    return sampled.levels[wanted]


def levels_after(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, length: int) -> Levels:
    """`nll` of human-written prompts after a text, which predicts their first token too; not kept.

    Args:
        model: a causal LM.
        tokenizer: its tokenizer.
        text: what stands in front; the prompts follow after a blank.
        length: cut the prompts to this many tokens.
    """
    front = tokenizer.encode(text.rstrip(), add_special_tokens=False)
    prompts = [encode_after(tokenizer, f" {prompt}")[:length] for prompt in human_prompts()]
    nlls = token_nlls(model, [[*front, *ids] for ids in prompts], leading_ids(tokenizer))
    values = tuple(mean_nll(found[max(len(front) - 1, 0) :]) for found in nlls)
    return Levels({"nll": values}, {}, {})


def human_perplexity(
    model: AnyModel, tokenizer: PreTrainedTokenizerBase, percentile: float = 50.0, length: int | None = None
) -> float:
    """The perplexity that so many percent of human-written prompts reach: a target for `target_perplexity`.

    Args:
        model: as for `reference_levels`.
        tokenizer: its tokenizer.
        percentile: 0 (the likeliest of them) to 100 (the least likely).
        length: as for `reference_levels`.

    Returns:
        exp of the NLL per token, > 1.

    Raises:
        ValueError: a percentile outside 0 to 100, or what `reference_levels` raises.
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"`percentile={percentile}` must be in [0, 100].")
    levels = reference_levels(model, tokenizer, length)
    human = sorted(nll for nll in levels.human["nll"] if not math.isnan(nll))
    place = percentile / 100 * (len(human) - 1)
    low = math.floor(place)
    return math.exp(human[low] + (place - low) * (human[math.ceil(place)] - human[low]))


def _sample(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[tuple[list[int], Tensor]]]:
    """By kind, ids and token NLLs of whole prompts; a prompt cut short keeps the NLLs of its tokens."""
    human = [ids for ids in tokenizer(list(human_prompts()), add_special_tokens=False)["input_ids"] if len(ids) >= 2]
    rng = random.Random(SEED)
    allowed = allowed_tokens(input_embeddings(base).weight, tokenizer).nonzero().flatten().tolist()
    sequences = {
        "human": human,
        "shuffled": [rng.sample(ids, len(ids)) for ids in human],
        "random": [rng.choices(allowed, k=len(ids)) for ids in human],
    }
    nlls = token_nlls(base, [ids for kind in REFERENCE_KINDS for ids in sequences[kind]], leading_ids(tokenizer))
    found = iter(nlls)
    return {kind: [(ids, next(found)) for ids in sequences[kind]] for kind in REFERENCE_KINDS}


def _measure(
    tokenizer: PreTrainedTokenizerBase,
    prompts: dict[str, list[tuple[list[int], Tensor]]],
    length: int | None,
    metrics: Sequence[Metric],
) -> Levels:
    values = {}
    for kind, pairs in prompts.items():
        cut = [(ids, nlls) if length is None else (ids[:length], nlls[: length - 1]) for ids, nlls in pairs]
        rows = [measure_tokens(tokenizer, ids, nlls, metrics=metrics) for ids, nlls in cut]
        values[kind] = {name: tuple(row[name] for row in rows) for name in rows[0]}
    return Levels(**values)

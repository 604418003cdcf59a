"""Examples, prompts, and the scores that plain forward passes of single, unpadded rows give."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest
import torch
from transformers import (
    BertForMaskedLM,
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

Build: TypeAlias = Callable[..., Any]
VOCAB_SIZE = 64
PAD, BOS, EOS, MASK = 0, 1, 2, 3
LABELS = [5, 9, 7]
SPECIAL = {"vocab_size": VOCAB_SIZE, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
SHAPE = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
WIDE = {"initializer_range": 0.2, "max_position_embeddings": 64}
GROUPED = {"num_key_value_heads": 1}


def roberta() -> PreTrainedModel:
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return RobertaForMaskedLM(RobertaConfig(**SPECIAL, **SHAPE, **WIDE, **dropout, type_vocab_size=1))


def opt() -> PreTrainedModel:
    shape = {"num_hidden_layers": 2, "hidden_size": 32, "ffn_dim": 64, "num_attention_heads": 2, "init_std": 0.2}
    width = {"word_embed_proj_dim": 32, "max_position_embeddings": 64}
    return OPTForCausalLM(OPTConfig(**SPECIAL, **shape, **width, dropout=0.0))


def bloom() -> PreTrainedModel:
    dropout = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
    return BloomForCausalLM(
        BloomConfig(**SPECIAL, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.2, **dropout)
    )


OTHERS: dict[str, Callable[[], PreTrainedModel]] = {
    "roberta": roberta,
    "opt": opt,
    "bloom": bloom,
    # soft cap on the logits, sliding window
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SPECIAL, **SHAPE, **WIDE, **GROUPED, head_dim=16, sliding_window=4, query_pre_attn_scalar=16)
    ),
    # scaled logits
    "cohere": lambda: CohereForCausalLM(CohereConfig(**SPECIAL, **SHAPE, **WIDE, **GROUPED)),
    # bias in the head
    "phi": lambda: PhiForCausalLM(PhiConfig(**SPECIAL, **SHAPE, **WIDE, resid_pdrop=0.0, embd_pdrop=0.0)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SPECIAL, **SHAPE, **WIDE, **GROUPED, sliding_window=4)),
}


@pytest.fixture
def language_model(gpt2: Build, llama: Build, bert: Build) -> Build:
    """`language_model("llama")`: tiny, random weights, evaluation mode."""

    def build(name: str) -> PreTrainedModel:
        if name in ("gpt2", "llama"):
            return {"gpt2": gpt2, "llama": llama}[name]()
        if name == "bert":
            return bert(BertForMaskedLM)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = OTHERS[name]().eval()
        if name == "phi":
            torch.nn.init.normal_(model.lm_head.bias)
        return model

    return build


@pytest.fixture
def examples() -> Build:
    """`examples(bos="no", labelled="last", count=7, masked=False)`: rows of 4 to 9 tokens.

    `bos`: in "no", "some" or "all". `labelled`: the "last" token, the last "few" (1 to 3, one of them left out), or
    "all"; `masked` hides them.
    """

    def build(
        bos: str = "no", labelled: str = "last", count: int = 7, masked: bool = False
    ) -> list[dict[str, list[int]]]:
        dice, rows = random.Random(0), []
        for number in range(count):
            lead = [BOS] if bos == "all" or (bos == "some" and number % 2) else []
            ids = lead + [dice.randint(4, VOCAB_SIZE - 1) for _ in range(dice.randint(4, 9))]
            known = {"last": 1, "few": dice.randint(1, 3), "all": len(ids)}[labelled]
            labels = [-100] * (len(ids) - known) + ids[len(ids) - known :]
            if labelled == "few" and known == 3:
                labels[-2] = -100
            if masked:
                ids = [i if label == -100 else MASK for i, label in zip(ids, labels, strict=True)]
            rows.append({"input_ids": ids, "labels": labels})
        return rows

    return build


@pytest.fixture
def prompts() -> list[list[int]]:
    """Of 1 to 5 tokens, with common beginnings, and one that is empty."""
    dice = random.Random(1)
    return [[], *([dice.randint(4, 7) for _ in range(dice.randint(1, 5))] for _ in range(8))]


def insert(row: dict[str, list[int]], prompt: Sequence[int], position: str) -> tuple[list[int], list[int]]:
    ids, labels = row["input_ids"], row["labels"]
    lead = 1 if ids[0] == BOS else 0
    place = lead
    if position == "end":
        place = next(i for i in range(lead, len(ids)) if labels[i] != -100)
    return [*ids[:place], *prompt, *ids[place:]], [*labels[:place], *[-100] * len(prompt), *labels[place:]]


@pytest.fixture
def plain_scores() -> Build:
    """`plain_scores(model, rows, prompts, position)`: label log-probabilities and losses, pair by pair."""

    @torch.no_grad()
    def score(
        model: PreTrainedModel, rows: Sequence[Any], prompts: Sequence[Sequence[int]], position: str, shift: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        words = torch.empty(len(prompts), len(rows), len(LABELS))
        losses = torch.empty(len(prompts), len(rows))
        for i, prompt in enumerate(prompts):
            for j, row in enumerate(rows):
                ids, labels = insert(row, prompt, position)
                output = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]))
                lead = 1 if ids[0] == BOS else 0
                first = next(k for k in range(lead, len(ids)) if labels[k] != -100)
                words[i, j] = output.logits[0, first - shift, LABELS].float().log_softmax(-1)
                losses[i, j] = output.loss.float()
        return words, losses

    return score


@pytest.fixture
def passes_of() -> Build:
    """`with passes_of(model) as shapes`: (batch, length) of every forward pass, while open."""

    @contextmanager
    def record(model: PreTrainedModel) -> Iterator[list[tuple[int, int]]]:
        shapes: list[tuple[int, int]] = []
        hook = model.get_input_embeddings().register_forward_pre_hook(
            lambda _, args: shapes.append(tuple(args[0].shape))
        )
        try:
            yield shapes
        finally:
            hook.remove()

    return record

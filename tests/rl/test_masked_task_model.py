"""A masked LM as the task model (RLPrompt's RoBERTa): the label stands at the mask, a causal LM is the policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, RobertaConfig, RobertaForMaskedLM

from peft_interp import Verbalizer, text_nll

Build = Callable[..., Any]
MASK = 3
LABELS = [5, 6]
ROWS = [
    {"input_ids": [1, 7 + i, 8, MASK, 4, 2], "labels": [-100, -100, -100, LABELS[i % 2], -100, -100]} for i in range(4)
]


@pytest.fixture
def roberta() -> Build:
    """`roberta()`: the same weights at every call."""

    def build() -> PreTrainedModel:
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 64}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = RobertaConfig(max_position_embeddings=64, initializer_range=0.2, **shape, **special)
            return RobertaForMaskedLM(config).eval()

    return build


@pytest.fixture
def masked(searcher: Build, prompted: Build, roberta: Build) -> Build:
    """`masked(options, **arguments)`: a search for the masked LM."""

    def build(options: dict[str, Any], **arguments: Any) -> Any:
        data = {"train_dataset": ROWS, "eval_dataset": ROWS, "verbalizer": Verbalizer("{text}", ("w5", "w6"))}
        model = prompted(roberta(), task_type="FEATURE_EXTRACTION")
        return searcher(model, options={**data, **options}, **arguments)

    return build


def test_a_search_scores_the_answer_at_the_mask(masked: Build, gpt2: Build, roberta: Build) -> None:
    trainer = masked({"policy_model": gpt2()}, max_steps=20, eval_strategy="steps", eval_steps=10)
    before = trainer.evaluate()["eval_reward"]
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_reward"] > before
    prompt = trainer.model.prompt_token_ids()
    ids = torch.tensor([row["input_ids"][:1] + prompt + row["input_ids"][1:] for row in ROWS])
    logits = roberta()(input_ids=ids).logits[:, 3 + len(prompt), LABELS]  # (rows, labels) at the mask
    gold = torch.tensor([0, 1, 0, 1])
    expected = torch.nn.functional.cross_entropy(logits, gold).item()
    assert metrics["eval_loss"] == pytest.approx(expected, abs=1e-5)
    assert metrics["eval_accuracy"] == (logits.argmax(-1) == gold).float().mean().item()


def test_readability_needs_a_judge(masked: Build, gpt2: Build) -> None:
    policy = gpt2()
    with pytest.raises(ValueError, match=r"needs a causal language model.*`judge_model`"):
        masked({"policy_model": policy}, perplexity_reward_weight=0.3)
    trainer = masked({"policy_model": policy, "judge_model": policy}, perplexity_reward_weight=0.3, max_steps=1)
    trainer.train()
    record = trainer.search.archive.records[0]
    assert record.scores["nll"] == pytest.approx(text_nll(policy, record.ids), abs=1e-5)


def test_a_masked_lm_cannot_be_the_policy(masked: Build) -> None:
    with pytest.raises(ValueError, match=r"RobertaForMaskedLM cannot be the policy.*Pass one as `policy_model`"):
        masked({})

"""A masked LM as the task model (RLPrompt's RoBERTa): the label stands at the mask, a causal LM is the policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tokenizers import processors
from transformers import PreTrainedModel, RobertaConfig, RobertaForMaskedLM

from peft_interp import Verbalizer, text_nll
from peft_interp.scoring.rewards import gap_reward
from peft_interp.text.tokenization import leading_ids

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
    """`masked(options, position="start", **arguments)`: a search for the masked LM."""

    def build(options: dict[str, Any], position: str = "start", **arguments: Any) -> Any:
        template = "{text} {prompt}" if position == "end" else "{text}"
        data = {"train_dataset": ROWS, "eval_dataset": ROWS, "verbalizer": Verbalizer(template, ("w5", "w6"))}
        place = {"prompt_position": position, "mask_token_id": MASK}
        model = prompted(roberta(), task_type="FEATURE_EXTRACTION", **place)
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


def test_the_prompt_may_stand_before_the_mask(
    masked: Build, gpt2: Build, roberta: Build, tokenizer: Any, tmp_path: Path
) -> None:
    """RLPrompt's `{text} {prompt} <mask>`: search, save, load, and put the text there by hand: the same reward."""
    trainer = masked({"policy_model": gpt2()}, "end", max_steps=10, eval_strategy="steps", eval_steps=5)
    before = trainer.evaluate()["eval_reward"]
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_reward"] > before
    trainer.save_model(str(tmp_path / "adapter"))
    adapter = PeftModel.from_pretrained(roberta(), str(tmp_path / "adapter")).eval()
    prompt = tokenizer.encode(adapter.prompt_text(tokenizer), add_special_tokens=False)
    assert prompt == adapter.prompt_token_ids()
    by_hand = torch.tensor([row["input_ids"][:3] + prompt + row["input_ids"][3:] for row in ROWS])
    place, gold = 3 + len(prompt), torch.tensor([0, 1, 0, 1])
    assert by_hand[:, place].eq(MASK).all()
    texts = roberta()(input_ids=by_hand).logits[:, place, LABELS]  # (rows, labels)
    own = adapter(input_ids=torch.tensor([row["input_ids"] for row in ROWS])).logits[:, place, LABELS]
    for logits in (texts, own):
        reward = gap_reward(logits.log_softmax(-1).unsqueeze(0), gold).item()
        assert metrics["eval_reward"] == pytest.approx(reward, abs=1e-2)
        loss = torch.nn.functional.cross_entropy(logits, gold).item()
        assert metrics["eval_loss"] == pytest.approx(loss, abs=1e-5)


def test_a_masked_lm_must_not_see_the_answer(masked: Build, gpt2: Build) -> None:
    causal = [{"input_ids": [1, 7, LABELS[0]], "labels": [-100, -100, LABELS[0]]}]
    with pytest.raises(ValueError, match=r"row 0 shows a masked language model its own answer.*mask token"):
        masked({"policy_model": gpt2(), "train_dataset": causal}).train()


def test_text_and_label_are_asked_at_a_mask(masked: Build, gpt2: Build, sentences: Build, tokenizer: Any) -> None:
    rows = sentences(2)
    data = {"policy_model": gpt2(), "train_dataset": rows, "eval_dataset": rows}
    with pytest.raises(ValueError, match=r"its tokenizer names no mask token"):
        masked(data, "end")
    tokenizer.mask_token = "w3"
    around = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])  # as RoBERTa's
    tokenizer.backend_tokenizer.post_processor = around
    trainer = masked(data, "end")
    for row, encoded in zip(rows, trainer.search.train.rows, strict=True):
        text = tokenizer.encode(row["sentence"], add_special_tokens=False)
        assert encoded["input_ids"] == [1, *text, MASK, 2]
        assert encoded["labels"] == [-100, *[-100] * len(text), LABELS[row["label"]], -100]


def test_a_mark_inside_the_template_is_kept_at_a_mask(
    masked: Build, gpt2: Build, roberta: Build, sentences: Build, tokenizer: Any
) -> None:
    rows = sentences(4)
    tokenizer.mask_token = "w3"
    task = Verbalizer("w9 {prompt}\n{text}", ("w5", "w6"))
    data = {"policy_model": gpt2(), "train_dataset": rows, "eval_dataset": rows, "verbalizer": task}
    trainer = masked(data, "template", max_steps=1)
    assert trainer.model.active_peft_config.prompt_position == "template"
    for row in trainer.search.train.rows:
        assert row["attention_mask"].count(0) == 1
    trainer.train()
    prompt, losses = trainer.model.prompt_token_ids(), []
    for row in trainer.search.train.rows:
        at = row["attention_mask"].index(0)
        ids = torch.tensor([[*row["input_ids"][:at], *prompt, *row["input_ids"][at + 1 :]]])
        label = next(label for label in row["labels"] if label != -100)
        with torch.no_grad():
            scores = roberta()(input_ids=ids).logits[0, ids[0].tolist().index(MASK), LABELS]
        losses.append(-scores.log_softmax(-1)[LABELS.index(label)].item())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_readability_needs_a_judge(masked: Build, gpt2: Build) -> None:
    policy = gpt2()
    with pytest.raises(ValueError, match=r"needs a causal language model.*`perplexity_model`"):
        masked({"policy_model": policy}, perplexity_reward_weight=0.3)
    trainer = masked({"policy_model": policy, "perplexity_model": policy}, perplexity_reward_weight=0.3, max_steps=1)
    trainer.train()
    record = trainer.search.archive.records[0]
    front = leading_ids(trainer.processing_class)
    assert record.scores["nll"] == pytest.approx(text_nll(policy, record.ids, front), abs=1e-5)


def test_a_masked_lm_cannot_be_the_policy(masked: Build) -> None:
    with pytest.raises(ValueError, match=r"RobertaForMaskedLM cannot be the policy.*Pass one as `policy_model`"):
        masked({})

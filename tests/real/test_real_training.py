"""Training on SmolLM2: the objective is alive, rows stay exact, and the loss falls."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from peft_interp import PromptCallback, embedded

Build = Callable[..., Any]
TASK = embedded.TASKS["sentiment"]


def train(model: Any, tokenizer: Any, reviews: list[dict[str, Any]], folder: Path, steps: int = 3) -> Trainer:
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        learning_rate=0.3,
        lr_scheduler_type="constant",
        per_device_train_batch_size=4,
        use_cpu=True,
        dataloader_pin_memory=False,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=1,
        seed=0,
    )
    rows = [TASK.encode(tokenizer, row["sentence"], row["label"]) for row in reviews]
    trainer = Trainer(
        model,
        args,
        DataCollatorForSeq2Seq(tokenizer),
        train_dataset=rows,
        callbacks=[PromptCallback(tokenizer)],
    )
    trainer.train()
    return trainer


def test_pez_with_perplexity(
    adapter: Build, tokenizer: Any, reviews: list[dict[str, Any]], tmp_path: Path, base: Any
) -> None:
    model = adapter(perplexity_weight=0.3, banned_words=list(TASK.label_words))
    encoder = model.prompt_encoder["default"]
    before = {name: value.detach().clone() for name, value in encoder.named_parameters()}
    first = model.prompt_token_ids()
    trainer = train(model, tokenizer, reviews, tmp_path)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    assert all(math.isfinite(loss) for loss in losses)
    changed = [name for name, value in encoder.named_parameters() if not torch.equal(value, before[name])]
    assert changed, "nothing was trained"
    ids = model.prompt_token_ids()
    assert ids != first
    table = base.get_input_embeddings().weight
    rows = model.get_prompt(batch_size=1)[0].detach()
    assert torch.equal(rows.to(table.dtype), table[ids].detach())  # bit for bit
    assert tokenizer.encode(model.prompt_text(tokenizer)) == list(ids)


def test_the_perplexity_term_knows_a_sentence_from_random_words(
    adapter: Build, worded: Any, tokenizer: Any, reviews: list[dict[str, Any]]
) -> None:
    batch = DataCollatorForSeq2Seq(tokenizer)([TASK.encode(tokenizer, r["sentence"], r["label"]) for r in reviews[:2]])
    nlls = []
    for model in (worded, adapter()):
        model.active_peft_config.perplexity_weight = 1.0
        loss = model.train()(**batch).loss
        loss.backward()
        assert model.prompt_encoder["default"].latent.grad.abs().sum() > 0
        nlls.append(model.prompt_statistics()["prompt_nll"])
    assert nlls[0] < nlls[1] - 2

"""A Trainer's loss in which the label prior counts for nothing, with PEZ and with stock prompt tuning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from peft_interp import InterpPromptConfig, Verbalizer, calibrated_loss, embedded

TASK = embedded.TASKS["sentiment"]


@pytest.fixture(scope="module")
def rows() -> Any:
    data = embedded.load_data("sentiment")["train"].select(range(24))
    return TASK.encode_dataset(embedded.load_tokenizer(), data)


def trainer_of(config: Any, rows: Any, folder: Any, **options: Any) -> Trainer:
    torch.manual_seed(0)
    tokenizer = embedded.load_tokenizer()
    model: Any = get_peft_model(embedded.load_model(), config)
    args = TrainingArguments(
        str(folder),
        per_device_train_batch_size=12,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        use_cpu=True,
        dataloader_pin_memory=False,
        **options,
    )
    return Trainer(
        model=model,
        args=args,
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        compute_loss_func=calibrated_loss(tokenizer, TASK),
    )


def ours() -> Any:
    return InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, align_logits_with_labels=True)


def stock() -> Any:
    return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)


@pytest.mark.parametrize("config", [ours, stock])
def test_the_loss_by_hand(config: Any, rows: Any, tmp_path: Any) -> None:
    trainer = trainer_of(config(), rows, tmp_path)
    batch = trainer.data_collator([rows[i] for i in range(6)])
    found = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=torch.tensor(6))
    words, scores, gold = TASK.label_token_ids(embedded.load_tokenizer()), [], []
    for i in range(6):
        row = {name: torch.tensor([values[:-1]]) for name, values in rows[i].items() if name != "labels"}
        logits = trainer.model(**row).logits[0, -1]
        scores.append(logits[words].log_softmax(-1))
        gold.append(words.index(rows[i]["labels"][-1]))
    table = torch.stack(scores)
    calibrated = (table - table.mean(0)).log_softmax(-1)
    expected = -calibrated[range(6), gold].mean()
    torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=1e-5)


def test_a_prior_is_not_learned_and_the_prompt_is(rows: Any, tmp_path: Any) -> None:
    """Making one label likelier everywhere changes no loss; training by it changes the prompt."""
    loss = calibrated_loss(embedded.load_tokenizer(), TASK)
    words = TASK.label_token_ids(embedded.load_tokenizer())
    logits, labels = torch.randn(4, 3, 6144), torch.full((4, 3), -100)
    labels[:, 2] = torch.tensor([words[i] for i in (0, 1, 1, 0)])
    raised = logits.clone()
    raised[:, :, words[0]] += 5.0
    torch.testing.assert_close(
        loss({"logits": logits}, labels, None), loss({"logits": raised}, labels, None), atol=1e-5, rtol=1e-5
    )
    trainer = trainer_of(ours(), rows, tmp_path, max_steps=3, learning_rate=0.3, optim="sgd")
    before = trainer.model.prompt_encoder["default"].latent.detach().clone()
    trainer.train()
    assert not torch.equal(before, trainer.model.prompt_encoder["default"].latent)


def test_mistakes_are_named(rows: Any) -> None:
    tokenizer = embedded.load_tokenizer()
    loss = calibrated_loss(tokenizer, TASK)
    labels = torch.tensor([[-100, -100, TASK.label_token_ids(tokenizer)[0]]])
    with pytest.raises(ValueError, match="of a single row nothing is left"):
        loss({"logits": torch.randn(1, 3, 6144)}, labels, None)
    with pytest.raises(ValueError, match=r"exactly one label, a label word; .* \(terrible, great\)"):
        loss({"logits": torch.randn(2, 3, 6144)}, torch.tensor([[-100, -100, 5]] * 2), None)
    with pytest.raises(ValueError, match="has its prompt at the end; `calibrated_loss` needs it at the start"):
        calibrated_loss(tokenizer, Verbalizer("{text} {prompt}", TASK.label_words))

"""Other people's scripts: PEFT's prompt-tuning notebooks, run_clm, run_glue, accelerate loops.

Each is our own, does the same steps on tiny local models and data, and is run twice: stock, and with the config line
changed. What a script reports must come out of both; the readable one must have moved its tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    PeftModel,
    PromptTuningConfig,
    PromptTuningInit,
    get_peft_model,
)
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    default_data_collator,
    get_linear_schedule_with_warmup,
    pipeline,
)

from peft_interp import InterpPromptConfig
from tests.builders import bert, gpt2, t5

Build = Callable[..., Any]
TWEETS = ["w5 w6 w7", "w8 w9", "w10 w11 w12 w13", "w14 w15 w16"] * 4
LABELS = ["w20", "w21", "w20", "w21"] * 4

pytestmark = [
    pytest.mark.parametrize("config_class", [PromptTuningConfig, InterpPromptConfig]),
    pytest.mark.filterwarnings("ignore:Position ids are not supported"),
]


@pytest.fixture
def saved(tmp_path: Path, tokenizer_dir: Path) -> Callable[[Any], str]:
    """`saved(model)`: a folder with the model and its tokenizer, as the hub would give it."""

    def save(model: Any) -> str:
        folder = tmp_path / "base"
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(folder)
        return str(folder)

    return save


def ids_of(model: Any) -> Any:
    return model.prompt_token_ids() if hasattr(model, "prompt_token_ids") else None


def loop(model: Any, rows: list[dict[str, Any]], epochs: int = 3) -> list[float]:
    """The notebooks' own training loop."""
    before = ids_of(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.3)
    loader = DataLoader(rows, shuffle=True, collate_fn=default_data_collator, batch_size=8)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, len(loader) * epochs)
    losses = []
    for _ in range(epochs):
        model.train()
        for batch in loader:
            loss = model(**batch).loss
            losses.append(float(loss.detach()))
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    assert np.isfinite(losses).all()
    assert before is None or ids_of(model) != before
    return losses


def causal_rows(tokenizer: Any, length: int = 10) -> list[dict[str, Any]]:
    """Left-padded `tweet label`, loss on the label: the clm notebook's preprocessing."""
    rows = []
    for text, label in zip(TWEETS, LABELS, strict=True):
        ids, answer = tokenizer(text)["input_ids"], tokenizer(label, add_special_tokens=False)["input_ids"]
        pads = length - len(ids) - len(answer)
        rows.append(
            {
                "input_ids": [tokenizer.pad_token_id] * pads + ids + answer,
                "attention_mask": [0] * pads + [1] * (len(ids) + len(answer)),
                "labels": [-100] * (pads + len(ids)) + answer,
            }
        )
    return rows


def test_peft_prompt_tuning_clm(config_class: Any, saved: Any, tmp_path: Path) -> None:
    name = saved(gpt2())
    tokenizer = AutoTokenizer.from_pretrained(name)
    config = config_class(
        task_type="CAUSAL_LM",
        prompt_tuning_init=PromptTuningInit.TEXT,
        num_virtual_tokens=4,
        prompt_tuning_init_text="w30 w31 w32 w33",
        tokenizer_name_or_path=name,
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(name), config)
    loop(model, causal_rows(tokenizer))
    model.save_pretrained(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(name)
    again = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    inputs = tokenizer(TWEETS[0], return_tensors="pt")
    options = {"max_new_tokens": 4, "eos_token_id": None, "pad_token_id": 0, "do_sample": False}
    with torch.no_grad():
        out = again.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], **options)
        assert torch.equal(out, model.eval().generate(**inputs, **options))
    assert out.shape == (1, inputs["input_ids"].shape[1] + 4)
    assert ids_of(again) == ids_of(model)


@pytest.mark.parametrize("with_generate", [False, True])
def test_peft_prompt_tuning_seq2seq(config_class: Any, with_generate: bool, saved: Any, tmp_path: Path) -> None:
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

    name = saved(t5())
    tokenizer = AutoTokenizer.from_pretrained(name)
    config = config_class(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4, tokenizer_name_or_path=name)
    from transformers import AutoModelForSeq2SeqLM

    model = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(name), config)
    encoded = tokenizer(TWEETS, padding="max_length", max_length=6, truncation=True)
    answers = tokenizer(LABELS, add_special_tokens=False)["input_ids"]
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": answer}
        for ids, mask, answer in zip(encoded["input_ids"], encoded["attention_mask"], answers, strict=True)
    ]
    args = Seq2SeqTrainingArguments(
        str(tmp_path / "run"), max_steps=6, learning_rate=1.0, use_cpu=True, report_to=[], disable_tqdm=True,
        eval_strategy="no", save_strategy="no", predict_with_generate=with_generate, generation_max_length=4,
        dataloader_pin_memory=False,
    )  # fmt: skip
    seen: list[Any] = []

    def metrics(found: Any) -> dict[str, float]:
        seen.append(found.predictions)
        return {"rows": float(len(found.label_ids))}

    trainer = Seq2SeqTrainer(
        model=model, args=args, train_dataset=rows, eval_dataset=rows, compute_metrics=metrics,
        data_collator=default_data_collator,
    )  # fmt: skip
    trainer.train()
    assert trainer.evaluate()["eval_rows"] == len(rows)
    if with_generate:
        assert seen[0].shape[0] == len(rows)


def test_run_clm(config_class: Any, saved: Any, tmp_path: Path) -> None:
    """Blocks of text, the language-modelling collator, accuracy in `compute_metrics`."""
    name = saved(gpt2())
    tokenizer = AutoTokenizer.from_pretrained(name)
    rows = [{"input_ids": tokenizer(text, padding="max_length", max_length=6)["input_ids"]} for text in TWEETS]
    config = config_class(task_type="CAUSAL_LM", num_virtual_tokens=4, **_aligned(config_class))
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(name), config)

    def metrics(found: Any) -> dict[str, float]:
        predictions, labels = found
        predictions = predictions[:, -labels.shape[1] :]
        wanted = labels[:, 1:] != -100
        return {"accuracy": float((predictions[:, :-1] == labels[:, 1:])[wanted].mean())}

    args = TrainingArguments(
        str(tmp_path / "run"), max_steps=4, learning_rate=0.3, use_cpu=True, report_to=[], disable_tqdm=True,
        save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        compute_metrics=metrics,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(dim=-1),
    )
    trainer.train()
    assert 0 <= trainer.evaluate()["eval_accuracy"] <= 1


def _aligned(config_class: Any) -> dict[str, Any]:
    return {"align_logits_with_labels": True} if config_class is InterpPromptConfig else {}


def test_run_glue(config_class: Any, saved: Any, tmp_path: Path) -> None:
    name = saved(bert())
    tokenizer = AutoTokenizer.from_pretrained(name)
    rows = [{**tokenizer(text, padding="max_length", max_length=6), "label": i % 2} for i, text in enumerate(TWEETS)]
    model = get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(name),
        config_class(task_type="SEQ_CLS", num_virtual_tokens=4),
    )
    args = TrainingArguments(
        str(tmp_path / "run"), max_steps=4, learning_rate=0.1, use_cpu=True, report_to=[], disable_tqdm=True,
        save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip

    def metrics(found: Any) -> dict[str, float]:
        return {"accuracy": float((found.predictions.argmax(axis=-1) == found.label_ids).mean())}

    trainer = Trainer(model=model, args=args, train_dataset=rows, eval_dataset=rows, compute_metrics=metrics)
    trainer.train()
    assert 0 <= trainer.evaluate()["eval_accuracy"] <= 1


def test_an_accelerate_loop_in_bf16_with_accumulation(config_class: Any, saved: Any) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    name = saved(gpt2())
    rows = causal_rows(AutoTokenizer.from_pretrained(name))
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(name), config_class(task_type="CAUSAL_LM", num_virtual_tokens=4)
    )
    first = ids_of(model)
    accelerator = Accelerator(mixed_precision="bf16", gradient_accumulation_steps=2, cpu=True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.3)
    loader = DataLoader(rows, collate_fn=default_data_collator, batch_size=4)
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    try:
        for _ in range(3):
            for batch in loader:
                with accelerator.accumulate(wrapped):
                    loss = wrapped(**batch).loss
                    accelerator.backward(loss)
                    accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
        assert torch.isfinite(loss)
        plain = accelerator.unwrap_model(wrapped)
        if first is not None:
            assert ids_of(plain) != first
            assert plain.prompt_statistics()["step"] == 6
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


@pytest.mark.filterwarnings("ignore")
def test_pipeline_and_auto_peft(config_class: Any, saved: Any, tmp_path: Path) -> None:
    name = saved(gpt2())
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(name), config_class(task_type="CAUSAL_LM", num_virtual_tokens=4)
    )
    model.save_pretrained(tmp_path / "adapter")
    again = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "adapter")).eval()
    options = {"max_new_tokens": 3, "do_sample": False}
    written = pipeline("text-generation", model=again, tokenizer=tokenizer)(TWEETS[0], **options)
    assert written == pipeline("text-generation", model=model.eval(), tokenizer=tokenizer)(TWEETS[0], **options)
    assert written[0]["generated_text"].startswith(TWEETS[0])


@pytest.mark.filterwarnings("ignore")
def test_trls_prompt_tuning_example(config_class: Any, saved: Any, tmp_path: Path) -> None:
    """SFT on prompts and completions, the PEFT config handed to the trainer; saved, and loaded by PEFT."""
    import datasets
    import trl

    name, folder = saved(gpt2()), tmp_path / "adapter"
    rows = datasets.Dataset.from_dict({"prompt": TWEETS, "completion": [f" {label}" for label in LABELS]})
    args = trl.SFTConfig(
        str(tmp_path / "run"), max_steps=4, learning_rate=0.5, use_cpu=True, bf16=False, report_to="none",
        gradient_checkpointing=False, disable_tqdm=True, save_strategy="no", eval_strategy="no", logging_steps=1,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(name),
        args=args,
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(name),
        peft_config=config_class(
            task_type="CAUSAL_LM",
            prompt_tuning_init=PromptTuningInit.TEXT,
            num_virtual_tokens=4,
            prompt_tuning_init_text="w30 w31 w32 w33",
            tokenizer_name_or_path=name,
        ),
    )
    before = ids_of(trainer.model)
    trainer.train()
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    assert all(0 <= entry["mean_token_accuracy"] <= 1 for entry in trainer.state.log_history if "loss" in entry)
    assert before is None or ids_of(trainer.model) != before
    trainer.save_model(str(folder))
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(name), str(folder)).eval()
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, trainer.model.eval()(input_ids=ids).logits)

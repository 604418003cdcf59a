"""Trainers that make their loss of logits, TRL's and any that does so: the perplexity term, marked rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Build = Callable[..., Any]


def own_loss(model: Any, ids: Tensor) -> Tensor:
    """The task's loss as TRL's trainers make it: from logits, whatever loss the model returned."""
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -ids.shape[1] :]
    return cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def gradient(model: Any, *losses: Callable[[], Tensor]) -> Tensor:
    model.zero_grad()
    for loss in losses:
        loss().backward()
    return model.prompt_encoder["default"].latent.grad.clone()


@pytest.mark.parametrize("combination", ["additive", "convex"])
@pytest.mark.parametrize("position", ["start", "end"])
def test_the_term_is_added_where_no_backward_pass_comes_to_it(
    combination: str, position: str, gpt2: Build, readable: Build, token_ids: Build
) -> None:
    """Once per optimizer step, at full weight; the reference is the term's gradient from a loss that has it."""
    ids, settings = token_ids(4, 6), {"prompt_position": position, "perplexity_combination": combination}
    plain = readable(gpt2(), **settings).train()
    model = readable(gpt2(), perplexity_weight=0.4, share_prefix=False, **settings).train()
    labels = ids.clone()
    labels[:, :3] = -100
    with_term = gradient(model, lambda: model(input_ids=ids, labels=labels).loss)
    without = gradient(plain, lambda: plain(input_ids=ids, labels=labels).loss)
    task = 0.6 if combination == "convex" else 1.0
    term = with_term - task * without
    assert term.norm() > 0.01
    own = gradient(plain, lambda: own_loss(plain, ids))
    torch.testing.assert_close(gradient(model, lambda: own_loss(model, ids)), task * own + term, rtol=1e-4, atol=1e-5)
    if combination == "additive":  # two batches accumulated: the term once
        halves = [lambda part=part: own_loss(model, part) / 2 for part in ids.split(2)]
        torch.testing.assert_close(gradient(model, *halves), own + term, rtol=1e-4, atol=1e-5)


def test_two_passes_in_one_backward_pass_count_it_once(gpt2: Build, readable: Build, token_ids: Build) -> None:
    ids = token_ids(4, 6)
    model = readable(gpt2(), perplexity_weight=0.4).train()
    one = gradient(model, lambda: own_loss(model, ids))
    two = gradient(model, lambda: (own_loss(model, ids[:2]) + own_loss(model, ids[2:])) / 2)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_a_term_that_cannot_count_is_said(bert: Build, gpt2: Build, readable: Build, token_ids: Build) -> None:
    """In fp16 the trainer scales its loss by a number that nobody here knows."""
    ids = token_ids(2, 6)
    model = readable(gpt2(), perplexity_weight=0.4).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            with torch.autocast("cpu", dtype=torch.float16):
                loss = own_loss(model, ids)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    said = [str(w.message) for w in caught if "no backward pass has come" in str(w.message)]
    assert len(said) == 1
    assert "(perplexity_weight)" in said[0]


@pytest.mark.parametrize("kind", ["SFT", "DPO"])
@pytest.mark.filterwarnings("ignore")
def test_trl(kind: str, tmp_path: Any) -> None:
    """SFT fuses the head with its loss; DPO compares log-probabilities with those of the model without the prompt."""
    import datasets
    import trl
    from transformers import set_seed

    from peft_interp import InterpPromptConfig, embedded

    texts = ["A good film .", "It was dull .", "The plot is great .", "I hated it ."] * 2
    rows: dict[str, Any] = {"text": texts}
    if kind == "DPO":
        rows = {"prompt": [f"{text} It was" for text in texts], "chosen": [" good"] * 8, "rejected": [" bad"] * 8}
    found = {}
    for weight in (0.0, 50.0):
        set_seed(0)
        args = getattr(trl, f"{kind}Config")(
            str(tmp_path), max_steps=3, learning_rate=0.3, use_cpu=True, bf16=False, report_to="none",
            gradient_checkpointing=False, disable_tqdm=True, per_device_train_batch_size=4, save_strategy="no",
        )  # fmt: skip
        config = InterpPromptConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=6,
            perplexity_weight=weight,
            align_logits_with_labels=kind == "SFT",  # whose fused head gives none
        )
        trainer = getattr(trl, f"{kind}Trainer")(
            model=embedded.load_model(),
            args=args,
            train_dataset=datasets.Dataset.from_dict(rows),
            processing_class=embedded.load_tokenizer(),
            peft_config=config,
        )
        trainer.train()
        found[weight] = trainer.model.prompt_token_ids()
    assert found[0.0] != found[50.0]


@pytest.fixture
def marked_sft(tmp_path: Any) -> Build:
    """`marked_sft(**options)`: TRL's SFTTrainer on chats whose system turn has the prompt."""
    import datasets
    import trl
    from transformers import DataCollatorForSeq2Seq

    from peft_interp import InterpPromptConfig, Verbalizer, embedded

    tokenizer = embedded.load_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:\n{% endif %}"
    )
    rows = datasets.Dataset.from_dict({"text": ["A good film .", "It was dull ."] * 4, "label": ["good", "bad"] * 4})
    task = Verbalizer("{prompt} {text}", chat="system")

    def build(**options: Any) -> Any:
        settings = {"dataset_kwargs": {"skip_prepare_dataset": True}, "remove_unused_columns": False, **options}
        args = trl.SFTConfig(
            str(tmp_path), max_steps=2, learning_rate=0.5, use_cpu=True, bf16=False, report_to="none",
            gradient_checkpointing=False, disable_tqdm=True, per_device_train_batch_size=4, save_strategy="no",
            logging_steps=1, lr_scheduler_type="constant", **settings,
        )  # fmt: skip
        config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=6, prompt_position="template")
        return trl.SFTTrainer(
            model=embedded.load_model(),
            args=args,
            train_dataset=task.encode_dataset(tokenizer, rows, "text"),
            processing_class=tokenizer,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
            peft_config=config,
        )

    return build


@pytest.mark.filterwarnings("ignore")
def test_trl_trains_on_rows_that_mark_a_place(marked_sft: Build) -> None:
    """The first step's loss is that of the pasted rows, and the prompt moves."""
    trainer = marked_sft()
    model = trainer.model
    first, losses = model.prompt_token_ids(), []
    for row in trainer.train_dataset:
        place = row["attention_mask"].index(0)
        ids = torch.tensor([[*row["input_ids"][:place], *first, *row["input_ids"][place + 1 :]]])
        labels = torch.tensor([[*row["labels"][:place], *[-100] * len(first), *row["labels"][place + 1 :]]])
        with torch.no_grad():
            logits = model.get_base_model()(input_ids=ids).logits[0, :-1]
        losses.append(cross_entropy(logits, labels[0, 1:], reduction="none")[labels[0, 1:] != -100])
    with torch.no_grad():
        batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
        loss = trainer.compute_loss(model.eval(), dict(batch))
    torch.testing.assert_close(loss, torch.cat(losses).mean(), rtol=1e-4, atol=1e-5)
    trainer.train()
    assert model.prompt_token_ids() != first


@pytest.mark.filterwarnings("ignore")
def test_trl_rows_without_their_marks_are_refused(marked_sft: Build) -> None:
    with pytest.raises(ValueError, match=r"row 0 of the batch marks no places for the prompt: .*SFTTrainer needs"):
        marked_sft(remove_unused_columns=True).train()


@pytest.mark.filterwarnings("ignore")
def test_trl_trains_a_prompt_right_before_the_completion(tmp_path: Any) -> None:
    import datasets
    import trl

    from peft_interp import InterpPromptConfig, embedded

    rows = {"prompt": ["A good film .", "It was dull ."] * 4, "completion": [" good", " bad"] * 4}
    args = trl.SFTConfig(
        str(tmp_path), max_steps=2, learning_rate=0.5, use_cpu=True, bf16=False, report_to="none",
        gradient_checkpointing=False, disable_tqdm=True, save_strategy="no", lr_scheduler_type="constant",
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model=embedded.load_model(),
        args=args,
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=embedded.load_tokenizer(),
        peft_config=InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=6, prompt_position="end"),
    )
    model, losses = trainer.model, []
    first = model.prompt_token_ids()
    for row in trainer.train_dataset:
        place = next(i for i, label in enumerate(row["labels"]) if label != -100)
        ids = torch.tensor([[*row["input_ids"][:place], *first, *row["input_ids"][place:]]])
        answer = torch.tensor(row["labels"][place:])
        with torch.no_grad():
            logits = model.get_base_model()(input_ids=ids).logits[0, -len(answer) - 1 : -1]
        losses.append(cross_entropy(logits, answer, reduction="none"))
    batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    with torch.no_grad():
        loss = trainer.compute_loss(model.eval(), dict(batch))
    torch.testing.assert_close(loss, torch.cat(losses).mean(), rtol=1e-4, atol=1e-5)
    trainer.train()
    assert model.prompt_token_ids() != first


@pytest.mark.filterwarnings("ignore")
def test_dpo_has_no_marked_rows(tmp_path: Any) -> None:
    import datasets
    import trl

    from peft_interp import InterpPromptConfig, embedded

    rows = {"prompt": ["A good film . It was"] * 4, "chosen": [" good"] * 4, "rejected": [" bad"] * 4}
    args = trl.DPOConfig(
        str(tmp_path), max_steps=1, use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
        disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=embedded.load_model(),
        args=args,
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=embedded.load_tokenizer(),
        peft_config=InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=6, prompt_position="template"),
    )
    with pytest.raises(ValueError, match="row 0 of the batch marks no places for the prompt"):
        trainer.train()

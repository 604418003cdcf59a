"""Prompts that say what they do, on SmolLM2: proposed by it, rewarded by what it writes, and said of a soft prompt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model

from peft_interp import (
    PromptSearchConfig,
    PromptSearchTrainer,
    embedded,
    exact_match_reward,
    explain_prompt,
    on_answers,
)
from peft_interp.metrics.task_naming import ENOUGH_SAID, NAMED, measure_task_namings

Build = Callable[..., Any]
pytestmark = pytest.mark.parametrize("base", ["fp32"], indirect=True)  # once: what is written does not change the code
TASK = embedded.TASKS["sentiment"]
DESCRIPTION = "Say whether a film review is positive or negative."
QUIET = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "max_steps": 1, "logging_steps": 1}
QUIET |= {"use_cpu": True, "dataloader_pin_memory": False, "eval_candidates": 2, "screening_examples": None}


def test_an_instruct_model_proposes_prompts_that_name_their_task(
    adapter: Build, tokenizer: Any, reviews: list[dict[str, Any]], tmp_path: Path
) -> None:
    asked = {"continuation_share": 0.1, "label_question_share": 1.0, "induction_share": 1.0}
    args = PromptSearchConfig(
        str(tmp_path),
        prompts_per_step=3,
        human_starts=0,
        names_its_task=True,
        task_description=DESCRIPTION,
        **asked,
        **QUIET,
    )
    model = adapter(allowed_tokens="printable", num_virtual_tokens=16)
    trainer = PromptSearchTrainer(model, args, reviews[:4], reviews[4:], tokenizer, TASK)
    trainer.train()
    search = trainer.search
    assert {"induce", "ask_for_labels"} <= {move for move, _ in search.proposer.opened([], 12, seed=0)}
    texts = [found.text for ids in search._made_by if (found := search.archive.find(ids)) is not None]
    assert texts
    words = TASK.label_words
    known = (DESCRIPTION, words, [review["sentence"] for review in reviews[:4]])
    named = measure_task_namings(texts, *known)
    assert {found.verdict for found in named} == {NAMED}
    assert all(found.said >= ENOUGH_SAID for found in named)
    assert DESCRIPTION in {record.text for record in search.archive.records}
    assert any(name == "dropped/naming" for entry in trainer.state.log_history for name in entry)


def test_a_search_is_rewarded_for_what_the_model_writes(
    adapter: Build, base: Any, tokenizer: Any, reviews: list[dict[str, Any]], tmp_path: Path
) -> None:
    rows = [
        {"text": f"{row['sentence']} Answer with one word:", "answer": ("Negative", "Positive")[row["label"]]}
        for row in reviews
    ]
    args = PromptSearchConfig(str(tmp_path), prompts_per_step=3, human_starts=0, start_texts=[DESCRIPTION], **QUIET)
    trainer = PromptSearchTrainer(
        adapter(allowed_tokens="printable", num_virtual_tokens=12),
        args,
        rows[:4],
        rows[4:],
        tokenizer,
        reward_funcs=on_answers(exact_match_reward(), max_new_tokens=2),
        text_column="text",
    )
    trainer.train()
    record = next(record for record in trainer.search.archive.records if record.text == DESCRIPTION)
    written = []
    for row in rows[:4]:
        given = tokenizer(f"{DESCRIPTION} {row['text']}", return_tensors="pt")
        found = base.generate(**given, max_new_tokens=2, do_sample=False)[0, given["input_ids"].shape[1] :]
        written.append(tokenizer.decode(found, skip_special_tokens=True))
    right = exact_match_reward()(completions=written, answer=[row["answer"] for row in rows[:4]])
    assert record.scores["exact_match"] == pytest.approx(sum(right) / 4)


def test_a_text_in_vectors_is_its_explanation(base: Any, tokenizer: Any, reviews: list[dict[str, Any]]) -> None:
    text = "Is this film review positive or negative?"
    ids = tokenizer.encode(text)
    model: Any = get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(ids)))
    with torch.no_grad():  # as `prompt_tuning_init="TEXT"` would do with a tokenizer of the hub
        model.prompt_encoder["default"].embedding.weight.copy_(base.get_input_embeddings().weight[ids])
    rows = [TASK.encode(tokenizer, row["sentence"], row["label"]) for row in reviews]
    found = explain_prompt(model, tokenizer, rows, TASK, sources=("nearest",), budget=8, progress=False)
    assert found.text == text
    assert found.best.share > 0.99
    assert found.activations is not None
    assert min(layer.answer_cosine for layer in found.activations.layers) > 0.999

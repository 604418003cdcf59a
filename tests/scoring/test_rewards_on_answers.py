"""Reward functions that ask for what the task model writes: called as TRL calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from peft_interp import RLPromptConfig, RLPromptTrainer, exact_match_reward, on_answers
from peft_interp.answers.settings import AnswerSettings
from tests.builders import gpt2, readable

Build = Callable[..., Any]
ROWS = [{"text": f"w{i} w{i + 9}", "answer": f"w{i + 2}"} for i in range(10, 18)]


def even(completions: list[str], **columns: Any) -> list[float]:
    """Share of words with an even number, which depends on prompt and row."""
    words = [[int(word[1:]) % 2 == 0 for word in text.split()] for text in completions]
    return [sum(found) / max(1, len(found)) for found in words]


def rl_trainer(folder: str, tokenizer_dir: str, functions: Any, prompts: int = 6, **more: Any) -> RLPromptTrainer:
    """Two words as text, prompts of three; no labels, no template."""
    torch.manual_seed(0)
    position = more.pop("position", "start")
    model: Any = readable(gpt2(), num_virtual_tokens=3, tokenizer_name_or_path=tokenizer_dir, prompt_position=position)
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "use_cpu": True}
    size = {"max_steps": 3, "logging_steps": 1, "policy_hidden_size": 64, "top_k": 0, "eval_candidates": 2}
    size |= {"learning_rate": 1e-2, "target_update_rate": 0.05, "dataloader_pin_memory": False}
    return RLPromptTrainer(
        model,
        RLPromptConfig(folder, prompts_per_step=prompts, **{**quiet, **size, **more}),
        train_dataset=ROWS[:5],
        eval_dataset=ROWS[5:],
        reward_funcs=functions,
        processing_class=AutoTokenizer.from_pretrained(tokenizer_dir),
        text_column="text",
    )


@pytest.mark.parametrize("position", ["start", "end"])
def test_functions_get_the_answers_of_generate(position: str, tokenizer_dir: Path, tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = []

    def remember(**arguments: Any) -> list[float]:
        calls.append(arguments)
        return even(arguments["completions"])

    trainer = rl_trainer(
        str(tmp_path), str(tokenizer_dir), on_answers(remember, max_new_tokens=4), position=position, max_steps=1
    )
    trainer.train()
    first, tokenizer = calls[0], trainer.processing_class
    known = {"prompts", "completions", "completion_ids", "searched_prompts", "trainer_state"}
    assert set(first) == known | {"text", "answer"}
    assert len(first["completions"]) == 6 * 5
    assert first["prompts"] == first["text"] == [row["text"] for row in ROWS[:5]] * 6
    base = trainer.model.get_base_model()
    for text, prompt, ids, answer in zip(
        first["text"], first["searched_prompts"], first["completion_ids"], first["completions"], strict=True
    ):
        whole = f"{prompt} {text}" if position == "start" else f"{text} {prompt}"
        given = tokenizer(whole, return_tensors="pt")["input_ids"]
        expected = base.generate(given, max_new_tokens=4, do_sample=False, pad_token_id=0)[0, given.shape[1] :]
        assert ids == expected.tolist()
        assert answer == tokenizer.decode(expected, skip_special_tokens=True)
    record = trainer.search.archive.records[0]
    assert record.text == first["searched_prompts"][0]
    assert record.scores["remember"] == pytest.approx(sum(even(first["completions"][:5])) / 5)


def test_answers_and_texts_are_rewarded_side_by_side(tokenizer_dir: Path, tmp_path: Path) -> None:
    def of_text(completions: list[str], searched_prompts: Any = None, **columns: Any) -> list[float]:
        assert searched_prompts is None
        return [float(int(text.split()[0][1:])) for text in completions]

    def none_for_one(completions: list[str], text: list[str], **columns: Any) -> list[float | None]:
        return [None if of == ROWS[0]["text"] else 1.0 for of in text]

    settings = {"max_new_tokens": 3}
    functions = [of_text, on_answers(even, **settings), on_answers(none_for_one, **settings)]
    trainer = rl_trainer(str(tmp_path), str(tokenizer_dir), functions, reward_weights=[0.0, 1.0, 0.0])
    trainer.train()
    writer, records = trainer.search.scorer._writer, trainer.search.archive.records
    assert writer.written == sum(5 if record.split == "train" else 3 for record in records), "once for both functions"
    assert {record.scores["none_for_one"] for record in records} == {1.0}
    best = max((r for r in records if r.split == "dev"), key=lambda record: record.scores["even"])
    assert trainer.search.best.reward == best.scores["even"]
    entry = next(entry for entry in trainer.state.log_history if "rewards/even/mean" in entry)
    assert entry["reward"] == pytest.approx(entry["rewards/even/mean"])


def test_asynchronous_functions(tokenizer_dir: Path, tmp_path: Path) -> None:
    async def judged(completions: list[str], **columns: Any) -> list[float]:
        async def one(text: str) -> float:
            await asyncio.sleep(0)
            return even([text])[0]

        return list(await asyncio.gather(*map(one, completions)))

    async def length(completions: list[str], **columns: Any) -> list[float]:
        return [float(len(text)) for text in completions]

    functions = [on_answers(judged, 3), on_answers(even, 3), length]
    trainer = rl_trainer(str(tmp_path), str(tokenizer_dir), functions, max_steps=1)
    trainer.train()
    assert all(record.scores["judged"] == record.scores["even"] for record in trainer.search.archive.records)
    assert all(record.scores["length"] == len(record.text) for record in trainer.search.archive.records)

    async def in_a_notebook() -> Any:
        return trainer.search.scorer.measure([trainer.search.candidate([7, 8, 9])], trainer.search.train)

    assert asyncio.run(in_a_notebook())[0]["length"] == len("w7 w8 w9")


def test_mistakes_are_named(tokenizer_dir: Path, tmp_path: Path) -> None:
    def broken(completions: list[str], **columns: Any) -> list[float]:
        return [1.0] * 7

    def infinite(completions: list[str], **columns: Any) -> list[float]:
        return [float("inf")] * len(completions)

    folder, files = str(tmp_path), str(tokenizer_dir)
    with pytest.raises(ValueError, match="'broken' returned 7 numbers for 30 completions"):
        rl_trainer(folder, files, on_answers(broken)).train()
    with pytest.raises(ValueError, match="'infinite' returned inf for the answer 'w"):
        rl_trainer(folder, files, on_answers(infinite)).train()
    with pytest.raises(ValueError, match="no column 'gold' to compare answers with"):
        rl_trainer(folder, files, on_answers(exact_match_reward("gold"))).train()
    with pytest.raises(ValueError, match="tokens, the model takes 64"):
        rl_trainer(folder, files, on_answers(even, max_new_tokens=70)).train()


def test_standard_errors_choose_among_equals(tokenizer_dir: Path, tmp_path: Path) -> None:
    """With enough rows the error over them is known, and the one-standard-error rule has something to go by."""
    trainer = rl_trainer(str(tmp_path), str(tokenizer_dir), on_answers(even, max_new_tokens=3))
    rows = [{"text": f"w{i} w{i % 7 + 3}", "answer": ""} for i in range(10, 50)]
    examples = trainer._examples(rows, "rows")
    candidate = trainer.search.candidate([7, 8, 9])
    (scores,) = trainer.search.scorer.measure([candidate], examples)
    ((*written,),) = trainer.search.scorer.answers([candidate], examples, AnswerSettings(3))
    values = torch.tensor(even([answer.text for answer in written]))
    assert scores["reward_error"] == pytest.approx(values.std().item() / 40**0.5, rel=1e-5)
    assert trainer.search.error(scores) == scores["reward_error"]

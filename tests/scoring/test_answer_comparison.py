"""What prompt, text and nothing write: each side against `generate`, and shares against counting by hand."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoTokenizer

from peft_interp import (
    InterpPromptConfig,
    Verbalizer,
    compare_answers,
    embedded,
    exact_match_reward,
    on_answers,
    report_prompt,
    rouge_reward,
)

Build = Callable[..., Any]
ROWS = [{"text": f"w{i} w{i + 9}", "answer": f"w{i + 2}"} for i in range(10, 18)]
REWARD = on_answers(rouge_reward(), max_new_tokens=4)


def generated(model: Any, tokenizer: Any, text: str) -> str:
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    new = model.generate(input_ids=ids, max_new_tokens=4, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    return str(tokenizer.decode(new, skip_special_tokens=True))


@pytest.mark.parametrize("position", ["start", "end"])
def test_a_readable_prompt(position: str, readable: Build, gpt2: Build, tokenizer_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    model = readable(gpt2(), tokenizer_name_or_path=str(tokenizer_dir), prompt_position=position)
    found = compare_answers(model, tokenizer, ROWS, REWARD, text_column="text", texts=["w20 w21"])
    prompt, base = model.prompt_text(tokenizer).strip(), model.get_base_model()
    assert [way.name for way in found.ways] == ["prompt", "its text", "no prompt", "w20 w21"]
    for name, words in (("prompt", prompt), ("its text", prompt), ("no prompt", ""), ("w20 w21", "w20 w21")):
        filled = [f"{words} {row['text']}" if position == "start" else f"{row['text']} {words}" for row in ROWS]
        assert list(found.way(name).answers) == [generated(base, tokenizer, text.strip()) for text in filled]
    assert found.same_as_text == 1
    plain = found.way("no prompt").answers
    assert found.changed == sum(a != b for a, b in zip(found.way("prompt").answers, plain, strict=True)) / 8 > 0
    text = found.to_markdown()
    assert f"| `its text` | {found.way('its text').scores['rougeL']:.3f} ± " in text
    assert "The prompt and its text write the same on 100% of 8 rows" in text
    page = report_prompt(model, tokenizer, context=found.as_context(), progress=False)
    score = found.way("its text").scores["rougeL"]
    for form in (page.to_markdown(), page.to_html(), page.to_text(width=200)):
        shown = " ".join(html.unescape(form).split())
        assert f"its text: {score:.3f} ± " in shown
        assert "write the same on 100% of 8 rows" in shown


def test_a_prompt_inside_the_rows() -> None:
    tokenizer, task = embedded.load_tokenizer(), Verbalizer("Review: {text}\n{prompt}\nIn short:")
    model: Any = get_peft_model(
        embedded.load_model(),
        InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, prompt_position="template"),
    )
    rows = [{"text": text, "answer": "good"} for text in ("I liked it.", "A dull film, and far too long.")]
    found = compare_answers(model, tokenizer, rows, REWARD, task, "text", "answer", texts=["Say it."], progress=False)
    base = model.get_base_model()
    for name, words in (("prompt", model.prompt_text(tokenizer)), ("no prompt", ""), ("Say it.", "Say it.")):
        filled = [task.fill(row["text"], words) for row in rows]
        assert list(found.way(name).answers) == [generated(base, tokenizer, text) for text in filled]
    assert found.same_as_text == 1


@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")  # stock PEFT's
def test_a_soft_prompt_writes_something_else_than_its_text(
    with_prompt: Build, gpt2: Build, tokenizer_dir: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    model = with_prompt(gpt2(), num_virtual_tokens=4)
    torch.nn.init.normal_(model.prompt_encoder["default"].embedding.weight)
    rows = [{**row, "text": row["text"] + " w40" * (number % 3)} for number, row in enumerate(ROWS)]
    found = compare_answers(model, tokenizer, rows, REWARD, text_column="text")
    assert found.same_as_text < 1
    assert list(found.way("prompt").answers) == [generated(model, tokenizer, row["text"]) for row in rows]


def test_mistakes_are_named(readable: Build, gpt2: Build, tokenizer_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    model = readable(gpt2(), tokenizer_name_or_path=str(tokenizer_dir))
    for functions in ([], [rouge_reward()], [REWARD, on_answers(exact_match_reward(), max_new_tokens=3)]):
        with pytest.raises(ValueError, match="must be functions of `on_answers`, all with the same settings"):
            compare_answers(model, tokenizer, ROWS, functions, text_column="text")

"""Labels for new texts: those that a pass over each text alone gives, from any prompt of a causal LM."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model

from peft_interp import (
    InterpPromptConfig,
    Verbalizer,
    classify,
    embedded,
    measure_faithfulness,
    report_prompt,
)

TEXTS = ["A wonderful film.", "Dull, and far too long for what it has to say.", "Great fun!", "I slept."]
START = Verbalizer("{prompt} {text} It was", ["terrible", "great"])
END = Verbalizer("{text} {prompt}", ["terrible", "great"])


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return embedded.load_tokenizer()


def adapter(tokenizer: Any, position: str = "start") -> Any:
    model = get_peft_model(
        embedded.load_model(),
        InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=8, prompt_position=position),
    )
    text = "Is this film review positive or negative?" if position == "start" else " In one word, the film is"
    model.use_prompt(tokenizer.encode(text, add_special_tokens=False), resize=True)
    return model


def stock(tokenizer: Any) -> Any:
    text = "Is this film review positive or negative?"
    start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": text}
    config = PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=8, tokenizer_name_or_path=embedded.MODEL_PATH, **start
    )
    return get_peft_model(embedded.load_model(), config)


@pytest.mark.parametrize("kind", ["start", "end", "stock"])
def test_labels_are_those_of_each_text_alone(tokenizer: Any, kind: str) -> None:
    model = stock(tokenizer) if kind == "stock" else adapter(tokenizer, kind)
    verbalizer = END if kind == "end" else START
    model.train()
    found = classify(model, tokenizer, TEXTS, verbalizer, batch_size=3, progress=False)
    assert model.training
    model.eval()
    words = verbalizer.label_token_ids(tokenizer)
    for text, answer in zip(TEXTS, found, strict=True):
        ids = torch.tensor([verbalizer.encode(tokenizer, text, 0)["input_ids"][:-1]])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1, words]
        label = int(logits.argmax())
        assert answer["label"] == verbalizer.label_words[label]
        assert answer["score"] == pytest.approx(float(logits.softmax(-1)[label]), abs=1e-5)
    assert len({answer["score"] for answer in found}) == len(TEXTS)
    (alone,) = classify(model, tokenizer, TEXTS[1], verbalizer, progress=False)
    assert alone == pytest.approx(found[1])


def test_it_is_as_often_right_as_a_report_says(tokenizer: Any) -> None:
    model, rows = adapter(tokenizer), embedded.load_data("sentiment")["test"].select(range(40))
    found = classify(model, tokenizer, rows["sentence"], START, progress=False)
    right = [answer["label"] == START.label_words[label] for answer, label in zip(found, rows["label"], strict=True)]
    encoded = START.encode_dataset(tokenizer, rows)
    measured = measure_faithfulness(model, tokenizer, encoded, START.label_token_ids(tokenizer), progress=False)
    assert sum(right) / len(right) == pytest.approx(measured.as_prompt.accuracy)


def test_the_lines_of_a_card_label_a_text(tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = adapter(tokenizer), embedded.load_data("sentiment")["test"].select(range(4))
    report = report_prompt(model, tokenizer, START.encode_dataset(tokenizer, rows), START, progress=False)
    model.attach_report(report)
    model.save_pretrained(tmp_path)
    found = re.search(r"### With peft_interp\n\n```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    assert found is not None
    exec(found[1].replace("FOLDER_OR_HUB_NAME", str(tmp_path)), {})
    assert capsys.readouterr().out == f"{classify(model, tokenizer, 'Your input.', START, progress=False)}\n"


def test_long_texts_are_cut_with_a_word(tokenizer: Any) -> None:
    model = adapter(tokenizer)
    room = model.get_base_model().config.max_position_embeddings
    with pytest.warns(UserWarning, match=f"1 of 2 texts were cut at their end, to fit the model's {room} positions"):
        found = classify(model, tokenizer, ["Great fun! " * room, "Dull."], START, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (short,) = classify(model, tokenizer, ["Dull."], START, progress=False)
    assert short == pytest.approx(found[1])
    assert classify(model, tokenizer, [], START) == []


def test_mistakes_are_named(tokenizer: Any) -> None:
    model = adapter(tokenizer)
    with pytest.raises(ValueError, match=r"the template '{text} {prompt}' has the prompt at the end"):
        classify(model, tokenizer, TEXTS, END)
    with pytest.raises(ValueError, match="must be a `Verbalizer`"):
        classify(model, tokenizer, TEXTS, ["terrible", "great"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="text 1 is a NoneType and must be a string"):
        classify(model, tokenizer, ["Dull.", None], START)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"asks for \{text\}, and the row has no such column, only"):
        classify(model, tokenizer, Dataset.from_list([{"sentence": "Dull."}]), START)
    with pytest.raises(ValueError, match="has no prompt adapter"):
        classify(model.get_base_model(), tokenizer, TEXTS, START)
    prefix = get_peft_model(embedded.load_model(), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    with pytest.raises(ValueError, match="use a method with input vectors"):
        classify(prefix, tokenizer, TEXTS, START)


def test_other_task_types_have_no_label_words(bert: Any, tokenizer: Any) -> None:
    model = get_peft_model(bert(), InterpPromptConfig(task_type="SEQ_CLS", num_virtual_tokens=4))
    with pytest.raises(ValueError, match="`task_type=SEQ_CLS` has no label words here"):
        classify(model, tokenizer, TEXTS, START)

"""What ships in the package to run everything on: the model, its tokenizer, the two data sets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model

from peft_interp import InterpPromptConfig, embedded, text_nll
from peft_interp.text.verbalizer import answer_logits, label_accuracy

TASKS = sorted(embedded.TASKS)
HAND_WRITTEN = {"sentiment": "Movie review:", "topic": "News topic:"}


@pytest.fixture(scope="module")
def model() -> Any:
    return embedded.load_model()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return embedded.load_tokenizer()


@torch.no_grad()
def accuracy(model: Any, tokenizer: Any, task: str) -> float:
    verbalizer, rows = embedded.TASKS[task], embedded.load_data(task)["test"]
    encoded = [verbalizer.encode(tokenizer, row["sentence"], row["label"]) for row in rows]
    batch = tokenizer.pad([{"input_ids": row["input_ids"]} for row in encoded], return_tensors="pt")
    labels = torch.full_like(batch["input_ids"], -100)
    for line, row in zip(labels, encoded, strict=True):
        line[len(row["labels"]) - 1] = row["labels"][-1]
    scores = answer_logits(model(**batch).logits, labels)[:, verbalizer.label_token_ids(tokenizer)]
    return label_accuracy(scores, torch.tensor(rows["label"]))


@pytest.mark.parametrize("task", TASKS)
def test_a_hand_written_prompt_helps(task: str, tokenizer: Any) -> None:
    """The hurdle for the embedded model: without a prompt it does clearly worse."""
    written = InterpPromptConfig(
        task_type="CAUSAL_LM",
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text=HAND_WRITTEN[task],
        tokenizer_name_or_path=embedded.MODEL_PATH,
    )
    with_prompt = get_peft_model(embedded.load_model(), written).eval()
    assert accuracy(with_prompt, tokenizer, task) > accuracy(embedded.load_model(), tokenizer, task) + 0.08
    assert with_prompt.prompt_text(tokenizer) == HAND_WRITTEN[task]


@pytest.mark.parametrize("task", TASKS)
def test_every_label_word_is_one_token(task: str, tokenizer: Any) -> None:
    assert len(embedded.TASKS[task].label_token_ids(tokenizer)) == len(embedded.TASKS[task].label_words)


@pytest.mark.parametrize("task", TASKS)
def test_data_are_balanced_and_splits_do_not_overlap(task: str) -> None:
    data = embedded.load_data(task)
    sentences = [sentence for split in data.values() for sentence in split["sentence"]]
    assert len(set(sentences)) == len(sentences)
    for split in data.values():
        assert len(set(Counter(split["label"]).values())) == 1
        assert set(split["label"]) == set(range(len(embedded.TASKS[task].label_words)))


def test_readable_text_is_likelier_than_random_tokens(model: Any, tokenizer: Any) -> None:
    readable = tokenizer.encode("Is this film review positive or negative?", add_special_tokens=False)
    random = torch.randint(300, len(tokenizer), (len(readable),), generator=torch.Generator().manual_seed(0))
    assert text_nll(model, readable) + 3 < text_nll(model, random)


def test_the_model_is_small_and_has_no_dropout(model: Any) -> None:
    size = sum(path.stat().st_size for path in Path(embedded.MODEL_PATH).iterdir())
    assert size < 16e6
    assert model.config.attn_pdrop == model.config.resid_pdrop == model.config.embd_pdrop == 0


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`task='colour'` is not embedded; use one of sentiment, topic"):
        embedded.load_data("colour")

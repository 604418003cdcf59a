"""Answers of several tokens and a row's own options are scored as sequences, as by hand, in every place and measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from peft_interp import PromptReport, Verbalizer, classify, compare_prompts, measure_faithfulness, report_prompt
from peft_interp.scoring.examples import read_examples
from peft_interp.scoring.task_scorer import TaskScorer

Build = Callable[..., Any]
WORDS = ("very dull", "great", "a great film")
TEMPLATES = {"start": "{prompt} {text} It was", "end": "{text} {prompt}", "template": "Review :{prompt}\n{text} It was"}
TEMPLATES["template"] = "Review : {prompt}\n{text} It was"
TEXTS = ["The film was dull", "I loved the plot and the acting", "great"]
LABELS = [0, 2, 1]
places = pytest.mark.parametrize("place", TEMPLATES)


@pytest.fixture
def adapted(gpt2: Build, readable: Build, byte_tokenizer: Any) -> Build:
    """`adapted(place)`: a prompt of four words' tokens there, on a model that reads the byte tokenizer's ids."""

    def build(place: str) -> Any:
        special = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 0}
        model = readable(gpt2(vocab_size=len(byte_tokenizer), n_positions=128, **special), prompt_position=place)
        model.use_prompt(byte_tokenizer.encode(" film film film film")[:4])
        return model.eval()

    return build


def by_hand(model: Any, tokenizer: Any, verbalizer: Verbalizer, row: Any, answer: str, prompt: str | None) -> float:
    """Log-probability of an answer after the pasted text."""
    base, text = model.get_base_model(), verbalizer.fill(row, prompt or "")
    front, answer_ids = tokenizer.encode(text), tokenizer.encode(" " + answer)
    with torch.no_grad():
        logits = base(input_ids=torch.tensor([[*front, *answer_ids]])).logits[0].log_softmax(-1)
    return sum(float(logits[len(front) - 1 + k, token]) for k, token in enumerate(answer_ids))


def shares(model: Any, tokenizer: Any, verbalizer: Verbalizer, row: Any, answers: Any, prompt: str) -> torch.Tensor:
    scores = [by_hand(model, tokenizer, verbalizer, row, answer, prompt) for answer in answers]
    return torch.tensor(scores).softmax(-1)


def prompt_of(model: Any, tokenizer: Any) -> str:
    return str(model.prompt_text(tokenizer))


@places
def test_classify(adapted: Build, byte_tokenizer: Any, place: str) -> None:
    model, verbalizer = adapted(place), Verbalizer(TEMPLATES[place], WORDS)
    found = classify(model, byte_tokenizer, TEXTS, verbalizer, batch_size=2)
    for text, answer in zip(TEXTS, found, strict=True):
        wanted = shares(model, byte_tokenizer, verbalizer, text, WORDS, prompt_of(model, byte_tokenizer))
        assert answer["label"] == WORDS[int(wanted.argmax())]
        assert answer["score"] == pytest.approx(float(wanted.max()), abs=1e-5)


@places
def test_classify_with_words_of_one_token(adapted: Build, byte_tokenizer: Any, place: str) -> None:
    model, verbalizer = adapted(place), Verbalizer(TEMPLATES[place], ("bad", "great"))
    assert verbalizer.scored_ids(byte_tokenizer) is not None
    (found,) = classify(model, byte_tokenizer, "The film", verbalizer)
    wanted = shares(model, byte_tokenizer, verbalizer, "The film", ("bad", "great"), prompt_of(model, byte_tokenizer))
    assert found["score"] == pytest.approx(float(wanted.max()), abs=1e-5)


@places
def test_options_of_each_row(adapted: Build, byte_tokenizer: Any, place: str) -> None:
    model, verbalizer = adapted(place), Verbalizer(TEMPLATES[place], options="answers")
    rows = [
        {"text": "The film was dull", "answers": ["dull", "a great movie", "bad"]},
        {"text": "great", "answers": ["music", "the plot and the acting"]},
    ]
    found = classify(model, byte_tokenizer, rows, verbalizer)
    for row, answer in zip(rows, found, strict=True):
        wanted = shares(model, byte_tokenizer, verbalizer, row, row["answers"], prompt_of(model, byte_tokenizer))
        assert answer["label"] == row["answers"][int(wanted.argmax())]
        assert answer["score"] == pytest.approx(float(wanted.max()), abs=1e-5)
    assert classify(model, byte_tokenizer, rows[0], verbalizer) == found[:1]


@places
@pytest.mark.parametrize("share", [None, False])
def test_rewards(adapted: Build, byte_tokenizer: Any, place: str, share: bool | None) -> None:
    model, verbalizer = adapted(place), Verbalizer(TEMPLATES[place], WORDS)
    data = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    examples = read_examples(byte_tokenizer, data, verbalizer, text_column="text")
    assert examples.gold is not None
    assert examples.gold.tolist() == LABELS
    assert examples.subset([1]).choices == examples.choices[1:2]  # type: ignore[index]
    scorer = TaskScorer(model.get_base_model(), examples.rows, position=place, share=share, choices=examples.choices)
    prompts = [byte_tokenizer.encode(text) for text in (" film film", " the plot and", " great")]
    found = scorer.label_log_probs(prompts)
    assert found.shape == (3, 3, 3)
    for i, prompt in enumerate(prompts):
        for j, text in enumerate(TEXTS):
            wanted = shares(model, byte_tokenizer, verbalizer, text, WORDS, byte_tokenizer.decode(prompt))
            torch.testing.assert_close(found[i, j].exp(), wanted, atol=1e-5, rtol=1e-4)


def test_rewards_of_options(adapted: Build, byte_tokenizer: Any) -> None:
    model, verbalizer = adapted("start"), Verbalizer(TEMPLATES["start"], options="answers")
    data = [
        {"text": "The film was", "answers": ["dull", "a great movie", "bad"], "label": 1},
        {"text": "great", "answers": ["music", "the plot and the acting"], "label": "music"},
    ]
    examples = read_examples(byte_tokenizer, data, verbalizer, text_column="text")
    assert examples.gold is not None
    assert examples.gold.tolist() == [1, 0]
    scorer = TaskScorer(model.get_base_model(), examples.rows, choices=examples.choices)
    found = scorer.label_log_probs([byte_tokenizer.encode(" film")])[0]
    assert found[1, 2] == -torch.inf
    for i, row in enumerate(data):
        wanted = shares(model, byte_tokenizer, verbalizer, row, row["answers"], " film")
        torch.testing.assert_close(found[i, : len(wanted)].exp(), wanted, atol=1e-5, rtol=1e-4)
    encoded = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in examples.rows]
    with pytest.raises(ValueError, match="has no column 'answers' with each row's options, only"):
        read_examples(byte_tokenizer, encoded, verbalizer)


def test_a_masked_lm_has_one_mask(byte_tokenizer: Any) -> None:
    data = [{"text": "great", "label": 0}]
    with pytest.raises(ValueError, match="answers at one mask, and a label is more than one token"):
        read_examples(byte_tokenizer, data, Verbalizer(TEMPLATES["start"], WORDS), text_column="text", masked=True)


@places
def test_accuracy_in_measures_and_reports(adapted: Build, byte_tokenizer: Any, place: str) -> None:
    model, verbalizer = adapted(place), Verbalizer(TEMPLATES[place], WORDS)
    texts = [*TEXTS, "the film was great and the plot was terrible .", "the music is good", "It was dull"]
    labels = [*LABELS, 0, 1, 2]
    rows = [verbalizer.encode(byte_tokenizer, text, y) for text, y in zip(texts, labels, strict=True)]
    sequences, prompt = verbalizer.label_sequences(byte_tokenizer), prompt_of(model, byte_tokenizer)
    found = measure_faithfulness(model, byte_tokenizer, rows, sequences, token_effects=False, progress=False)

    def accuracy(prompt: str) -> tuple[float, torch.Tensor]:
        each = torch.stack([shares(model, byte_tokenizer, verbalizer, text, WORDS, prompt) for text in texts])
        return (each.argmax(-1) == torch.tensor(labels)).float().mean().item(), each.mean(0)

    right, mean = accuracy(prompt)
    assert found.as_prompt.accuracy == found.as_text.accuracy == pytest.approx(right)
    assert found.answers is not None
    assert found.answers.label_words == (" very dull", " great", " a great film")
    assert found.answers.as_prompt == pytest.approx(mean.tolist(), abs=1e-5)
    assert found.answers.rows == pytest.approx((2 / 6, 2 / 6, 2 / 6))
    assert found.without is not None
    assert found.without.accuracy == pytest.approx(accuracy("")[0])
    report = report_prompt(model, byte_tokenizer, rows, verbalizer, progress=False)
    assert report.faithfulness is not None
    assert report.faithfulness.as_prompt.accuracy == pytest.approx(right)
    assert isinstance(PromptReport.from_dict(report.to_dict()), PromptReport)
    compared = compare_prompts(model, byte_tokenizer, {"ours": model}, rows, verbalizer, progress=False)
    (ours,) = [prompt for prompt in compared.prompts if prompt.name == "ours"]
    assert ours.accuracy is not None
    assert ours.accuracy.mean == pytest.approx(right)


def test_an_answer_that_is_no_label_word_is_named(adapted: Build, byte_tokenizer: Any) -> None:
    model, verbalizer = adapted("start"), Verbalizer(TEMPLATES["start"], WORDS)
    rows = [verbalizer.encode(byte_tokenizer, TEXTS[0], 1)]
    with pytest.raises(ValueError, match=r"rows are labelled with the tokens .* which are not among"):
        measure_faithfulness(model, byte_tokenizer, rows, verbalizer.label_sequences(byte_tokenizer)[::2])

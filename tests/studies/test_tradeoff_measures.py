"""What the study measures: answers, budget, rows. Each is held against a plain way of computing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model

from peft_interp import InterpPromptConfig, embedded
from studies.tradeoff.answers import PromptAnswers
from studies.tradeoff.bench import Budget, OverBudgetError, make_bench
from studies.tradeoff.config import Study, TaskSettings
from studies.tradeoff.data import fixed_rows, load_task
from studies.tradeoff.methods.fixed import examples, moved


def task(**settings: Any) -> Any:
    common = {"name": "sentiment", "label_words": ("terrible", "great"), "dataset_name": "embedded:sentiment"}
    template = {"template": "{prompt} {text} It was"}
    return TaskSettings(**{**common, **template, **settings})


def bench(own: Any, **values: Any) -> Any:
    study = Study(tasks=(own,), settings=(), test_rows=10, shots=4, **values)
    return make_bench(study, own, 13, 0)


@pytest.fixture(scope="module")
def classifying() -> Any:
    return bench(task())


@pytest.fixture(scope="module")
def writing() -> Any:
    return bench(task(template="{prompt} {text}", answers=("It was terrible", "It was great")))


def adapter_of(where: Any, ids: list[int]) -> Any:
    config = InterpPromptConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=len(ids), tokenizer_name_or_path=embedded.MODEL_PATH
    )
    adapter = get_peft_model(where.model, config)
    adapter.use_prompt(ids)
    return adapter


@pytest.mark.parametrize("kind", ["classifying", "writing"])
def test_tokens_and_an_adapter_that_holds_them_are_measured_alike(kind: str, request: pytest.FixtureRequest) -> None:
    where = request.getfixturevalue(kind)
    ids = where.tokenizer.encode("Movie review:")
    answers = PromptAnswers(where.model, where.data, "test")
    tokens, vectors = answers.of_prompts([ids])[0], answers.of_adapter(adapter_of(where, ids))
    assert torch.equal(tokens.right, vectors.right)
    torch.testing.assert_close(tokens.losses, vectors.losses, atol=1e-4, rtol=1e-4)
    assert 0 < tokens.accuracy < 1  # else there is nothing to compare


@pytest.mark.parametrize("prompt", ["Movie review:", "The weather was cold"])
def test_exact_match_is_that_of_greedy_generation(writing: Any, prompt: str) -> None:
    ids = writing.tokenizer.encode(prompt)
    answers = PromptAnswers(writing.model, writing.data, "test")
    found = answers.of_prompts([ids])[0].right.tolist()
    written = []
    for row in writing.data.rows["test"]:
        asked = [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100]
        answer = [label for label in row["labels"] if label != -100]
        given = torch.tensor([[*ids, *asked]])
        made = writing.model.generate(given, max_new_tokens=len(answer), do_sample=False, pad_token_id=0)
        written.append(made[0, given.shape[1] :].tolist() == answer)
    assert found == written
    assert any(found) or prompt != "Movie review:"


def test_answers_end_in_the_end_mark(writing: Any) -> None:
    row = writing.data.rows["test"][0]
    answer = writing.tokenizer.decode([label for label in row["labels"] if label != -100])
    assert answer in (" It was terrible<|endoftext|>", " It was great<|endoftext|>")


def test_budget_is_counted_and_cannot_be_exceeded(classifying: Any) -> None:
    own = bench(task(), budget=20)
    dev = len(own.data.rows["dev"])
    assert dev == 8
    own.score_on_dev([[5, 6], [5, 6], [7, 8]])
    assert own.budget.spent == 2 * dev
    own.score_on_dev([[5, 6]])
    assert own.budget.spent == 2 * dev
    with pytest.raises(OverBudgetError, match="24 model evaluations of 20"):
        own.score_on_dev([[9, 9]])


@pytest.mark.parametrize("total", [500, 700, 1500, 6000])
def test_training_steps_and_their_looks_fit_the_budget(total: int) -> None:
    steps = Budget(total).training_steps(batch_size=16, every=10, dev_rows=32)
    looks = 1 + steps // 10 + (steps % 10 > 0)
    assert steps * 48 + looks * 32 <= total < (steps + 1) * 48 + (looks + 2) * 32


def test_test_rows_are_the_same_for_every_split_and_mixed() -> None:
    rows = [(f"text {i}", i // 25) for i in range(50)]
    chosen = fixed_rows(rows, 10)
    assert chosen == fixed_rows(rows, 10)
    assert len(chosen) == 10
    everything = fixed_rows(rows, 99)
    assert sorted(everything) == sorted(rows)
    assert 0 < sum(label for _, label in everything[:10]) < 10  # the file is sorted by label


def test_few_shot_folder_is_read_with_its_quotes(tmp_path: Path) -> None:
    (tmp_path / "films" / "16-13").mkdir(parents=True)
    lines = '\tlabel\n"a ""dull , dull"" film"\t0\nit\'s "great" fun\t1\n'
    for name, column in (("16-13/train.tsv", "text"), ("16-13/dev.tsv", "text"), ("test.tsv", "sentence")):
        (tmp_path / "films" / name).write_text(column + lines)  # as AG News has them
    own = task(dataset_name=None, folder="films")
    study = Study(tasks=(own,), settings=(), data_dir=str(tmp_path))
    found = load_task(study, own, 13, embedded.load_tokenizer())
    assert found.texts["train"] == [('a "dull , dull" film', 0), ('it\'s "great" fun', 1)]
    with pytest.raises(FileNotFoundError, match="16-99 does not exist"):
        load_task(study, own, 99, embedded.load_tokenizer())


def test_rows_drawn_from_a_data_set_are_balanced_and_apart(classifying: Any) -> None:
    texts = classifying.data.texts
    for split in ("train", "dev"):
        assert sorted(label for _, label in texts[split]) == [0] * 4 + [1] * 4
    assert not set(texts["train"]) & set(texts["dev"])
    other = bench(task())
    assert other.data.texts == texts


def test_examples_are_paid_for_and_chosen_by_calibrated_answers(classifying: Any) -> None:
    rows = {name: len(own) for name, own in classifying.data.rows.items()}
    spent = classifying.budget.spent
    found = examples(classifying, count=2, draws=3)
    assert classifying.budget.spent - spent == 3 * (rows["train"] + rows["dev"])
    chosen = found.prompts[0]
    assert chosen.role == "chosen"
    assert chosen.dev["batch_accuracy"] == max(r.scores["batch_accuracy"] for r in classifying.board.records)
    words = classifying.data.settings.label_words
    lines = classifying.text_of(chosen.ids).splitlines()
    assert sorted(line.split()[-1] for line in lines) == sorted(words)
    prior = PromptAnswers(classifying.model, classifying.data, "train", classifying.leading).of_prompts([chosen.ids])[0]
    dev = PromptAnswers(classifying.model, classifying.data, "dev", classifying.leading).of_prompts([chosen.ids])[0]
    assert dev.calibrated(prior, "batch").accuracy == pytest.approx(chosen.dev["batch_accuracy"])


def test_a_text_of_the_embedded_model_is_moved_as_it_stands() -> None:
    where = bench(task(name="sst-2"), budget=1)
    found = moved(where, "search")
    assert where.text_of(found.prompts[0].ids) == "The film critic of the critics."
    assert where.budget.spent == 0
    with pytest.raises(ValueError, match=r"no run of 'search' .'weight 7'. on sst-2, 0"):
        moved(where, "search", "weight 7")

"""`prompt_position="template"`: the adapter's logits are the base model's logits of `text prompt text answer`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from peft_interp import InterpPromptConfig
from peft_interp.text.verbalizer import answer_logits
from peft_interp.tuner.task_types import TASK_TYPES

Build = Callable[..., Any]
CAUSAL = ["gpt2", "llama", "opt", "opt_narrow", "gemma2", "gemma3", "mistral", "qwen2", "bloom"]
PROMPT, PAD = 4, 0
TIGHT = {"atol": 1e-5, "rtol": 1e-5}
PLACES = (3, 1, 2)  # tokens in front of the prompt, a BOS not counted
ANSWERS = (2, 1, 1)  # tokens of the answer in each row


@pytest.fixture
def inside(causal: Build, readable: Build) -> Build:
    return lambda name, model=None, **config: readable(model or causal(name), prompt_position="template", **config)


@pytest.fixture
def marked() -> Build:
    """`marked(rows, side)`: ids, mask and labels, each row with a column that its mask leaves out at the place."""

    def build(rows: list[list[int]], side: str = "right", answers: tuple[int, ...] = ANSWERS) -> dict[str, Any]:
        columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        width = max(map(len, rows)) + 1
        for row, place, answer in zip(rows, PLACES, answers, strict=True):
            place, end = place + (row[0] == 1), len(row) - answer
            ids, mask = [*row[:place], PAD, *row[place:]], [1] * place + [0] + [1] * (len(row) - place)
            labels = [-100] * (end + 1) + row[end:]
            for name, values in (("input_ids", ids), ("attention_mask", mask), ("labels", labels)):
                pads = [-100 if name == "labels" else 0] * (width - len(ids))
                columns[name].append([*pads, *values] if side == "left" else [*values, *pads])
        return {name: torch.tensor(values) for name, values in columns.items()}

    return build


def expected_row(base: Any, row: list[int], place: int, prompt: list[int]) -> torch.Tensor:
    place += row[0] == 1
    with torch.no_grad():
        logits: torch.Tensor = base(input_ids=torch.tensor([[*row[:place], *prompt, *row[place:]]])).logits[0]
    return logits


def columns_of(row: list[int], side: str, width: int) -> slice:
    """Where a row's tokens stand in the output: after padding, or first."""
    length = len(row) + PROMPT
    return slice(width - length, width) if side == "left" else slice(length)


@pytest.mark.parametrize("bos", ["no", "all", "some"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CAUSAL)
def test_evaluation(causal: Build, inside: Build, marked: Build, rows: Build, name: str, side: str, bos: str) -> None:
    model, base, given = inside(name), causal(name), marked(rows(bos), side)
    prompt = model.prompt_token_ids()
    with torch.no_grad():
        as_ids = model(**given)
    as_vectors = model(**given)
    assert as_vectors.logits.requires_grad
    losses, width = [], given["input_ids"].shape[1] + PROMPT - 1  # the mark has no output
    answers = answer_logits(as_ids.logits, given["labels"])  # where Trainer's metrics look
    for i, row in enumerate(rows(bos)):
        wanted = expected_row(base, row, PLACES[i], prompt)
        for ours in (as_ids, as_vectors):
            assert ours.logits.shape[1] == width
            torch.testing.assert_close(ours.logits[i, columns_of(row, side, width)], wanted, **TIGHT)
        torch.testing.assert_close(answers[i], wanted[-ANSWERS[i] - 1], **TIGHT)
        answer = torch.tensor(row[-ANSWERS[i] :])
        losses += torch.nn.functional.cross_entropy(wanted[-ANSWERS[i] - 1 : -1], answer, reduction="none").tolist()
    torch.testing.assert_close(as_ids.loss, torch.tensor(losses).mean(), **TIGHT)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom"])
def test_training(causal: Build, inside: Build, marked: Build, rows: Build, name: str, side: str) -> None:
    """The loss is that of the pasted text, and its gradient that of the prompt's rows there."""
    model, base, given = inside(name).train(), causal(name), marked(rows("all"), side)
    model(**given).loss.backward()
    vectors = base.get_input_embeddings()(torch.tensor(model.prompt_token_ids())).detach().requires_grad_()
    total = torch.zeros(())
    for i, row in enumerate(rows("all")):
        place, table = PLACES[i] + 1, base.get_input_embeddings()
        embeds = torch.cat((table(torch.tensor(row[:place])), vectors, table(torch.tensor(row[place:]))))
        logits = base(inputs_embeds=embeds.unsqueeze(0)).logits[0, -ANSWERS[i] - 1 : -1]
        answer = torch.tensor(row[-ANSWERS[i] :])
        total = total + torch.nn.functional.cross_entropy(logits, answer, reduction="sum")
    loss = total / sum(ANSWERS)
    loss.backward()
    torch.testing.assert_close(model(**given).loss.detach(), loss.detach(), **TIGHT)
    encoder = model.prompt_encoder["default"]
    torch.testing.assert_close(encoder.latent.grad / encoder.unit, vectors.grad, **TIGHT)


def test_labels_of_the_whole_text_but_its_first_token(causal: Build, inside: Build, marked: Build, rows: Build) -> None:
    """Language modelling: what stands in front of the prompt counts too, as in the pasted text."""
    for side in ("left", "right"):
        model, base, given = inside("llama").train(), causal("llama"), marked(rows("no"), side)
        given["labels"] = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
        losses = []
        for row, place in zip(rows("no"), PLACES, strict=True):
            logits, text = expected_row(base, row, place, model.prompt_token_ids()), torch.tensor(row)
            places = [j - 1 + (PROMPT if j >= place else 0) for j in range(1, len(row))]
            losses.append(torch.nn.functional.cross_entropy(logits[places], text[1:], reduction="none"))
        torch.testing.assert_close(model(**given).loss.detach(), torch.cat(losses).mean(), **TIGHT)


def test_the_plain_pass_is_said_once(
    inside: Build, marked: Build, rows: Build, caplog: pytest.LogCaptureFixture
) -> None:
    model = inside("llama").train()
    with caplog.at_level(logging.INFO, logger="peft_interp"):
        for _ in range(2):
            model(**marked(rows("all")))
    said = [record.getMessage() for record in caplog.records if "stands inside the rows" in record.getMessage()]
    assert len(said) == 1


SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "repetition penalty": {"repetition_penalty": 3.0},
    "no cache": {"use_cache": False},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_generate(
    causal: Build, inside: Build, marked: Build, batch: Build, rows: Build, name: str, settings: dict[str, Any]
) -> None:
    model = inside(name)
    given = marked(rows("all"), "left", (0, 0, 0))
    given.pop("labels")
    prompt = model.prompt_token_ids()
    pasted = [[*row[: place + 1], *prompt, *row[place + 1 :]] for row, place in zip(rows("all"), PLACES, strict=True)]
    ours = model.generate(**given, max_new_tokens=6, **settings)
    text = causal(name).generate(**batch(pasted, "left"), max_new_tokens=6, **settings)
    assert torch.equal(ours[:, : given["input_ids"].shape[1]], given["input_ids"])
    assert torch.equal(ours[:, given["input_ids"].shape[1] :], text[:, len(pasted[0]) :])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_going_on_from_a_cache(causal: Build, inside: Build, marked: Build, rows: Build, name: str) -> None:
    model, given = inside(name), marked(rows("all"), "left", (0, 0, 0))
    ids, mask = given["input_ids"], given["attention_mask"]
    with torch.no_grad():
        whole = model(input_ids=ids, attention_mask=mask).logits
        first = model(input_ids=ids[:, :-1], attention_mask=mask[:, :-1], use_cache=True)
        second = model(input_ids=ids[:, -1:], attention_mask=mask, past_key_values=first.past_key_values)
    torch.testing.assert_close(second.logits[:, -1], whole[:, -1], **TIGHT)


@pytest.mark.parametrize("side", ["left", "right"])
def test_aligned_logits_give_the_models_own_loss(inside: Build, marked: Build, rows: Build, side: str) -> None:
    model, given = inside("llama", align_logits_with_labels=True), marked(rows("all"), side)
    output = model(**given)
    assert output.logits.shape[:2] == given["labels"].shape
    labels = given["labels"][:, 1:].flatten()
    loss = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels)
    torch.testing.assert_close(loss, output.loss, **TIGHT)


def test_embeddings_are_placed_by_the_mask_as_well(inside: Build, marked: Build, rows: Build) -> None:
    model, given = inside("llama"), marked(rows("all"), "left")
    ids = given.pop("input_ids")
    embeds = model.word_embeddings(ids)
    torch.testing.assert_close(model(inputs_embeds=embeds, **given).logits, model(ids, **given).logits, **TIGHT)


def test_the_perplexity_term_is_that_of_the_prompt_alone(inside: Build, marked: Build, rows: Build) -> None:
    given = marked(rows("all"))
    plain, weighed = inside("llama").train(), inside("llama", perplexity_weight=0.5).train()
    weighed.use_prompt(plain.prompt_token_ids())
    plain.use_prompt(plain.prompt_token_ids())
    losses = [model(**given).loss.item() for model in (plain, weighed)]
    assert losses[1] - losses[0] == pytest.approx(0.5 * weighed.prompt_statistics()["prompt_nll"], abs=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_rows_that_mark_no_place_are_refused(inside: Build, batch: Build, rows: Build, training: bool) -> None:
    model, given = inside("gpt2").train(training), batch(rows("all"))
    with pytest.raises(ValueError, match=r"row 0 of the batch marks no places for the prompt: .*model_inputs"):
        model(**given, labels=given["input_ids"])
    with pytest.raises(ValueError, match="a batch without `attention_mask` marks no places"):
        model(input_ids=given["input_ids"])
    two = {**given, "attention_mask": given["attention_mask"].clone()}
    two["attention_mask"][0, [2, 4]] = 0
    with pytest.raises(ValueError, match="row 0 of the batch marks 2 places"):
        model(**two)


def test_every_task_may_have_rows_that_mark_a_place() -> None:
    for task in TASK_TYPES:
        config = InterpPromptConfig(task_type=task.name, prompt_position="template")
        assert config.placement in task.placements


def test_a_saved_adapter_loads_again(causal: Build, inside: Build, marked: Build, rows: Build, tmp_path: Path) -> None:
    model, given = inside("llama"), marked(rows("all"), "left")
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(causal("llama"), str(tmp_path)).eval()
    assert loaded.active_peft_config.prompt_position == "template"
    torch.testing.assert_close(loaded(**given).logits, model(**given).logits, atol=0.0, rtol=0.0)
    card = " ".join((tmp_path / "README.md").read_text().split())
    assert "plain PEFT puts a prompt in front of the input only, and this one stands inside it" in card
    assert not (tmp_path / "portable").exists()

"""`prompt_position="end"` in a masked LM: the prompt stands right before the mask, as in `{text} {prompt} <mask>`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import BertForMaskedLM, GPT2Model, RobertaForMaskedLM

from peft_interp import InterpPromptConfig

Build = Callable[..., Any]
CLS, SEP, MASK = 1, 2, 3
TEXTS = [[CLS, 20, 21, 22, MASK, 5, SEP], [CLS, 30, MASK, SEP], [CLS, MASK, 31, MASK, 32, SEP]]


@pytest.fixture
def masked(roberta: Build, bert: Build, readable: Build) -> Build:
    """`masked(name, **config)`: a masked LM with our adapter of four tokens."""

    def build(name: str = "roberta", **config: Any) -> Any:
        base = roberta(RobertaForMaskedLM) if name == "roberta" else bert(BertForMaskedLM)
        settings = {"prompt_position": "end", "mask_token_id": MASK, "leading_token_ids": [CLS], **config}
        return readable(base, "FEATURE_EXTRACTION", **settings)

    return build


def by_hand(rows: list[list[int]], prompt: list[int]) -> list[list[int]]:
    """Each row with the prompt in front of its first mask."""
    return [row[: row.index(MASK)] + prompt + row[row.index(MASK) :] for row in rows]


@pytest.mark.parametrize(
    ("name", "padding"),
    [("roberta", "none"), ("roberta", "right"), ("roberta", "left"), ("bert", "none"), ("bert", "right")],
)
def test_the_adapter_is_the_text_before_the_mask(masked: Build, batch: Build, name: str, padding: str) -> None:
    """Not for BERT with left padding: its positions count from the first column, padding or not."""
    model = masked(name).eval()
    rows = TEXTS[:1] if padding == "none" else TEXTS
    composed = by_hand(rows, model.prompt_token_ids())
    with torch.no_grad():
        found = model(**batch(rows, "left" if padding == "left" else "right")).logits
        for row, logits in zip(composed, found, strict=True):
            alone = model.get_base_model()(input_ids=torch.tensor([row])).logits[0]
            mine = logits[-len(row) :] if padding == "left" else logits[: len(row)]
            torch.testing.assert_close(mine, alone, rtol=0, atol=1e-5)


def test_labels_at_the_mask_give_the_loss_of_the_text(masked: Build, batch: Build) -> None:
    model = masked()
    given = batch(TEXTS, "right")
    labels = torch.where(given["input_ids"].eq(MASK), 9, -100)
    model.eval()
    composed = by_hand(TEXTS, model.prompt_token_ids())
    plain = batch(composed, "right")
    expected = model.get_base_model()(**plain, labels=torch.where(plain["input_ids"].eq(MASK), 9, -100)).loss
    assert model(**given, labels=labels).loss.item() == pytest.approx(expected.item(), abs=1e-5)
    model.train()
    loss = model(**given, labels=labels).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
    assert model.prompt_encoder["default"].latent.grad.norm() > 0


def test_the_mask_is_the_tokenizers_and_is_saved(masked: Build, roberta: Build, tmp_path: Any) -> None:
    masked().save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(roberta(RobertaForMaskedLM), tmp_path)
    assert again.active_peft_config.mask_token_id == MASK
    assert MASK in again.active_peft_config.special_token_ids, "no prompt may hold the mask itself"


def test_rows_without_a_mask_are_refused(masked: Build) -> None:
    model = masked()
    with pytest.raises(ValueError, match=r"rows \[1\] of the batch hold no mask token \(id 3\)"):
        model(input_ids=torch.tensor([[CLS, 20, MASK, SEP], [CLS, 20, 21, SEP]]))
    with pytest.raises(ValueError, match="`prompt_position='end'` finds the mask in `input_ids`"):
        model(inputs_embeds=torch.zeros(1, 3, 32))


def test_a_model_without_a_mask_refuses_it(gpt2: Build) -> None:
    config = InterpPromptConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=4, prompt_position="end")
    with pytest.raises(ValueError, match="needs the mask token that the prompt stands in front of"):
        get_peft_model(gpt2(GPT2Model), config)

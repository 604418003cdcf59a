"""What lies beside a saved prompt, for every kind of model, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

from peft_interp import InterpPromptConfig, embedded
from peft_interp.hub.adapter_files import write_portable
from peft_interp.hub.saving import write_beside

Build = Callable[..., Any]
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture
def readable(readable: Build, tokenizer_dir: Path) -> Build:
    """`readable(model, task_type="CAUSAL_LM", **config)`: our adapter of 4 tokens, which knows its tokenizer."""
    known = {"tokenizer_name_or_path": str(tokenizer_dir)}
    return lambda model, task_type="CAUSAL_LM", **config: readable(model, task_type, **{**known, **config}).eval()


def test_text_and_facts_are_exact(
    gpt2: Build, readable: Build, tokenizer_dir: Path, tmp_path: Path, files_below: Build
) -> None:
    model = readable(gpt2(), perplexity_weight=0.25)
    model.save_pretrained(tmp_path / "saved")
    text = model.prompt_text(AutoTokenizer.from_pretrained(tokenizer_dir))
    assert (tmp_path / "saved" / "prompt.txt").read_bytes() == text.encode()
    facts = json.loads((tmp_path / "saved" / "prompt.json").read_text())
    assert facts["ids"] == model.prompt_token_ids()
    assert facts["text"] == text
    assert facts["tokens"] == [f"w{i}" for i in facts["ids"]]
    assert facts["leading_ids"] == [1]
    assert facts["leading_text"] == "<s>"
    assert facts["settings"] == {"perplexity_weight": 0.25}
    assert facts["table_fingerprint"] == model.peft_config["default"].table_fingerprint
    assert files_below(tmp_path / "saved") == {*ADAPTER, "prompt.json", "prompt.txt", "README.md"}


def test_a_text_that_is_no_longer_the_prompt_does_not_stay(
    gpt2: Build, readable: Build, tokenizer_dir: Path, tmp_path: Path
) -> None:
    readable(gpt2()).save_pretrained(tmp_path)
    assert (tmp_path / "prompt.txt").exists()
    unnamed = readable(gpt2(), tokenizer_name_or_path=None)
    unnamed.use_prompt([9, 8, 7, 6])
    unnamed.save_pretrained(tmp_path)
    assert not (tmp_path / "prompt.txt").exists()
    assert json.loads((tmp_path / "prompt.json").read_text())["text"] is None
    assert "`[9, 8, 7, 6]`" in (tmp_path / "README.md").read_text()
    AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(tmp_path)  # as Trainer does, after the model
    unnamed.create_or_update_model_card(str(tmp_path))
    assert (tmp_path / "prompt.txt").read_text() == "w9 w8 w7 w6"
    assert "```text\nw9 w8 w7 w6\n```" in (tmp_path / "README.md").read_text()


def test_vectors_are_not_written_as_text(gpt2: Build, readable: Build, tmp_path: Path) -> None:
    model = readable(gpt2(), projection_metric="none", prompt_tuning_init="RANDOM")
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "prompt.txt").exists()
    assert not json.loads((tmp_path / "prompt.json").read_text())["is_text"]
    assert "need not act like them" in (tmp_path / "README.md").read_text()


def test_a_prompt_at_the_end_has_its_working_text_and_is_not_for_plain_peft(tmp_path: Path, files_below: Build) -> None:
    """Its leading blank is part of it; plain PEFT cannot place it, and the card says so."""
    tokenizer, folder = embedded.load_tokenizer(), tmp_path / "saved"
    start = {"task_type": "CAUSAL_LM", "tokenizer_name_or_path": embedded.MODEL_PATH, "prompt_tuning_init": "TEXT"}
    get_peft_model(
        embedded.load_model(), InterpPromptConfig(**start, prompt_tuning_init_text="Judge this:")
    ).save_pretrained(folder)
    config = InterpPromptConfig(**start, prompt_tuning_init_text=" The review is", prompt_position="end")
    model = get_peft_model(embedded.load_model(), config).eval()
    model.save_pretrained(folder)
    text = (folder / "prompt.txt").read_bytes().decode()
    assert text == " The review is" == model.prompt_text(tokenizer)
    assert files_below(folder) == {*(*ADAPTER, "prompt.txt", "prompt.json", "README.md")}
    facts = json.loads((folder / "prompt.json").read_text())
    assert (facts["position"], facts["text"]) == ("end", text)
    card = (folder / "README.md").read_text()
    assert "```text\n The review is\n```" in card
    assert "right after the input, before the answer" in card
    assert "plain PEFT puts a prompt in front of the input only" in card
    (code,) = [line for line in card.splitlines() if line.startswith("text = ")]
    known: dict[str, str] = {}
    exec(code, known)
    row = tokenizer(known["text"], return_tensors="pt")
    bare = tokenizer("Your input.", return_tensors="pt")
    with torch.no_grad():
        ours, plain = model(**bare).logits[:, -1], model.get_base_model()(**row).logits[:, -1]
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)


def test_a_sentencepiece_text_keeps_the_blank_it_begins_with(llama: Build, tmp_path: Path) -> None:
    """Decoded alone, the first token loses it."""
    pieces = {"<unk>": 0, **{f"\u2581{word}": 3 + i for i, word in enumerate(("a", "good", "film"))}}
    core = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    core.decoder = decoders.Metaspace(prepend_scheme="always", split=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    settings = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 2, "prompt_position": "end"}
    model = get_peft_model(llama(vocab_size=6), InterpPromptConfig(**settings))
    model.use_prompt([4, 5])
    model.save_pretrained(tmp_path)
    write_beside(tmp_path, tokenizer)
    assert tokenizer.decode([4, 5]) == "good film"
    assert (tmp_path / "prompt.txt").read_bytes() == b" good film"


BASES = {
    "CAUSAL_LM": lambda gpt2, t5, bert: gpt2(),
    "SEQ_2_SEQ_LM": lambda gpt2, t5, bert: t5(),
    "SEQ_CLS": lambda gpt2, t5, bert: bert(BertForSequenceClassification, num_labels=3),
    "SEQ_CLS/gpt2": lambda gpt2, t5, bert: gpt2(GPT2ForSequenceClassification, num_labels=3),
}


@pytest.mark.parametrize("case", BASES)
@pytest.mark.parametrize("soft", [False, True])
def test_stock_peft_gives_the_same_logits_from_a_stock_copy(
    case: str, soft: bool, gpt2: Build, t5: Build, bert: Build, readable: Build, token_ids: Build, tmp_path: Path
) -> None:
    """Of projected and soft prompts, trained heads included; no warning, since those are errors here.

    After a causal model with a classifier plain PEFT reads padded rows at their padding, so there without padding.
    """
    task, make = case.partition("/")[0], lambda: BASES[case](gpt2, t5, bert)
    model = readable(make(), task, projection_metric="none" if soft else "cosine")
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.5 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    write_portable(tmp_path, tmp_path / "plain")
    stock = PeftModel.from_pretrained(make(), tmp_path / "plain").eval()
    assert type(stock.peft_config["default"]) is PromptTuningConfig
    rows = torch.tensor([[1] * 6, [1] * 6 if case == "SEQ_CLS/gpt2" else [1] * 4 + [0] * 2])
    batch = {"input_ids": token_ids(2, 6), "attention_mask": rows}
    if task == "SEQ_2_SEQ_LM":
        batch["decoder_input_ids"] = token_ids(2, 3)
    with torch.no_grad():
        ours, theirs = model(**batch).logits, stock(**batch).logits
    seen = torch.ones(ours.shape[:1], dtype=torch.bool) if task != "CAUSAL_LM" else rows.bool()
    last = ours.shape[1] if task != "CAUSAL_LM" else rows.shape[1]
    torch.testing.assert_close(theirs[:, -last:][seen], ours[:, -last:][seen], atol=1e-5, rtol=1e-5)


def test_adapters_of_other_methods_are_saved_as_peft_saves_them(
    gpt2: Build, readable: Build, tmp_path: Path, files_below: Build
) -> None:
    stock = set(ADAPTER)
    model = readable(gpt2())
    model.add_adapter("plain", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    model.save_pretrained(tmp_path / "both")
    assert {p for p in files_below(tmp_path / "both") if p.startswith("plain/")} == {f"plain/{name}" for name in stock}
    model.save_pretrained(tmp_path / "one", selected_adapters=["plain"])
    assert files_below(tmp_path / "one") == {f"plain/{name}" for name in stock} | {"README.md"}
    lora = get_peft_model(gpt2(), LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], fan_in_fan_out=True))
    lora.save_pretrained(tmp_path / "lora")
    assert files_below(tmp_path / "lora") == stock | {"README.md"}
    assert "interpretable-prompt" not in (tmp_path / "lora" / "README.md").read_text()


def test_two_prompts_in_one_folder_are_both_told(gpt2: Build, readable: Build, tmp_path: Path) -> None:
    model = readable(gpt2())
    settings = dict(model.peft_config["default"].to_dict(), num_virtual_tokens=3, peft_type=None)
    torch.manual_seed(1)  # else it draws the tokens of the first
    model.add_adapter("second", InterpPromptConfig(**{k: v for k, v in settings.items() if k != "peft_type"}))
    model.save_pretrained(tmp_path)
    first, second = ((folder / "prompt.txt").read_text() for folder in (tmp_path, tmp_path / "second"))
    card = (tmp_path / "README.md").read_text()
    assert card.index(first) < card.index("## Other prompts in this repository") < card.index(second)
    model.save_pretrained(tmp_path / "only", selected_adapters=["second"])
    card = (tmp_path / "only" / "README.md").read_text()
    assert second in card
    assert first not in card
    assert 'subfolder="second"' in card


def test_nothing_is_written_by_another_process_than_the_first(gpt2: Build, readable: Build, tmp_path: Path) -> None:
    readable(gpt2()).save_pretrained(tmp_path / "x", is_main_process=False)
    assert not (tmp_path / "x").exists() or list((tmp_path / "x").iterdir()) == []


def test_a_pickle_is_written_only_where_it_is_asked_for_and_never_alone(
    gpt2: Build, readable: Build, tmp_path: Path, files_below: Build
) -> None:
    model = readable(gpt2())
    model.save_pretrained(tmp_path / "a")
    model.save_pretrained(tmp_path / "b", safe_serialization=False)
    pickles = {p for p in files_below(tmp_path) if p.endswith((".bin", ".pt"))}
    assert pickles == {"b/adapter_model.bin"}
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in "ab")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_adapter_of_any_name_is_saved_whole(gpt2: Build, readable: Build, tmp_path: Path) -> None:
    """Earlier versions kept a copy under this name."""
    model = readable(gpt2())
    model.add_adapter("portable", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "portable" / "adapter_model.safetensors")["prompt_embeddings"].shape == (3, 32)

"""The code in a card runs as it stands: every kind of task, prompt, place and base model, trained heads too."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel, get_peft_model
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    GPT2ForSequenceClassification,
)

from peft_interp import InterpPromptConfig, embedded, report_prompt
from peft_interp.base_model_name import INSTALL, PLACE_OF_THE_BASE
from peft_interp.hub.saving import write_beside, write_card

Build = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]
TASKS = {
    "causal": "CAUSAL_LM",
    "seq2seq": "SEQ_2_SEQ_LM",
    "bert classes": "SEQ_CLS",
    "gpt2 classes": "SEQ_CLS",
    "tokens": "TOKEN_CLS",
    "answers": "QUESTION_ANS",
    "features": "FEATURE_EXTRACTION",
    "masked": "FEATURE_EXTRACTION",
}
AUTO = {
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "bert classes": "AutoModelForSequenceClassification",
    "gpt2 classes": "AutoModelForSequenceClassification",
    "tokens": "AutoModelForTokenClassification",
    "answers": "AutoModelForQuestionAnswering",
    "features": "AutoModel",
    "masked": "AutoModelForMaskedLM",
}
HEADINGS = ["### With peft_interp", "### With plain PEFT, without this package", "### As plain text"]


@pytest.fixture
def base_of(gpt2: Build, bert: Build, t5: Build) -> Build:
    def build(kind: str) -> Any:
        made: dict[str, Callable[[], Any]] = {
            "causal": gpt2,
            "seq2seq": t5,
            "bert classes": lambda: bert(BertForSequenceClassification, num_labels=3),
            "gpt2 classes": lambda: gpt2(GPT2ForSequenceClassification, num_labels=5),
            "tokens": lambda: bert(BertForTokenClassification, num_labels=4),
            "answers": lambda: bert(BertForQuestionAnswering),
            "features": lambda: bert(BertModel),
            "masked": lambda: bert(BertForMaskedLM),
        }
        return made[kind]()

    return build


def snippets(card: str) -> dict[str, list[str]]:
    """Python blocks of a card by the heading above them."""
    parts = re.split(r"^(### [^\n]+)$", card.split("## How to use it")[1].split("## How it was trained")[0], flags=re.M)
    return {
        name: re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def run(code: str, base: Path) -> dict[str, Any]:
    """The code with the reader's folder filled in."""
    found: dict[str, Any] = {}
    exec(compile(code.replace(PLACE_OF_THE_BASE, str(base)), "card", "exec"), found)
    return found


@pytest.mark.parametrize("prompt", ["tokens", "vectors"])
@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.filterwarnings("ignore:.*pad_token_id")
def test_every_piece_of_code_runs(
    base_of: Build, tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, prompt: str
) -> None:
    place = {"prompt_position": "end", "mask_token_id": 3} if kind == "masked" else {}
    check(base_of(kind), kind, prompt, tokenizer_dir, tmp_path, place)


@pytest.mark.parametrize("prompt", ["tokens", "vectors"])
def test_a_prompt_at_the_end_has_code_that_runs(
    base_of: Build, tokenizer_dir: Path, tmp_path: Path, prompt: str
) -> None:
    check(base_of("causal"), "causal", prompt, tokenizer_dir, tmp_path, {"prompt_position": "end"})


def check(base: Any, kind: str, prompt: str, tokenizer_dir: Path, folder: Path, place: dict[str, Any]) -> None:
    AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(folder / "base")
    base.save_pretrained(folder / "base")
    base = type(base).from_pretrained(folder / "base")
    metric = {"projection_metric": "none"} if prompt == "vectors" else {}
    settings = {"num_virtual_tokens": 4, "tokenizer_name_or_path": str(tokenizer_dir), **place, **metric}
    model: Any = get_peft_model(base, InterpPromptConfig(task_type=TASKS[kind], **settings))
    model.save_pretrained(folder / "adapter")
    write_card(folder / "adapter", {"": AutoTokenizer.from_pretrained(tokenizer_dir)}, location=str(folder / "adapter"))
    card = (folder / "adapter" / "README.md").read_text()
    found = snippets(card)
    assert list(found) == HEADINGS
    (ours,) = found[HEADINGS[0]]
    assert AUTO[kind] in ours
    loaded = run(ours, folder / "base")["model"]
    assert isinstance(loaded, PeftModel)
    assert loaded.prompt_token_ids() == model.prompt_token_ids()
    ends, heads = "prompt_position" in place, kind in ("bert classes", "gpt2 classes", "tokens", "answers")
    assert len(found[HEADINGS[1]]) == (0 if ends else 1)
    assert len(found[HEADINGS[2]]) == (0 if prompt == "vectors" or heads else 1)
    for code in [*found[HEADINGS[1]], *found[HEADINGS[2]]]:
        assert "peft_interp" not in code
        assert run(code, folder / "base")["base"] is not None


@pytest.mark.parametrize("position", ["start", "end"])
def test_code_for_the_embedded_model_labels_a_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], position: str
) -> None:
    from peft_interp import Verbalizer

    template = "{text} {prompt}" if position == "end" else "{prompt} {text} It was"
    task, tokenizer = Verbalizer(template, ("terrible", "great")), embedded.load_tokenizer()
    start = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": " It was" if position == "end" else "Review:"}
    config = InterpPromptConfig(
        task_type="CAUSAL_LM", prompt_position=position, tokenizer_name_or_path=embedded.MODEL_PATH, **start
    )
    model: Any = get_peft_model(embedded.load_model(), config)
    rows = [
        task.encode(tokenizer, row["sentence"], row["label"])
        for row in embedded.load_data("sentiment")["test"].select(range(8))
    ]
    model.attach_report(report_prompt(model, tokenizer, rows, task, progress=False, token_effects=False))
    model.save_pretrained(tmp_path)
    write_card(tmp_path, {"": embedded.load_tokenizer()}, location=str(tmp_path))
    found = snippets((tmp_path / "README.md").read_text())
    (ours,) = found[HEADINGS[0]]
    assert "peft_interp.classify(" in ours
    run(ours, Path(embedded.MODEL_PATH))
    assert re.search("terrible|great|[01]", capsys.readouterr().out)
    for name in HEADINGS[1:]:
        for code in found[name]:
            run(code, Path(embedded.MODEL_PATH))


def test_an_embedded_model_with_a_classifier_is_loaded_by_its_auto_class(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(embedded.MODEL_PATH, num_labels=3)
    base.config.pad_token_id = base.config.eos_token_id
    settings = {"num_virtual_tokens": 3, "tokenizer_name_or_path": embedded.MODEL_PATH}
    model: Any = get_peft_model(base, InterpPromptConfig(task_type="SEQ_CLS", **settings))
    model.save_pretrained(tmp_path)
    write_card(tmp_path, {"": embedded.load_tokenizer()}, location=str(tmp_path))
    (ours,) = snippets((tmp_path / "README.md").read_text())[HEADINGS[0]]
    assert "AutoModelForSequenceClassification.from_pretrained(embedded.MODEL_PATH, num_labels=3)" in ours
    assert run(ours, Path(embedded.MODEL_PATH))["model"].get_base_model().config.num_labels == 3


def test_prompts_in_folders_are_named_in_the_code(base_of: Build, tokenizer_dir: Path, tmp_path: Path) -> None:
    base = base_of("causal")
    AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(tmp_path / "base")
    base.save_pretrained(tmp_path / "base")
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, tokenizer_name_or_path=str(tokenizer_dir))
    model: Any = get_peft_model(type(base).from_pretrained(tmp_path / "base"), config, adapter_name="films")
    model.save_pretrained(tmp_path / "saved")
    write_beside(tmp_path / "saved" / "films", AutoTokenizer.from_pretrained(tokenizer_dir))
    write_card(
        tmp_path / "saved", {"films": AutoTokenizer.from_pretrained(tokenizer_dir)}, location=str(tmp_path / "saved")
    )
    found = snippets((tmp_path / "saved" / "README.md").read_text())
    assert 'subfolder="films"' in found[HEADINGS[0]][0]
    for code in [*found[HEADINGS[0]], *found[HEADINGS[1]]]:
        assert run(code, tmp_path / "base")["model"] is not None


def test_the_install_line_works_in_a_checkout() -> None:
    """It names the working directory, which is a project that pip can read; the package is on no index."""
    program, *arguments = INSTALL.split()
    assert (program, arguments[-1]) == ("pip", ".")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["project"]["name"] == "peft-interp"
    for pattern in ("report/templates/*", "hub/templates/*"):  # without them an installed package shows nothing
        assert pattern in project["tool"]["setuptools"]["package-data"]["peft_interp"]
        assert list((REPOSITORY / "peft_interp").glob(pattern))

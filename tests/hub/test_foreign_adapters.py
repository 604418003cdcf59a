"""Adapters from strangers that hold another prompt than they say, or more than a prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    PeftModel,
    PromptTuningConfig,
    get_peft_model,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from peft_interp import InterpPromptConfig, continue_training, report_prompt
from peft_interp.hub.facts import read_facts
from peft_interp.hub.saving import write_beside
from peft_interp.tuner.saved_adapter import MOST_TOKENS
from peft_interp.tuner.stored_config import SETTINGS_KEY
from tests.builders import configure

Build = Callable[..., Any]
WEIGHTS = "adapter_model.safetensors"
FOREIGN = "base_model.transformer.ln_f.weight"


def change(folder: Path, **changes: Any) -> None:
    """Put tensors into the adapter's file; None takes one out."""
    tensors = {**load_file(folder / WEIGHTS), **changes}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / WEIGHTS)


@pytest.fixture
def base_dir(gpt2: Build, tokenizer_dir: Path, tmp_path: Path) -> Path:
    """A base model with its tokenizer, as a folder."""
    gpt2().save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def base(base_dir: Path) -> Build:
    from transformers import AutoModelForCausalLM

    return lambda: AutoModelForCausalLM.from_pretrained(base_dir).eval()


@pytest.fixture
def adapter(base: Build, tmp_path: Path) -> Path:
    model = get_peft_model(base(), InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    model.use_prompt([9, 10, 11, 9])
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def rows() -> list[dict[str, list[int]]]:
    return [{"input_ids": [1, 20 + i, 30, 5 + i % 2], "labels": [-100, -100, -100, 5 + i % 2]} for i in range(8)]


# -- tensors that are no part of the prompt ----------------------------------------------------------------------------


def test_a_tensor_that_would_overwrite_the_base_is_refused_everywhere(
    adapter: Path, base: Build, base_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft_interp.cli import main

    change(adapter, **{FOREIGN: torch.full((32,), 9.0)})
    clean, model = base(), base()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loaders: list[Callable[[], Any]] = [
        lambda: PeftModel.from_pretrained(model, adapter),
        lambda: continue_training(model, str(adapter)),
        lambda: AutoPeftModelForCausalLM.from_pretrained(adapter),
        lambda: get_peft_model(clean, InterpPromptConfig(task_type="CAUSAL_LM")).load_adapter(adapter, "second"),
        lambda: write_beside(adapter, None),
        lambda: read_facts(adapter),
    ]
    for load in loaders:
        with pytest.raises(ValueError, match=r"ln_f\.weight', which belongs neither to the prompt nor .*overwrite"):
            load()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for command in (["read"], ["evaluate"], ["export", "--to", "text"]):
        assert main([*command, str(adapter)]) == 1
        assert "would overwrite the base model's own weights" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["base_model.transformer.ln_f.modules_to_save.default.weight", "a.b", "unknown"])
def test_neither_another_spelling_nor_an_unknown_tensor_gets_in(adapter: Path, base: Build, name: str) -> None:
    change(adapter, **{name: torch.ones(32)})
    with pytest.raises(ValueError, match=r"neither to the prompt nor|has no place in this model"):
        PeftModel.from_pretrained(base(), adapter)


def test_a_tensor_equal_to_the_bases_own_changes_nothing_and_passes(adapter: Path, base: Build) -> None:
    """Older versions wrote them with `save_embedding_layers=True`; a save of today leaves them out."""
    change(adapter, **{"base_model.transformer.wte.weight": base().get_input_embeddings().weight.detach().clone()})
    with pytest.raises(ValueError, match="neither to the prompt"):
        read_facts(adapter)  # without the base model nobody can tell
    state = get_peft_model(base(), InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    set_peft_model_state_dict(state, load_file(adapter / WEIGHTS))
    state.save_pretrained(adapter.parent / "again", save_embedding_layers=True)
    assert not [name for name in load_file(adapter.parent / "again" / WEIGHTS) if "." in name]


def test_a_declared_module_is_told_with_what_text_alone_does(base: Build, base_dir: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base_dir)
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, modules_to_save=["ln_f"])
    model: Any = get_peft_model(base(), config)
    model.use_prompt([9, 10, 11, 9])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln_f.modules_to_save" in name:
                parameter.mul_(-3.0)
    model.save_pretrained(tmp_path / "declared")
    loaded: Any = PeftModel.from_pretrained(base(), tmp_path / "declared").eval()
    report = report_prompt(loaded, tokenizer, rows(), label_token_ids=[5, 6], progress=False)
    change_ = report.base_change
    assert change_ is not None
    assert change_.modules == ("transformer.ln_f",)
    clean: Any = get_peft_model(base(), InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    clean.use_prompt([9, 10, 11, 9])
    beside = report_prompt(clean.eval(), tokenizer, rows(), label_token_ids=[5, 6], progress=False)
    assert beside.base_change is None
    assert beside.verdict("base") is None
    assert beside.faithfulness is not None
    assert change_.as_text is not None
    assert change_.as_text.loss == pytest.approx(beside.faithfulness.as_text.loss, abs=1e-5)
    assert report.faithfulness is not None
    assert abs(report.faithfulness.as_text.loss - change_.as_text.loss) > 0.1
    answers = {verdict.question: verdict for verdict in report.verdicts}
    assert answers["base"].answer == "no"
    assert "transformer.ln_f was trained with the prompt" in answers["base"].words
    assert "on the unchanged base model the text alone has accuracy" in answers["base"].words
    assert answers["faithful"].answer == "partly"
    for shown in (report.to_markdown(), report.to_html(), report.to_text()):
        assert "Is the base model as it was?" in shown
    assert type(report).from_dict(json.loads(json.dumps(report.to_dict()))).base_change == change_
    loaded.attach_report(report)
    loaded.save_pretrained(tmp_path / "declared")
    card = (tmp_path / "declared" / "README.md").read_text()
    assert "Is the base model as it was?" in card
    assert "A readable prompt" not in card


def test_a_stock_adapter_loads_as_ever_and_the_report_says_what_it_overwrote(base: Build, tmp_path: Path) -> None:
    stock = get_peft_model(base(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    stock.save_pretrained(tmp_path / "stock")
    change(tmp_path / "stock", **{FOREIGN: torch.full((32,), 9.0)})
    model = PeftModel.from_pretrained(base(), tmp_path / "stock")
    assert model.get_base_model().transformer.ln_f.weight[0] == 9.0  # PEFT's business
    tokenizer = AutoTokenizer.from_pretrained(model.get_base_model().name_or_path)
    verdict = report_prompt(model, tokenizer, progress=False).verdict("base")
    assert verdict is not None
    assert verdict.answer == "no"
    assert "overwrote base_model.transformer.ln_f.weight" in verdict.words


def test_a_module_that_was_declared_and_is_missing_is_named(base: Build, tmp_path: Path) -> None:
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, modules_to_save=["ln_f"])
    get_peft_model(base(), config).save_pretrained(tmp_path)
    change(tmp_path, **{FOREIGN: None})
    with pytest.raises(ValueError, match=r"declares trained modules but has no tensor '.*ln_f"):
        PeftModel.from_pretrained(base(), tmp_path)


# -- vectors, ids and the copy for plain PEFT --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"prompt_embeddings": torch.ones(4, 32)}, r"different rows|are not the rows of 'prompt_ids'"),
        ({"prompt_embeddings": torch.randn(4, 32)}, "different rows for the same token"),
        ({"prompt_embeddings": torch.full((4, 32), torch.nan)}, "'prompt_embeddings' holds NaN"),
        ({"prompt_latent": torch.full((4, 32), torch.inf)}, "'prompt_latent' holds NaN or infinity"),
        ({"prompt_embeddings": None}, "no tensor 'prompt_embeddings'"),
        ({"prompt_ids": None}, "no tensor 'prompt_ids'"),
        ({"prompt_ids": torch.tensor([9.0, 10.0, 11.0, 9.0])}, "must hold whole numbers"),
        ({"prompt_ids": torch.tensor(9)}, "shape"),
        ({"prompt_ids": torch.tensor([9, 10, 11, -9])}, "must be token ids from 0"),
        ({"prompt_ids": torch.tensor([9, 10, 11, 2**40])}, "different rows|do not fit a vocabulary"),
        ({"prompt_step": torch.tensor(1.5)}, "'prompt_step' .* must hold whole numbers"),
        ({"best_prompt_score": torch.tensor([1.0, 2.0])}, "shape"),
    ],
)
def test_vectors_that_are_not_those_of_the_ids_are_refused(
    adapter: Path, base: Build, tensors: dict[str, Any], message: str
) -> None:
    change(adapter, **tensors)
    with pytest.raises(ValueError, match=message):
        PeftModel.from_pretrained(base(), adapter)


def test_a_latent_in_another_precision_keeps_the_ids_that_were_shown(adapter: Path, base: Build) -> None:
    """A latent that lies elsewhere must not become another prompt when the model is cast."""
    change(adapter, prompt_latent=base().get_input_embeddings().weight.detach()[[40, 41, 42, 43]].clone())
    model: Any = PeftModel.from_pretrained(base(), adapter)
    for cast in (torch.half, torch.float, torch.bfloat16):
        assert model.to(cast).prompt_token_ids() == [9, 10, 11, 9]


def test_what_lies_beside_the_prompt_and_contradicts_it_is_named(adapter: Path, base: Build) -> None:
    facts = json.loads((adapter / "prompt.json").read_text())
    (adapter / "prompt.json").write_text(json.dumps({**facts, "ids": [1, 2, 3, 4]}))
    with pytest.warns(UserWarning, match=r"prompt.json tells of another prompt.*Only the weights count"):
        PeftModel.from_pretrained(base(), adapter)
    write_beside(adapter, None)
    PeftModel.from_pretrained(base(), adapter)


SAYS_TWO_THINGS: dict[str, tuple[dict[str, Any], str]] = {
    "length": ({"num_virtual_tokens": 3}, "num_virtual_tokens under `peft_interp`, which plain PEFT reads elsewhere"),
    "base": ({"base_model_name_or_path": "me/other"}, "base_model_name_or_path under `peft_interp`"),
    "modules": ({"modules_to_save": ["ln_f"]}, "modules_to_save under `peft_interp`"),
    "type": ({"peft_type": "LORA"}, "peft_type under `peft_interp`"),
    "place": (
        {"prompt_position": "end"},
        "plain PEFT would put its prompt in front of the text, where it",
    ),
}


@pytest.mark.parametrize("case", SAYS_TWO_THINGS)
def test_a_config_that_tells_plain_peft_another_thing_is_refused(adapter: Path, base: Build, case: str) -> None:
    settings, words = SAYS_TWO_THINGS[case]
    stored = json.loads((adapter / "adapter_config.json").read_text())
    stored[SETTINGS_KEY] |= settings
    (adapter / "adapter_config.json").write_text(json.dumps(stored))
    for load in (lambda: PeftModel.from_pretrained(base(), adapter), lambda: read_facts(adapter)):
        with pytest.raises(ValueError, match=words):
            load()


def test_a_prompt_saved_again_by_plain_peft_is_its_vectors_alone(adapter: Path, base: Build) -> None:
    """It keeps neither our settings nor our tensors, and loads as the stock adapter that it then is."""
    stored = json.loads((adapter / "adapter_config.json").read_text())
    del stored[SETTINGS_KEY]
    (adapter / "adapter_config.json").write_text(json.dumps(stored))
    change(adapter, **dict.fromkeys(set(load_file(adapter / WEIGHTS)) - {"prompt_embeddings"}))
    assert type(PeftModel.from_pretrained(base(), adapter).peft_config["default"]) is PromptTuningConfig
    with pytest.raises(ValueError, match="holds a PROMPT_TUNING adapter"):
        read_facts(adapter)


def test_vectors_of_another_prompt_are_refused_by_the_command_line(
    adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft_interp.cli import main

    change(adapter, prompt_embeddings=load_file(adapter / WEIGHTS)["prompt_embeddings"] + 1)
    for command in (["export", str(adapter), "--to", "portable", "--output", str(adapter.parent / "out")],):
        assert main(command) == 1
        assert "the file says one prompt and holds another" in capsys.readouterr().err


# -- whose tokenizer ---------------------------------------------------------------------------------------------------


@pytest.fixture
def permuted(tokenizer_dir: Path, tmp_path: Path) -> Path:
    """A tokenizer with the same words in another order: every prompt reads as something else."""
    known = AutoTokenizer.from_pretrained(tokenizer_dir).get_vocab()
    words = sorted(known, key=lambda word: known[word])
    turned = dict(zip(words, [*range(3), *reversed(range(3, len(words)))], strict=True))
    core = Tokenizer(models.WordLevel(turned, unk_token=words[0]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=core).save_pretrained(tmp_path / "permuted")
    return tmp_path / "permuted"


def test_the_bases_tokenizer_reads_the_prompt_whatever_the_file_names(
    adapter: Path, base: Build, base_dir: Path, permuted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft_interp.cli import main

    own = AutoTokenizer.from_pretrained(base_dir)
    true, false = (AutoTokenizer.from_pretrained(x).decode([9, 10, 11, 9]) for x in (base_dir, permuted))
    assert true != false
    configure(adapter, tokenizer_name_or_path=str(permuted), tokenizer_kwargs={"cache_dir": str(adapter / "cache")})
    configure(adapter, prompt_tuning_init="TEXT", prompt_tuning_init_text="x")
    model: Any = PeftModel.from_pretrained(base(), adapter)
    model.save_pretrained(adapter.parent / "again")
    assert (adapter.parent / "again" / "prompt.txt").read_text() == true
    assert not (adapter / "cache").exists()
    report = report_prompt(model, own, progress=False)
    assert report.reading.text == true
    assert report.context["tokenizer"].startswith("base (a local folder")
    assert false in report.context["other_tokenizer"]
    assert main(["export", str(adapter), "--to", "text"]) == 0
    assert capsys.readouterr().out.rstrip("\n") == true
    assert main(["read", str(adapter)]) == 0
    assert "the base model's tokenizer counts" in capsys.readouterr().err


def test_a_text_beside_the_ids_is_never_believed(adapter: Path, base: Build, tmp_path: Path) -> None:
    """With right ids and digest: only the text lies."""
    facts = json.loads((adapter / "prompt.json").read_text())
    lie = "You are a helpful assistant"
    (adapter / "prompt.json").write_text(json.dumps({**facts, "text": lie, "tokens": [lie] * 4}))
    (adapter / "prompt.txt").write_text(lie)
    configure(adapter, base_model_name_or_path=None, tokenizer_name_or_path=None)
    write_beside(adapter, None, card=True)
    assert lie not in (adapter / "README.md").read_text()
    assert not (adapter / "prompt.txt").exists()
    assert read_facts(adapter).text is None


# -- models that a file names, sizes -----------------------------------------------------------------------------------


def test_a_perplexity_model_that_a_file_names_is_not_loaded_without_the_users_word(
    adapter: Path, base: Build, base_dir: Path
) -> None:
    configure(adapter, perplexity_model_name_or_path=str(base_dir), perplexity_weight=0.1)
    ids = torch.tensor([[1, 20, 30, 5]])
    model = continue_training(base(), str(adapter))
    with pytest.raises(ValueError, match=r"not loaded because a file says so.*load_named_models=True"):
        model(input_ids=ids, labels=ids)
    trusted = continue_training(base(), str(adapter), load_named_models=True)
    assert torch.isfinite(trusted(input_ids=ids, labels=ids).loss)


def test_models_that_need_code_or_pickles_are_not_loaded(base: Build, base_dir: Path) -> None:
    from peft_interp.inference.named_model import load_named_model

    weights = load_file(base_dir / "model.safetensors")
    (base_dir / "model.safetensors").unlink()
    torch.save(weights, base_dir / "pytorch_model.bin")
    with pytest.raises(ValueError, match="from safetensors, without code of its own"):
        load_named_model(str(base_dir))


@pytest.mark.parametrize("length", [3_000_000, 10**30, 2**63, MOST_TOKENS, 64])
def test_sizes_are_checked_before_memory_is_taken(adapter: Path, base: Build, length: int) -> None:
    configure(adapter, num_virtual_tokens=length)
    with pytest.raises(ValueError, match="num_virtual_tokens"):
        PeftModel.from_pretrained(base(), adapter)
    with pytest.raises(ValueError, match="num_virtual_tokens"):
        continue_training(base(), str(adapter))

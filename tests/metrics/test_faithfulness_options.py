"""What can be asked of `measure_faithfulness`, what it refuses, and that it leaves everything as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model

from peft_interp.metrics.faithfulness import measure_faithfulness
from peft_interp.metrics.reading import read_prompt

Build = Callable[..., Any]
QUICK = {"progress": False, "token_effects": False, "without": False}


def test_another_text_is_judged(gpt2: Build, readable: Build, words: Any, word_rows: Build) -> None:
    model = readable(gpt2())
    same = measure_faithfulness(model, words, word_rows(), text=model.prompt_text(words), **QUICK)
    other = measure_faithfulness(model, words, word_rows(), text="w5 w6", **QUICK)
    assert same.kl <= 1e-5
    assert other.kl > 0.01
    assert other.token_error_rate == 0  # of the judged text
    effects = measure_faithfulness(model, words, word_rows(), text="w5 w6", progress=False).token_effects
    assert len(effects) == 2


def test_an_adapter_by_name(gpt2: Build, readable: Build, words: Any, word_rows: Build) -> None:
    model = readable(gpt2())
    model.add_adapter("stock", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    trainable = {name: p.requires_grad for name, p in model.named_parameters()}
    found = measure_faithfulness(model, words, word_rows(), adapter_name="stock", **QUICK)
    assert found.cosine_distance > 0.1
    assert model.active_adapter == "default"
    assert measure_faithfulness(model, words, word_rows(), **QUICK).cosine_distance == 0
    assert {name: p.requires_grad for name, p in model.named_parameters()} == trainable


def test_nothing_is_changed(gpt2: Build, readable: Build, words: Any, word_rows: Build) -> None:
    model = readable(gpt2()).train()
    model.base_model.transformer.h[0].eval()
    model.prompt_token_ids()  # any first look writes the ids down
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    rows = word_rows()
    random = torch.get_rng_state()
    measure_faithfulness(model, words, rows, progress=False)
    assert rows == word_rows()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)
    assert [module.training for module in model.modules()] == modes
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())


def test_a_dataset_and_padded_tensors_are_rows_too(gpt2: Build, readable: Build, words: Any, word_rows: Build) -> None:
    model = readable(gpt2())
    plain = measure_faithfulness(model, words, word_rows(), progress=False)
    assert measure_faithfulness(model, words, datasets.Dataset.from_list(word_rows()), progress=False) == plain
    padded = [
        {
            "input_ids": torch.tensor([0, 0, *row["input_ids"]]),
            "attention_mask": torch.tensor([0, 0] + [1] * len(row["input_ids"])),
            "labels": torch.tensor([-100, -100, *row["labels"]]),
        }
        for row in word_rows()
    ]
    assert measure_faithfulness(model, words, padded, progress=False) == plain


def test_labels_on_every_token(llama: Build, readable: Build, words: Any, word_rows: Build) -> None:
    """Language-model rows: the first token is predicted by the prompt's last; a BOS by nothing."""
    rows = [{**row, "labels": row["input_ids"]} for row in word_rows("all")]
    model = readable(llama())
    found = measure_faithfulness(model, words, rows, progress=False)
    losses = []
    for row in rows:
        whole = [1, *model.prompt_token_ids(), *row["input_ids"][1:]]
        with torch.no_grad():
            log_probs = model.get_base_model()(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        losses += [-log_probs[i - 1, whole[i]].item() for i in range(5, len(whole))]
    assert found.as_prompt.loss == found.as_text.loss == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_effects_are_measured_on_a_sample(gpt2: Build, readable: Build, words: Any, word_rows: Build) -> None:
    model = readable(gpt2())
    every = measure_faithfulness(model, words, word_rows(), progress=False).token_effects
    some = measure_faithfulness(model, words, word_rows(), progress=False, effect_rows=2).token_effects
    assert len(some) == 4
    assert some != every
    first_and_middle = [word_rows()[0], word_rows()[3]]
    again = measure_faithfulness(model, words, first_and_middle, progress=False).token_effects
    assert [e.kl for e in some] == pytest.approx([e.kl for e in again], abs=1e-6)


def test_effects_cost_no_more_than_half_a_pass_over_large_data(
    gpt2: Build, readable: Build, words: Any, word_rows: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in rows that the base model is run on; below 64 rows the effects take them all."""
    model, ran = readable(gpt2()), []
    model.get_base_model().register_forward_pre_hook(
        lambda module, args, kwargs: ran.append(len(next(x for x in kwargs.values() if hasattr(x, "shape")))),
        with_kwargs=True,
    )

    def rows_run(count: int, **options: Any) -> int:
        ran.clear()
        measure_faithfulness(model, words, word_rows(count=count), progress=False, **options)
        return sum(ran)

    for count, probes in ((6, 6), (64, 64), (1200, 120), (2400, 200)):
        assert rows_run(count) - rows_run(count, token_effects=False) == probes * 5  # the prompt's 4 tokens, and whole
    assert rows_run(400, effect_rows=400) - rows_run(400, token_effects=False) == 400 * 5


def test_a_prompt_of_one_token(gpt2: Build, readable: Build, words: Any, word_rows: Build) -> None:
    """Without its only token there is no prompt."""
    found = measure_faithfulness(readable(gpt2(), num_virtual_tokens=1), words, word_rows(), progress=False)
    (effect,) = found.token_effects
    assert effect.loss_increase == pytest.approx(found.without.loss - found.as_text.loss, abs=1e-5)


def test_the_progress_bar_can_be_silenced(
    gpt2: Build, readable: Build, words: Any, word_rows: Build, capsys: Any
) -> None:
    model = readable(gpt2())
    measure_faithfulness(model, words, word_rows())
    assert "Comparing the prompt with its text" in capsys.readouterr().err
    measure_faithfulness(model, words, word_rows(), progress=False)
    datasets.disable_progress_bars()
    try:
        measure_faithfulness(model, words, word_rows())
    finally:
        datasets.enable_progress_bars()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "some"}, "`positions='some'` is unknown; use one of answers, all"),
        ({"padding_side": "middle"}, "`padding_side='middle'` is unknown; use one of right, left"),
        ({"label_token_ids": [61, 62]}, "which are not among `label_token_ids=\\[61, 62\\]`"),
        (
            {"label_token_ids": ["bad", "good"]},
            r"`label_token_ids=\['bad', 'good'\]` must be one list of token ids; .*`verbalizer.label_token_ids",
        ),
        ({"text": ["w5 w6"]}, "`text` is a list and must be one text, a string"),
    ],
)
def test_unusable_options(
    gpt2: Build, readable: Build, words: Any, word_rows: Build, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure_faithfulness(readable(gpt2()), words, word_rows(), progress=False, **options)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "`rows` is empty"),
        ([{"text": "A film."}], r"row 0 has no column \['input_ids', 'labels'\], only \['text'\]"),
        ("A film.", "`rows` is a str and must be a data set or a list of dicts; pass tokenised rows"),
        ({"input_ids": [[5, 6]], "labels": [[5, 6]]}, "`rows` is a dict and must be a data set"),
        (["A film."], "row 0 is a str and must be a dict; pass tokenised rows"),
        ([{"input_ids": [5, 6], "labels": [6]}], "2 `input_ids`, 2 of `attention_mask` and 1 `labels`"),
        ([{"input_ids": [5, 6], "labels": [-100, -100]}], "no row of `rows` has a label"),
        ([{"input_ids": [5], "labels": [5], "attention_mask": [0]}], "row 0 has no token"),
    ],
)
def test_unusable_rows(gpt2: Build, readable: Build, words: Any, rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_faithfulness(readable(gpt2()), words, rows, progress=False)


def test_a_method_without_input_vectors(gpt2: Build, words: Any, word_rows: Build) -> None:
    model = get_peft_model(gpt2(), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(ValueError, match="PREFIX_TUNING trains keys and values"):
        measure_faithfulness(model, words, word_rows())


@pytest.mark.parametrize("adapter_name", [None, "default"])
def test_a_model_without_an_adapter(gpt2: Build, words: Any, word_rows: Build, adapter_name: str | None) -> None:
    base = gpt2()
    with pytest.raises(ValueError, match="`model` is GPT2LMHeadModel, which has no prompt adapter; pass the `PeftMod"):
        measure_faithfulness(base, words, word_rows(), adapter_name=adapter_name)
    with pytest.raises(ValueError, match="`model` is GPT2LMHeadModel"):
        read_prompt(base, words, adapter_name)
    with pytest.raises(ValueError, match="there is no adapter 'other' here"):
        measure_faithfulness(with_prompt_of(base), words, word_rows(), adapter_name="other")


def with_prompt_of(base: Any) -> Any:
    return get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))


@pytest.mark.parametrize("kind", ["with_prompt", "readable"])
def test_rows_that_do_not_fit_the_model(request: Any, gpt2: Build, words: Any, token_ids: Build, kind: str) -> None:
    """64 learned positions, 4 of them for the prompt."""
    model = request.getfixturevalue(kind)(gpt2())
    rows = [{"input_ids": ids, "labels": [-100] * (len(ids) - 1) + ids[-1:]} for ids in token_ids(2, 61).tolist()]
    with pytest.raises(ValueError, match="has 61 tokens; with a prompt of 4 that is 65, and the model has positions"):
        measure_faithfulness(model, words, rows, **QUICK)
    fitting = [{name: column[1:] for name, column in row.items()} for row in rows]
    assert measure_faithfulness(model, words, fitting, **QUICK).rows == 2
    long = "w5 w6 w7 w8 w9"
    with pytest.raises(ValueError, match="has 60 tokens; with a prompt of 5 that is 65"):
        measure_faithfulness(model, words, fitting, text=long, **QUICK)

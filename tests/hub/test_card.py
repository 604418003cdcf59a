"""The model card: the prompt in front, and everything that others wrote kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model

from peft_interp import InterpPromptConfig
from peft_interp.hub.card import BEGIN, END, CardEntry, update_card, without_our_part
from peft_interp.hub.facts import PromptFacts
from peft_interp.metrics.results import Faithfulness, Measure, Performance, PromptReading, Scrutability, TokenReading
from peft_interp.report import PromptReport
from peft_interp.report.explained import ExplanationCandidate, ExplanationData
from peft_interp.report.verdicts import decide

Build = Callable[..., Any]
PROMPT = " Is this review good?"


def facts_of(**changes: Any) -> PromptFacts:
    known: dict[str, Any] = {
        **{"text": PROMPT, "is_text": True, "ids": [5, 6], "tokens": [" Is", " this"], "position": "start"},
        **{"leading_ids": [], "leading_text": None, "task_type": "CAUSAL_LM", "base_model": "openai/gpt2"},
        **{"base_model_kind": "hub", "trained_modules": [], "settings": {}, "steps": 7, "table_fingerprint": None},
        **{"found_by": None},
        **{"digest": "d", "versions": {"peft": "1"}},
    }
    return PromptFacts(**{**known, **changes})


def report_on(ids: list[int], text: str = PROMPT, accuracy: float = 0.81, **context: Any) -> PromptReport:
    tokens = tuple(TokenReading(i, f"t{i}", 0.0, 0.0) for i in ids)
    reading = PromptReading("INTERP_PROMPT", text, tokens, True, "start", 0.5, 1.0)
    sides = [Performance(0.4, accuracy), Performance(0.4, accuracy), Performance(0.7, 0.5)]
    faithfulness = Faithfulness(100, 0, "answers", 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, *sides, token_error_rate=0.0)
    readable = Scrutability(text, {"perplexity": Measure(120.0, human=60.0)}, (), 0.6, True)
    verdicts = decide(reading, readable, faithfulness)
    return PromptReport(reading, verdicts, readable, faithfulness, context={"data": "SST-2 (test)", **context})


def explained(text: str | None) -> ExplanationData:
    """Of one candidate, shown or not."""
    best = ExplanationCandidate("Was it good?", "search", 0.1, 0.01, 0.8, 0.1, 0.02, 0.9, 0.9 if text else -0.4, 0.95)
    return ExplanationData(text, "" if text else "against", (best,), 0.5, 0.2, 20, 20, 100, "PROMPT_TUNING")


@pytest.fixture
def write(tmp_path: Path, parts_of: Build) -> Build:
    """`write(report=None, **facts)`: the card of one prompt, as metadata and body."""

    def update(report: Any = None, **facts: Any) -> tuple[dict[str, Any], str]:
        plain = report.to_dict() if report is not None else None
        update_card(tmp_path, [CardEntry("", facts_of(**facts), plain)])
        return parts_of((tmp_path / "README.md").read_text(encoding="utf-8"))

    return update


@pytest.mark.parametrize("text", ["Was it good?", None])
def test_an_explanation_of_the_report_is_on_the_card(write: Build, text: str | None) -> None:
    soft = {"is_text": False, "ids": [5, 6]}
    _, plain = write(report_on([5, 6]), **soft)
    _, body = write(replace(report_on([5, 6]), explanation=explained(text)), **soft)
    words = "this text does 80% of what the prompt does" if text else "No text explains this prompt"
    assert words in body
    assert "Was it good?" in body
    assert words not in plain


def test_the_prompt_comes_first_and_says_how_to_use_it(write: Build) -> None:
    data, body = write()
    assert data["base_model"] == "openai/gpt2"
    assert data["tags"] == ["interpretable-prompt", "peft", "prompt-tuning"]
    assert "license" not in data
    assert "model-index" not in data
    headings = [line for line in body.splitlines() if line.startswith("## ")]
    assert headings == ["## The prompt", "## May you believe it?", "## How to use it", "## How it was trained"]
    assert f"```text\n{PROMPT}\n```" in body
    assert "begins with a blank" in body
    assert 'AutoModelForCausalLM.from_pretrained("openai/gpt2")' in body
    assert f'text = {PROMPT!r} + " " + "Your input."' in body
    assert "No report is attached yet" in body


@pytest.mark.parametrize(
    "text", ["a ``` b", "````\n# Not a title\n````", f"{END} # No", f"{BEGIN} x", "---\nlicense: stolen\n---"]
)
def test_no_prompt_can_leave_its_block(write: Build, text: str) -> None:
    first = write(text=text)
    assert first == write(text=text), "a second save changes something"
    data, body = first
    assert "license" not in data
    fence = body.split("## The prompt\n\n")[1].split("text\n")[0]
    assert set(fence) == {"`"}
    assert fence not in text
    assert f"\n{fence}text\n{text}\n{fence}\n" in body
    assert without_our_part(body).strip() == "# A prompt"


def test_characters_that_cannot_be_seen_are_written_out(write: Build) -> None:
    _, body = write(text="a\u200bb\x0bc\r\n")
    assert '```json\n"a\\u200bb\\u000bc\\r\\n"\n```' in body
    assert "\u200b" not in body.split("## How to use it")[0]


def test_what_others_wrote_is_kept_whatever_is_saved_again(write: Build, tmp_path: Path, parts_of: Build) -> None:
    own = "# Film prompt\n\nBy me.\n\n```\n# a comment\n```\n\n## Notes\n\nMine.\n"
    meta = "---\nlicense: mit\nlanguage: en\ndatasets:\n- sst2\ntags:\n- films\ncustom: 1\n---\n"
    (tmp_path / "README.md").write_text(meta + own)
    for text in (" one", " two", " two"):
        data, body = write(text=text)
    assert without_our_part(body).strip() == own.strip()
    assert body.index("# Film prompt") < body.index("## The prompt") < body.index("By me.")
    assert " one" not in body
    assert body.count(BEGIN) == body.count(END) == 1
    assert data["tags"] == ["films", "interpretable-prompt", "peft", "prompt-tuning"]
    assert {**data, "tags": None} == {
        **{"license": "mit", "language": "en", "datasets": ["sst2"], "tags": None, "custom": 1, "library_name": "peft"},
        **{"base_model": "openai/gpt2"},
    }
    (tmp_path / "README.md").write_text((tmp_path / "README.md").read_text() + "\nAt the end.\n")
    assert write()[1].rstrip().endswith("At the end.")


def test_scores_stand_with_their_levels_and_as_results(write: Build) -> None:
    data, body = write(report_on([5, 6]))
    assert body.count("\n## The prompt\n") == 1
    assert body.count(PROMPT + "\n") == 1
    assert "### Verdict" in body
    assert "### Scores" in body
    assert "60" in body.split("### Scores")[1], "the level of human-written prompts"
    assert "No report" not in body
    (result,) = data["model-index"][0]["results"]
    assert result["dataset"] == {"name": "SST-2 (test)", "type": "SST-2 (test)"}
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert values["accuracy with the prompt"] == 0.81
    assert values["accuracy without a prompt"] == 0.5
    assert values["perplexity of the prompt's text"] == 120.0


def test_the_template_that_was_measured_is_used_in_the_code(write: Build) -> None:
    _, body = write(report_on([5, 6], template="{prompt} {text} It was"))
    assert f'text = {PROMPT + " {text} It was"!r}.replace("{{text}}", "Your input.")' in body
    assert "classify" not in body


def test_label_words_that_were_measured_label_a_text_in_the_code(write: Build) -> None:
    known = {"template": "{prompt} {text} It was", "label_words": ["terrible", "great"]}
    _, body = write(report_on([5, 6], **known))
    assert "from transformers import AutoModelForCausalLM, AutoTokenizer" in body
    assert "task = peft_interp.Verbalizer('{prompt} {text} It was', ['terrible', 'great'])" in body
    assert 'print(peft_interp.classify(model, tokenizer, ["Your input."], task))' in body
    assert "classify" not in write(report_on([5, 6], **known), task_type="SEQ_CLS")[1]


def test_results_of_others_stay_and_ours_are_replaced(write: Build, tmp_path: Path) -> None:
    task, data = "{type: text-classification}", "{type: imdb, name: IMDB}"
    result = f"  - task: {task}\n    dataset: {data}\n    metrics:\n    - {{type: f1, name: F1, value: 0.5}}"
    metric = f"---\nmodel-index:\n- name: mine\n  results:\n{result}\n---\n"
    (tmp_path / "README.md").write_text(metric)
    for accuracy in (0.7, 0.9):
        data, _ = write(report_on([5, 6], accuracy=accuracy))
    (index,) = data["model-index"]
    assert index["name"] == "mine"
    values = [(m["name"], m["value"]) for result in index["results"] for m in result["metrics"]]
    assert ("F1", 0.5) in values
    assert [value for name, value in values if name == "accuracy with the prompt"] == [0.9]
    data, _ = write()
    assert [m["name"] for r in data["model-index"][0]["results"] for m in r["metrics"]] == ["F1"]


def test_a_report_of_a_later_version_is_left_out(
    write: Build, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    plain = {**report_on([5, 6]).to_dict(), "schema": 999}
    with caplog.at_level(logging.WARNING):
        update_card(tmp_path, [CardEntry("", facts_of(), plain)])
    assert "left out of the card" in caplog.text
    assert "No report is attached yet" in (tmp_path / "README.md").read_text()


# -- attached to a model --


@pytest.fixture
def model(gpt2: Build) -> PeftModel:
    return get_peft_model(gpt2(), InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))


def test_a_report_is_kept_through_saves_and_loads(model: Any, gpt2: Build, tmp_path: Path) -> None:
    model.attach_report(report_on(model.prompt_token_ids()))
    model.save_pretrained(tmp_path / "first")
    loaded: Any = PeftModel.from_pretrained(gpt2(), tmp_path / "first")
    assert loaded.attached_report()["faithfulness"]["as_prompt"]["accuracy"] == 0.81
    loaded.save_pretrained(tmp_path / "second")
    again: Any = PeftModel.from_pretrained(gpt2(), tmp_path / "second")
    assert PromptReport.from_dict(again.attached_report()) == report_on(model.prompt_token_ids())
    assert "### Verdict" in (tmp_path / "second" / "README.md").read_text()


def test_a_report_goes_when_the_prompt_changes(model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model.attach_report(report_on(model.prompt_token_ids()))
    model.save_pretrained(tmp_path)
    model.use_prompt([7, 8, 9, 10])
    assert model.attached_report() is None
    with caplog.at_level(logging.WARNING):
        model.save_pretrained(tmp_path)
    assert "report of another prompt" in caplog.text
    assert not (tmp_path / "prompt_report.json").exists()
    card = (tmp_path / "README.md").read_text()
    assert "No report is attached yet" in card
    assert "model-index" not in card or "0.81" not in card
    with pytest.raises(ValueError, match=r"about the tokens .* the prompt now holds \[7, 8, 9, 10\]; report on it"):
        model.attach_report(report_on([1, 2, 3, 4]))
    with pytest.raises(TypeError, match="str is no prompt report; give a PromptReport"):
        model.attach_report("good")


def test_a_soft_prompts_report_belongs_to_its_vectors(gpt2: Build) -> None:
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, projection_metric="none")
    model: Any = get_peft_model(gpt2(), config)
    model.attach_report(report_on(model.prompt_token_ids()))
    with torch.no_grad():
        model.prompt_encoder["default"].latent += 1e-3  # the nearest tokens stay
    assert model.attached_report() is None


def test_no_path_of_this_machine_reaches_the_card(gpt2: Build, tmp_path: Path, parts_of: Build) -> None:
    base = tmp_path / "secret" / "home" / "base"
    gpt2().save_pretrained(base)
    model: Any = get_peft_model(
        type(gpt2()).from_pretrained(base), InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    )
    model.attach_report(report_on(model.prompt_token_ids(), base_model=str(base), judge=str(base), template="/ {text}"))
    model.save_pretrained(tmp_path / "saved")
    for name in ("README.md", "prompt.json", "prompt_report.json"):
        assert "secret" not in (tmp_path / "saved" / name).read_text(), name
    data, body = parts_of((tmp_path / "saved" / "README.md").read_text())
    assert "base_model" not in data
    assert not [tag for tag in data["tags"] if tag.startswith("base_model:")]
    assert "base (a local folder of the training machine)" in body
    assert model.attached_report()["context"]["template"] == "/ {text}"


def test_a_prompt_that_was_searched_for_says_by_what(tmp_path: Path) -> None:
    found_by = {"trainer": "RLPromptTrainer", "steps": 30, "prompts_scored": 480}
    found_by |= {"rewards": {"gap": 0.7, "nll": -0.3}, "settings": {"perplexity_reward_weight": 0.3}}
    update_card(tmp_path, [CardEntry("", facts_of(steps=0, found_by=found_by), None)])
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "RLPromptTrainer" in card
    assert "30 steps, 480 prompts scored" in card
    assert "`gap` (weight 0.7), `nll` (weight -0.3)" in card
    assert "`perplexity_reward_weight` = " in card
    assert "optimizer steps" not in card

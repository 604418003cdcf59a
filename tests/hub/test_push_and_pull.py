"""Prompts go to a stand-in for the Hub and come back, through the real clients, each time in a fresh process."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peft_interp.embedded import MODEL_PATH
from peft_interp.hub.card import shown_text

Build = Callable[..., Any]
FILES = {"adapter_config.json", "adapter_model.safetensors", "prompt.txt", "prompt.json", "README.md"}

TRAIN_AND_PUSH = """
import sys, torch
from peft import get_peft_model
from safetensors.torch import save_file
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments
from peft_interp import InterpPromptConfig, embedded
from peft_interp.report.build import report_prompt

folder = sys.argv[1]
tokenizer, task = embedded.load_tokenizer(), embedded.TASKS["sentiment"]
data = embedded.load_data("sentiment")["train"].select(range(8))
rows = task.encode_dataset(tokenizer, data)
config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, perplexity_weight=0.3)
model = get_peft_model(embedded.load_model(), config)
model.add_model_tags(["films"])
args = TrainingArguments(
    folder, max_steps=2, eval_strategy="steps", eval_steps=1, logging_steps=1, learning_rate=0.1, save_strategy="no",
    report_to="none", hub_model_id="me/from-trainer", use_cpu=True, dataloader_pin_memory=False, disable_tqdm=True,
)
trainer = Trainer(
    model=model, args=args, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer,
    data_collator=DataCollatorForSeq2Seq(tokenizer),
)
trainer.train()
trainer.push_to_hub(tags=["given"], language="en", license="cc0-1.0", dataset="short film reviews")
report = report_prompt(model, tokenizer, rows, task, context={"data": "short film reviews"}, progress=False)
model.attach_report(report)
print(model.push_to_hub("me/from-model", private=True, tags=["mine"], commit_message="First").commit_url)
ids = torch.tensor([[50, 60, 70, 80], [51, 61, 71, 81]])
with torch.no_grad():
    save_file({"ids": ids, "logits": model.eval()(input_ids=ids).logits}, folder + "/expected.safetensors")
"""

PULL_PLAIN = """
import sys, torch, warnings
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
warnings.filterwarnings("ignore", message=r"Unexpected keyword arguments \\['peft_interp'\\]")  # all other are errors
model = PeftModel.from_pretrained(base, "me/from-model").eval()
expected = load_file(sys.argv[2] + "/expected.safetensors")
with torch.no_grad():
    logits = model(input_ids=expected["ids"]).logits
torch.testing.assert_close(logits, expected["logits"], atol=1e-5, rtol=1e-5)
assert type(model.peft_config["default"]).__module__.startswith("peft."), "stock config"
assert not any(name.split(".")[0] == "peft_interp" for name in sys.modules), "the plug-in was imported"
"""

PULL_WITH_PLUGIN = """
import contextlib, io, json, sys, torch
from peft import PeftModel
from safetensors.torch import load_file
from peft_interp import embedded
from peft_interp.cli import main

model = PeftModel.from_pretrained(embedded.load_model(), "me/from-model").eval()
expected = load_file(sys.argv[1] + "/expected.safetensors")
with torch.no_grad():
    assert torch.equal(model(input_ids=expected["ids"]).logits, expected["logits"])
report = model.attached_report()
with contextlib.redirect_stdout(io.StringIO()) as out:
    code = main(["evaluate", "me/from-model"])
text, evaluated = model.prompt_text(embedded.load_tokenizer()), json.loads(out.getvalue())["text"]
print(json.dumps({"text": text, "about": report["reading"]["text"], "evaluated": evaluated, "code": code}))
model.push_to_hub("me/from-model")
"""


@pytest.fixture(scope="module")
def trained(hub: Any, run_python: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run that was pushed from Trainer and then, with a report, from the model; its output folder."""
    folder = tmp_path_factory.mktemp("run") / "out"
    printed = run_python(str(folder), code=TRAIN_AND_PUSH)
    assert f"{hub.url}/me/from-model/commit/" in printed
    return folder


def test_trainer_pushes_everything_with_a_right_card(hub: Any, trained: Path, parts_of: Build) -> None:
    files = hub.repos["me/from-trainer"]
    assert set(files) >= FILES
    data, body = parts_of(hub.card("me/from-trainer"))
    assert data["library_name"] == "peft"
    assert set(data["tags"]) == {"films", "generated_from_trainer", "given", "interpretable-prompt", "peft"} | {
        "prompt-tuning"
    }
    assert data["license"] == "cc0-1.0"
    assert data["language"] == ["en"]
    assert "base_model" not in data
    text = files["prompt.txt"].decode()
    assert shown_text(text) in body
    assert body.index("## The prompt") < body.index("### Training hyperparameters")
    assert "| Training Loss | Epoch | Step | Validation Loss |" in body
    told = "This prompt was trained for the base model embedded model of peft_interp on the short film reviews"
    assert told in html.unescape(body)  # as Markdown shows it
    assert "from scratch" not in body
    assert "More information needed" not in body
    assert str(Path(MODEL_PATH).parent) not in hub.card("me/from-trainer")


def test_model_pushes_its_own_card_with_verdicts_and_results(hub: Any, trained: Path, parts_of: Build) -> None:
    files = hub.repos["me/from-model"]
    assert set(files) == FILES | {"prompt_report.json"}
    assert hub.private["me/from-model"]
    data, body = parts_of(hub.card("me/from-model"))
    assert data["library_name"] == "peft"
    assert set(data["tags"]) == {"films", "mine", "interpretable-prompt", "peft", "prompt-tuning"}
    assert body.count("## The prompt\n") == 1
    assert "### Verdict" in body
    assert body.count('PeftModel.from_pretrained(base, "me/from-model")') == 2, "with this package and without"
    report = json.loads(files["prompt_report.json"])
    results = {m["name"]: m["value"] for r in data["model-index"][0]["results"] for m in r["metrics"]}
    measured = report["faithfulness"]
    assert results["accuracy with the prompt"] == pytest.approx(measured["as_prompt"]["accuracy"], abs=1e-6)
    assert results["readability, 0 to 1"] == pytest.approx(report["scrutability"]["score"], abs=1e-6)
    assert {r["dataset"]["name"] for r in data["model-index"][0]["results"]} == {"short film reviews"}
    for name in ("README.md", "prompt.json", "prompt_report.json"):
        assert MODEL_PATH.encode() not in files[name]


def test_plain_peft_loads_the_prompt_with_one_warning(trained: Path, run_python: Build) -> None:
    run_python(MODEL_PATH, str(trained), code=PULL_PLAIN)


def test_what_people_wrote_on_the_hub_and_the_report_survive_a_pull_and_a_push(
    hub: Any, trained: Path, run_python: Build, parts_of: Build
) -> None:
    files = hub.repos["me/from-model"]
    edited = hub.card("me/from-model").replace("library_name: peft", "library_name: peft\nlicense: mit")
    files["README.md"] = (edited + "\n## Thanks\n\nTo everybody.\n").encode()
    files["modeling.py"] = b"raise SystemExit('this ran')"
    before = files["prompt_report.json"]
    hub.requests.clear()
    printed = json.loads(run_python(str(trained), code=PULL_WITH_PLUGIN))
    text = files["prompt.txt"].decode()
    assert printed == {"text": text, "about": text, "evaluated": text, "code": 0}
    assert not [request for request in hub.requests if ".py" in request or ".bin" in request]
    data, body = parts_of(hub.card("me/from-model"))
    assert data["license"] == "mit"
    assert "mine" in data["tags"]
    assert body.count("## Thanks\n\nTo everybody.") == 1
    assert body.count("## The prompt\n") == 1
    assert "### Verdict" in body
    assert json.loads(files["prompt_report.json"]) == json.loads(before)


def test_command_line_pushes_the_adapter_and_nothing_else(
    hub: Any, trained: Path, run_python: Build, parts_of: Build
) -> None:
    assert (trained / "training_args.bin").exists()
    printed = run_python("-m", "peft_interp", "push", str(trained), "me/from-cli", "--private")
    assert printed.strip() == f"{hub.url}/me/from-cli"
    files = hub.repos["me/from-cli"]
    assert set(files) == FILES
    assert hub.private["me/from-cli"]
    assert files["prompt.txt"] == (trained / "prompt.txt").read_bytes()
    data, body = parts_of(hub.card("me/from-cli"))
    assert {"films", "given", "interpretable-prompt"} <= set(data["tags"])
    assert 'PeftModel.from_pretrained(base, "me/from-cli")' in body
    assert "| Training Loss | Epoch | Step | Validation Loss |" in body

"""The example scripts run as a user runs them, on the embedded model, with a few steps."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from peft_interp import embedded
from peft_interp.embedded import smollm2
from peft_interp.text.tokenization import encode_after

Build = Callable[..., Any]


def test_quickstart_compares_all_methods(run_script: Build, tmp_path: Path) -> None:
    printed = run_script(tmp_path, "quickstart.py", "--steps", "4", "--weights", "0", "0.3", "--output", "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["method"] for row in rows] == [
        "no prompt",
        "hand-written",
        "soft prompt (stock)",
        "PEZ",
        "PEZ + 0.3 perplexity",
    ]
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert rows[1]["text"] in printed
    assert printed.startswith("3 prompts are trained, 4 steps each, and tested")
    assert rows[4]["perplexity"] > 1


def test_quickstart_says_how_long_it_takes_on_the_models_it_names() -> None:
    plan = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "quickstart.py"))["plan"]
    assert "about 2 minutes on two idle cores" in plan("embedded", 5, 200)
    assert "about 2 minutes on two idle cores" in plan("smollm2", 2, 30)  # what `make real` runs
    assert "minutes" not in plan("gpt2", 2, 30)


@pytest.fixture
def under_smollm2s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The embedded model where SmolLM2 is unpacked, so that no wheel is asked for: its folder."""
    folder = tmp_path / "assets" / "peft_interp" / "models" / "smollm2"
    shutil.copytree(embedded.MODEL_PATH, folder)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    manifest = {"source": smollm2.WHEEL.sha256, "format": smollm2.FORMAT, "files": sizes}
    (folder / smollm2.MANIFEST).write_text(json.dumps(manifest))
    monkeypatch.setenv("HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return folder


FEW = ["--max_steps", "1", "--max_train_samples", "8", "--max_eval_samples", "8"]
ONE_STEP = {
    "run_classification.py": [*FEW, "--logging_steps", "1"],
    "run_search.py": [*FEW, "--prompts_per_step", "4", "--human_starts", "4", "--disable_tqdm", "True"],
    "run_rlprompt.py": [*FEW, "--prompts_per_step", "4"],
    "run_generation.py": ["--steps", "1", "--prompts_per_step", "4", "--rows", "4", "--test_rows", "4"],
    "run_grpo.py": ["--steps", "1", "--batch_size", "8"],
}


@pytest.mark.parametrize("script", ONE_STEP)
def test_every_script_knows_smollm2_by_its_name(
    run_script: Build, tmp_path: Path, under_smollm2s_name: Path, script: str
) -> None:
    """The script and what it saves; what the real model does there is the business of tests/real."""
    run_script(tmp_path, script, "--model_name_or_path", "smollm2", "--output_dir", "out", *ONE_STEP[script])
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(under_smollm2s_name)


def test_classification_script_trains_saves_and_resumes(run_script: Build, tmp_path: Path) -> None:
    common = ["--output_dir", "out", "--perplexity_weight", "0.3", "--eval_steps", "2", "--save_steps", "2"]
    small = ["--max_eval_samples", "20", "--num_virtual_tokens", "4", "--logging_steps", "1"]
    run_script(tmp_path, "run_classification.py", *common, *small, "--max_steps", "2")
    printed = run_script(
        tmp_path, "run_classification.py", *common, *small, "--max_steps", "4", "--resume_from_checkpoint", "True"
    )
    text = (tmp_path / "out" / "prompt.txt").read_text().rstrip("\n")
    assert f"prompt:     {text!r}" in printed
    assert "accuracy:" in printed
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["peft_type"] == "PROMPT_TUNING"
    state = json.loads((tmp_path / "out" / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["global_step"] == 4
    assert all("prompt_text" in entry for entry in state["log_history"])


def test_classification_script_puts_the_prompt_where_the_template_has_it(run_script: Build, tmp_path: Path) -> None:
    steps = ["--max_steps", "2", "--eval_steps", "2", "--save_strategy", "no", "--max_eval_samples", "20"]
    start = ["--init_text", "It was a", "--learning_rate", "0", "--num_virtual_tokens", "3"]
    arguments = ["--output_dir", "out", "--template", "{text} {prompt}", *steps, *start]
    printed = run_script(tmp_path, "run_classification.py", *arguments)
    assert "prompt:     ' It was a'" in printed
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["prompt_position"] == "end"


@pytest.mark.parametrize("kind", ["tsv", "jsonl"])
def test_classification_script_reads_local_files(run_script: Build, tmp_path: Path, kind: str) -> None:
    rows = [("A warm and funny film.", 1), ("Dull from start to end.", 0)] * 8
    if kind == "tsv":
        lines = ["sentence\tlabel"] + [f"{text}\t{label}" for text, label in rows]
    else:
        lines = [json.dumps({"sentence": text, "label": label}) for text, label in rows]
    (tmp_path / f"train.{kind}").write_text("\n".join(lines) + "\n")
    arguments = ["--output_dir", "out", "--train_file", f"train.{kind}", "--test_file", f"train.{kind}"]
    words = ["--label_words", "terrible", "great", "--init_text", "The movie review:"]
    steps = ["--max_steps", "2", "--eval_steps", "2", "--save_strategy", "no"]
    printed = run_script(tmp_path, "run_classification.py", *arguments, *words, *steps)
    assert "on 16 test rows" in printed


def test_classification_script_keeps_the_numbers_of_a_calibrated_prompt(run_script: Build, tmp_path: Path) -> None:
    steps = ["--max_steps", "2", "--eval_steps", "2", "--save_strategy", "no", "--max_train_samples", "32"]
    rows = ["--max_eval_samples", "16", "--calibration", "batch"]
    printed = run_script(tmp_path, "run_classification.py", "--output_dir", "out", *steps, *rows)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    terrible, great = config["peft_interp"]["label_bias"]["values"]
    assert f"terrible {terrible:+.2f}, great {great:+.2f} (nats, batch calibration on 32 training rows)" in printed


def test_classification_script_trains_on_calibrated_scores(run_script: Build, tmp_path: Path) -> None:
    steps = ["--max_steps", "1", "--logging_steps", "1", "--eval_strategy", "no", "--save_strategy", "no"]
    rows = ["--max_train_samples", "32", "--max_eval_samples", "16", "--calibration", "batch"]
    first = []
    for folder, wanted in (("plain", "False"), ("calibrated", "True")):
        arguments = ["--output_dir", folder, *steps, *rows, "--calibrated_loss", wanted]
        printed = run_script(tmp_path, "run_classification.py", *arguments)
        assert "on 16 test rows" in printed
        first += [float(loss) for loss in re.findall(r"'loss': '?([0-9.]+)", printed)]
    assert first[0] > 1, "of the whole vocabulary"
    assert first[1] < 0.8, "of two labels that are as likely as each other"


@pytest.fixture
def chat_model(tmp_path: Path) -> str:
    """A folder with the embedded model and a tokenizer that has a chat template."""
    folder, tokenizer = tmp_path / "chat", embedded.load_tokenizer()
    turns = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    tokenizer.chat_template = turns + "{% if add_generation_prompt %}[assistant]\n{% endif %}"
    tokenizer.save_pretrained(folder)
    embedded.load_model().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("role", ["user", "system"])
def test_classification_script_has_the_prompt_inside_a_chats_turn(
    run_script: Build, tmp_path: Path, chat_model: str, role: str
) -> None:
    """The test accuracy is that of the chats a person would send, with the prompt's text pasted."""
    steps = ["--max_steps", "2", "--eval_steps", "2", "--save_strategy", "no", "--max_eval_samples", "20"]
    rows = ["--chat", role, "--template", "{prompt} {text}", "--first_token", "True", "--num_virtual_tokens", "4"]
    run_script(
        tmp_path, "run_classification.py", "--output_dir", "out", "--model_name_or_path", chat_model, *rows, *steps
    )
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["prompt_position"] == "template"
    tokenizer, base = AutoTokenizer.from_pretrained(chat_model), AutoModelForCausalLM.from_pretrained(chat_model)
    adapter = PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()
    prompt, words = adapter.prompt_token_ids(), embedded.TASKS["sentiment"].label_words
    mark, right = tokenizer.convert_ids_to_tokens(tokenizer.pad_token_id), 0
    for row in embedded.load_data("sentiment")["test"].select(range(20)):
        turns = [{"role": "user", "content": f"{mark} {row['sentence']}"}]
        if role == "system":
            turns = [{"role": "system", "content": mark}, {"role": "user", "content": row["sentence"]}]
        chat = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        front, _, back = chat.partition(mark)
        ids = tokenizer.encode(front.rstrip(" ")) + prompt + encode_after(tokenizer, back)
        with torch.no_grad():
            scores = base(input_ids=torch.tensor([ids])).logits[0, -1]
        first = [encode_after(tokenizer, word, "]\n")[0] for word in words]
        right += int(scores[first].argmax()) == row["label"]
    found = json.loads((tmp_path / "out" / "test_results.json").read_text())["test_accuracy"]
    assert found == pytest.approx(right / 20)


@pytest.mark.parametrize("script", ["run_search.py", "run_rlprompt.py"])
def test_searches_have_the_prompt_inside_a_chats_turn(
    run_script: Build, tmp_path: Path, chat_model: str, script: str
) -> None:
    small = ["--prompts_per_step", "4", "--max_train_samples", "8", "--max_eval_samples", "8", "--max_steps", "1"]
    chat = ["--model_name_or_path", chat_model, "--chat", "system", "--template", "{prompt} {text}"]
    words = ["--label_words", "bad", "good", "--first_token", "True", "--logging_steps", "1"]
    printed = run_script(tmp_path, script, "--output_dir", "out", *small, *chat, *words)
    assert "on 8 test rows" in printed
    assert "step 1 of 1, " in printed
    assert "{'" not in printed
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["prompt_position"] == "template"

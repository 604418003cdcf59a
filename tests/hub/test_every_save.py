"""`hub_strategy="every_save"`: no commit of a training run mixes two prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load

from peft_interp import embedded
from peft_interp.hub.card import shown_text

Build = Callable[..., Any]

# The folder holds another prompt with its report first. Every push is waited for, so that none is left out; or with
# "always", uploads read the folder so slowly that several saves come meanwhile.
TRAIN = """
import sys, time, warnings
from huggingface_hub import CommitOperationAdd
from peft import get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments, set_seed
from peft_interp import InterpPromptConfig, PromptCallback, embedded, report_prompt

warnings.filterwarnings("ignore", message="Cannot enable progress bars")  # of a Trainer that pushes, in these tests

class Wait(TrainerCallback):
    def on_save(self, *args, **kwargs):
        trainer._finish_current_push()

always = sys.argv[3:] == ["always"]
read = CommitOperationAdd.b64content
CommitOperationAdd.b64content = lambda self: (time.sleep(0.05 * always), read(self))[1]
set_seed(0)
tokenizer, task = embedded.load_tokenizer(), embedded.TASKS["sentiment"]
rows = task.encode_dataset(tokenizer, embedded.load_data("sentiment")["train"].select(range(8)))
model = get_peft_model(embedded.load_model(), InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
model.attach_report(report_prompt(model, tokenizer, progress=False))
model.save_pretrained(sys.argv[1])
args = TrainingArguments(
    sys.argv[1], max_steps=3, learning_rate=0.5, save_strategy="steps", save_steps=1, logging_steps=1, use_cpu=True,
    push_to_hub=True, hub_strategy=sys.argv[2], hub_model_id="me/" + "-".join(sys.argv[2:]).replace("_", "-"),
    hub_always_push=always,
    dataloader_pin_memory=False, disable_tqdm=True, report_to="none",
)
trainer = Trainer(
    model=model, args=args, train_dataset=rows, processing_class=tokenizer,
    data_collator=DataCollatorForSeq2Seq(tokenizer), callbacks=[PromptCallback(tokenizer)] + [Wait()] * (not always),
)
trainer.train()
trainer.push_to_hub()
"""


def prompt_told(files: dict[str, bytes], top: str = "") -> str:
    """The one prompt that everything of a repository's folder is about; its text."""
    tensors, facts = load(files[f"{top}adapter_model.safetensors"]), json.loads(files[f"{top}prompt.json"])
    ids = tensors["prompt_ids"].tolist()
    text = embedded.load_tokenizer().decode(ids, clean_up_tokenization_spaces=False)
    assert (facts["ids"], facts["text"]) == (ids, text)
    assert files[f"{top}prompt.txt"].decode() == text
    card = files[f"{top}README.md"].decode()
    assert card.count("## The prompt\n") == 1
    assert shown_text(text) in card
    return str(text)


@pytest.mark.parametrize("how", [(), ("always",)], ids=["waited for", "hub_always_push"])
def test_every_pushed_commit_is_about_one_prompt(
    how: tuple[str, ...], hub: Any, run_python: Build, tmp_path: Path
) -> None:
    run_python(str(tmp_path / "out"), "every_save", *how, code=TRAIN)
    name = "-".join(("me/every-save", *how))
    commits = [files for repo, files in hub.history if repo == name and "adapter_model.safetensors" in files]
    told = [prompt_told(files) for files in commits]
    assert len(told) >= 4, "one for each of three saves, and the end, which alone has the history"
    assert [i for i, files in enumerate(commits) if "prompt_history.jsonl" in files] == [len(commits) - 1]
    assert len(set(told)) > 1, "the prompt moved between the pushes"
    assert not any("prompt_report.json" in files for files in commits), "the report of the prompt before training"


def test_checkpoints_pushed_beside_it_are_about_the_same_prompt(hub: Any, run_python: Build, tmp_path: Path) -> None:
    run_python(str(tmp_path / "out"), "checkpoint", code=TRAIN)
    commits = [files for repo, files in hub.history if repo == "me/checkpoint"]
    both = [files for files in commits if "last-checkpoint/adapter_model.safetensors" in files]
    assert both
    for files in both:
        prompt_told(files)
        prompt_told(files, "last-checkpoint/")
    assert prompt_told(both[-1]) == prompt_told(both[-1], "last-checkpoint/")

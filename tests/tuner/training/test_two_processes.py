"""Two processes (gloo, CPU) end with the same prompt as one process with the same global batch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = '''
import os
import sys

import torch
from peft import get_peft_model
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel, Trainer
from transformers import TrainingArguments

from peft_interp import InterpPromptConfig, PromptCallback


def gpt2():
    torch.manual_seed(0)
    rates = dict(attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)
    shape = dict(vocab_size=64, n_layer=2, n_embd=32, n_head=2, n_positions=64, initializer_range=0.2)
    return GPT2LMHeadModel(GPT2Config(bos_token_id=1, eos_token_id=2, pad_token_id=0, **rates, **shape))


def bert():
    torch.manual_seed(0)
    rates = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    shape = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    return BertForSequenceClassification(BertConfig(initializer_range=0.2, **rates, **shape))


def train(folder, task, batch):
    """Latent, ids, step and best prompt after three steps of eight rows with two to five labels."""
    config = InterpPromptConfig(task_type=task, num_virtual_tokens=4, perplexity_weight=0.5)
    model = get_peft_model(gpt2() if task == "CAUSAL_LM" else bert(), config)
    if task == "SEQ_CLS":
        model.set_perplexity_model(gpt2())
    ids = torch.randint(3, 64, (8, 6), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    for i in range(8):
        labels[i, : 1 + i % 4] = -100
    if task == "SEQ_CLS":
        labels = ids[:, 0] % 2
    rows = [{"input_ids": ids[i], "labels": labels[i]} for i in range(8)]
    args = TrainingArguments(
        folder, max_steps=3, learning_rate=0.1, lr_scheduler_type="constant", optim="sgd", max_grad_norm=0.0,
        per_device_train_batch_size=batch, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=batch,
        use_cpu=True, dataloader_pin_memory=False, save_strategy="no", disable_tqdm=True, logging_steps=1,
        ddp_backend="gloo" if "WORLD_SIZE" in os.environ else None,
    )
    callback = PromptCallback(restore_best=False)
    trainer = Trainer(model=model, args=args, train_dataset=rows, eval_dataset=rows, callbacks=[callback])
    trainer.train()
    return trainer.args.world_size, {k: v.clone() for k, v in model.prompt_encoder["default"].state_dict().items()}


if __name__ == "__main__":
    folder = sys.argv[1]
    results = {task: train(folder, task, 4) for task in ("CAUSAL_LM", "SEQ_CLS")}
    rank = torch.distributed.get_rank()
    torch.save(results, f"{folder}/rank{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
'''


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both ranks hold in the end; started once, as an import takes most of the time."""
    folder = tmp_path_factory.mktemp("ddp")
    script = folder / "train.py"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launch, str(script), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("task", ["CAUSAL_LM", "SEQ_CLS"])
def test_two_processes_equal_one(task: str, two_processes: list[dict[str, Any]], tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "script"}
    exec(SCRIPT, names)
    train: Callable[..., Any] = names["train"]
    size, alone = train(str(tmp_path), task, 8)
    assert size == 1
    for results in two_processes:
        size, state = results[task]
        assert size == 2
        torch.testing.assert_close(state["latent"], alone["latent"], rtol=0, atol=1e-6)
        for name in ("ids", "best_ids", "step"):
            assert torch.equal(state[name], alone[name]), name
        torch.testing.assert_close(state["best_score"], alone["best_score"], rtol=1e-5, atol=1e-5)

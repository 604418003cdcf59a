"""What `RLPromptTrainer` relies on: the model that Trainer saves and the module that it optimises may be two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import Trainer

Build = Callable[..., Any]


class Optimised(nn.Module):
    """Stands in for the policy."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self) -> torch.Tensor:
        return self.weight.sum()


class TwoModels(Trainer):
    """Optimises `other` while `self.model` stays what it was."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.other = Optimised()
        self.order: list[str] = []

    def create_optimizer(self, model: Any = None) -> Any:
        return super().create_optimizer(self.other)

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        return self.accelerator.prepare_model(self.other) if training else model

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        assert model is self.other
        return model()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        self.order.append("save optimizer")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        self.order.append(f"load optimizer {checkpoint is not None}")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.order.append("load model")


def test_one_model_is_optimised_and_the_other_saved(
    make_trainer: Build, with_prompt: Build, gpt2: Build, token_ids: Build
) -> None:
    rows = [{"input_ids": ids, "labels": ids} for ids in token_ids(2, 4)]
    saving = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "learning_rate": 0.25, "max_grad_norm": 1.0}
    model = with_prompt(gpt2())
    trainer = make_trainer(model, rows, trainer_class=TwoModels, **saving)
    prompt = model.get_prompt_embedding_to_save("default").clone()
    trainer.train()
    assert trainer.model is model
    assert torch.equal(model.get_prompt_embedding_to_save("default"), prompt)
    step = 0.25 / 2**0.5  # the gradient of ones is clipped to norm 1
    torch.testing.assert_close(trainer.other.weight.data, torch.full((2,), 1 - 2 * step), rtol=1e-3, atol=1e-3)
    assert trainer.order == ["save optimizer"] * 2
    resumed = make_trainer(with_prompt(gpt2()), rows, trainer_class=TwoModels, **saving)
    resumed.train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-1")
    assert resumed.order == ["load model", "load optimizer True", "save optimizer"]

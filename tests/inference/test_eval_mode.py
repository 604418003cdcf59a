"""`eval_mode` puts everything back, and what is made in inference mode can be trained with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model

from peft_interp import InterpPromptConfig, text_nll
from peft_interp.inference.eval_mode import eval_mode, update_count

Build = Callable[..., Any]


def readable(model: Any, **options: Any) -> Any:
    """With a readable prompt of four tokens."""
    config = InterpPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, allowed_tokens="all", **options)
    return get_peft_model(model, config)


def test_everything_is_put_back_also_after_an_error(gpt2: Build) -> None:
    config = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
    model = get_peft_model(gpt2(), PromptTuningConfig(**config)).train()
    model.add_adapter("other", PromptTuningConfig(**config))
    model.get_base_model().transformer.drop.eval()
    model.get_base_model().lm_head.weight.requires_grad_(True)
    modes = [module.training for module in model.modules()]
    gradients = {name: parameter.requires_grad for name, parameter in model.named_parameters()}

    def fail() -> None:
        with eval_mode(model, "other"):
            assert model.active_adapter == "other"
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    assert model.active_adapter == "default"
    assert [module.training for module in model.modules()] == modes
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == gradients
    assert torch.is_grad_enabled()


def test_tensors_made_inside_can_be_trained_with(gpt2: Build) -> None:
    model = gpt2()
    with torch.inference_mode():
        with eval_mode(model):
            logits = model(torch.tensor([[5, 6, 7]])).logits
        assert torch.is_inference_mode_enabled()
    assert not logits.is_inference()
    assert not logits.requires_grad


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean", "none"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("position", ["start", "end"])
def test_training_goes_on_after_an_evaluation_in_inference_mode(
    gpt2: Build, metric: str, share: bool, position: str
) -> None:
    """The projection's norms, the filter's mask and the projected prompt are made there, and used in training."""
    ids, labels = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[-100, -100, 7, 8]])

    def gradient(evaluated: bool) -> torch.Tensor:
        torch.manual_seed(0)
        options = {"projection_metric": metric, "share_prefix": share, "prompt_position": position}
        if metric != "none":
            options |= {"perplexity_weight": 0.3, "perplexity_gradient": "both"}
        model = readable(gpt2(tie_word_embeddings=False), **options)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
        for _ in range(3):
            if evaluated:
                with torch.inference_mode():
                    model.eval()(input_ids=ids, labels=labels)
                    model.generate(input_ids=ids[:, :2], max_new_tokens=2)
                    model.keep_best_prompt(1.0)
                    text_nll(model, model.prompt_token_ids())
            model.train()(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
        grad = model.prompt_encoder["default"].latent.grad
        assert grad is not None
        return grad.clone()

    torch.testing.assert_close(gradient(True), gradient(False))


def test_a_prompt_set_in_inference_mode_can_be_trained(gpt2: Build) -> None:
    model = readable(gpt2())
    with torch.inference_mode():
        model.use_prompt([5, 6, 7, 8, 9, 10], resize=True)
    ids = torch.tensor([[5, 6, 7, 8]])
    for _ in range(2):
        model.train()(input_ids=ids, labels=ids).loss.backward()
        with torch.no_grad():
            model.prompt_encoder["default"].latent.add_(1.0)
    assert len(model.prompt_token_ids()) == 6


def test_a_model_made_in_inference_mode_can_be_measured(gpt2: Build) -> None:
    with torch.inference_mode():
        model = gpt2()
    assert update_count(model.lm_head.weight) == 0
    assert text_nll(model, [5, 6, 7]) == text_nll(gpt2(), [5, 6, 7])
    assert readable(model).prompt_token_ids()

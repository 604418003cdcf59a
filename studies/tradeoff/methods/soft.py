"""Soft prompts as PEFT has them: prompt tuning, P-tuning, prefix tuning; and the nearest tokens of the first two."""

from __future__ import annotations

import copy
from typing import Any

from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, PromptTuningInit, get_peft_model
from transformers import set_seed

from peft_interp import read_prompt
from studies.tradeoff.bench import Bench, Found, Prompt
from studies.tradeoff.methods.training import train

LEARNING_RATES = {"prompt_tuning": 0.01, "p_tuning": 1e-3, "prefix_tuning": 1e-2}


def prompt_tuning(bench: Bench, learning_rate: float = LEARNING_RATES["prompt_tuning"]) -> Found:
    """Stock prompt tuning, started from random rows of the table."""
    start = PromptTuningInit.SAMPLE_VOCAB
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=bench.length, prompt_tuning_init=start)
    return _soft(bench, config, learning_rate, readable=True)


def p_tuning(bench: Bench, learning_rate: float = LEARNING_RATES["p_tuning"]) -> Found:
    """P-tuning: vectors that a small network makes."""
    width = bench.model.get_input_embeddings().weight.shape[1]
    config = PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=bench.length, encoder_hidden_size=width)
    return _soft(bench, config, learning_rate, readable=True)


def prefix_tuning(bench: Bench, learning_rate: float = LEARNING_RATES["prefix_tuning"]) -> Found:
    """Prefix tuning: keys and values in every layer, to which no token is nearest; there is no text to read."""
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=bench.length)
    return _soft(bench, config, learning_rate, readable=False)


def _soft(bench: Bench, config: Any, learning_rate: float, readable: bool) -> Found:
    """Train, keep the state that was best on dev, and read it where it can be read."""
    set_seed(bench.seed)
    model = get_peft_model(bench.model, config)
    encoder = model.prompt_encoder[model.active_adapter]
    best: dict[str, Any] = {"key": (1.0, 0.0), "state": None}
    seen: list[float] = []

    def look(step: int) -> None:
        answers = bench.score_adapter_on_dev(model)
        seen.append(answers.accuracy)
        if (key := (-answers.accuracy, answers.loss)) < best["key"]:
            best.update(key=key, state=copy.deepcopy(encoder.state_dict()), step=step, loss=answers.loss)

    steps = train(bench, model, look, learning_rate, schedule="linear")
    encoder.load_state_dict(best["state"])
    accuracy = -best["key"][0]
    dev = {"accuracy": accuracy, "loss": best["loss"]}
    prompts = [Prompt("chosen", adapter=model, dev=dev)]
    if readable:
        prompts.append(Prompt("reading", ids=tuple(read_prompt(model, bench.tokenizer, neighbours=1).ids)))
    details = {"steps": steps, "best_step": best["step"], "start_accuracy": seen[0], "stuck": accuracy <= seen[0]}
    return Found(prompts, details)

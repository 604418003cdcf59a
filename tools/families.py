"""Model families x task types x places of the prompt: `python -m tools.families --write` makes docs/families.md.

Tried on tiny random models. The oracle is the pasted text: logits of the adapter on a row, and the training loss, must
be those of the base model on the row with the prompt's tokens in it. A cell is "exact", or says what is refused.
"""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import get_peft_model
from torch import Tensor
from transformers import AutoConfig

from peft_interp import InterpPromptConfig
from peft_interp.records import markdown_table
from peft_interp.text.placement import END, IGNORED, MARKED, START, Placement
from peft_interp.tuner.task_types import prompt_task

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
EXACT = 1e-4
MASK = 3
PLACES = {START.name: 0, END.name: 3, MARKED.name: 2}  # tokens in front of the prompt
TASKS = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModelForMaskedLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
}
FAMILIES = (
    "gpt2", "gpt_neo", "gpt_neox", "gptj", "opt", "bloom", "llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma",
    "gemma2", "gemma3_text", "phi", "phi3", "falcon", "mpt", "olmo2", "smollm3", "stablelm", "starcoder2", "granite",
    "cohere", "ctrl", "xglm", "biogpt", "codegen", "mamba", "bert", "roberta", "xlm-roberta", "camembert", "distilbert",
    "electra", "deberta-v2", "albert", "mpnet", "rembert", "roc_bert", "megatron-bert", "modernbert", "ernie", "t5",
    "mt5", "bart", "mbart", "pegasus",
)  # fmt: skip
_SMALL = {
    "vocab_size": 64, "hidden_size": 32, "n_embd": 32, "d_model": 32, "dim": 32, "embedding_size": 32, "n_layer": 2,
    "num_hidden_layers": 2, "num_layers": 2, "n_layers": 2, "encoder_layers": 2, "decoder_layers": 2,
    "num_decoder_layers": 2, "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "d_kv": 8,
    "intermediate_size": 48, "n_inner": 48, "ffn_dim": 48, "d_ff": 48, "dff": 48, "hidden_dim": 48,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64, "n_positions": 64, "n_ctx": 64,
    "max_seq_len": 64, "word_embed_proj_dim": 32, "input_embedding_size": 32, "output_embedding_size": 32,
    "rotary_dim": 4, "state_size": 4, "attention_dim": 32, "num_local_experts": 2, "num_labels": 3,
    "attention_types": [[["global", "local"], 1]], "initializer_range": 0.2, "init_std": 0.2, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "sliding_window": 32, "reference_compile": False,
    "decoder_start_token_id": 0, "tie_word_embeddings": True, "enable_pronunciation": False, "enable_shape": False,
}  # fmt: skip
_DROPOUT = ("dropout", "_pdrop", "dropout_prob", "dropout_rate", "layerdrop")


@dataclass(frozen=True)
class Cell:
    """One family with one task type.

    Attributes:
        family: the config's `model_type`.
        task: PEFT's name.
        words: "exact" in every place that the task's prompts may have, or what is refused and why; "" where
            transformers has no such head.
    """

    family: str
    task: str
    words: str


def tiny(family: str, task: str) -> Any | None:
    """A model with random weights; None where transformers has none of this family for the task."""
    auto = getattr(transformers, TASKS[task])
    known = AutoConfig.for_model(family)
    if type(known) not in auto._model_mapping:
        return None
    fixed = {name for name in _SMALL if isinstance(getattr(type(known), name, None), property)}
    settings = {name: value for name, value in _SMALL.items() if hasattr(known, name) and name not in fixed}
    settings |= {"classifier_dropout": 0.0, "num_labels": 2 if task == "QUESTION_ANS" else 3}
    settings |= {"decoder_start_token_id": 0} if known.is_encoder_decoder else {}
    settings |= {name: 0.0 for name in known.to_dict() if name.endswith(_DROPOUT)}
    if family == "deberta-v2":
        settings |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
    if task == "CAUSAL_LM" and hasattr(known, "is_decoder") and not known.is_encoder_decoder:
        settings["is_decoder"] = True
    torch.manual_seed(0)
    return auto.from_config(AutoConfig.for_model(family, **settings), attn_implementation="eager").eval()


def try_cell(family: str, task: str) -> Cell:
    """Adapter and pasted text side by side, evaluated and in training, with the prompt in each place it may have."""
    base = tiny(family, task)
    if base is None:
        return Cell(family, task, "")
    known = prompt_task(task)
    assert known is not None
    found = {placement.name: _words(base, task, placement) for placement in known.placements}
    same = len(set(found.values())) == 1
    return Cell(family, task, "; ".join(set(found.values()) if same else (f"{k}: {v}" for k, v in found.items())))


def _words(base: Any, task: str, placement: Placement) -> str:
    try:
        error, named = _error(base, task, placement)
    except (ValueError, NotImplementedError) as problem:
        return f"refused: {str(problem).partition(',')[0]}"
    return f"exact{named}" if error <= EXACT else f"differs by {error:.1g}"


def _error(base: Any, task: str, placement: Placement) -> tuple[float, str]:
    """The largest difference, and what had to be named in the config for PEFT to know the model's shape."""
    settings: dict[str, Any] = {"task_type": task, "num_virtual_tokens": 4, "prompt_position": placement.name}
    settings |= {"mask_token_id": MASK}
    base = copy.deepcopy(base)  # as it is, without what PEFT trains of it
    try:
        model = get_peft_model(base, InterpPromptConfig(**settings))
    except ValueError as problem:
        if not str(problem).startswith("Please specify"):
            raise
        shape: dict[str, Any] = {"num_layers": 2, "num_attention_heads": 4, "token_dim": 32}
        model = get_peft_model(base, InterpPromptConfig(**settings, **shape))
        return max(_differences(model, task, placement)), " (1)"
    return max(_differences(model, task, placement)), ""


def _differences(model: Any, task: str, placement: Placement) -> list[float]:
    """Of outputs and of training losses."""
    ids = torch.tensor([[5, 6, 7, 9, 8], [11, 12, 13, 14, 15]])
    if task == "SEQ_CLS" and model.base_model.config.is_encoder_decoder:
        ids[:, -1] = 2  # these pool at the end token
    place = PLACES[placement.name]
    if placement.before_answer and task == "FEATURE_EXTRACTION":
        ids[:, place] = MASK
    labels = {
        "SEQ_CLS": {"labels": torch.tensor([1, 0])},
        "TOKEN_CLS": {"labels": ids % 3},
        "QUESTION_ANS": {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([2, 3])},
        "SEQ_2_SEQ_LM": {"labels": ids[:, :3].clone()},
    }.get(task, {"labels": ids.clone()})
    if placement.before_answer and task == "CAUSAL_LM":
        labels["labels"][:, :place] = IGNORED  # the prompt stands before the first label
    if placement.marked and task == "CAUSAL_LM":
        labels["labels"][:, 0] = IGNORED  # nothing predicts it
    given = _with(ids, labels, task, place, torch.zeros(2, 1).long() if placement.marked else ids[:, :0])
    pasted = _with(ids, labels, task, place, torch.tensor(model.prompt_token_ids()).expand(2, -1))
    if placement.marked:
        given["attention_mask"][:, place] = 0
    with torch.no_grad():
        expected, found = model.base_model(**pasted), model.eval()(**given)
    trained = model.train()(**given).loss
    trained.backward()
    assert model.prompt_encoder["default"].latent.grad.norm() > 0
    errors = [abs(float(found.loss - expected.loss)), abs(float(trained.detach() - expected.loss))]
    width, marks = model.peft_config["default"].num_virtual_tokens, int(placement.marked)
    for name in ("start_logits", "end_logits") if task == "QUESTION_ANS" else ("logits",):
        ours, theirs = found[name], expected[name]
        if task in ("TOKEN_CLS", "QUESTION_ANS"):  # in the input's own order, the prompt's and the mark's left out
            theirs = torch.cat((theirs[:, :place], theirs[:, place + width :]), dim=1)
            ours = torch.cat((ours[:, :place], ours[:, place + marks : ids.shape[1] + marks]), dim=1)
        errors.append(float((ours - theirs).abs().max()))
    return errors


def _with(ids: Tensor, labels: dict[str, Tensor], task: str, place: int, inside: Tensor) -> dict[str, Tensor]:
    """A batch with other tokens inside, which nothing is to be predicted of; positions move along."""

    def put(values: Tensor, among: Tensor) -> Tensor:
        return torch.cat((among[:, :place], values, among[:, place:]), dim=1)

    moved = dict(labels)
    if task in ("CAUSAL_LM", "TOKEN_CLS", "FEATURE_EXTRACTION"):
        moved["labels"] = put(torch.full_like(inside, IGNORED), labels["labels"])
    elif task == "QUESTION_ANS":
        moved = {name: value + inside.shape[1] * (value >= place) for name, value in labels.items()}
    whole = put(inside, ids)
    return {"input_ids": whole, "attention_mask": torch.ones_like(whole), **moved}


def sweep(families: tuple[str, ...] = FAMILIES) -> list[Cell]:
    """All cells; transformers' own remarks on odd tiny configs are left out."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [try_cell(family, task) for family in families for task in TASKS]
    finally:
        logging.disable(logging.NOTSET)


def table(cells: list[Cell]) -> str:
    """Families down, task types across."""
    known = {(cell.family, cell.task): cell.words for cell in cells}
    families = list(dict.fromkeys(cell.family for cell in cells))
    rows = [[f"`{family}`", *(known[family, task] for task in TASKS)] for family in families]
    return markdown_table(("family", *(f"`{task}`" for task in TASKS)), rows)


if __name__ == "__main__":
    made = table(sweep())
    if "--write" in sys.argv[1:]:
        text = PAGE.read_text(encoding="utf-8")
        begin, end = "<!-- sweep -->\n", "\n<!-- end of sweep -->"
        head, _, rest = text.partition(begin)
        PAGE.write_text(head + begin + made.strip() + end + rest.partition(end)[2], encoding="utf-8")
    else:
        sys.stdout.write(made + "\n")

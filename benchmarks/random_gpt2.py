"""The model of every benchmark: a GPT-2 of random weights."""

from dataclasses import dataclass

import torch
from transformers import GPT2Config, GPT2LMHeadModel


@dataclass(frozen=True)
class ModelSize:
    """The defaults are GPT-2's width and vocabulary with 4 of its 12 layers."""

    width: int = 768
    heads: int = 12
    layers: int = 4
    vocabulary: int = 50257
    device: str = "cpu"


def random_gpt2(size: ModelSize) -> GPT2LMHeadModel:
    """The same weights at every call, on the CPU; no dropout, so that losses can be compared."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=size.vocabulary,
        n_embd=size.width,
        n_head=size.heads,
        n_layer=size.layers,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=size.vocabulary - 1,
        eos_token_id=size.vocabulary - 1,
    )
    return GPT2LMHeadModel(config)

"""A model of GPT-2's exact shape with random weights, and GPT-2's tokenizer, for measuring time and memory.

python -m studies.tradeoff.make_gpt2_shape --tokenizer gpt2 --output_dir outputs/gpt2_shape
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel


def main() -> None:
    """Write both into one folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True, help="hub name or folder")
    parser.add_argument("--output_dir", type=Path, required=True)
    for name, value in (("layers", 12), ("width", 768), ("heads", 12)):
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    torch.manual_seed(0)
    size = {"n_layer": arguments.layers, "n_embd": arguments.width, "n_head": arguments.heads}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **size))
    model.save_pretrained(arguments.output_dir)
    tokenizer.save_pretrained(arguments.output_dir)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} million parameters in {arguments.output_dir}")


if __name__ == "__main__":
    main()

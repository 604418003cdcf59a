"""How often the flags call a prompt that a person wrote unreadable: every prompt of the collections, none chosen.

python -m studies.calibration.false_alarms --data_dir ../shared/data
"""

import argparse
from collections import Counter
from pathlib import Path

from transformers import AutoTokenizer

from peft_interp import embedded
from peft_interp.metrics.flags import find_flags
from peft_interp.text.tokenization import token_texts
from studies.calibration.choose_prompts import read_human_prompts


def main() -> None:
    """Print the rate for first sentences and whole prompts, under two tokenizers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    folder = parser.parse_args().data_dir
    tokenizers = {
        "embedded": embedded.load_tokenizer(),
        "gpt2": AutoTokenizer.from_pretrained(folder / "tokenizers" / "gpt2"),
    }
    for whole in (False, True):
        texts = [text for found in read_human_prompts(folder / "human_prompts", whole).values() for text in found]
        for name, tokenizer in tokenizers.items():
            names: Counter[str] = Counter()
            for text in texts:
                pieces = token_texts(tokenizer, tokenizer.encode(text, add_special_tokens=False))
                names.update({flag.name for flag in find_flags(text, pieces) if flag.unreadable})
            which = "whole prompts" if whole else "instructions and first sentences"
            share = sum(names.values()) / len(texts)
            print(f"{which}, {name} tokens: at most {share:.2%} of {len(texts)} flagged, {dict(names)}")


if __name__ == "__main__":
    main()

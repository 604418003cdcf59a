"""Write a training run's checkpoint as a fp16 model folder that `from_pretrained` reads.

python -m studies.embedded_model.export --run_dir runs/final
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

REPOSITORY = Path(__file__).parents[2]


def export(run_dir: Path, model_dir: Path) -> None:
    """Read `checkpoint.pt`, `config.json` and the tokenizer of a run; write them to `model_dir`.

    The weights are stored in fp16 to be small. The config says fp32, which is what they are loaded as, and has no
    dropout, so that a prompt trains against the model that is evaluated.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(run_dir)
    config = GPT2Config.from_pretrained(run_dir, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model = GPT2LMHeadModel(config)
    model.load_state_dict(torch.load(run_dir / "checkpoint.pt")["model"])
    model.half().save_pretrained(model_dir)
    tokenizer.save_pretrained(model_dir)
    rewrite(model_dir / "config.json", dtype="float32")
    rewrite(
        model_dir / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        is_local=None,
        local_files_only=None,
        backend=None,
    )
    for path in model_dir.iterdir():
        path.chmod(0o644)


def rewrite(path: Path, **changes: str | None) -> None:
    """Change fields of a JSON file; None takes a field out."""
    fields = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {name: value for name, value in fields.items() if value is not None or name not in changes}
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run_dir", type=Path, required=True)
    parser.add_argument("--model_dir", type=Path, default=REPOSITORY / "peft_interp" / "embedded" / "model")
    arguments = parser.parse_args()
    export(arguments.run_dir, arguments.model_dir)

"""Choose the human-written prompts that ship with the package, by fixed rules.

    python -m studies.calibration.choose_prompts --data_dir ../shared/data

Rules: whole instructions, or the first sentence where the source's prompts are long (awesome-chatgpt-prompts); 3 to 30
words, one line, ASCII, no text twice; at most 20 that begin "I want you to act as", which half of that source does. Of
what is left, the texts with the smallest SHA-256 are taken, a fixed number from each source.
"""

import argparse
import csv
import hashlib
import json
import re
from pathlib import Path

OUTPUT = Path(__file__).parents[2] / "peft_interp" / "metrics" / "data" / "human_prompts.jsonl"
QUOTAS = {"awesome-chatgpt-prompts": 60, "self-instruct": 80, "instruction-induction": 60}
SHORTEST, LONGEST = 3, 30
FORMULA, FORMULA_LIMIT = "I want you to act as", 20


def read_human_prompts(folder: Path, whole: bool = False) -> dict[str, list[str]]:
    """By source, every prompt; of awesome-chatgpt-prompts only the first sentence unless `whole`."""
    with (folder / "awesome_prompts.csv").open(encoding="utf-8", newline="") as file:
        awesome = [row["prompt"].strip() for row in csv.DictReader(file)]
    names = ("self_instruct_seed_tasks.jsonl", "user_oriented_instructions.jsonl")
    lines = [line for name in names for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    induction = sorted((folder / "instruction_induction").glob("*.json"))
    return {
        "awesome-chatgpt-prompts": awesome if whole else [re.split(r"(?<=[.!?])\s", text)[0] for text in awesome],
        "self-instruct": [json.loads(line)["instruction"].strip() for line in lines],
        "instruction-induction": [
            text.strip() for path in induction for text in json.loads(path.read_text(encoding="utf-8"))["annotations"]
        ],
    }


def is_fit(text: str) -> bool:
    """Whether a text is short enough, plain and on one line."""
    return SHORTEST <= len(text.split()) <= LONGEST and text.isascii() and "\n" not in text


def choose(texts: list[str], count: int) -> list[str]:
    """The texts with the smallest SHA-256, the formula not too often."""
    found: list[str] = []
    for text in sorted(set(filter(is_fit, texts)), key=lambda text: hashlib.sha256(text.encode()).hexdigest()):
        formulas = sum(other.startswith(FORMULA) for other in found)
        if len(found) < count and not (text.startswith(FORMULA) and formulas >= FORMULA_LIMIT):
            found.append(text)
    return found


def main() -> None:
    """Write the package's file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    arguments = parser.parse_args()
    sources = read_human_prompts(arguments.data_dir / "human_prompts")
    rows = [{"text": text, "source": name} for name, texts in sources.items() for text in choose(texts, QUOTAS[name])]
    OUTPUT.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} prompts in {OUTPUT}")


if __name__ == "__main__":
    main()

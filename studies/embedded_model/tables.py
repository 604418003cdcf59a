"""Turn `results.json` into the tables of the README and of the model card.

python -m studies.embedded_model.tables       # writes them between the `table` marks of both files
"""

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CARD = HERE.parents[1] / "peft_interp" / "embedded" / "model" / "README.md"
MARKS = re.compile(r"<!-- table -->\n.*?<!-- end of table -->", re.DOTALL)
NAMES = {
    "sst2": "SST-2 test",
    "own_sentiment": "package reviews, test",
    "own_topic": "package news, test",
    "agnews": "AG News test, 500 rows of at most 300 characters",
}


def summary_table(results: dict[str, Any]) -> str:
    """One row per task: accuracies in per cent."""
    lines = [
        "| accuracy, % | rows | empty prompt | best / worst hand-written | mean of the good ones | held-out, mean |"
        " 200 random prompts: mean (sd), best chosen on train rows | 10-token soft prompt |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, name in NAMES.items():
        if key not in results:
            continue
        found = results[key]
        written = [row["accuracy"] for row in found["written"]]
        good = [row["accuracy"] for row in found["written"] if row["kind"] == "good"]
        held = [row["accuracy"] for row in found["held_out"]]
        random, soft = found["random"], found["soft"]
        few = [row["accuracy"] for row in soft[1:]]
        soft_text = f"{soft[0]['accuracy']} ({soft[0]['trained_on']})"
        if few:
            splits = f"mean of {len(few)} splits" if len(few) > 1 else "one split"
            soft_text += f", {mean(few)} (16 per class, {splits})"
        lines.append(
            f"| {name} | {found['rows']} | {found['empty']} | {max(written)} / {min(written)} | {mean(good)} |"
            f" {mean(held)} |"
            f" {random['mean']} ({random['sd']}), {random['best_on_train']['accuracy']} | {soft_text} |"
        )
    return "\n".join(lines)


def mean(values: list[float]) -> float:
    """Mean with one decimal."""
    return round(sum(values) / len(values), 1)


def prompt_table(results: dict[str, Any], keys: tuple[str, str]) -> str:
    """Every hand-written and held-out prompt of two tasks that share them."""
    chosen = [results[key] for key in keys if key in results]
    lines = ["| prompt | kind | " + " | ".join(NAMES[key] for key in keys if key in results) + " |"]
    lines.append("|---|---|" + "---|" * len(chosen))
    lines.append("| (empty) | | " + " | ".join(str(found["empty"]) for found in chosen) + " |")
    for part, kind in (("written", ""), ("held_out", "held-out")):
        for rows in zip(*(found[part] for found in chosen), strict=True):
            values = " | ".join(str(row["accuracy"]) for row in rows)
            lines.append(f"| {rows[0]['prompt']} | {rows[0].get('kind', kind)} | {values} |")
    return "\n".join(lines)


def language_table(results: dict[str, Any]) -> str:
    """Bits per byte, agreement with human ratings, readable against random prompts, per model."""
    lines = [
        "| model | parameters | bits per byte | acceptability (n 250): mean log-prob, SLOR | naturalness (n 2,250) |"
        " CoLA, area under curve (n 1,043) | NLL per token, nats: readable / shuffled / random prompts |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in results["language"].items():
        ratings = (f"{r['mean_log_prob']:.2f}, {r['slor']:.2f}" for r in found["ratings"].values())
        nll = " / ".join(str(value) for value in found["prompt_nll"].values())
        size = f"{found['parameters'] / 1e6:.2f} M"
        lines.append(f"| {name} | {size} | {found['bits_per_byte']} | {' | '.join(ratings)} | {nll} |")
    return "\n".join(lines)


def insert(path: Path, text: str) -> None:
    """Put the text between the `table` marks of a file."""
    block = f"<!-- table -->\n{text}\n<!-- end of table -->"
    path.write_text(MARKS.sub(lambda _: block, path.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> None:
    """Write both files."""
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    short = [summary_table(results), language_table(results)]
    full = [*short, prompt_table(results, ("sst2", "own_sentiment")), prompt_table(results, ("own_topic", "agnews"))]
    insert(CARD, "\n\n".join(short))
    insert(HERE / "README.md", "\n\n".join(full))


if __name__ == "__main__":
    main()

"""Ask an instruct model whether a sentence is good English, and see how far its answer agrees with people.

    python -m studies.calibration.ask_judge --data_dir ../shared/data    # minutes on one core

The readout is the log-odds of "Yes" against "No" at the start of its answer, in its chat template: the plainest use of
such a model as a judge. It is put beside the fitted score's measures (`judges.json`, both pages), on 500 drawn texts of
each larger set, and takes no part in the score.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

from peft_interp import embedded
from peft_interp.scoring.task_scorer import TaskScorer
from peft_interp.text.placement import IGNORED
from peft_interp.text.tokenization import encode
from studies.calibration.judge_tables import write_tables
from studies.calibration.rank_agreement import agreement
from studies.calibration.rated_texts import rated_sets

HERE = Path(__file__).parent
ANSWERS = ("Yes", "No")
QUESTIONS = {
    "asked: acceptable?": "Is the following sentence acceptable English? Answer yes or no.\n\n{text}",
    "asked: natural?": "Would a native speaker write this sentence? Answer yes or no.\n\nSentence: {text}",
}
BLOCK, MOST = 128, 500


def log_odds(model: Any, tokenizer: Any, question: str, texts: Sequence[str]) -> list[float]:
    """Of "Yes" against "No" for each text, nats; above 0 it says yes."""
    answers = [encode(tokenizer, word)[0] for word in ANSWERS]
    rows = []
    for text in texts:
        turn = [{"role": "user", "content": question.format(text=text)}]
        asked = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        ids = encode(tokenizer, asked)
        rows.append({"input_ids": [*ids, answers[0]], "labels": [IGNORED] * len(ids) + [answers[0]]})
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    found = [0.0] * len(rows)
    for start in track(range(0, len(order), BLOCK), question.split("?")[0]):
        part = order[start : start + BLOCK]
        scores = TaskScorer(model, [rows[i] for i in part], answers).label_log_probs([()])[0]
        for i, (yes, no) in zip(part, scores.tolist(), strict=True):
            found[i] = yes - no
    return found


def main() -> None:
    """Ask, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", default="smollm2", help="an instruct model that `fit_judge` has fitted")
    parser.add_argument("--data_dir", type=Path, required=True)
    arguments = parser.parse_args()
    path = HERE / "judges.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    model = embedded.load_model(arguments.judge)  # fp32: bf16 would make many answers equal
    tokenizer = embedded.load_tokenizer(arguments.judge)
    sets = rated_sets(arguments.data_dir / "human_ratings")
    for measure, question in QUESTIONS.items():
        found = results[arguments.judge]["ratings"].setdefault(measure, {})
        for rated in sets:
            drawn = random.Random(0).sample(range(len(rated.texts)), min(MOST, len(rated.texts)))
            ratings, texts = [rated.ratings[i] for i in drawn], [rated.texts[i] for i in drawn]
            values = log_odds(model, tokenizer, question, texts)
            found[rated.name] = agreement(ratings, values, "auc" if rated.name == "cola" else "rank")
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_tables(results, (HERE / "README.md", HERE.parents[1] / "docs" / "metrics.md"))


if __name__ == "__main__":
    main()

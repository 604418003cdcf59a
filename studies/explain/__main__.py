"""Plant prompts, train soft ones, explain them all, and write down what came of it.

    python -m studies.explain                                 # goes on where it was stopped; 20 minutes on one core
    python -m studies.explain --model smollm2 --budget 800    # 12 prompts of a real model, some 3 minutes each
    python -m studies.explain --report                        # the figures of what is there

A case is explained in one process with one budget; `results.json` holds what was run and nothing else.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from datasets import disable_progress_bars

from peft_interp import compare_activations, embedded, explain_prompt
from peft_interp.explain.explain import BUDGET
from peft_interp.storage.atomic import replace_file
from studies.explain.figures import PLANTED, figures, write_readme
from studies.explain.prompts import Case, Setting, all_cases, load, planted_texts, planted_vectors, trained_vectors
from studies.tradeoff.config import DEVICES

RESULTS = Path(__file__).parent / "results.json"
SHOWN = 3  # candidates that are kept of each case
QUESTIONS = {  # what a person would write, to see where a soft prompt parts from it
    "sentiment": "Is this film review positive or negative?",
    "topic": "Is this news about the world, sports, business or technology?",
}


def main() -> None:
    """Run what is missing, or show what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=BUDGET, help="of `explain_prompt` (default: %(default)s)")
    parser.add_argument("--model", choices=(embedded.EMBEDDED, embedded.SMOLLM2), default=embedded.EMBEDDED)
    parser.add_argument("--device", choices=DEVICES, default=DEVICES[0], help="default: %(default)s")
    parser.add_argument("--cases", type=int, default=None, help="most cases to run now (default: all)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file (default: the study's own)")
    parser.add_argument("--report", action="store_true", help="write the figures of what is there into the README")
    arguments = parser.parse_args()
    disable_progress_bars()
    done = read(arguments.results)
    if not arguments.report:
        run(
            [case for case in all_cases(arguments.model) if case.key not in done["cases"]][: arguments.cases],
            done,
            arguments,
        )
    publish(done, arguments)
    print(json.dumps(figures(done["cases"]), indent=2))


def publish(done: dict[str, Any], arguments: argparse.Namespace) -> None:
    """The README's tables are those of the study's own results, also while it runs."""
    if arguments.results == RESULTS:
        write_readme(done["cases"])


def read(path: Path) -> dict[str, Any]:
    """What was run so far: `cases` by their keys, and the planted `texts` by length and model."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"texts": {}, "cases": {}}


def run(cases: list[Case], done: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Explain the cases one by one; each is written as soon as it is done."""
    settings: dict[str, Setting] = {}
    for case in cases:
        if case.task not in settings:
            settings[case.task] = load(case.task, case.model, arguments.device)
        setting, planted = settings[case.task], case.kind in PLANTED
        texts = f"{case.length}" if case.model == embedded.EMBEDDED else f"{case.length}-{case.model}"
        if planted and texts not in done["texts"]:
            done["texts"][texts] = planted_texts(setting, case.length)
        text = done["texts"][texts][case.number] if planted else None
        found = explain(setting, case, text, arguments.budget)
        done["cases"][case.key] = found
        replace_file(arguments.results, json.dumps(done, indent=1, ensure_ascii=False) + "\n")
        publish(done, arguments)
        print(case.key, {name: found[name] for name in ("text", "reason", "kl", "share", "seconds")}, flush=True)


def explain(setting: Setting, case: Case, text: str | None, budget: int) -> dict[str, Any]:
    """One case's record."""
    vectors = planted_vectors(setting, case, text) if text is not None else trained_vectors(setting, case)
    model, verbalizer = setting.model(vectors), embedded.TASKS[case.task]
    begun = time.process_time()
    found = explain_prompt(model, setting.tokenizer, setting.rows, verbalizer, budget=budget, seed=case.number)
    best, view = found.best, found.activations
    question = compare_activations(model, setting.tokenizer, setting.rows, QUESTIONS[case.task])
    return {
        "kind": case.kind,
        "model": case.model,
        "device": setting.base.device.type,
        "planted": text,
        "text": found.text,
        "reason": found.reason,
        "nearest_text": best.text if best else None,
        "source": best.source if best else None,
        "kl": best.kl if best else None,
        "share": best.share if best else None,
        "calibrated_share": best.calibrated_share if best else None,
        "alignment": best.alignment if best else None,
        "kl_without": found.kl_without,
        "calibrated_kl_without": found.calibrated_kl_without,
        "shown_acts_against": bool(found.text is not None and best is not None and best.acts_against),
        "parts_at": view.parts_at if view else None,
        "parts_from_question": question.parts_at,
        "layers": len(question.layers) - 1,
        "evaluations": found.evaluations,
        "seconds": round(time.process_time() - begun, 1),
        "budget": budget,
        "candidates": [[one.text, one.source, round(one.kl, 5)] for one in found.candidates[:SHOWN]],
    }


if __name__ == "__main__":
    main()

"""Fit the readability score, check it on what it has not seen, and publish the table.

    python -m studies.calibration.calibrate --data_dir ../shared/data     # about ten minutes on two cores

Writes the coefficients into the package (`peft_interp/metrics/data/readability.json`), all figures into `results.json`
and the tables of `README.md`. Two models take part in the fit; a third, CoLA, and in turn every fold are held out.
"""

import argparse
import datetime
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

from peft_interp import embedded
from peft_interp.metrics.readability_metrics import METRICS
from peft_interp.metrics.scrutability import COEFFICIENTS, Calibration
from studies.calibration.calibration_tables import write_tables
from studies.calibration.choose_prompts import read_human_prompts
from studies.calibration.constructed_texts import cut, makers
from studies.calibration.features import Row, measure_all, unigram_nll
from studies.calibration.fitting import Sample, fit, held_out_scores, scores
from studies.calibration.rank_agreement import agreement
from studies.calibration.rated_texts import Rated, rated_sets, unseen_sentences

HERE = Path(__file__).parent
FITTED_MODELS, HELD_OUT_MODEL = ("embedded", "stories260K"), "llama2xs_281K"
RATED_FITTED, HUMAN = ("acceptability", "naturalness"), ("human prompts", "unseen sentences")
PASS_RATE = 0.95
EXTRA = {"nll_position": "lower", "slor": "higher", "flagged": "lower"}
LEFT_OUT = ("perplexity", "special_share", "nll_position")  # same ranks as nll; never varies; same order as nll
MAIN = ("nll", "slor", "dictionary_share", "repetition")  # shown for the other models too
SEED, MAX_TOKENS, UNSEEN = 0, 60, 600

Measured = dict[str, list[Row]]


def load(name: str, data_dir: Path) -> tuple[Any, Any]:
    """A model of the study and its tokenizer."""
    if name == "embedded":
        return embedded.load_model(), embedded.load_tokenizer()
    path = data_dir / "models" / name
    return AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def measure(name: str, data_dir: Path, rated: list[Rated]) -> Measured:
    """All texts of the study under one model: rated, human, and constructed from the human prompts."""
    model, tokenizer = load(name, data_dir)
    unigram = unigram_nll(
        tokenizer, (data_dir / "text" / "wikitext2_valid.txt").read_text(encoding="utf-8").split("\n")
    )
    rng = random.Random(SEED)
    found = {}

    def encode(texts: list[str]) -> list[list[int]]:
        return [ids[:MAX_TOKENS] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]

    sources = read_human_prompts(data_dir / "human_prompts")
    prompts = [text for texts in sources.values() for text in dict.fromkeys(texts)]
    readable = [cut(ids, rng) for ids in encode(prompts) if len(ids) > 1]
    sequences = {texts.name: encode(texts.texts) for texts in rated}
    sequences["human prompts"] = readable
    sequences["unseen sentences"] = [cut(ids, rng) for ids in encode(unseen_sentences(data_dir / "text", UNSEEN))]
    for kind, make in makers(model, tokenizer, prompts).items():
        sequences[kind] = [make(ids, rng) for ids in readable]
    for kind, ids in sequences.items():
        found[kind] = measure_all(model, tokenizer, ids, unigram)
        print(f"{name}: {kind}, {len(ids)} texts", flush=True)
    return found


def samples_of(measured: dict[str, Measured], rated: list[Rated]) -> dict[tuple[str, str], Sample]:
    """What is fitted on, by model and kind: each rated set, human prompts, unseen sentences, and as much unreadable."""
    targets = {texts.name: texts.targets for texts in rated}
    samples = {}
    for name in FITTED_MODELS:
        constructed = [kind for kind in measured[name] if kind not in (*targets, *HUMAN)]
        for kind in (*RATED_FITTED, *HUMAN, *constructed):
            rows = measured[name][kind]
            wanted = targets.get(kind, [float(kind in HUMAN)] * len(rows))
            weight = 2 / len(constructed) if kind in constructed else 1.0
            samples[name, kind] = Sample(rows, wanted, weight, range(len(rows)))
    return samples


def pass_rates(kinds: dict[str, np.ndarray], measured: Measured, threshold: float) -> dict[str, dict[str, float]]:
    """By kind of text, the share that is called readable by the score alone, by the flags alone, and by both."""
    found = {}
    for kind, values in kinds.items():
        scored, unflagged = values >= threshold, np.array([not row["flagged"] for row in measured[kind]])
        rates = {"score": scored.mean(), "flags": unflagged.mean(), "both": (scored & unflagged).mean()}
        found[kind] = {"texts": len(values), **{name: round(float(rate), 3) for name, rate in rates.items()}}
    return found


def rank_table(
    measured: Measured, rated: list[Rated], composite: dict[str, np.ndarray], names: tuple[str, ...] | None
) -> dict[str, Any]:
    """By measure (all, or those named) and rated set, the agreement with people."""
    better = {**{m.name: m.better for m in METRICS if m.name in measured["cola"][0]}, **EXTRA}
    table: dict[str, Any] = {"score": {}}
    for texts in rated:
        kind = "auc" if texts.name == "cola" else "rank"
        table["score"][texts.name] = agreement(texts.ratings, list(composite[texts.name]), kind)
        for name in names or [name for name in better if name not in LEFT_OUT]:
            sign = 1 if better[name] == "higher" else -1
            values = [sign * row[name] for row in measured[texts.name]]
            table.setdefault(name, {})[texts.name] = agreement(texts.ratings, values, kind)
    return table


def study(data_dir: Path) -> tuple[Calibration, dict[str, Any]]:
    """Measure, fit, and check on what was held out."""
    rated = rated_sets(data_dir / "human_ratings")
    measured = {name: measure(name, data_dir, rated) for name in (*FITTED_MODELS, HELD_OUT_MODEL)}
    samples = samples_of(measured, rated)
    held_out = dict(zip(samples, held_out_scores(list(samples.values())), strict=True))
    human = np.concatenate([held_out[name, kind] for name in FITTED_MODELS for kind in HUMAN])
    threshold = round(float(np.quantile(human, 1 - PASS_RATE)), 3)
    fitted = fit(list(samples.values()))
    results: dict[str, Any] = {"ratings": {}, "readable": {}}
    for name, texts in measured.items():
        values = {kind: held_out.get((name, kind), scores(fitted, rows)) for kind, rows in texts.items()}
        results["ratings"][name] = rank_table(texts, rated, values, None if name == "embedded" else MAIN)
        results["readable"][name] = pass_rates(values, texts, threshold)
    provenance = {
        "script": "studies/calibration/calibrate.py",
        "date": datetime.date.today().isoformat(),
        "data": "rated: acceptability-prediction (Apache-2.0), Novikova et al. 2017 (MIT); human prompts "
        "(metrics/data/README.md); sentences of WikiText-2 and GSM8K test; prompts made unreadable",
        "models": list(FITTED_MODELS),
        "threshold_rule": f"{PASS_RATE:.0%} of held-out human prompts and unseen sentences reach it",
    }
    return Calibration(fitted.intercept, fitted.coefficients, threshold, provenance), results


def main() -> None:
    """Run the study and write its three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    calibration, results = study(parser.parse_args().data_dir)
    COEFFICIENTS.write_text(json.dumps(vars(calibration), indent=2) + "\n", encoding="utf-8")
    results = {"calibration": vars(calibration), **results}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_tables(results, HERE / "README.md")


if __name__ == "__main__":
    main()

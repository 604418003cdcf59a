"""Fit a language model as the judge of readability, check it on what it has not seen, and publish the table.

    python -m studies.calibration.fit_judge --judge smollm2 --data_dir ../shared/data --cache outputs/readings
    python -m studies.calibration.fit_judge --judge embedded --data_dir ../shared/data --cache outputs/readings

Writes the fit into the package (`peft_interp/metrics/data/judge_<name>.json`), all figures into `judges.json`, and the
tables of `README.md` and `docs/metrics.md`. SmolLM2 reads the texts in about half an hour on two idle cores, once. Any
other causal LM: `--judge FOLDER --name NAME`.

Held out: CoLA wholly; the rated sentences and the prompts by fold; the probe has seen none of the texts that it is
checked on, nor any rating.
"""

import argparse
import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from peft_interp import embedded
from peft_interp.metrics import readability_judge
from peft_interp.metrics.flags import find_flags
from peft_interp.metrics.readability_judge import FEATURES, SAMPLE, JudgeFit, text_features
from peft_interp.text.tokenization import encode, token_texts
from studies.calibration.judge_readings import read_all
from studies.calibration.judge_tables import write_tables
from studies.calibration.judge_texts import HUMAN, NAMED, TextSet, probe_pairs, text_sets
from studies.calibration.rank_agreement import agreement

HERE = Path(__file__).parent
PUBLISHED = Path(readability_judge.__file__).parent / "data"
START = "<|endoftext|>"
FOLDS, PASS_RATE, RIDGE = 5, 0.97, 1e-3
STRENGTHS = (1e-3, 3e-3, 1e-2, 3e-2)  # of the probe's penalty, scikit-learn's C
SIGNS = {"nll": -1, "log_rate": -1, "inverse_length": 0, "grammar": 1, "repeats": -1}
RATED = ("acceptability", "naturalness", "cola")


@dataclass(frozen=True)
class Probe:
    """A linear probe of one layer.

    Attributes:
        layer: of the hidden states.
        weights: (dim,).
        bias: of the log-odds.
        auc: on pairs left out of its fit.
    """

    layer: int
    weights: np.ndarray
    bias: float
    auc: float


def candidate_layers(model: Any) -> tuple[int, ...]:
    """Layers about the middle and above it, where grammar is read best."""
    count = model.config.get_text_config().num_hidden_layers
    return tuple(sorted({max(1, round(share * count)) for share in (0.47, 0.53, 0.6, 0.67, 0.73)}))


def fit_probe(good: np.ndarray, bad: np.ndarray, layers: Sequence[int]) -> Probe:
    """Logistic regression on mean hidden states; layer and penalty by an eighth of the pairs, left out for that.

    Args:
        good: (pairs, layers, dim) of sentences.
        bad: the same spoiled.
        layers: their numbers.
    """
    held = np.arange(len(good)) % 8 == 0

    def fitted(i: int, strength: float, kept: np.ndarray) -> tuple[np.ndarray, float]:
        x = np.concatenate([good[kept, i], bad[kept, i]])
        y = np.concatenate([np.ones(kept.sum()), np.zeros(kept.sum())])
        scaler = StandardScaler().fit(x)
        found = LogisticRegression(C=strength, max_iter=2000).fit(scaler.transform(x), y)
        weights = found.coef_[0] / scaler.scale_
        return weights, float(found.intercept_[0] - weights @ scaler.mean_)

    def auc(i: int, strength: float) -> float:
        weights, bias = fitted(i, strength, ~held)
        values = np.concatenate([good[held, i], bad[held, i]]) @ weights + bias
        return float(roc_auc_score(np.repeat([1, 0], held.sum()), values))

    choices = {(i, strength): auc(i, strength) for i in range(len(layers)) for strength in STRENGTHS}
    best = max(choices, key=lambda choice: choices[choice])
    weights, bias = fitted(*best, np.ones(len(good), dtype=bool))
    return Probe(layers[best[0]], weights, bias, choices[best])


def fit_score(
    features: dict[str, np.ndarray], sets: dict[str, TextSet], names: Sequence[str], fold: int | None = None
) -> tuple[float, np.ndarray]:
    """Weighted cross-entropy with targets from 0 to 1 and weights of known sign, without one fold.

    Args:
        features: by kind (texts, features).
        sets: the kinds.
        names: of the features.
        fold: left out; None fits on everything.

    Returns:
        Intercept, (features,) weights.
    """
    inputs, targets, weights = [], [], []
    for name, texts in sets.items():
        kept = np.array([fold is None or group % FOLDS != fold for group in texts.groups])
        if texts.weight and kept.any():
            inputs.append(features[name][kept])
            targets.append(np.array(texts.targets)[kept])
            weights.append(np.full(kept.sum(), texts.weight / kept.sum()))
    x, y, w = np.concatenate(inputs), np.concatenate(targets), np.concatenate(weights)
    w, mean, scale = w / w.sum(), x.mean(0), x.std(0) + 1e-9
    x = (x - mean) / scale

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        z = parameters[0] + x @ parameters[1:]
        error = w * (1 / (1 + np.exp(-z)) - y)
        value = (w * (np.logaddexp(0, z) - y * z)).sum() + RIDGE * (parameters[1:] ** 2).sum()
        return float(value), np.concatenate([[error.sum()], x.T @ error + 2 * RIDGE * parameters[1:]])

    bounds = {-1: (None, 0.0), 0: (None, None), 1: (0.0, None)}
    limits = [(None, None)] + [bounds[SIGNS[name]] for name in names]
    found = minimize(loss, np.zeros(1 + len(names)), jac=True, bounds=limits, method="L-BFGS-B").x
    slopes = found[1:] / scale
    return float(found[0] - slopes @ mean), slopes


def held_out(features: dict[str, np.ndarray], sets: dict[str, TextSet], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Log-odds of every text by the fit that has not seen its fold; of kinds without a weight by the fit on all."""
    fits = [fit_score(features, sets, names, fold) for fold in range(FOLDS)]
    whole = fit_score(features, sets, names)
    found = {}
    for name, texts in sets.items():
        by_fold = np.stack([intercept + features[name] @ slopes for intercept, slopes in fits])
        own = by_fold[np.array(texts.groups) % FOLDS, np.arange(len(texts.texts))]
        found[name] = own if texts.weight else whole[0] + features[name] @ whole[1]
    return found


def study(name: str, model: Any, tokenizer: Any, data_dir: Path, cache: Path) -> tuple[JudgeFit, dict[str, Any]]:
    """Read, fit, and check on what was held out."""
    sets, rounds, layers = text_sets(data_dir, tokenizer), probe_pairs(data_dir), candidate_layers(model)
    parts = [[text for pair in pairs for text in pair] for pairs in rounds]
    parts[0] = [*(text for texts in sets.values() for text in texts.texts), *parts[0]]
    read: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for part in parts:
        texts = [text for text in dict.fromkeys(part) if text not in read]
        read |= zip(texts, read_all(model, tokenizer, name, texts, START, layers, cache), strict=True)
    pairs = [pair for part in zip(*rounds, strict=False) for pair in part]  # those of a sentence lie close together
    good, bad = (np.stack([read[text][1].numpy() for text in side]) for side in zip(*pairs, strict=True))
    probe = fit_probe(good, bad, layers)
    place = layers.index(probe.layer)

    def features_of(texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            nlls, hidden = read[text]
            values = {**text_features(text, nlls), "grammar": float(hidden[place].numpy() @ probe.weights + probe.bias)}
            rows.append([values[feature] for feature in FEATURES])
        return np.nan_to_num(np.array(rows), nan=20.0)  # a single token: as unlikely as can be

    features = {kind: features_of(texts.texts) for kind, texts in sets.items()}
    odds = held_out(features, sets, FEATURES)
    threshold = float(np.quantile(odds["cut prompts"], 1 - PASS_RATE))
    intercept, slopes = fit_score(features, sets, FEATURES)
    fit = JudgeFit(
        judge=name,
        start=START,
        layer=probe.layer,
        probe=tuple(float(f"{value:.5g}") for value in probe.weights),
        probe_bias=round(probe.bias, 5),
        intercept=round(intercept, 5),
        coefficients={feature: round(float(slope), 5) for feature, slope in zip(FEATURES, slopes, strict=True)},
        threshold=round(float(1 / (1 + np.exp(-threshold))), 4),
        sample_ids=tuple(encode(tokenizer, SAMPLE)),
    )
    results = {
        "ratings": rank_table(sets, features, odds),
        "readable": pass_rates(sets, odds, threshold, tokenizer),
        "probe": {"layer": probe.layer, "auc": round(probe.auc, 3), "pairs": len(pairs)},
        "coefficients": dict(fit.coefficients),
        "threshold": fit.threshold,
    }
    return replace(fit, figures=figures(results), provenance=provenance()), results


def rank_table(
    sets: dict[str, TextSet], features: dict[str, np.ndarray], odds: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """By measure and rated set, the agreement with people."""
    nll, rate, _, grammar, repeats = range(len(FEATURES))
    plain = {kind: replace(texts, weight=float(kind == "acceptability")) for kind, texts in sets.items()}
    morcela = held_out({kind: rows[:, :3] for kind, rows in features.items()}, plain, FEATURES[:3])
    table: dict[str, dict[str, Any]] = {}
    for kind in RATED:
        rows, ratings = features[kind], sets[kind].ratings
        assert ratings is not None
        measures = {
            "score": odds[kind],
            "grammar probe": rows[:, grammar],
            "MORCELA, fitted on acceptability": morcela[kind],
            "SLOR": -rows[:, nll] - rows[:, rate],
            "nll": -rows[:, nll],
            "log rate of the words": rows[:, rate],
            "repeats": -rows[:, repeats],
        }
        for measure, values in measures.items():
            found = agreement(ratings, list(values), "auc" if kind == "cola" else "rank")
            table.setdefault(measure, {})[kind] = found
    return table


def pass_rates(
    sets: dict[str, TextSet], odds: dict[str, np.ndarray], threshold: float, tokenizer: Any
) -> dict[str, dict[str, float]]:
    """By kind the share called readable: by the score, by the flags, by both."""
    found = {}
    for kind, texts in sets.items():
        scored = odds[kind] >= threshold
        pieces = [token_texts(tokenizer, encode(tokenizer, text)) for text in texts.texts]
        unflagged = np.array(
            [not any(f.unreadable for f in find_flags(t, p)) for t, p in zip(texts.texts, pieces, strict=True)]
        )
        rates = {"score": scored.mean(), "flags": unflagged.mean(), "both": (scored & unflagged).mean()}
        found[kind] = {"texts": len(scored), **{key: round(float(value), 3) for key, value in rates.items()}}
    return found


def figures(results: dict[str, Any]) -> dict[str, Any]:
    """What the package says of the score: value and 95% interval on held-out texts, and shares called readable."""
    score, rates = results["ratings"]["score"], results["readable"]
    return {
        "acceptability_spearman": score["acceptability"]["spearman"],
        "naturalness_spearman": score["naturalness"]["spearman"],
        "cola_auc": score["cola"]["auc"],
        "human_prompts_readable": rates[HUMAN[0]]["both"],
        "shuffled_prompts_readable": rates["shuffled words"]["both"],
    }


def provenance() -> dict[str, Any]:
    """Where the fit comes from."""
    return {
        "script": "studies/calibration/fit_judge.py",
        "date": datetime.date.today().isoformat(),
        "data": "rated: acceptability-prediction (Apache-2.0), Novikova et al. 2017 (MIT); human prompts "
        "(metrics/data/README.md); sentences of WikiText-2 and GSM8K test; spoiled prompts; the probe: sentences of "
        "WikiText-2 valid, GSM8K train and TinyStories, and the same spoiled",
        "threshold_rule": f"{PASS_RATE:.0%} of held-out human prompts, cut short, reach it",
    }


def main() -> None:
    """Run the study for one judge and write its files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", default="smollm2", help="'smollm2', 'embedded', a hub name or a folder")
    parser.add_argument("--name", help="of the fit; default: the judge's")
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("outputs/readings"), help="folder for what the judge read")
    arguments = parser.parse_args()
    name = arguments.name or arguments.judge
    torch.manual_seed(0)
    model, tokenizer = embedded.load_model(arguments.judge), embedded.load_tokenizer(arguments.judge)
    fit, results = study(name, model, tokenizer, arguments.data_dir, arguments.cache)
    (PUBLISHED / f"judge_{name}.json").write_text(json.dumps(vars(fit), indent=1) + "\n", encoding="utf-8")
    judge = readability_judge.ReadabilityJudge(model, tokenizer, fit)
    results["named"] = {
        text: {"score": round(score, 3), "readable": bool(score >= fit.threshold), "right": right}
        for (text, right), score in zip(NAMED.items(), judge.scores(list(NAMED)), strict=True)
    }
    path = HERE / "judges.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**known, name: results}, indent=1) + "\n", encoding="utf-8")
    pages = (HERE / "README.md", HERE.parents[1] / "docs" / "metrics.md")
    write_tables(json.loads(path.read_text(encoding="utf-8")), pages)


if __name__ == "__main__":
    main()

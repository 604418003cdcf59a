"""Data for what is shown of an explanation, on its own page and as a section of a report."""

from __future__ import annotations

from typing import Any

from peft_interp.report.charts import bar, layers
from peft_interp.report.explained import (
    AGAINST,
    APART,
    IDLE,
    TOO_FAR,
    UNCALIBRATED,
    ActivationComparison,
    ExplanationCandidate,
    ExplanationData,
    why_no_text,
)
from peft_interp.report.texts import number, percent

_SHOWN = 12  # candidates
_VERDICTS = {
    "": "explains",
    TOO_FAR: "too far",
    AGAINST: "acts against the prompt",
    APART: "does not tell rows apart",
    UNCALIBRATED: "label words only",
    IDLE: "nothing to explain",
}


def explanation_section(data: ExplanationData) -> dict[str, Any]:
    """The conclusion, the text or why there is none, candidates, labels, layers."""
    return {
        "conclusion": data.conclusion(),
        "text": data.text,
        "unexplained": data.unexplained(),
        "note": (
            f"Found on {data.search_rows} rows, judged on {data.rows} others; {data.evaluations:,} pairs of text and "
            "row were run to find them. Share: how much of the divergence (KL) between the prompt's answers and those "
            "with no prompt the text closes; calibrated: the same for the label words, with each label's mean taken "
            "off; alignment: do label scores go with the prompt's, row by row (1), or against them (below 0)."
        ),
        "candidates": [_candidate(one, data) for one in data.candidates[:_SHOWN]],
        "more": max(0, len(data.candidates) - _SHOWN),
        "labels": [
            (label.word.strip() or label.word, percent(label.prompt), percent(label.text), percent(label.nothing))
            for label in data.labels
        ],
        "activations": _activations(data.activations),
    }


def _candidate(one: ExplanationCandidate, data: ExplanationData) -> dict[str, Any]:
    reason = why_no_text(one, data.kl_without, data.calibrated_kl_without)
    return {
        "text": one.text.strip() or "(no text)",
        "source": one.source,
        "picture": bar(one.share),
        "share": percent(max(one.share, 0.0)) if one.share >= 0 else "worse than none",
        "kl": number(one.kl),
        "calibrated": number(one.calibrated_kl),
        "alignment": number(one.alignment),
        "agreement": percent(one.agreement),
        "verdict": _VERDICTS[reason],
    }


def _activations(found: ActivationComparison | None) -> dict[str, Any] | None:
    if found is None or not found.layers:
        return None
    series = [
        ("cosine at the answer", [layer.answer_cosine for layer in found.layers]),
        ("cosine at the input's tokens", [layer.token_cosine for layer in found.layers]),
        ("CKA at the answer", [layer.answer_cka for layer in found.layers]),
        ("cosine, prompt and no prompt", [layer.nothing_cosine for layer in found.layers]),
    ]
    rows = [
        [
            *(str(layer.layer), number(layer.answer_cosine), number(layer.answer_cka), number(layer.token_cosine)),
            *(number(layer.token_cka), number(layer.nothing_cosine), number(layer.prompt_cosine)),
        ]
        for layer in found.layers
    ]
    return {
        "words": found.words(),
        "text": found.text.strip(),
        "picture": layers(series, found.parts_at, found.limit),
        "columns": [
            *("layer", "cosine, answer", "CKA, answer", "cosine, tokens", "CKA, tokens"),
            *("cosine of no prompt", "cosine, prompt's places"),
        ],
        "rows": rows,
    }

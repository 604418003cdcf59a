"""The lines that every form of a report shares: the conclusion in words, what kind of prompt it is, how to use it."""

from __future__ import annotations

from peft_interp.base_model_name import PLACE_OF_THE_ADAPTER, loading_code, public_name
from peft_interp.metrics.results import Neighbour, TokenReading
from peft_interp.report.record import ReportData
from peft_interp.report.task_verdicts import why_no_text
from peft_interp.text.placement import PLACEMENTS
from peft_interp.tuner.stored_config import PEFT_TYPE_NAME

_FAITHFUL = {
    ("tokens", "yes"): "the text is the prompt",
    ("tokens", "partly"): "the text does almost, but not exactly, what the prompt does",
    ("tokens", "no"): "the text does not do what the prompt does",
    ("tokens", "unknown"): "whether the text does what the prompt does",
    ("vectors", "yes"): "its nearest tokens do what this soft prompt does",
    ("vectors", "partly"): "its nearest tokens explain this soft prompt only in part",
    ("vectors", "no"): "its nearest tokens do not explain this soft prompt",
    ("vectors", "unknown"): "whether its nearest tokens explain this soft prompt",
    ("none", "no"): "this prompt has no text",
}
_READABLE = {
    "yes": "a person can read {it}",
    "partly": "a person can read {it}, though it is less fluent than what people write",
    "no": "a person cannot read {it}",
    "unknown": "whether a person can read {it}",
}
_HELPS = {
    "yes": "it helps the task",
    "partly": "it makes the right answers likelier, but not surely more frequent",
    "no": "it does not help the task",
    "unknown": "whether it helps the task",
}


def conclusion(report: ReportData) -> str:
    """The three answers that matter most as one sentence, known ones first, without a full stop."""
    reading = report.reading
    kind = "none" if not reading.tokens else "tokens" if reading.discrete else "vectors"
    answers = {name: verdict.answer for name in ("faithful", "readable", "acts") if (verdict := report.verdict(name))}
    parts = [_FAITHFUL.get((kind, answers.get("faithful", "")), "")]
    if kind != "none":
        it = "it" if kind == "tokens" else "its nearest tokens" if answers.get("faithful") == "unknown" else "them"
        parts += [_READABLE.get(answers.get("readable", ""), "").format(it=it), _HELPS.get(answers.get("acts", ""), "")]
    known = [part for part in parts if part and not part.startswith("whether")]
    open_ = [part for part in parts if part.startswith("whether")]
    known += [f"it is open {_listed(open_)}"] if open_ else []
    said = _listed(known) or "nothing was measured"
    return said[:1].upper() + said[1:]


def _listed(parts: list[str]) -> str:
    if len(parts) < 3:
        return (" and " if parts and parts[0].startswith("whether") else ", and ").join(parts)
    return f"{', '.join(parts[:-1])}, and {parts[-1]}"


def headline(report: ReportData) -> str:
    """What kind of prompt it is, in a few words."""
    count = len(report.reading.tokens)
    if not count:
        return f"{report.reading.method}: it {why_no_text(report.reading)}"
    places = f"{count} token{'s' if count != 1 else ''}"
    if report.reading.is_text:
        return f"text of {places}"
    if report.reading.discrete:
        return f"prompt of {places}"
    return f"nearest tokens of a soft prompt of {places.replace('token', 'vector')}"


def needed(report: ReportData) -> str:
    """What the prompt needs besides its text, as a sentence without a full stop; "" for nothing."""
    if report.label_bias is None:
        return ""
    said = report.label_bias.sentence()
    return said[:1].upper() + said[1:]


def others(token: TokenReading) -> list[Neighbour]:
    """The tokens near a vector besides the one it is read as, nearest first."""
    return [neighbour for neighbour in token.neighbours if neighbour.id != token.id]


def usage(report: ReportData) -> list[tuple[str, str]]:
    """How to use the prompt, as (when, code); only what the verdicts allow."""
    name = public_name(str(report.context.get("base_model") or ""))
    bring, base = loading_code(name, str(report.context.get("task_type") or "CAUSAL_LM"))
    ours = ["import peft_interp  # makes PEFT know the method"] if report.reading.method == PEFT_TYPE_NAME else []
    make = [base, f'model = PeftModel.from_pretrained(base, "{PLACE_OF_THE_ADAPTER}")']
    load = "\n".join([*ours, "from peft import PeftModel", bring, "", *make])
    ways = [] if report.reading.is_text else [("As an adapter", load)]
    if report.reading.discrete and report.reading.text:
        place = PLACEMENTS.get(report.reading.position)  # of a stranger's report, it may be anything
        where = f", {place.preposition} the input" if place else ""
        code = f"prompt = {report.reading.text!r}"
        if (bias := report.label_bias) is not None:
            numbers = dict(zip(bias.words, bias.values, strict=True))
            code += f"\nlabel_bias = {numbers!r}  # added to the label words' log-probabilities"
        ways.append((f"As text{where}", code))
    return ways

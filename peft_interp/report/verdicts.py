"""What the numbers mean, in words: from records to short answers.

Every question is asked so that "yes" is the good answer. Nothing is called faithful on distance alone: vectors close to
tokens can act unlike them (arXiv 2112.08348).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from peft_interp.metrics.results import (
    TASK_MODEL,
    BaseChange,
    Faithfulness,
    LabelPrior,
    Measure,
    PromptReading,
    Scrutability,
    Waywardness,
)
from peft_interp.metrics.task_naming import TaskNaming
from peft_interp.report.task_verdicts import Answer, acts, distance_of, faithful, prior, tokens
from peft_interp.report.texts import percent
from peft_interp.report.thresholds import FEW_ARE_WORSE, JUDGE_GAP, LOSS_TOLERANCE, SAID_SHARE, differ


def near(reading: PromptReading, measured: Faithfulness | None = None) -> Answer | None:
    """Whether the vectors lie near the tokens of the text; says nothing about behaviour."""
    if reading.discrete or not reading.tokens:
        return None
    distance, typical = distance_of(reading, measured), reading.typical_cosine_distance
    how = "farther from" if distance > typical else "no farther from"
    words = f"the nearest tokens lie {how} the vectors ({distance:.2f}) than tokens lie from each other ({typical:.2f})"
    return ("no" if distance > typical else "yes"), words


def survives(reading: PromptReading, measured: Faithfulness | None) -> Answer | None:
    """Whether the text, tokenised again in its place, gives the same tokens; of a text, only where not."""
    if measured is None or not reading.tokens:
        return None
    if reading.is_text and not measured.skipped_rows and not measured.token_error_rate:
        return None
    skipped, total = measured.skipped_rows, measured.rows + measured.skipped_rows
    left_out = f"; {skipped} of {total} rows are tokenised differently after it and were left out" if skipped else ""
    if measured.token_error_rate > 0:
        return "no", f"tokenised again, {percent(measured.token_error_rate)} of its tokens differ{left_out}"
    return ("partly" if skipped else "yes"), f"tokenised again it gives the same tokens{left_out}"


def evidence(measured: Faithfulness | None, bound: Waywardness | None, untested: str = "") -> Answer | None:
    """What the waywardness test says about believing nearest tokens (arXiv 2112.08348); at best "partly".

    Args:
        measured: the prompt on data.
        bound: the test; None where it was not made.
        untested: why it was not, where it was asked for.
    """
    if bound is None:
        return ("unknown", f"asked for but not tested: {untested}") if untested else None
    if bound.projected_share < SAID_SHARE:
        said = f"only {percent(bound.projected_share)} of its tokens came to say it"
        return "partly", f"no prompt could be trained to say {bound.target_text!r}: {said}"
    best = measured.as_prompt if measured is not None else bound.target
    beside = "this prompt" if measured is not None else "that text"
    reached, goal = bound.wayward.accuracy, best.accuracy
    if reached is None or goal is None:
        as_well = bound.wayward.loss <= best.loss + LOSS_TOLERANCE
        figures = f"loss {bound.wayward.loss:.2f}, {beside} {best.loss:.2f}"
    else:
        rows = measured.rows if measured is not None else None
        as_well = reached >= goal or (rows is not None and not differ(reached, goal, rows))
        figures = f"{reached:.2f}, {beside} {goal:.2f}"
    if as_well:
        words = f"a prompt trained to say {bound.target_text!r} solved the task as well ({figures})"
        return "no", f"{words}, so nearest tokens prove nothing here"
    return "partly", f"a prompt trained to say {bound.target_text!r} did worse ({figures}); another might not"


def readable(reading: PromptReading, judged: Scrutability | None) -> Answer:
    """Whether a person can read the text. Of a soft prompt this is the text of the nearest tokens."""
    if not reading.tokens:
        return "unknown", "there is no text to read"
    if judged is None:
        return "unknown", (
            "no causal language model judged it; where the base model is none, pass one with "
            "`perplexity_model=` (`--perplexity-model` on the command line)"
        )
    whose = "" if reading.discrete else "its nearest tokens: "
    blocking = [flag.words for flag in judged.flags if flag.unreadable]
    if blocking:
        return "no", whose + "; ".join(blocking)
    fluency = judged.measures.get("nll")
    percentile = fluency.percentile if fluency is not None else None
    if math.isnan(judged.score):
        foreign = [flag.words for flag in judged.flags if flag.name == "language"]
        return "unknown", whose + "".join(foreign or ["too short, or without reference levels, to be scored"])
    if judged.judge != TASK_MODEL:
        return _by_judge(whose, judged)
    if not judged.readable:
        return "no", f"{whose}score {judged.score:.2f} of 1{_perplexity(judged.measures.get('perplexity'))}"
    if percentile is None:
        return "yes", f"{whose}score {judged.score:.2f} of 1"
    if percentile < FEW_ARE_WORSE:
        return "partly", f"{whose}score {judged.score:.2f} of 1, but {_compared(percentile)}"
    return "yes", f"{whose}{_compared(percentile)} (score {judged.score:.2f} of 1)"


def _by_judge(whose: str, judged: Scrutability) -> Answer:
    """The verdict of a judge of readability, for what it knows, and how far it agrees with people."""
    people = "" if judged.agreement is None else f"; rank correlation with people's judgement {judged.agreement:.2f}"
    said = f"(score {judged.score:.2f} of 1 by {judged.judge}{people})"
    if judged.readable:
        return "yes", f"{whose}it reads like English that people write {said}"
    return "no", f"{whose}it does not read like English that people write {said}"


def named(reading: PromptReading, judged: Scrutability | None, found: TaskNaming | None) -> Answer | None:
    """Whether the text says what the prompt is for; readable and about something else is the case to be named."""
    if found is None:
        return None
    answer = {"named": "yes", "unclear": "partly", "other": "no"}.get(found.verdict, "unknown")
    whose = "" if reading.discrete else "its nearest tokens: "
    readable_and = "readable, but " if answer == "no" and judged is not None and judged.readable else ""
    return answer, f"{whose}{readable_and}{found.words}"


def trust(judged: Scrutability | None) -> Answer | None:
    """What a reader should know before taking the scores as they are."""
    if judged is None:
        return None
    warnings = [flag.words for flag in judged.flags if not flag.unreadable]
    gap = judged.measures.get("judge_gap")
    if gap is not None and gap.value < (gap.human or 0.0) - JUDGE_GAP:
        less = (gap.human or 0.0) - gap.value
        warnings.append(
            f"another language model finds the text less likely, by {less:.2f} nats per character more than for "
            "prompts that people wrote: its perplexity flatters it"
        )
    if not warnings:
        return None
    return "partly", "; ".join(warnings)


def _compared(percentile: float) -> str:
    if percentile < 1:
        return "less fluent than all prompts that people wrote"
    return f"at least as fluent as {percentile:.0f} of 100 prompts that people wrote"


def _perplexity(measure: Measure | None) -> str:
    if measure is None:
        return ""
    beside = f" (prompts people wrote: {measure.human:,.0f})" if measure.human is not None else ""
    return f", perplexity {measure.value:,.0f}{beside}"


def base(change: BaseChange | None, measured: Faithfulness | None) -> Answer | None:
    """Whether the base model is as it was published; the text alone is pasted into that one."""
    if change is None:
        return None
    if change.overwritten:
        some = ", ".join(change.overwritten[:3]) + (", ..." if len(change.overwritten) > 3 else "")
        return "no", f"the adapter's file overwrote {some}; what text alone does on the base model cannot be known here"
    words = f"{', '.join(change.modules)} was trained with the prompt and acts in its place"
    if change.as_text is None or measured is None:
        return "no", f"{words}; what text alone does on the unchanged base model was not measured"
    clean, here = change.as_text, measured.as_text
    if clean.accuracy is not None and here.accuracy is not None:
        figures = f"accuracy {clean.accuracy:.2f}, with the change {here.accuracy:.2f}"
    else:
        figures = f"loss {clean.loss:.2f}, with the change {here.loss:.2f}"
    return "no", f"{words}; on the unchanged base model the text alone has {figures}"


def on_the_changed_base(answer: Answer | None, change: BaseChange | None) -> Answer | None:
    """What is true of text and prompt on a base model that was changed with them is no more than partly true."""
    if answer is None or change is None or change.own_head or answer[0] != "yes":
        return answer
    return "partly", f"only on the base model that was changed with the prompt: {answer[1]}"


QUESTIONS = {
    "base": "Is the base model as it was?",
    "faithful": "Does the text do what the prompt does?",
    "near": "Are the vectors near these tokens?",
    "evidence": "Do nearest tokens prove anything here?",
    "survives": "Does the text come back as the same tokens?",
    "readable": "Can a person read it?",
    "named": "Does it say what it is for?",
    "acts": "Does the prompt help?",
    "prior": "Is the gain more than the label prior?",
    "tokens": "Does every token matter?",
    "trust": "Can the scores be taken as they are?",
}
"""What each verdict answers, by its name; in reports they stand in this order."""
ANSWERS = ("yes", "partly", "no", "unknown")


@dataclass(frozen=True)
class Verdict:
    """One question about a prompt, answered.

    Attributes:
        question: a key of `QUESTIONS`.
        answer: "yes" (the good one), "partly", "no" or "unknown".
        words: why, with the numbers it rests on; without a full stop.
    """

    question: str
    answer: str
    words: str

    def __str__(self) -> str:
        return f"{self.question}: {self.answer}, {self.words}"


def decide(
    reading: PromptReading,
    scrutability: Scrutability | None = None,
    faithfulness: Faithfulness | None = None,
    waywardness: Waywardness | None = None,
    chance: float | None = None,
    untested: str = "",
    base_change: BaseChange | None = None,
    task_naming: TaskNaming | None = None,
    label_prior: LabelPrior | None = None,
) -> tuple[Verdict, ...]:
    """Every question that arises, answered.

    Args:
        reading: the prompt as text.
        scrutability: None where there is no text.
        faithfulness: None where there was no data.
        waywardness: None where it was not tested.
        chance: accuracy of guessing, 0 to 1; None if not known.
        untested: why there is no waywardness although it was asked for; "" where it was not.
        base_change: what the adapter changed of the base model.
        task_naming: None where no task was described.
        label_prior: None where nothing was calibrated.
    """
    acts_alike = None if reading.is_text else faithful(reading, faithfulness, chance)
    answers = {
        "base": base(base_change, faithfulness),
        "faithful": on_the_changed_base(acts_alike, base_change),
        "near": near(reading, faithfulness),
        "evidence": None if reading.discrete and not untested else evidence(faithfulness, waywardness, untested),
        "survives": survives(reading, faithfulness),
        "readable": readable(reading, scrutability),
        "named": named(reading, scrutability, task_naming),
        "acts": acts(reading, faithfulness),
        "prior": prior(label_prior),
        "tokens": tokens(reading, faithfulness),
        "trust": trust(scrutability),
    }
    return tuple(Verdict(question, *answer) for question, answer in answers.items() if answer is not None)


def beside_the_head(verdicts: tuple[Verdict, ...], measured: Faithfulness, by_head: float) -> tuple[Verdict, ...]:
    """The verdicts, with what a trained head does under a random prompt beside what the prompt does.

    Args:
        verdicts: of `decide`.
        measured: the prompt on the task.
        by_head: accuracy with the same head and random prompts, 0 to 1.
    """
    accuracy = measured.as_prompt.accuracy
    if accuracy is None:
        return verdicts
    words = f"with the same head and a random prompt it is {by_head:.2f}"
    same = accuracy <= by_head or not differ(accuracy, by_head, measured.rows)
    tail = f"; {words}: the head does the task, the prompt explains nothing" if same else f"; {words}"
    return tuple(
        Verdict(v.question, "no" if same and v.answer == "yes" else v.answer, v.words + tail)
        if v.question == "acts"
        else v
        for v in verdicts
    )

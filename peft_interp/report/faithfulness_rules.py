"""Verdicts on whether a prompt's text may be believed. Each rule returns (answer, words), None if it does not arise."""

from __future__ import annotations

import math

from peft_interp.metrics.results import Faithfulness, PromptReading, Waywardness
from peft_interp.report.texts import percent
from peft_interp.report.thresholds import (
    ALIKE_KL,
    ALIKE_TOP1,
    EXACT_KL,
    EXACT_TOP1,
    LOSS_TOLERANCE,
    SAID_SHARE,
    UNLIKE_KL,
    UNLIKE_TOP1,
    below_chance,
    change,
    differ,
)

Answer = tuple[str, str]


def faithful(reading: PromptReading, measured: Faithfulness | None, chance: float | None = None) -> Answer:
    """Whether the text does what the prompt does.

    Args:
        reading: the prompt as text.
        measured: both sides compared on data; None where there was no data.
        chance: accuracy of guessing, to tell a prompt that acts against its text from one that is merely worse; the
            accuracy without a prompt stands in where it is not known.
    """
    if not reading.tokens:
        return "no", f"this method {why_no_text(reading)}"
    if measured is None and reading.discrete:
        return "unknown", "no data given; the vectors are exactly these tokens, how the text acts was not tested"
    if measured is None:
        return "unknown", "no data given; nearest tokens are no explanation until they are tested"
    against = _against_its_text(measured, chance)
    if against:
        return "no", against
    moved = change(measured.as_prompt, measured.as_text, measured.rows)
    return _faithful_tokens(measured, moved) if reading.discrete else _faithful_vectors(reading, measured, moved)


def why_no_text(reading: PromptReading) -> str:
    """What a method does instead of training vectors that stand in the place of tokens, once for all rows."""
    if reading.method == "MULTITASK_PROMPT_TUNING":
        return "trains another prompt for each task id, so there is no one text; save one of them as PROMPT_TUNING"
    return "trains no vectors that stand in the place of tokens, so it has no text"


def _faithful_tokens(measured: Faithfulness, moved: str) -> Answer:
    """For a prompt whose vectors are exactly tokens."""
    same_tokens = measured.token_error_rate == 0
    if same_tokens and not moved and measured.kl <= EXACT_KL and measured.top1_agreement >= EXACT_TOP1:
        return "yes", f"the text is the prompt: the same tokens, the same answers on {measured.rows} rows"
    if same_tokens:
        cause = "the tokens are the same but the answers are not: the prompt does not stand where its text would"
    else:
        cause = "the text is not tokenised to the prompt's tokens again"
    return ("no", f"{cause}; {moved}") if moved else ("partly", f"{cause} ({_answers(measured)})")


def _faithful_vectors(reading: PromptReading, measured: Faithfulness, moved: str) -> Answer:
    """For a soft prompt."""
    do_not = "do not explain this soft prompt by its nearest tokens"
    prompt, text = measured.as_prompt.accuracy, measured.as_text.accuracy
    if moved and prompt is not None and text is not None and prompt < text:
        return (
            "no",
            f"the prompt does worse than its text promises: accuracy {prompt:.2f} as a prompt, {text:.2f} as text",
        )
    if moved:
        return "no", f"{do_not}: {moved}"
    if measured.kl > UNLIKE_KL or measured.top1_agreement < UNLIKE_TOP1:
        return "no", f"{do_not}: they answer differently, {_answers(measured)}"
    figure = measured.as_text.accuracy
    well = f"the text does as well on {measured.rows} rows" + (f" ({figure:.2f})" if figure is not None else "")
    if not _alike(measured):
        return "partly", f"{well} but answers differently: {_answers(measured)}"
    if _distance(reading, measured) > reading.typical_cosine_distance:
        return "partly", f"{well} and answers alike, but the vectors are not near these tokens; {_answers(measured)}"
    return "yes", f"{well} and answers alike: {_answers(measured)}"


def _against_its_text(measured: Faithfulness, chance: float | None) -> str:
    """A prompt that does the opposite of what its text does, in words; "" for others."""
    prompt, text, rows = measured.as_prompt.accuracy, measured.as_text.accuracy, measured.rows
    without = measured.without.accuracy if measured.without is not None else None
    floor = chance if chance is not None else without
    if prompt is None or text is None or floor is None:
        return ""
    below = below_chance(prompt, floor, rows) if chance is not None else prompt < floor and differ(prompt, floor, rows)
    if not below or prompt >= text or not differ(prompt, text, rows):
        return ""
    beaten = "guessing" if chance is not None else "no prompt at all"
    return (
        f"it acts against what its text does: accuracy {prompt:.2f} as a prompt, {text:.2f} as text; "
        f"{beaten} gives {floor:.2f}"
    )


def near(reading: PromptReading, measured: Faithfulness | None = None) -> Answer | None:
    """Whether the vectors lie near the tokens of the text; says nothing about behaviour."""
    if reading.discrete or not reading.tokens:
        return None
    distance, typical = _distance(reading, measured), reading.typical_cosine_distance
    how = "farther from" if distance > typical else "no farther from"
    words = f"the nearest tokens lie {how} the vectors ({distance:.2f}) than tokens lie from each other ({typical:.2f})"
    return ("no" if distance > typical else "yes"), words


def survives(reading: PromptReading, measured: Faithfulness | None) -> Answer | None:
    """Whether the text, tokenised again in its place, gives the same tokens."""
    if measured is None or not reading.tokens:
        return None
    skipped, total = measured.skipped_rows, measured.rows + measured.skipped_rows
    left_out = f"; {skipped} of {total} rows are tokenised differently behind it and were left out" if skipped else ""
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


def _distance(reading: PromptReading, measured: Faithfulness | None) -> float:
    if measured is not None and measured.cosine_distance is not None:
        return measured.cosine_distance
    return math.fsum(token.cosine_distance for token in reading.tokens) / len(reading.tokens)


def _alike(measured: Faithfulness) -> bool:
    return measured.kl <= ALIKE_KL and measured.top1_agreement >= ALIKE_TOP1


def _answers(measured: Faithfulness) -> str:
    return f"KL {measured.kl:.2g} nats, the same likeliest word in {percent(measured.top1_agreement)}"

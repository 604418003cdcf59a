"""What the numbers mean, in words: from records to short answers.

Every question is asked so that "yes" is the good answer. Nothing is called faithful on distance alone: vectors close to
tokens can act unlike them (arXiv 2112.08348).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from peft_interp.metrics.results import Faithfulness, Measure, PromptReading, Scrutability, Waywardness
from peft_interp.report.texts import percent
from peft_interp.report.thresholds import (
    ALIKE_KL,
    ALIKE_TOP1,
    EXACT_KL,
    EXACT_TOP1,
    FEW_ARE_WORSE,
    IDLE_KL,
    JUDGE_GAP,
    LOSS_TOLERANCE,
    NEEDED_SHARE,
    SAID_SHARE,
    UNLIKE_KL,
    UNLIKE_TOP1,
    accuracy_noise,
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


def _distance(reading: PromptReading, measured: Faithfulness | None) -> float:
    if measured is not None and measured.cosine_distance is not None:
        return measured.cosine_distance
    return math.fsum(token.cosine_distance for token in reading.tokens) / len(reading.tokens)


def _alike(measured: Faithfulness) -> bool:
    return measured.kl <= ALIKE_KL and measured.top1_agreement >= ALIKE_TOP1


def _answers(measured: Faithfulness) -> str:
    return f"KL {measured.kl:.2g} nats, the same likeliest word in {percent(measured.top1_agreement)}"


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
        return "unknown", whose + "too short, or without reference levels, to be scored"
    if not judged.readable:
        return "no", f"{whose}score {judged.score:.2f} of 1{_perplexity(judged.measures.get('perplexity'))}"
    if percentile is None:
        return "yes", f"{whose}score {judged.score:.2f} of 1"
    if percentile < FEW_ARE_WORSE:
        return "partly", f"{whose}score {judged.score:.2f} of 1, but {_compared(percentile)}"
    return "yes", f"{whose}{_compared(percentile)} (score {judged.score:.2f} of 1)"


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


_MOST_NAMED = 4  # tokens named in a sentence; the table has them all


def acts(reading: PromptReading, measured: Faithfulness | None) -> Answer:
    """Whether the task goes better with the prompt than without."""
    if not reading.tokens:
        return "unknown", "not measured for this method"
    if measured is None:
        return "unknown", "no data given"
    if measured.without is None:
        return "unknown", "how the task goes without a prompt was not measured"
    here, without, rows = measured.beside_without, measured.without, measured.rows
    if math.isnan(without.loss) or math.isnan(here.loss):
        return (
            "unknown",
            "without a prompt nothing stands in front of the labels, so there is nothing to compare it with",
        )
    lower = here.loss < without.loss - LOSS_TOLERANCE
    losses = f"the loss goes from {without.loss:.2f} to {here.loss:.2f} nats"
    if here.accuracy is None or without.accuracy is None:
        if abs(here.loss - without.loss) <= LOSS_TOLERANCE:
            return "no", f"the prompt does nothing: the loss is the same without it ({without.loss:.2f} nats)"
        return ("yes" if lower else "no"), losses if lower else f"it makes the task worse: {losses}"
    figures = f"from {without.accuracy:.2f} without it to {here.accuracy:.2f}"
    if differ(here.accuracy, without.accuracy, rows):
        if here.accuracy > without.accuracy:
            return "yes", f"accuracy rises {figures}"
        return "no", f"it works against the task: accuracy falls {figures}"
    noise = accuracy_noise(here.accuracy, without.accuracy, rows)
    same = f"accuracy goes {figures}, within the noise of {rows} rows (about {noise:.2f})"
    if lower and here.accuracy >= without.accuracy:
        return "partly", f"{same}; {losses}"
    idle = abs(here.loss - without.loss) <= LOSS_TOLERANCE
    return "no", f"the prompt {'does nothing for' if idle else 'does not help'} the task: {same}"


def tokens(reading: PromptReading, measured: Faithfulness | None) -> Answer | None:
    """Whether the text needs every one of its tokens, by leaving each out: only then does the loss rise.

    Tokens that say the same stand in for each other: of a word said eight times none is needed.
    """
    effects = measured.token_effects if measured is not None else ()
    if measured is None or not effects or len(effects) != len(reading.tokens):
        return None
    texts = [token.text for token in reading.tokens]
    if all(effect.kl < IDLE_KL for effect in effects):
        return "no", "leaving out any one token of the text changes nothing"
    least = NEEDED_SHARE * max(0.0, _saved(measured))
    needed = [effect.kl >= IDLE_KL and effect.loss_increase > least for effect in effects]
    if not any(needed):
        return "no", "the text does as well without any one of its tokens: the loss does not rise"
    if all(needed):
        return "yes", f"without any one of the {len(texts)} tokens of the text the loss rises"
    able, idle = ([text for text, yes in zip(texts, needed, strict=True) if yes is kind] for kind in (True, False))
    verb = "is" if len(able) == 1 else "are"
    return "partly", f"{len(able)} of {len(texts)} tokens {verb} needed ({_named(able)}); each of {_named(idle)} is not"


def _saved(measured: Faithfulness) -> float:
    """Nats by which the text lowers the loss; 0 where that is not known."""
    saved = math.nan if measured.without is None else measured.without.loss - measured.as_text.loss
    return 0.0 if math.isnan(saved) else saved


def _named(texts: Sequence[str]) -> str:
    shown = [repr(text) for text in dict.fromkeys(texts)]
    more = len(shown) - _MOST_NAMED
    return ", ".join(shown[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


QUESTIONS = {
    "faithful": "Does the text do what the prompt does?",
    "near": "Are the vectors near these tokens?",
    "evidence": "Do nearest tokens prove anything here?",
    "survives": "Does the text come back as the same tokens?",
    "readable": "Can a person read it?",
    "acts": "Does the prompt help?",
    "tokens": "Does every token matter?",
    "trust": "Can the scores be taken as they are?",
}
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
) -> tuple[Verdict, ...]:
    """Every question that arises, answered.

    Args:
        reading: the prompt as text.
        scrutability: None where there is no text.
        faithfulness: None where there was no data.
        waywardness: None where it was not tested.
        chance: accuracy of guessing, 0 to 1; None if not known.
        untested: why there is no waywardness although it was asked for; "" where it was not.
    """
    answers = {
        "faithful": faithful(reading, faithfulness, chance),
        "near": near(reading, faithfulness),
        "evidence": None if reading.discrete and not untested else evidence(faithfulness, waywardness, untested),
        "survives": survives(reading, faithfulness),
        "readable": readable(reading, scrutability),
        "acts": acts(reading, faithfulness),
        "tokens": tokens(reading, faithfulness),
        "trust": trust(scrutability),
    }
    return tuple(Verdict(question, *answer) for question, answer in answers.items() if answer is not None)

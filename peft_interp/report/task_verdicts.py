"""What the task's rows say about a prompt: does its text act like it, does it help, does every token matter.

An answer is given where it is the same at both ends of every interval; else the rows are too few, and the answer is
"unknown" with their number. More rows can then only decide it, not turn it around.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from peft_interp.metrics.results import Faithfulness, LabelPrior, PairedEstimates, PromptReading, TokenEffect
from peft_interp.metrics.uncertainty import CONFIDENCE, Estimate
from peft_interp.report.texts import percent
from peft_interp.report.thresholds import (
    ACCURACY_TOLERANCE,
    ALIKE_KL,
    ALIKE_TOP1,
    EXACT_KL,
    EXACT_TOP1,
    IDLE_KL,
    LOSS_TOLERANCE,
    NEEDED_SHARE,
    NOISE_ERRORS,
    SAME_ACCURACY,
    SAME_LOSS,
    UNLIKE_KL,
    UNLIKE_TOP1,
    accuracy_noise,
    below_chance,
)

Answer = tuple[str, str]
_MOST_NAMED = 4  # tokens named in a sentence; the table has them all


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
    return _faithful_tokens(measured) if reading.discrete else _faithful_vectors(reading, measured)


def why_no_text(reading: PromptReading) -> str:
    """What a method does instead of training vectors that stand in the place of tokens, once for all rows."""
    if reading.method == "MULTITASK_PROMPT_TUNING":
        return "trains another prompt for each task id, so there is no one text; save one of them as PROMPT_TUNING"
    return "trains no vectors that stand in the place of tokens, so it has no text"


def paired_of(measured: Faithfulness) -> PairedEstimates:
    """The differences row by row; of a record without them, accuracies as if of different rows, the rest as exact."""
    if measured.paired is not None:
        return measured.paired
    rows, prompt, text = measured.rows, measured.as_prompt, measured.as_text
    here, without = measured.beside_without, measured.without

    def accuracies(first: float | None, second: float | None) -> Estimate | None:
        if first is None or second is None:
            return None
        return Estimate(second - first, accuracy_noise(first, second, rows) / NOISE_ERRORS, rows)

    return PairedEstimates(
        kl=Estimate(measured.kl, 0.0, rows),
        top1_agreement=Estimate(measured.top1_agreement, 0.0, rows),
        text_loss=Estimate(text.loss - prompt.loss, 0.0, rows),
        text_accuracy=accuracies(prompt.accuracy, text.accuracy),
        saved_loss=Estimate(without.loss - here.loss, 0.0, rows) if without is not None else None,
        gained_accuracy=accuracies(without.accuracy, prompt.accuracy) if without is not None else None,
    )


def is_change(difference: Estimate, tolerance: float) -> bool:
    """Whether a difference is surely not 0 and larger than what a reader should care about."""
    low, high = difference.interval()
    return (low > 0 or high < 0) and abs(difference.mean) > tolerance


def is_same(difference: Estimate, margin: float) -> bool:
    """Whether a difference is surely smaller than `margin`."""
    low, high = difference.interval()
    return -margin <= low and high <= margin


def too_few(rows: int) -> str:
    """The beginning of an answer that the rows do not decide."""
    return f"cannot be told from {rows} row{'' if rows == 1 else 's'}"


def _faithful_tokens(measured: Faithfulness) -> Answer:
    """For a prompt whose vectors are exactly tokens."""
    same_tokens, moved = measured.token_error_rate == 0, _moved(measured)
    if same_tokens and not moved and measured.kl <= EXACT_KL and measured.top1_agreement >= EXACT_TOP1:
        return "yes", f"the text is the prompt: the same tokens, the same answers on {measured.rows} rows"
    if same_tokens:
        cause = "the tokens are the same but the answers are not: the prompt does not stand where its text would"
    else:
        cause = "the text is not tokenised to the prompt's tokens again"
    return ("no", f"{cause}; {moved}") if moved else ("partly", f"{cause} ({_answers(measured)})")


def _faithful_vectors(reading: PromptReading, measured: Faithfulness) -> Answer:
    """For a soft prompt."""
    do_not, moved = "do not explain this soft prompt by its nearest tokens", _moved(measured)
    prompt, text, paired = measured.as_prompt.accuracy, measured.as_text.accuracy, paired_of(measured)
    if moved and prompt is not None and text is not None and prompt < text:
        words = f"accuracy {prompt:.2f} as a prompt, {text:.2f} as text"
        return "no", f"the prompt does worse than its text promises: {words}"
    if moved:
        return "no", f"{do_not}: {moved}"
    (least, most), (fewest, share) = paired.kl.interval(), paired.top1_agreement.interval()
    best, worst = _alike(least, share), _alike(most, fewest)
    if best == "no":
        return "no", f"{do_not}: they answer differently, {_answers(measured)}"
    difference, margin = _difference(measured)
    if best != worst or (difference is not None and not is_same(difference, margin)):
        return "unknown", f"{too_few(measured.rows)}: {_figures(measured)}{_answers(measured)}"
    well = f"the text does as well on {measured.rows} rows" + (f" ({text:.2f})" if text is not None else "")
    if best == "partly":
        return "partly", f"{well} but answers differently: {_answers(measured)}"
    if distance_of(reading, measured) > reading.typical_cosine_distance:
        return "partly", f"{well} and answers alike, but the vectors are not near these tokens; {_answers(measured)}"
    return "yes", f"{well} and answers alike: {_answers(measured)}"


def _alike(kl: float, agreement: float) -> str:
    """How alike two sides answer."""
    if kl > UNLIKE_KL or agreement < UNLIKE_TOP1:
        return "no"
    return "yes" if kl <= ALIKE_KL and agreement >= ALIKE_TOP1 else "partly"


def _difference(measured: Faithfulness) -> tuple[Estimate | None, float]:
    """Text less prompt, by accuracy where there is one, and the margin within which they are as good as each other."""
    paired = paired_of(measured)
    return (paired.text_accuracy, SAME_ACCURACY) if paired.text_accuracy else (paired.text_loss, SAME_LOSS)


def _moved(measured: Faithfulness) -> str:
    """What surely changes from prompt to text, in words; "" for nothing."""
    paired, prompt, text = paired_of(measured), measured.as_prompt, measured.as_text
    if paired.text_accuracy is not None and prompt.accuracy is not None and text.accuracy is not None:
        if not is_change(paired.text_accuracy, ACCURACY_TOLERANCE):
            return ""
        verb = "falls" if text.accuracy < prompt.accuracy else "rises"
        return f"accuracy {verb} from {prompt.accuracy:.2f} to {text.accuracy:.2f}"
    if paired.text_loss is None or not is_change(paired.text_loss, LOSS_TOLERANCE):
        return ""
    verb = "rises" if text.loss > prompt.loss else "falls"
    return f"the loss {verb} from {prompt.loss:.2f} to {text.loss:.2f} nats"


def _figures(measured: Faithfulness) -> str:
    prompt, text = measured.as_prompt, measured.as_text
    if prompt.accuracy is not None and text.accuracy is not None:
        return f"accuracy {prompt.accuracy:.2f} as a prompt, {text.accuracy:.2f} as text; "
    return f"loss {prompt.loss:.2f} as a prompt, {text.loss:.2f} as text; "


def _against_its_text(measured: Faithfulness, chance: float | None) -> str:
    """A prompt that does the opposite of what its text does, in words; "" for others."""
    prompt, text, paired = measured.as_prompt.accuracy, measured.as_text.accuracy, paired_of(measured)
    if prompt is None or text is None or paired.text_accuracy is None or paired.text_accuracy.interval()[0] <= 0:
        return ""
    beaten, floor = "guessing", chance
    below = chance is not None and below_chance(prompt, chance, measured.rows)
    if chance is None and measured.without is not None and paired.gained_accuracy is not None:
        beaten, floor = "no prompt at all", measured.without.accuracy
        below = paired.gained_accuracy.interval()[1] < 0
    if not below:
        return ""
    return (
        f"it acts against what its text does: accuracy {prompt:.2f} as a prompt, {text:.2f} as text; "
        f"{beaten} gives {floor:.2f}"
    )


def distance_of(reading: PromptReading, measured: Faithfulness | None) -> float:
    """Mean cosine distance of the vectors to their tokens, 0 to 2."""
    if measured is not None and measured.cosine_distance is not None:
        return measured.cosine_distance
    return math.fsum(token.cosine_distance for token in reading.tokens) / len(reading.tokens)


def _answers(measured: Faithfulness) -> str:
    return f"KL {measured.kl:.2g} nats, the same likeliest word in {percent(measured.top1_agreement)}"


def acts(reading: PromptReading, measured: Faithfulness | None) -> Answer:
    """Whether the task goes better with the prompt than without."""
    if not reading.tokens:
        return "unknown", "not measured for this method"
    if measured is None:
        return "unknown", "no data given"
    if measured.without is None:
        return "unknown", "how the task goes without a prompt was not measured"
    here, without, paired = measured.beside_without, measured.without, paired_of(measured)
    if math.isnan(without.loss) or math.isnan(here.loss) or paired.saved_loss is None:
        words = "without a prompt nothing stands in front of the labels, so there is nothing to compare it with"
        return "unknown", words
    if here.accuracy is None or without.accuracy is None or paired.gained_accuracy is None:
        return _helps_by_loss(paired.saved_loss, without.loss, here.loss)
    beside = f"{without.accuracy:.2f} without it", f"{here.accuracy:.2f}"
    if measured.label_bias is not None and measured.without_bias is None:
        return "unknown", _NUMBERS_ALONE.format(*beside)
    own = ", each with its own numbers for the label words" if measured.label_bias is not None else ""
    figures = f"from {beside[0]} to {beside[1]}{own}"
    losses = f"the loss falls from {without.loss:.2f} to {here.loss:.2f} nats"
    lower = is_change(paired.saved_loss, LOSS_TOLERANCE) and paired.saved_loss.mean > 0
    return _helps_by_accuracy(paired.gained_accuracy, figures, losses if lower else "")


_NUMBERS_ALONE = (
    "accuracy goes from {} to {}, but the prompt acts with numbers for the label words, and what no prompt does with "
    "its own was not measured: give training rows (`training_rows=...`, `--calibration`)"
)


def _helps_by_accuracy(gained: Estimate, figures: str, losses: str) -> Answer:
    """By the interval of what is gained; `losses` says how the loss falls, "" where it does not."""
    low, high = gained.interval()
    if low > 0:
        return "yes", f"accuracy rises {figures}"
    if high < 0:
        return "no", f"it works against the task: accuracy falls {figures}"
    if losses and gained.mean >= 0:
        return "partly", f"{losses}, but accuracy goes {figures}, no change that {gained.rows} rows can tell"
    if is_same(gained, SAME_ACCURACY):
        return "no", f"the prompt does nothing for the task: accuracy goes {figures}"
    return "unknown", f"{too_few(gained.rows)}: accuracy goes {figures}, a change of {_between(low, high)}"


def _helps_by_loss(saved: Estimate, without: float, here: float) -> Answer:
    """The same where there are no label words."""
    losses = f"the loss goes from {without:.2f} to {here:.2f} nats"
    if is_change(saved, LOSS_TOLERANCE):
        return ("yes", losses) if saved.mean > 0 else ("no", f"it makes the task worse: {losses}")
    if is_same(saved, SAME_LOSS):
        return "no", f"the prompt does nothing: the loss is the same without it ({without:.2f} nats)"
    return "unknown", f"{too_few(saved.rows)}: {losses}"


def _between(low: float, high: float) -> str:
    if not math.isfinite(low):
        return "any size"
    return f"{low:+.2f} to {high:+.2f}".replace("-", "\N{MINUS SIGN}")


def tokens(reading: PromptReading, measured: Faithfulness | None) -> Answer | None:
    """Whether the text needs every one of its tokens, by leaving each out: only then does the loss rise.

    Tokens that say the same stand in for each other: of a word said eight times none is needed. The intervals of all
    tokens hold together (Bonferroni), so that a long prompt does not find one by chance.
    """
    effects = measured.token_effects if measured is not None else ()
    if measured is None or not effects or len(effects) != len(reading.tokens):
        return None
    texts = [token.text for token in reading.tokens]
    least = NEEDED_SHARE * max(0.0, _saved(measured)) / len(effects)
    confidence = 1 - (1 - CONFIDENCE) / len(effects)
    needed = [_is_needed(effect, least, confidence) for effect in effects]
    able, idle, open_ = ([t for t, n in zip(texts, needed, strict=True) if n is kind] for kind in (True, False, None))
    if not idle and not open_:
        return "yes", f"without any one of the {len(texts)} tokens of the text the loss rises"
    if not able and not open_:
        return "no", "the text does as well without any one of its tokens: the loss does not rise"
    verb = "is" if len(able) == 1 else "are"
    known = f"{len(able)} of {len(texts)} tokens {verb} needed" + (f" ({_named(able)})" if able else "")
    if able and idle:
        rest = f"; {len(open_)} cannot be told from {_rows(effects)} rows" if open_ else ""
        return "partly", f"{known}; each of {_named(idle)} is not{rest}"
    sure = known if able else f"each of {_named(idle)} is not needed" if idle else ""
    known_part = f"{sure}; " if sure else ""
    return "unknown", f"{too_few(_rows(effects))}: {known_part}of {_named(open_)} it is open"


def _is_needed(effect: TokenEffect, least: float, confidence: float) -> bool | None:
    """Whether the loss surely rises by more than `least` without the token and the answers move; None: not sure."""
    kl, kl_most = Estimate(effect.kl, effect.kl_error, effect.rows).interval(confidence)
    loss, loss_most = Estimate(effect.loss_increase, effect.loss_error, effect.rows).interval(confidence)
    if kl >= IDLE_KL and loss > least:
        return True
    return False if kl_most < IDLE_KL or loss_most <= least else None


def _rows(effects: Sequence[TokenEffect]) -> int:
    return max(effect.rows for effect in effects)


def _saved(measured: Faithfulness) -> float:
    """Nats by which the text lowers the loss; 0 where that is not known."""
    saved = math.nan if measured.without is None else measured.without.loss - measured.as_text.loss
    return 0.0 if math.isnan(saved) else saved


def _named(texts: Sequence[str]) -> str:
    shown = [repr(text) for text in dict.fromkeys(texts)]
    more = len(shown) - _MOST_NAMED
    return ", ".join(shown[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def prior(found: LabelPrior | None) -> Answer | None:
    """Whether the prompt gains more than numbers for the label words do without any prompt."""
    if found is None:
        return None
    sides = (found.as_prompt, found.without)
    raw, calibrated = [side.accuracy.mean for side in sides], [side.calibrated.mean for side in sides]
    figures = (
        f"accuracy {raw[0]:.2f} (calibrated {calibrated[0]:.2f}), without a prompt {raw[1]:.2f} (calibrated "
        f"{calibrated[1]:.2f})"
    )
    if found.prior_share is not None:
        figures += f"; numbers for the label words alone give {percent(found.prior_share)} of the gain"
    if found.beyond.interval()[0] > 0:
        return "yes", f"both calibrated, the prompt adds {found.beyond.mean:.2f}; {figures}"
    if found.beyond.interval()[1] < 0 or is_same(found.beyond, SAME_ACCURACY):
        return "no", f"without a prompt, calibrated label words do as well; {figures}"
    return "unknown", f"{too_few(found.rows)}; {figures}"

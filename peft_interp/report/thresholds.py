"""Where one verdict ends and the next begins: every limit with its reason.

They were set by the reasons beside them, then held against 100 unseen human prompts on the embedded model: of 6,000
pairs, every one whose accuracy differs beyond the noise is called unlike (`studies/calibration/check_thresholds.py`).
"""

from __future__ import annotations

import math

from peft_interp.metrics.uncertainty import share_of

# Mean KL, nats, up to which two sides are the same; rounding to bf16 reached 1.1e-4, to fp16 1.2e-6.
EXACT_KL = 5e-4

# Share of positions with the same likeliest token from which on that holds; rounding to bf16 turned 1%, near ties.
EXACT_TOP1 = 0.98

# Mean KL, nats, up to which two sides behave alike. KL is about p(1-p)/2 times the squared change in log-odds: for an
# even choice 0.02 is a change of 0.4, from 50% to 60%, so nothing larger passes unseen.
ALIKE_KL = 0.02

# Share of positions with the same likeliest token from which on two sides behave alike: 1 in 20 may be a near tie.
ALIKE_TOP1 = 0.95

# Mean KL, nats, from which on two sides do not behave alike whatever the accuracy: an even choice becomes 70%.
UNLIKE_KL = 0.1

# Share of positions with the same likeliest token below which the same holds: one answer in four is another.
UNLIKE_TOP1 = 0.75

# A token whose removal moves the answers by less than this KL, nats (an even choice to 57%), does nothing that a reader
# should explain.
IDLE_KL = 0.01

# A token is needed if the loss rises without it by more than half of an even share of all that the text saves: of ten
# tokens that share its work evenly each has a tenth, and one that has less than a twentieth is a passenger.
NEEDED_SHARE = 0.5

# Losses closer than this, nats, are called the same: the gold answer's probability differs by 5%.
LOSS_TOLERANCE = 0.05

# Losses are called as good as each other where the whole interval of their difference, nats, lies within this.
SAME_LOSS = 0.1

# Accuracies closer than this are no change that a reader should act on, however many rows tell them apart.
ACCURACY_TOLERANCE = 0.02

# Accuracies are called as good as each other where the whole interval of their difference lies within this. About 200
# rows show it, if one answer in twenty changes.
SAME_ACCURACY = 0.05

# Accuracies of different rows closer than this many standard errors are not told apart: about 95% confidence.
NOISE_ERRORS = 2.0

# A readable text that at most one in ten human-written prompts does not surpass in fluency is only "partly" readable.
FEW_ARE_WORSE = 10.0

# Nats per character by which a second language model may find the text less likely than the task model does, beyond the
# same on human-written prompts: a factor of e in perplexity for every four characters, about a token. More is a sign
# that the text was fitted to one model.
JUDGE_GAP = 0.25

# Share of its tokens from which on a prompt says the text it was trained to say: most of them.
SAID_SHARE = 0.75


def accuracy_noise(first: float, second: float, rows: int) -> float:
    """How far two accuracies, each on `rows` rows of its own, may lie apart by chance.

    Two standard errors of a difference of binomials (Agresti and Caffo 2000). Where both were measured on the same rows
    the paired error is smaller; see `peft_interp.metrics.uncertainty`.

    Args:
        first: accuracy, 0 to 1.
        second: accuracy, 0 to 1.
        rows: number of rows.

    Returns:
        A difference of accuracies, 0 to 1.
    """
    errors = (share_of(accuracy, rows).standard_error or 0.0 for accuracy in (first, second))
    return NOISE_ERRORS * math.hypot(*errors)


def differ(first: float, second: float, rows: int) -> bool:
    """Whether two accuracies on `rows` rows differ by more than `accuracy_noise`."""
    return abs(first - second) > accuracy_noise(first, second, rows)


def below_chance(accuracy: float, chance: float, rows: int) -> bool:
    """Whether an accuracy on `rows` rows is below that of guessing by more than the noise; guessing itself has none."""
    return chance - accuracy > NOISE_ERRORS * (share_of(accuracy, rows).standard_error or 0.0)

"""The mean answers of a task on the page: how often each label word is answered, as prompt, as text and without."""

from __future__ import annotations

from peft_interp.metrics.results import AnswerShares
from peft_interp.report.charts import bar
from peft_interp.report.texts import in_html, percent, printable, visible

_MOST = 8  # label words drawn; the ones that are answered most


def answer_shares(shares: AnswerShares) -> str:
    """Three bars for each label word: its mean probability on every side, beside the share of rows it belongs to."""
    order = range(len(shares.label_words))
    drawn = sorted(sorted(order, key=lambda i: -shares.as_prompt[i])[:_MOST])
    left = len(order) - len(drawn)
    note = (
        "The mean probability of each label word among the label words; the tick is the share of rows whose answer it "
        "is." + (f" The {len(drawn)} of {len(order)} that the prompt answers most." if left else "")
    )
    words = "".join(f"<li>{_word(shares, i)}</li>" for i in drawn)
    return f'<h3 class="apart">Answers</h3><p class="note">{note}</p><ul class="answers">{words}</ul>'


def _word(shares: AnswerShares, i: int) -> str:
    sides = [("as prompt", shares.as_prompt), ("as text", shares.as_text), ("no prompt", shares.without)]
    rows = "".join(
        f'<dt>{name}</dt><dd>{bar(side[i], tick=shares.rows[i])}</dd><dd class="value">{percent(side[i])}</dd>'
        for name, side in sides
        if side is not None
    )
    of = f'<span class="meaning">answer of {percent(shares.rows[i])} of the rows</span>'
    return f'<h4>{_name(shares.label_words[i])} {of}</h4><dl class="bars">{rows}</dl>'


def _name(text: str) -> str:
    return in_html(printable(text).strip() or visible(text))

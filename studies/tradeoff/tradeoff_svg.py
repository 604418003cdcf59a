"""All pictures of the study in one file, for places that show pictures and no pages: a README, say."""

from __future__ import annotations

from collections.abc import Sequence

from study_outcomes import Outcome
from tradeoff_figure import FIGURE, HEIGHT, STYLE, WIDTH, pictures, signs

from peft_interp.report.texts import in_html

_COLUMNS, _MARGIN, _NAME, _ENTRY = 2, 16, 24, 20


def to_svg(outcomes: Sequence[Outcome]) -> str:
    """A picture for each task, two in a row, and their legend after the last; light and dark as in the page."""
    shown, named = pictures(outcomes), signs(outcomes)
    cells = [_picture(task, drawn) for task, drawn in shown.items()] + [_legend(named)]
    rows = -(-len(cells) // _COLUMNS)
    wide, high = WIDTH + 2 * _MARGIN, HEIGHT + _NAME + _MARGIN
    placed = "".join(
        f'<g transform="translate({_MARGIN + i % _COLUMNS * wide:.0f} {_MARGIN + i // _COLUMNS * high:.0f})">{cell}</g>'
        for i, cell in enumerate(cells)
    )
    bottom = (rows - 1) * high + max(high, _NAME + len(named) * _ENTRY) + _MARGIN
    size = f'viewBox="0 0 {_COLUMNS * wide:.0f} {bottom:.0f}" role="img" aria-label="{FIGURE}"'
    style = f"<style>{STYLE.read_text(encoding='utf-8')}</style>"
    paper = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}{paper}{placed}</svg>\n'


def _picture(task: str, drawn: str) -> str:
    place = f'<svg y="{_NAME}" width="{WIDTH:.0f}" height="{HEIGHT:.0f}" '
    return f'<text class="name" y="14">{in_html(task)}: test accuracy</text>{drawn.replace("<svg ", place, 1)}'


def _legend(entries: dict[str, str]) -> str:
    return "".join(
        f'<g transform="translate(0 {_NAME + i * _ENTRY})">{sign}<text x="26" y="14">{in_html(family)}</text></g>'
        for i, (family, sign) in enumerate(entries.items())
    )

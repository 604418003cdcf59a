"""Pictures for the page, as inline SVG that takes its colours from the page's style.

Bars stand on fixed scales, so that those of two reports can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from markupsafe import Markup

from peft_interp.report.texts import in_html, perplexity, printable

_MARKS = {  # in the colour of the words beside; `--under` is what lies below them
    "yes": '<circle cx="10" cy="10" r="9" fill="currentColor"/><path d="M5.6 10.4l3 3 5.8-6.4" fill="none" '
    'stroke="var(--under)" stroke-width="2.2"/>',
    "partly": '<circle cx="10" cy="10" r="8" fill="none" stroke="currentColor" stroke-width="2"/>'
    '<path d="M10 2a8 8 0 0 0 0 16z" fill="currentColor"/>',
    "no": '<rect x="1" y="1" width="18" height="18" rx="3" fill="currentColor"/><path d="M6 6l8 8M14 6l-8 8" '
    'stroke="var(--under)" stroke-width="2.2"/>',
    "unknown": '<circle cx="10" cy="10" r="8" fill="none" stroke="currentColor" stroke-width="2" '
    'stroke-dasharray="3.2 3"/>',
}
_WIDTH, _MARGIN = 440, 34
_LABEL_HEIGHT, _LETTER = 15, 7.0  # of 12 px text
_LONGEST_NAME = 26
_LINES = (
    ("var(--accent)", 3.0, ""),
    ("var(--accent)", 1.5, "5 3"),
    ("var(--soft)", 1.5, ""),
    ("var(--soft)", 1.5, "1 4"),
)
_VECTORS = "its vectors"
_SHIFTS = (0, -14, 14, -22, 22, -36, 36, -50, 50)  # heights to try for a label, from its dot


KL_SCALE = 0.5  # nats at a bar's end
LOSS_SCALE = 10.0  # nats at the end of a task loss's bar
CHANGE_SCALE = 0.5  # nats at either end of a signed bar
PERPLEXITIES = (1.0, 100_000.0)  # at the ends of their line


def mark(answer: str) -> Markup:
    """The sign of an answer: a shape for each, so that it can be told without colour."""
    return Markup(f'<svg viewBox="0 0 20 20" aria-hidden="true">{_MARKS.get(answer, _MARKS["unknown"])}</svg>')


def bar(share: float, tick: float | None = None, span: tuple[float, float] | None = None) -> Markup:
    """A horizontal bar, 0 to 1.

    Args:
        share: its length; empty for NaN.
        tick: a share to hold it against.
        span: the ends of an interval around its end.
    """
    parts = [
        '<rect width="100" height="10" fill="var(--line)" opacity=".55"/>',
        f'<rect width="{_percent(share):.2f}" height="10" fill="var(--accent)"/>',
    ]
    if span is not None:
        parts.append(_span(_percent(span[0]), _percent(span[1])))
    if tick is not None and not math.isnan(tick):
        parts.append(_line(_percent(tick), 0, _percent(tick), 10, "var(--ink)", 2))
    return _bar(parts)


def signed_bar(value: float, limit: float = CHANGE_SCALE, error: float | None = None) -> Markup:
    """A bar from the middle, to the right where the value is positive.

    Args:
        value: what it shows; `limit` fills one half.
        limit: the scale.
        error: standard error of the value; two of them are drawn to either side.
    """
    end, middle = _percent((value / limit + 1) / 2), 50.0
    fill = "var(--soft)" if value < 0 else "var(--accent)"
    parts = [
        '<rect width="100" height="10" fill="var(--line)" opacity=".55"/>',
        f'<rect x="{min(end, middle):.2f}" width="{abs(end - middle):.2f}" height="10" fill="{fill}"/>',
    ]
    if error is not None:
        low, high = (_percent(((value + sign * 2 * error) / limit + 1) / 2) for sign in (-1, 1))
        parts.append(_span(low, high))
    return _bar([*parts, _line(middle, 0, middle, 10, "var(--ink)", 1.5)])


def interval(value: float, span: tuple[float, float], limit: float) -> Markup:
    """A dot with its interval on a line from `-limit` to `limit`, 0 in the middle."""
    low, high, here = (_percent((end / limit + 1) / 2) for end in (*span, value))
    parts = [
        '<rect y="4" width="100" height="2" fill="var(--line)"/>',
        _line(50, 0, 50, 10, "var(--ink)", 1.5),
        f'<rect x="{low:.2f}" y="3.2" width="{max(high - low, 0.4):.2f}" height="3.6" fill="var(--accent)"/>',
        f'<rect x="{here - 0.6:.2f}" y="0.5" width="1.2" height="9" fill="var(--accent)"/>',
    ]
    return _bar(parts)


def _percent(share: float) -> float:
    return 0.0 if math.isnan(share) else 100 * min(max(share, 0.0), 1.0)


def _span(low: float, high: float) -> str:
    return f'<rect x="{low:.2f}" y="3" width="{high - low:.2f}" height="4" fill="var(--ink)" opacity=".5"/>'


def _bar(parts: Sequence[str]) -> Markup:
    inner = "".join(parts)
    start = '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
    return Markup(f"{start}{inner}</svg>")


def perplexity_strip(value: float, levels: Sequence[tuple[str, float]]) -> Markup:
    """A perplexity beside reference levels on a logarithmic line from 1 to 100,000; others stand at its ends.

    Args:
        value: the prompt's perplexity, above 0.
        levels: (name, perplexity) of what it is held against.
    """
    low, high = (math.log10(end) for end in PERPLEXITIES)

    def x(at: float) -> float:
        share = (math.log10(at) - low) / (high - low)
        return _MARGIN + min(max(share, 0.0), 1.0) * (_WIDTH - 2 * _MARGIN)

    line = 44
    parts = [_line(_MARGIN, line, _WIDTH - _MARGIN, line, "var(--line)", 2)]
    for power in range(round(low), round(high) + 1):
        parts.append(_line(x(10.0**power), line - 4, x(10.0**power), line + 4, "var(--line)", 2))
    rows: list[float] = []  # where the last label of each row ends
    for name, level in sorted(levels, key=lambda item: item[1]):
        label = f"{name} {perplexity(level)}"
        half = _LETTER * len(label) / 2
        middle = min(max(x(level), half + 2), _WIDTH - half - 2)
        row = next((i for i, end in enumerate(rows) if end + 8 < middle - half), len(rows))
        rows[row : row + 1] = [middle + half]
        below = line + 26 + row * _LABEL_HEIGHT
        parts.append(_line(x(level), line - 7, x(level), below - 12, "var(--soft)", 1.5))
        parts.append(_text(middle, below, label, "quiet", "middle"))
    label = f"this prompt {perplexity(value)}"
    half = _LETTER * len(label) / 2 + 4
    place = min(max(x(value), half), _WIDTH - half)
    parts.append(f'<path d="M{x(value):.1f} {line}l-6 -11h12z" fill="var(--accent)"/>')
    parts.append(_text(place, line - 18, label, "strong", "middle"))
    described = ", ".join(f"{name} {perplexity(level)}" for name, level in levels)
    return _picture(line + 34 + len(rows) * _LABEL_HEIGHT, f"{label}; {described}", parts)


def position(
    here: tuple[float, float],
    rivals: Sequence[tuple[str, float, float]],
    human_nll: float | None,
    without: float | None,
    vectors: bool = False,
    as_text: float | None = None,
) -> Markup:
    """Accuracy against log-perplexity: this prompt among others.

    Vectors have no log-perplexity: they are a line across, and their text is the dot.

    Args:
        here: (log-perplexity, accuracy) of this prompt; of vectors, the log-perplexity of their text.
        rivals: (name, log-perplexity, accuracy) of others.
        human_nll: the median of prompts that people wrote.
        without: accuracy with no prompt.
        vectors: whether vectors act and not the text.
        as_text: accuracy of the text of vectors; None where it is not known.
    """
    across = [here[0], *(nll for _, nll, _ in rivals), *([human_nll] if human_nll is not None else [])]
    upward = [here[1], *(accuracy for *_, accuracy in rivals)]
    upward += [level for level in (without, as_text) if level is not None]
    x_low, x_high = _nice(min(across), max(across), 1.0, 0.0)
    y_low, y_high = _nice(min(upward), max(upward), 0.1, 0.0)
    y_high = min(y_high, 1.0)
    left, right, top, bottom = 40.0, _WIDTH - 12.0, 24.0, 250.0

    def x(nll: float) -> float:
        return left + (nll - x_low) / (x_high - x_low) * (right - left)

    def y(accuracy: float) -> float:
        return bottom - (accuracy - y_low) / (y_high - y_low) * (bottom - top)

    parts = _scales((x, y), (x_low, x_high), (y_low, y_high), (left, right, bottom))
    if human_nll is not None:
        parts.append(_line(x(human_nll), top - 6, x(human_nll), bottom, "var(--soft)", 1.5, "4 4"))
        anchor = "start" if x(human_nll) < _WIDTH / 2 else "end"
        parts.append(_text(x(human_nll), top - 11, "prompts people wrote", "quiet", anchor))
    blocked: list[tuple[float, ...]] = [(left, 0.0, right, top - 6)]
    levels = [("no prompt", without, "quiet", "1 4")] if without is not None else []
    levels += [(_VECTORS, here[1], "strong", "9 3")] if vectors else []
    points = [(x(nll), y(accuracy), name, False) for name, nll, accuracy in rivals]
    own = here[1] if not vectors else as_text
    if own is not None:
        points.append((x(here[0]), y(own), "its text" if vectors else "this prompt", True))
    if vectors and own is not None:
        parts.append(_line(x(here[0]), y(here[1]), x(here[0]), y(own), "var(--accent)", 1.5, "2 3"))
    for name, level, style, dashes in levels:
        colour = "var(--accent)" if style == "strong" else "var(--soft)"
        parts.append(_line(left, y(level), right, y(level), colour, 1.5, dashes))
        box = _free_place(name, y(level), (left, right), points, blocked)
        parts.append(_text(box[0], box[3] - 3, name, style, "start"))
        blocked.append(box)
    parts += _points(points, right, blocked)
    words = "log-perplexity, nats per token; left reads better"
    parts.append(_text((left + right) / 2, bottom + 38, words, "quiet", "middle"))
    return _picture(bottom + 46, _in_words(here, rivals, vectors, as_text), parts)


def _in_words(
    here: tuple[float, float], rivals: Sequence[tuple[str, float, float]], vectors: bool, as_text: float | None
) -> str:
    """The picture for those who do not see it."""
    said = [f"this prompt: accuracy {here[1]:.2f}, log-perplexity {here[0]:.1f}"]
    if vectors:
        said = [f"{_VECTORS}: accuracy {here[1]:.2f}"]
        said += [f"its text: accuracy {as_text:.2f}, log-perplexity {here[0]:.1f}"] if as_text is not None else []
    said += [f"{name}: accuracy {accuracy:.2f}, log-perplexity {nll:.1f}" for name, nll, accuracy in rivals]
    return "; ".join(said)


def _scales(
    to: tuple[Callable[[float], float], Callable[[float], float]],
    across: tuple[float, float],
    upward: tuple[float, float],
    edges: tuple[float, float, float],
) -> list[str]:
    """Lines at every tenth of accuracy, and numbers along both edges."""
    (x, y), (left, right, bottom), parts = to, edges, []
    for step in range(round((upward[1] - upward[0]) / 0.1) + 1):
        level = upward[0] + 0.1 * step
        parts += [_line(left, y(level), right, y(level), "var(--line)", 1)]
        parts += [_text(left - 8, y(level) + 4, f"{level:.1f}", "quiet", "end")]
    for tick in range(math.ceil(across[0]), math.floor(across[1]) + 1, max(1, round((across[1] - across[0]) / 6))):
        parts.append(_text(x(tick), bottom + 18, str(tick), "quiet", "middle"))
    return parts


def _free_place(
    name: str,
    at: float,
    ends: tuple[float, float],
    points: Sequence[tuple[float, float, str, bool]],
    blocked: Sequence[tuple[float, ...]],
) -> tuple[float, ...]:
    """Box for the name of a line across: above or below it, from the right end to the left, where no dot lies."""
    width = 1.15 * len(name) * _LETTER
    taken = [*blocked, *((cx - 8, cy - 8, cx + 8, cy + 8) for cx, cy, *_ in points)]
    starts = [ends[1] - width, ends[0] + 4, (ends[0] + ends[1] - width) / 2]
    boxes = [(start, base - 11, start + width, base + 3) for start in starts for base in (at - 5, at + 15)]
    return next((box for box in boxes if not any(_cross(box, other) for other in taken)), boxes[0])


def layers(series: Sequence[tuple[str, Sequence[float]]], parted: int | None, limit: float) -> Markup:
    """Likeness by layer: lines from the first layer to the last, 1 on top; the first is drawn thickest.

    Args:
        series: (name, a value for each layer); NaN leaves a gap.
        parted: the layer at which the first falls below `limit`; None for none.
        limit: drawn as a level.
    """
    known = [max(value, -1.0) for _, values in series for value in values if not math.isnan(value)]
    low, _ = _nice(min([*known, 0.8, max(limit, -1.0)]), 1.0, 0.1, 0.0)
    count = max(2, max(len(values) for _, values in series))
    left, right, top, bottom = 40.0, _WIDTH - 12.0, 16.0, 200.0

    def x(layer: int) -> float:
        return left + layer / (count - 1) * (right - left)

    def y(value: float) -> float:
        return (
            math.nan if math.isnan(value) else bottom - (min(max(value, low), 1.0) - low) / (1.0 - low) * (bottom - top)
        )

    parts = []
    step = 0.1 if 1.0 - low < 0.65 else 0.5
    for number in range(round((1.0 - low) / step) + 1):
        level = 1.0 - number * step
        parts += [_line(left, y(level), right, y(level), "var(--line)", 1)]
        parts += [_text(left - 8, y(level) + 4, f"{level:.1f}", "quiet", "end")]
    for layer in range(0, count, max(1, count // 8)):
        parts.append(_text(x(layer), bottom + 18, str(layer), "quiet", "middle"))
    parts.append(_line(left, y(limit), right, y(limit), "var(--soft)", 1, "1 4"))
    if parted is not None and parted < count:
        parts.append(_line(x(parted), top, x(parted), bottom, "var(--no)", 1.5, "4 4"))
    for number, (_, values) in reversed(list(enumerate(series))):
        colour, width, dashes = _LINES[min(number, len(_LINES) - 1)]
        here = [(x(i), y(value)) for i, value in enumerate(values)]
        pieces = [(a, b) for a, b in pairwise(here) if not math.isnan(a[1] + b[1])]
        parts += [_line(*a, *b, colour, width, dashes) for a, b in pieces]
    height = bottom + 40
    parts.append(_text((left + right) / 2, height - 6, "layer", "quiet", "middle"))
    for number, (name, _) in enumerate(series):
        colour, width, dashes = _LINES[min(number, len(_LINES) - 1)]
        across, height = left + (number % 2) * (right - left) / 2, height + (18 if number % 2 == 0 else 0)
        parts.append(_line(across, height - 4, across + 26, height - 4, colour, width, dashes))
        parts.append(_text(across + 32, height, name, "quiet", "start"))
    said = "; ".join(f"{name}: {', '.join(f'{value:.2f}' for value in values)}" for name, values in series)
    return _picture(height + 8, said, parts)


def _points(
    points: Sequence[tuple[float, float, str, bool]], right: float, blocked: Sequence[tuple[float, ...]]
) -> list[str]:
    """Dots, this prompt's last and on top, with labels that lie on no dot, no other label and nothing `blocked`."""
    parts: list[str] = []
    taken = [*blocked, *((cx - 7, cy - 7, cx + 7, cy + 7) for cx, cy, *_ in points)]
    for cx, cy, name, own in sorted(points, key=lambda point: not point[3]):
        label = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"
        width = _LETTER * len(label) * (1.15 if own else 1)
        places = [(start, cy + 4 + shift) for shift in _SHIFTS for start in (cx + 11, cx - 11 - width, cx - width / 2)]
        boxes = [(start, base - 11, start + width, base + 3) for start, base in places]
        inside = [box for box in boxes if box[0] >= 0 and box[2] <= right and box[1] >= 0]
        free = [box for box in inside if not any(_cross(box, other) for other in taken)]
        box = free[0] if free else boxes[0]
        taken.append(box)
        fill, size = ("var(--accent)", 7) if own else ("var(--paper)", 5)
        dot = f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{size}" fill="{fill}"'
        parts.insert(0, f'{dot} stroke="var(--accent)" stroke-width="2"/>')
        anchor, at = ("end", box[2]) if box[2] < cx else ("start", box[0])
        parts.append(_text(at, box[3] - 3, label, "strong" if own else "", anchor))
    return parts


def _cross(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two boxes (left, top, right, bottom) overlap."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _nice(low: float, high: float, step: float, room: float) -> tuple[float, float]:
    """Limits at whole steps around a range, at least two steps apart."""
    first, last = math.floor(low / step - room - 1e-9), math.ceil(high / step + room + 1e-9)
    return first * step, max(last, first + 2) * step


def _picture(height: float, described: str, parts: Sequence[str]) -> Markup:
    inner, label = "".join(parts), in_html(printable(described))
    return Markup(f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{label}">{inner}</svg>')


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"'
        f'{dashed} vector-effect="non-scaling-stroke"/>'
    )


def _text(x: float, y: float, words: str, style: str, anchor: str) -> str:
    named = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{in_html(printable(words))}</text>'


CHARTS: dict[str, Callable[..., Markup]] = {
    "mark": mark,
    "bar": bar,
    "signed_bar": signed_bar,
    "interval": interval,
}

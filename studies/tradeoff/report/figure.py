"""Accuracy against log-perplexity, one picture for each task, as inline SVG that takes its colours from the page.

A dot is a setting: its mean over splits, with 95% intervals both ways. A line is a family's front, with its 95%
interval shaded: for every log-perplexity, the mean test accuracy of the prompts at least as fluent that were best on
dev; where a split has none, that of no prompt. Several seeds of a split are averaged first. Dashed and dotted lines
across are vectors, which have no log-perplexity, and no prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from peft_interp.report.texts import in_html, printable
from studies.tradeoff.outcomes import (
    Outcome,
    by_unit,
    families,
    groups,
    no_prompt,
    one_run_front,
    over_seeds,
    select,
    shared_tasks,
    steps,
    variant,
)
from studies.tradeoff.report.marks import Axes, line, sign, words
from studies.tradeoff.statistics import Spread, spread

FIGURE = "Accuracy against log-perplexity"
HOW_TO_READ = (
    "Each sign is one setting: the mean over splits, with 95% intervals (Student's t); hollow ones are PEZ and "
    "RLPrompt without the objective, and random tokens; a number beside one is its weight of perplexity, where there "
    "is room. Lines are fronts: at every log-perplexity, the accuracy of the prompts at least as fluent that were "
    "best on dev rows; their intervals are shaded. Broken lines, without shade, are variants. Across: the best "
    "vectors, which have no log-perplexity (dashes), and no prompt (dots); upright: the median human-written prompt, "
    "whose level changes somewhat with its length. Up and left is better. Numbers in the legend: front of one run, "
    "the share of the square from no prompt's accuracy and random tokens' log-perplexity to all right and 0 nats "
    "that its prompts cover, mean over the tasks that most methods were run on."
)
STYLE = Path(__file__).with_suffix(".css")
WIDTH, HEIGHT = 460.0, 330.0
_COLUMNS, _MARGIN, _NAME, _ENTRY = 2, 16, 24, 20  # of the file of all pictures
_LETTERS = 24.0  # width of the space that a weight needs
_BOX = _LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 448.0, 14.0, 282.0
_STYLES = {  # by method: name of the colour in the page's style, shape
    "written": ("written", "diamond"),
    "random_tokens": ("random", "ring"),
    "random_search": ("random", "circle"),
    "human_search": ("written", "circle"),
    "prompt_tuning": ("soft", "triangle"),
    "p_tuning": ("soft", "flipped"),
    "pez": ("pez", "circle"),
    "rlprompt": ("rl", "square"),
    "search": ("search", "star"),
}
_FRONTS = ("search", "human_search")
_OTHER = ("other", "circle")
_NOTHING = "no prompt"
_VARIANTS = {  # what stands after a family's comma: the same colour, another shape
    "context side": "triangle",
    "whole vocabulary": "square",
    "unflagged": "diamond",
    "12 tokens": "flipped",
    "published settings": "diamond",
    "5 x budget": "triangle",
}


@dataclass(frozen=True)
class Dot:
    """One setting of one family."""

    sample: Outcome
    nll: Spread
    accuracy: Spread


def style_of(outcome: Outcome) -> tuple[str, str, bool]:
    """Colour, shape and whether it is drawn hollow: a method without its readability objective is.

    A variant ("PEZ + perplexity, context side") has another shape and a dashed line.
    """
    colour, shape = _STYLES.get(outcome.method, _OTHER)
    shape = _VARIANTS.get(variant(outcome), shape)
    return colour, shape, outcome.method in ("pez", "rlprompt") and outcome.plain


def dots_of(outcomes: Sequence[Outcome]) -> list[Dot]:
    """The settings of one task whose prompts are tokens."""
    found = []
    chosen = select(outcomes, role=("chosen", "reading"))
    for own in groups(chosen, lambda o: (o.family, o.setting)).values():
        known = [o for o in own if o.number("nll") is not None]
        if known:
            nlls, accuracies = by_unit(known, lambda o: o.number("nll")), by_unit(known, lambda o: o.accuracy)
            found.append(Dot(known[0], spread([*nlls.values()]), spread([*accuracies.values()])))
    return found


def front_line(outcomes: Sequence[Outcome], family: str) -> list[tuple[float, Spread]]:
    """(log-perplexity, accuracy) corners of a family's front over the splits of one task, most fluent first."""
    empty, own = no_prompt(outcomes), select(outcomes, family=family)
    fronts = {place: steps(prompts) for place, prompts in groups(own, lambda o: (o.unit, o.seed)).items()}

    def at(level: float) -> Spread:
        def reached(prompts: list[Outcome]) -> float:
            unit, seed = prompts[0].unit, prompts[0].seed
            return [empty.get(unit, 0.0), *(a for nll, a in fronts[unit, seed] if nll <= level)][-1]

        return spread([*over_seeds(own, reached).values()])

    return [(level, at(level)) for level in sorted({nll for front in fronts.values() for nll, _ in front})]


def lined_families(outcomes: Sequence[Outcome]) -> list[str]:
    """Families that a front is drawn for: those asked for readability, and what people wrote for other tasks."""
    return families(o for o in outcomes if (not o.plain and o.method in _STYLES) or o.method in _FRONTS)


def pictures(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """The SVG of each task that has prompts of tokens."""
    own = groups(outcomes, lambda o: o.task)
    return {task: picture(task, here) for task, here in own.items() if any(o.number("nll") is not None for o in here)}


def picture(task: str, outcomes: Sequence[Outcome]) -> str:
    """The SVG of one task; its outcomes only."""
    dots, across = dots_of(outcomes), _across(outcomes)
    lines = {family: front_line(outcomes, family) for family in lined_families(outcomes)}
    axes = _axes(dots, [level for _, level, _ in across], [corner for line in lines.values() for corner in line])
    human = [
        o.number("nll_human") for o in outcomes if o.number("nll_human") is not None and len(o.measured["ids"]) > 4
    ]
    parts = _grid(axes)
    if human:
        middle = sorted(number for number in human if number is not None)[len(human) // 2]
        parts += [line(axes.x(middle), _TOP, axes.x(middle), _BOTTOM, "mark", "5 4")]
        parts += [words(axes.x(middle) + 4, _BOTTOM - 6, "human median", "start")]
    for name, level, dashes in across:
        parts += [line(_LEFT, axes.y(level), _RIGHT, axes.y(level), "mark", dashes)]
        left = name == _NOTHING  # random prompts stand at the right end of that line
        parts += [words(_LEFT + 4 if left else _RIGHT - 2, axes.y(level) - 4, name, "start" if left else "end")]
    parts += [_front(axes, line, select(outcomes, family=family)[0]) for family, line in lines.items()]
    parts += [_dot(axes, dot) for dot in dots] + _weights(axes, dots)
    said = f"{task}: accuracy against log-perplexity of {len(dots)} settings; the table beside it has the numbers"
    label = words((_LEFT + _RIGHT) / 2, HEIGHT - 8, "log-perplexity, nats per token (left reads better)", "middle")
    size = f'viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{in_html(said)}"'
    return f"<svg {size}>{''.join(parts)}{label}</svg>"


def signs(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Name and front of each family of the pictures, and the sign that stands for it, drawn around (10, 10)."""
    found, tasks = {}, shared_tasks(outcomes)
    for family, own in groups([o for o in outcomes if o.number("nll") is not None], lambda o: o.family).items():
        front = one_run_front(outcomes, family, tasks)
        found[family if front is None else f"{family} ({front:.2f})"] = sign(*style_of(own[0]), 10, 10)
    return found


def _across(outcomes: Sequence[Outcome]) -> list[tuple[str, float, str]]:
    """Levels without a log-perplexity: the best kind of vectors, and no prompt."""
    found = []
    soft = select(outcomes, method=("prompt_tuning", "p_tuning", "prefix_tuning"), role="chosen")
    means = {
        family: mean(by_unit(own, lambda o: o.accuracy).values())
        for family, own in groups(soft, lambda o: o.family).items()
    }
    if means:
        best = max(means, key=lambda family: means[family])
        found.append((f"{best} (vectors)", means[best], "9 3"))
    if empty := no_prompt(outcomes):
        found.append((_NOTHING, mean(empty.values()), "1 4"))
    return found


def _axes(dots: Sequence[Dot], levels: Sequence[float], corners: Sequence[tuple[float, Spread]]) -> Axes:
    """Room for every dot, level across and corner of a line; an interval that is wider is cut at the edge."""
    nlls = [dot.nll.mean for dot in dots] + [nll for nll, _ in corners] or [0.0, 1.0]
    accuracies = [dot.accuracy.mean for dot in dots] + [*levels, *(accuracy.mean for _, accuracy in corners)]
    low, high = math.floor(min(accuracies) * 10 - 0.3) / 10, math.ceil(max(accuracies) * 10 + 0.3) / 10
    across = (max(0.0, math.floor(min(nlls)) - 0.2), math.ceil(max(nlls)) + 0.2)
    return Axes(across, (max(0.0, low), min(1.0, high)), _BOX)


def _grid(axes: Axes) -> list[str]:
    parts = []
    for tenth in range(round(axes.accuracy[0] * 10), round(axes.accuracy[1] * 10) + 1):
        y = axes.y(tenth / 10)
        parts += [line(_LEFT, y, _RIGHT, y, "grid"), words(_LEFT - 6, y + 4, f"{10 * tenth}%", "end")]
    step = max(1, round((axes.nll[1] - axes.nll[0]) / 7))
    for tick in range(math.ceil(axes.nll[0]), math.floor(axes.nll[1]) + 1, step):
        parts.append(words(axes.x(tick), _BOTTOM + 17, str(tick), "middle"))
    return parts


def _front(axes: Axes, corners: Sequence[tuple[float, Spread]], sample: Outcome) -> str:
    """The steps, and the band of their interval after them; both end where the picture does."""
    if not corners:
        return ""
    colour, name = f"var(--{style_of(sample)[0]})", in_html(sample.family)
    dashes = ' stroke-dasharray="6 4"' if variant(sample) in _VARIANTS else ""
    upper = _steps([(axes.x(nll), axes.y(accuracy.high)) for nll, accuracy in corners])
    lower = _steps([(axes.x(nll), axes.y(accuracy.low)) for nll, accuracy in corners])
    middle = _steps([(axes.x(nll), axes.y(accuracy.mean)) for nll, accuracy in corners])
    band = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *reversed(lower)])
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in middle)
    shade = "" if dashes else f'<polygon points="{band}" class="band" fill="{colour}"/>'
    return f'{shade}<polyline points="{line}" class="front" stroke="{colour}"{dashes}><title>{name}</title></polyline>'


def _steps(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points of a line that holds every height until the next corner."""
    points = [corners[0]]
    for x, y in corners[1:]:
        points += [(x, points[-1][1]), (x, y)]
    return points


def _dot(axes: Axes, dot: Dot) -> str:
    colour, shape, hollow = style_of(dot.sample)
    x, y = axes.x(dot.nll.mean), axes.y(dot.accuracy.mean)
    bars = f"M{axes.x(dot.nll.low):.1f} {y:.1f}H{axes.x(dot.nll.high):.1f}"
    bars += f"M{x:.1f} {axes.y(dot.accuracy.low):.1f}V{axes.y(dot.accuracy.high):.1f}"
    own = dot.sample
    name = f"{own.family} ({own.setting})" if own.setting else own.family
    numbers = f"accuracy {dot.accuracy.mean:.1%}, log-perplexity {dot.nll.mean:.1f}"
    said = in_html(f"{name}: {numbers}; for example: {printable(own.text or '').strip()}")
    drawn = sign(colour, shape, hollow, x, y)
    return f'<g><title>{said}</title><path d="{bars}" class="bars" stroke="var(--{colour})"/>{drawn}</g>'


def _weights(axes: Axes, dots: Sequence[Dot]) -> list[str]:
    """The weight above or below each dot that has one; none where it would hide another weight or a dot."""
    places = [(axes.x(dot.nll.mean), axes.y(dot.accuracy.mean)) for dot in dots]
    taken, found = list(places), []
    for dot, (x, y) in zip(dots, places, strict=True):
        for middle in (y - 12, y + 12):
            near = any(abs(x - u) < _LETTERS and abs(middle - v) < _LETTERS / 2 for u, v in taken)
            if dot.sample.weight and not near:
                taken.append((x, middle))
                found.append(words(x, middle + 4, f"{dot.sample.weight:g}", "middle"))
                break
    return found


def to_svg(outcomes: Sequence[Outcome]) -> str:
    """A picture for each task, two in a row, and their legend after the last; light and dark as in the page."""
    shown, named = pictures(outcomes), signs(outcomes)
    cells = [_named(task, drawn) for task, drawn in shown.items()] + [_legend(named)]
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


def _named(task: str, drawn: str) -> str:
    place = f'<svg y="{_NAME}" width="{WIDTH:.0f}" height="{HEIGHT:.0f}" '
    return f'<text class="name" y="14">{in_html(task)}: test accuracy</text>{drawn.replace("<svg ", place, 1)}'


def _legend(entries: dict[str, str]) -> str:
    return "".join(
        f'<g transform="translate(0 {_NAME + i * _ENTRY})">{sign}<text x="26" y="14">{in_html(family)}</text></g>'
        for i, (family, sign) in enumerate(entries.items())
    )

"""The study in one picture and one sentence: a few methods over the tasks that most were run on.

Each is named where it stands. A dot is the mean over those tasks and over splits, with 95% intervals over splits both
ways (Student's t; several seeds of a split are averaged first). Vectors, which have no log-perplexity, and no prompt
are lines across.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from peft_interp.report.texts import in_html
from studies.tradeoff.outcomes import (
    CALIBRATED,
    RAW,
    SEARCHED,
    VECTORS,
    Outcome,
    Unit,
    best_that_pass,
    by_unit,
    families,
    groups,
    is_fluent,
    is_readable,
    no_prompt,
    seeds_that_pass,
    select,
    shared_tasks,
    variant,
)
from studies.tradeoff.patterns import IGNORED_MARGIN
from studies.tradeoff.report.figure import STYLE, style_of
from studies.tradeoff.report.marks import Axes, line, sign, words
from studies.tradeoff.statistics import Spread, paired, spread

CAPTION = (
    "Test accuracy against log-perplexity; up and left is better. Bars: 95% intervals over splits. The line joins "
    "weights of the perplexity term, from little to much. Vectors have no log-perplexity."
)
TITLE = "Readable and good? Test accuracy against fluency"
Box = tuple[float, float, float, float]
_SHOWN = {  # methods of the picture: what they are called there
    "search": "search",
    "written": "people, for the task",
    "human_search": "people, for other tasks",
    "examples": "labelled examples",
    "pez": "PEZ",
    "prompt_tuning": "nearest tokens of vectors",
}
_WIDTH, _HEIGHT = 460.0, 376.0
_SIZE = f'viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}"'
_BOX = _LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 450.0, 26.0, 328.0
_LETTER, _LINE = 7.3, 14.0  # of 12 px text, bold
_WAYS = ((1, 0), (-1, 0), (0, -1), (0, 1), (0.8, 0.8), (0.8, -0.8), (-0.8, 0.8), (-0.8, -0.8))
_FAR = 15.0  # distance of a name from its dot from which on a line joins them
_RINGS = (10.0, 22.0, 36.0, 52.0, 70.0)  # distances to try for a name, from its dot


@dataclass(frozen=True)
class Mark:
    """One method with one setting.

    Attributes:
        name: what is written beside it; "" for nothing.
        sample: an outcome of it, for colour and shape.
        nll: log-perplexity, nats per token.
        accuracy: on the test rows, 0 to 1.
    """

    name: str
    sample: Outcome
    nll: Spread
    accuracy: Spread


def marks_of(outcomes: Sequence[Outcome]) -> list[list[Mark]]:
    """The methods of the picture, each with its settings in the order of their weight."""
    tasks, found = shared_tasks(outcomes), []
    chosen = [o for o in select(outcomes, role=("chosen", "reading"), task=tuple(tasks)) if o.number("nll") is not None]
    own = [o for o in chosen if o.method in _SHOWN and variant(o) in ("", "nearest tokens")]
    for family in families(own):
        settings = groups(select(own, family=family), lambda o: o.weight)
        line_of = [_mark(settings[weight], tasks) for weight in sorted(settings)]
        known = [mark for mark in line_of if mark is not None]
        if known:
            name = _SHOWN[known[0].sample.method] + (" + perplexity" if known[0].sample.weight else "")
            middle = len(known) // 2
            found.append([_named(mark, name if i == middle else "") for i, mark in enumerate(known)])
    return found


def _named(mark: Mark, name: str) -> Mark:
    return Mark(name, mark.sample, mark.nll, mark.accuracy)


def _mark(outcomes: Sequence[Outcome], tasks: Sequence[str]) -> Mark | None:
    nll, accuracy = (
        over_tasks(by_unit(outcomes, value), tasks) for value in (lambda o: o.number("nll"), lambda o: o.accuracy)
    )
    return None if nll is None or accuracy is None else Mark("", outcomes[0], nll, accuracy)


def over_tasks(values: dict[Unit, float], tasks: Sequence[str]) -> Spread | None:
    """Spread over splits of the mean over tasks; None where no split has all of them."""
    whole = sorted(_whole(values, tasks)) if tasks else []
    return spread([mean(values[task, split] for task in tasks) for split in whole]) if whole else None


def _whole(values: dict[Unit, float], tasks: Sequence[str]) -> set[int]:
    """Splits that have a value on every task."""
    return {split for _, split in values if all((task, split) in values for task in tasks)}


def levels_of(outcomes: Sequence[Outcome]) -> list[tuple[str, float, str]]:
    """(name, accuracy, dashes) of what has no log-perplexity: the best vectors, and no prompt."""
    tasks, found = shared_tasks(outcomes), []
    if (best := _best_vectors(outcomes, tasks)) is not None:
        found.append(("vectors", best[1].mean, "9 3"))
    if (nothing := over_tasks(no_prompt(outcomes), tasks)) is not None:
        found.append(("no prompt", nothing.mean, "1 4"))
    return found


def _best_vectors(outcomes: Sequence[Outcome], tasks: Sequence[str], scored: str = RAW) -> tuple[str, Spread] | None:
    own = groups(select(outcomes, method=VECTORS, role="chosen", task=tuple(tasks)), lambda o: o.family)
    means = {family: over_tasks(by_unit(runs, lambda o: o.number(scored)), tasks) for family, runs in own.items()}
    known = [(family, found) for family, found in means.items() if found is not None]
    return max(known, key=lambda pair: pair[1].mean, default=None)


@dataclass(frozen=True)
class View:
    """One way to ask what it costs that a person can read a prompt.

    Attributes:
        passes: which texts count.
        scored: `RAW` or `CALIBRATED` accuracy.
        texts: what such texts are called.
        being: what it is to be one.
        opening: what is said first, up to its blank.
    """

    passes: Callable[[Outcome], bool]
    scored: str
    texts: str
    being: str
    opening: str = ""


FLUENT = View(is_fluent, RAW, "prompts as fluent as people write", "being as fluent as people write")
READABLE = View(
    passes=is_readable,
    scored=CALIBRATED,
    texts="prompts that pass as readable",
    being="being readable",
    opening="with calibrated label words (one number for each), ",
)


def sentences(outcomes: Sequence[Outcome]) -> list[str]:
    """What was found, in the view of the paper, and in that of a reader where label words were calibrated as well."""
    return [said for view in (FLUENT, READABLE) if (said := sentence(outcomes, view))]


def sentence(outcomes: Sequence[Outcome], view: View = FLUENT) -> str:
    """What was found, by rule: "" where nothing was run on all shared tasks.

    It costs nothing where the whole interval of what the best vectors have more than the best passing prompts lies at
    2 points or below, and it costs that many points where all of it lies above 0. Passing prompts are better where all
    of it lies below 0. A task that fewer methods were run on is named where vectors are surely more than 2 points
    ahead.
    """
    tasks = shared_tasks(outcomes)
    here = select(outcomes, task=tuple(tasks))
    best, vectors = _best_passing(here, tasks, view), _best_vectors(here, tasks, view.scored)
    if best is None:
        return ""
    passing, said = best_that_pass(here, best[0], view.passes, view.scored), view.texts
    soft = _of_vectors(here, vectors[0], view) if vectors is not None else passing
    whole = _whole(passing, tasks) & _whole(soft, tasks)
    here = [o for o in here if o.unit[1] in whole] or here  # one set of runs for all figures
    passing = best_that_pass(here, best[0], view.passes, view.scored)
    parts = [f"{best[0]} {mean(passing.values()):.1%}"]
    if vectors is not None:
        soft = _of_vectors(here, vectors[0], view)
        said = _said(soft, passing, view)
        parts.append(f"vectors that nobody can read ({vectors[0]}) {mean(soft.values()):.1%}")
    written = by_unit(select(here, method="written", role="chosen"), lambda o: o.number(view.scored))
    for name, values in (("what people wrote for the task", written), ("no prompt", no_prompt(here, view.scored))):
        if (found := over_tasks(values, tasks)) is not None:
            parts.append(f"{name} {found.mean:.1%}")
    opening = f"{view.opening}{said}"
    return (
        f"{opening[0].upper()}{opening[1:]}, on {_listed(tasks)}: {_listed(parts)}{_elsewhere(outcomes, tasks, view)}."
    )


def _best_passing(outcomes: Sequence[Outcome], tasks: Sequence[str], view: View) -> tuple[str, Spread] | None:
    """The search whose passing prompts are best; one without any such counts where all are."""
    every = families(select(outcomes, method=SEARCHED))
    searched = [family for family in every if seeds_that_pass(outcomes, family, view.passes)[0]] or every
    found = [
        (family, over_tasks(best_that_pass(outcomes, family, view.passes, view.scored), tasks)) for family in searched
    ]
    known = [(family, values) for family, values in found if values is not None]
    return max(known, key=lambda pair: pair[1].mean, default=None)


def _of_vectors(outcomes: Sequence[Outcome], family: str, view: View) -> dict[Unit, float]:
    return by_unit(select(outcomes, family=family, role="chosen"), lambda o: o.number(view.scored))


def _elsewhere(outcomes: Sequence[Outcome], tasks: Sequence[str], view: View) -> str:
    """The other tasks on which vectors are surely ahead by more than the margin."""
    found = []
    for task, here in groups(outcomes, lambda o: o.task).items():
        best, vectors = _best_passing(here, [task], view), _best_vectors(here, [task], view.scored)
        if task in tasks or best is None or vectors is None:
            continue
        passing = best_that_pass(here, best[0], view.passes, view.scored)
        lost = paired(_of_vectors(here, vectors[0], view), passing)
        if lost is not None and lost.low > IGNORED_MARGIN:
            found.append(f"; on {task} vectors are {100 * lost.difference:.1f} points ahead")
    return "".join(found)


def _said(vectors: dict[Unit, float], passing: dict[Unit, float], view: View) -> str:
    lost = paired(vectors, passing)
    if lost is not None and lost.high < 0:
        return f"{view.texts} are better than vectors by {-100 * lost.difference:.1f} points"
    if lost is not None and lost.high <= IGNORED_MARGIN:
        return f"{view.texts} are as good as vectors"
    if lost is not None and lost.low > 0:
        return f"{view.being} costs {100 * lost.difference:.1f} points"
    return f"whether {view.being} costs anything is open"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def overview(outcomes: Sequence[Outcome]) -> str:
    """The picture as SVG for the page; "" where nothing was run on all shared tasks."""
    if not any(marks_of(outcomes)):
        return ""
    said, inside = _drawn(outcomes)
    return f"<svg {_SIZE} {said}>{inside}</svg>"


def overview_file(outcomes: Sequence[Outcome]) -> str:
    """The same as a file of its own; light and dark as in the page."""
    said, inside = _drawn(outcomes)
    style = f"<style>{STYLE.read_text(encoding='utf-8')}</style>"
    paper = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {_SIZE} {said}>{style}{paper}{inside}</svg>\n'


def _drawn(outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """What the picture says to those who do not see it, as attributes, and what is drawn."""
    series, levels = marks_of(outcomes), levels_of(outcomes)
    every = [mark for marks in series for mark in marks]
    if not every:
        return 'role="img" aria-label="no results"', ""
    axes = _axes(every, levels)
    places = [(axes.x(mark.nll.mean), axes.y(mark.accuracy.mean)) for mark in every]
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in places]
    parts = [f'<text class="name" x="6" y="14">{in_html(TITLE)}</text>', *_grid(axes)]
    for name, level, dashes in levels:
        y, width = axes.y(level), _LETTER * len(name)
        parts.append(line(_LEFT, y, _RIGHT, y, "mark", dashes))
        box = _free([(x, y + dy) for x in (_RIGHT - width, _LEFT + 4) for dy in (-3 - _LINE, 3)], width, taken)
        parts.append(words(box[0], box[3] - 3, name, "start"))
    parts += [_joined(axes, marks) for marks in series] + [_dot(axes, mark) for mark in reversed(every)]
    named = [(mark, place) for mark, place in zip(every, places, strict=True) if mark.name]
    for mark, place in named:
        parts += _label(mark, *place, taken)
    parts.append(
        words((_LEFT + _RIGHT) / 2, _HEIGHT - 10, "log-perplexity, nats per token (left reads better)", "middle")
    )
    said = "; ".join(f"{m.name}: accuracy {m.accuracy.mean:.1%}, log-perplexity {m.nll.mean:.1f}" for m, _ in named)
    return f'role="img" aria-label="{in_html(said)}"', "".join(parts)


def _axes(marks: Sequence[Mark], levels: Sequence[tuple[str, float, str]]) -> Axes:
    """Whole nats from 0, and tenths of accuracy around everything, with room for names above."""
    accuracies = [mark.accuracy.mean for mark in marks] + [level for _, level, _ in levels]
    low, high = int(min(accuracies) * 10) / 10, min(1.0, int(max(accuracies) * 10 + 2) / 10)
    return Axes((0.0, float(int(max(mark.nll.mean for mark in marks)) + 1)), (low, high), _BOX)


def _grid(axes: Axes) -> list[str]:
    parts = []
    for tenth in range(round(axes.accuracy[0] * 10), round(axes.accuracy[1] * 10) + 1):
        y = axes.y(tenth / 10)
        parts += [line(_LEFT, y, _RIGHT, y, "grid"), words(_LEFT - 6, y + 4, f"{10 * tenth}%", "end")]
    ticks = range(0, round(axes.nll[1]) + 1, max(1, round(axes.nll[1] / 6)))
    return parts + [words(axes.x(tick), _BOTTOM + 17, str(tick), "middle") for tick in ticks]


def _joined(axes: Axes, marks: Sequence[Mark]) -> str:
    points = " ".join(f"{axes.x(mark.nll.mean):.1f},{axes.y(mark.accuracy.mean):.1f}" for mark in marks)
    return f'<polyline points="{points}" class="front" stroke="var(--{style_of(marks[0].sample)[0]})"/>'


def _dot(axes: Axes, mark: Mark) -> str:
    colour, shape, hollow = style_of(mark.sample)
    x, y = axes.x(mark.nll.mean), axes.y(mark.accuracy.mean)
    bars = f"M{axes.x(mark.nll.low):.1f} {y:.1f}H{axes.x(mark.nll.high):.1f}"
    bars += f"M{x:.1f} {axes.y(mark.accuracy.low):.1f}V{axes.y(mark.accuracy.high):.1f}"
    own = mark.sample
    name = f"{own.family} (weight {own.weight:g})" if own.weight else own.family
    said = in_html(f"{name}: accuracy {mark.accuracy.mean:.1%}, log-perplexity {mark.nll.mean:.1f}")
    drawn = sign(colour, shape, hollow, x, y)
    return f'<g><title>{said}</title><path d="{bars}" class="bars" stroke="var(--{colour})"/>{drawn}</g>'


def _label(mark: Mark, x: float, y: float, taken: list[Box]) -> list[str]:
    """The name in its colour at the nearest place where nothing stands, with a line to its dot where that is far."""
    width = _LETTER * len(mark.name)
    places = [
        (x + dx * ring - (width if dx < 0 else 0 if dx else width / 2), y + dy * ring - _LINE / 2)
        for ring in _RINGS
        for dx, dy in _WAYS
    ]
    box = _free(places, width, taken)
    colour, name = f"var(--{style_of(mark.sample)[0]})", in_html(mark.name)
    text = f'<g color="{colour}"><text class="label" x="{box[0]:.1f}" y="{box[3] - 3:.1f}">{name}</text></g>'
    near = min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
    return ([line(x, y, *near, "leader")] if math.dist((x, y), near) > _FAR else []) + [text]


def _free(places: Sequence[tuple[float, float]], width: float, taken: list[Box]) -> Box:
    """The box of a line of words at the first place (left, top) where nothing stands, which it takes."""
    boxes = [(left, top, left + width, top + _LINE) for left, top in places]
    taken.append(next((box for box in boxes if _is_free(box, taken)), boxes[0]))
    return taken[-1]


def _is_free(box: Box, taken: Sequence[Box]) -> bool:
    """Whether a box (left, top, right, bottom) lies in the picture and on none of the others."""
    inside = box[0] >= _LEFT and box[2] <= _RIGHT and box[1] >= _TOP - 6 and box[3] <= _BOTTOM
    return inside and not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)

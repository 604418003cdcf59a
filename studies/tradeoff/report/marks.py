"""What the study's pictures are made of: places, signs, lines and words, as SVG in the colours of the page's style."""

from __future__ import annotations

import math
from dataclasses import dataclass

from peft_interp.report.texts import in_html


@dataclass(frozen=True)
class Axes:
    """From numbers to places in the picture; what lies outside is put on its edge.

    Attributes:
        nll: least and largest log-perplexity.
        accuracy: least and largest accuracy.
        box: left, right, top, bottom of the place for them.
    """

    nll: tuple[float, float]
    accuracy: tuple[float, float]
    box: tuple[float, float, float, float]

    def x(self, nll: float) -> float:
        """Left reads better."""
        (low, high), (left, right, *_) = self.nll, self.box
        return left + min(1.0, max(0.0, (nll - low) / (high - low))) * (right - left)

    def y(self, accuracy: float) -> float:
        """Up is better."""
        (low, high), (*_, top, bottom) = self.accuracy, self.box
        return bottom - min(1.0, max(0.0, (accuracy - low) / (high - low))) * (bottom - top)


def sign(colour: str, shape: str, hollow: bool, x: float, y: float) -> str:
    """A method's sign; `colour` is a name in the page's style."""
    fill = "var(--paper)" if hollow or shape == "ring" else f"var(--{colour})"
    look = f'fill="{fill}" stroke="var(--{colour})" stroke-width="2"'
    if shape in ("circle", "ring"):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {look}/>'
    corners = {
        "square": ((-4.2, -4.2), (4.2, -4.2), (4.2, 4.2), (-4.2, 4.2)),
        "diamond": ((0, -6), (6, 0), (0, 6), (-6, 0)),
        "triangle": ((0, -5.5), (5.2, 4), (-5.2, 4)),
        "flipped": ((0, 5.5), (5.2, -4), (-5.2, -4)),
        "star": tuple(
            (r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5)) for k, r in enumerate((7.5, 3.2) * 5)
        ),
    }[shape]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" {look}/>'


def line(x1: float, y1: float, x2: float, y2: float, style: str, dashes: str = "") -> str:
    """A straight line; `style` is a class of the page's style."""
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"{dashed}/>'


def words(x: float, y: float, said: str, anchor: str) -> str:
    """Words at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{in_html(said)}</text>'

"""Drawings as SVG text: a canvas of boxes, lines and words, and the colours of all pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

WIDTH = 1000
INK, MUTED, FAINT, PAPER = "#1f2933", "#66727f", "#c9d1d9", "#ffffff"
JOB, IDLE, BROKEN, SLOW, STEEL = "#2b9a66", "#b4bec8", "#d62839", "#ef8a17", "#4c5b6b"
PLANES = ("#3b6fb6", "#8a5bb5", "#16929c", "#b5762a", "#5f8a2c", "#b54a80", "#5466d6", "#7d6b57")

Point = tuple[float, float]
Line = tuple[Point, Point]


@dataclass(slots=True)
class Canvas:
    """SVG elements in the order in which they are painted; lengths in pixels, y downward."""

    parts: list[str] = field(default_factory=list)

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, *, radius: float = 3.0,
        edge: str = "", title: str = "",
    ) -> None:  # fmt: skip
        """Draw a box with its upper left corner at (x, y); `title` shows under the pointer."""
        stroke = f' stroke="{edge}" stroke-width="1.2"' if edge else ""
        inside = f"<title>{escape(title)}</title></rect>" if title else "</rect>"
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
            f' rx="{radius:g}" fill="{fill}"{stroke}>{inside}'
        )

    def words(
        self, x: float, y: float, text: str, *, size: float = 12, fill: str = INK,
        anchor: str = "start", bold: bool = False,
    ) -> None:  # fmt: skip
        """Write text with its baseline at (x, y)."""
        weight = ' font-weight="600"' if bold else ""
        place = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{fill}"{place}{weight}>'
            f"{escape(text)}</text>"
        )

    def lines(
        self, lines: Iterable[Line], colour: str, width: float, *, opacity: float = 1.0,
        dashed: bool = False,
    ) -> None:  # fmt: skip
        """Draw many straight lines of one look as a single path."""
        path = "".join(f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}" for a, b in lines)
        if not path:
            return
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:.2f}"'
            f' stroke-opacity="{opacity:g}" stroke-linecap="round"{dash}/>'
        )

    def dot(self, x: float, y: float, radius: float, fill: str, *, edge: str = PAPER) -> None:
        """Draw a disc."""
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{fill}" stroke="{edge}"'
            ' stroke-width="1.5"/>'
        )

    def text(self, height: float, title: str) -> str:
        """Return the whole drawing, `WIDTH` wide."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
            f' width="{WIDTH}" height="{height:.0f}" role="img"'
            ' font-family="Helvetica, Arial, DejaVu Sans, sans-serif">'
        )
        paper = f'<rect width="{WIDTH}" height="{height:.0f}" fill="{PAPER}"/>'
        return "\n".join(
            [head, f"<title>{escape(title)}</title>", paper, *self.parts, "</svg>", ""]
        )


def cable_width(rate: float) -> float:
    """Return the thickness of a cable of `rate` bytes/s: its area grows with the rate."""
    return min(max(0.6 * math.sqrt(rate / 12.5e9), 0.4), 10.0)


def fitting(text: str, size: float, room: float) -> float:
    """Return the font size at which a text fits into `room` pixels, at most `size`."""
    return round(min(size, room / (0.6 * max(len(text), 1))), 1)


def folded(total: int, most: int, keep: Sequence[int] = ()) -> list[int | None]:
    """Return which of `total` things in a row to draw, at most about `most`; None is a gap.

    The first, the last and those of `keep` come before others.
    """
    if total <= most:
        return list(range(total))
    wanted = [0, *dict.fromkeys(keep), total - 1, *range(1, min(total, most))]
    chosen = sorted(list(dict.fromkeys(wanted))[: max(most, 2)])
    row: list[int | None] = []
    for i, place in enumerate(chosen):
        if i and place - chosen[i - 1] > 1:
            row.append(None)
        row.append(place)
    return row

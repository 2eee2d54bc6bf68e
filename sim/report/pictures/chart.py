"""The few parts of which pictures are made: a frame with axes, curves, areas, a legend."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#2c6fbb", "#d1762a", "#5b8c3a", "#c0392b", "#7d5ba6", "#3d9a9a", "#8a6d3b", "#666666")
Points = Sequence[tuple[float, float]]
TIMES_S = (1, 10, 60, 600, 3600, 36000, 86400, 864000, 8640000)  # marks of a logarithmic axis
LETTER = 7.2  # width of a letter in pixels, roughly
GOLDEN = 0.618034  # of a turn of the colour circle: however many there are, neighbours differ
MARKS = 10  # of an axis of time, at most


@dataclass(frozen=True, slots=True)
class Frame:
    """A drawing area; x runs from `x_min` to `x_max`, y from 0 (below) to `y_max`."""

    width: int
    height: int
    x_max: float
    y_max: float
    left: int = 90
    top: int = 56
    below: int = 54
    x_min: float = 0.0

    @property
    def wide(self) -> int:
        """Pixels of the x axis."""
        return self.width - self.left - 24

    @property
    def high(self) -> int:
        """Pixels of the y axis."""
        return self.height - self.top - self.below

    def x(self, value: float) -> float:
        """Place a value on the x axis."""
        return self.left + (value - self.x_min) / (self.x_max - self.x_min) * self.wide

    def y(self, value: float) -> float:
        """Place a value on the y axis."""
        return self.top + (1.0 - value / self.y_max) * self.high


def page(frame: Frame, title: str, body: Sequence[str]) -> str:
    """Return a whole picture."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{frame.width}" height="{frame.height}"'
        f' font-family="sans-serif" font-size="12">'
    )
    ground = f'<rect width="{frame.width}" height="{frame.height}" fill="white"/>'
    above = f'<text x="{frame.left}" y="22" font-size="15">{escape(title)}</text>'
    lines = [head, ground, above, *body, "</svg>"]
    return "\n".join(lines) + "\n"


def curve(frame: Frame, points: Points, colour: str, *, steps: bool = False) -> str:
    """Return a line through points, or the steps of a value that holds until the next."""
    path = (
        _corners(frame, points)
        if steps
        else [f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points]
    )
    return f'<polyline points="{" ".join(path)}" fill="none" stroke="{colour}" stroke-width="1.4"/>'


def _corners(frame: Frame, points: Points) -> list[str]:
    """Return the corners of a value that holds until the next."""
    path: list[str] = []
    for i, (x, y) in enumerate(points):
        if i:
            path.append(f"{frame.x(x):.1f},{frame.y(points[i - 1][1]):.1f}")
        path.append(f"{frame.x(x):.1f},{frame.y(y):.1f}")
    return path


def area(frame: Frame, lower: Points, upper: Points, colour: str) -> str:
    """Return the area between two curves of steps; each value holds until the next."""
    there = _corners(frame, upper)
    back = _corners(frame, lower)[::-1]
    return f'<polygon points="{" ".join(there + back)}" fill="{colour}" fill-opacity="0.75"/>'


def rule(frame: Frame, y: float) -> str:
    """Return a line across the frame at a pixel."""
    right = frame.left + frame.wide
    return f'<line x1="{frame.left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#999"/>'


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Return a colour of its own for each name, however many there are."""
    found = {}
    for i, name in enumerate(names):
        if i < len(COLOURS):
            found[name] = COLOURS[i]
            continue
        red, green, blue = colorsys.hls_to_rgb(i * GOLDEN % 1.0, (0.38, 0.6)[i % 2], 0.55)
        found[name] = f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
    return found


def round_steps(highest: float, most: int = 5) -> list[float]:
    """Return about `most` round numbers from 0 to `highest`."""
    raw = highest / most or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * f for f in (1, 2, 5, 10) if power * f >= raw)
    return [i * step for i in range(int(highest / step + 1e-9) + 1)]


def ticks(frame: Frame, unit_x: str, unit_y: str, *, powers: bool = False) -> Iterator[str]:
    """Yield axes with their numbers; `powers`: x is the logarithm of seconds."""
    bottom = frame.top + frame.high
    places = round_steps(frame.x_max, MARKS)
    if powers:
        places = [at for t in TIMES_S if frame.x_min - 1e-9 <= (at := math.log10(t)) <= frame.x_max]
    for x in places:
        at = frame.x(x)
        text = _seconds(10.0**x) if powers else f"{x:g}"
        yield f'<line x1="{at:.1f}" y1="{bottom}" x2="{at:.1f}" y2="{bottom + 4}" stroke="#444"/>'
        yield f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>'
    if unit_x:
        yield (f'<text x="{frame.left + frame.wide / 2:.1f}" y="{bottom + 38}"'
               f' text-anchor="middle">{escape(unit_x)}</text>')  # fmt: skip
    if unit_y:
        for y in round_steps(frame.y_max):
            at = frame.y(y)
            yield (f'<line x1="{frame.left}" y1="{at:.1f}" x2="{frame.left + frame.wide}" y2="{at:.1f}"'
                   ' stroke="#000" stroke-opacity="0.12"/>')  # fmt: skip
            yield f'<text x="{frame.left - 6}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>'
        middle = frame.top + frame.high / 2
        yield (f'<text x="18" y="{middle:.1f}" text-anchor="middle"'
               f' transform="rotate(-90 18 {middle:.1f})">{escape(unit_y)}</text>')  # fmt: skip
    yield (f'<rect x="{frame.left}" y="{frame.top}" width="{frame.wide}" height="{frame.high}"'
           ' fill="none" stroke="#444"/>')  # fmt: skip


def _seconds(value: float) -> str:
    for unit, scale in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if value >= scale * 0.999:
            text = f"{value / scale:.3g}"
            return f"{text} {'day' if unit == 'days' and text == '1' else unit}"
    return f"{value:.3g} s"


def legend_rows(width: int, names: Iterable[str], left: int = 90) -> int:
    """Return how many rows a legend takes."""
    return 1 + max((row for row, _, _ in _places(width, names, left)), default=0)


def legend(frame: Frame, colours: Mapping[str, str]) -> Iterator[str]:
    """Yield names with their colours, in rows below the title."""
    for row, x, name in _places(frame.width, colours, frame.left):
        y = 34 + 18 * row
        yield f'<rect x="{x:.1f}" y="{y}" width="11" height="11" fill="{colours[name]}"/>'
        yield f'<text x="{x + 15:.1f}" y="{y + 10}">{escape(name)}</text>'


def _places(width: int, names: Iterable[str], left: int) -> Iterator[tuple[int, float, str]]:
    """Yield row and place of each name of a legend."""
    row, x = 0, float(left)
    for name in names:
        wide = 32 + LETTER * len(name)
        if x + wide > width and x > left:
            row, x = row + 1, float(left)
        yield row, x, name
        x += wide

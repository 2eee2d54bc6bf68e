"""Small charts as SVG: lines, bands, stacks, bars and maps, written by hand and the same each time.

A chart is a frame with axes and marks in data coordinates. Not here: legends that avoid marks,
logarithmic axes, interaction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 88, 150, 44, 56  # pixels around the frame
COLOURS = ("#2c6fbb", "#c0392b", "#5b8c3a", "#b8860b", "#7d3c98", "#16a085", "#7f8c8d", "#34495e")
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Frame:
    """The axes of a chart in data coordinates."""

    title: str
    x_label: str
    y_label: str
    x: tuple[float, float]
    y: tuple[float, float]
    x_names: tuple[tuple[float, str], ...] = ()  # ticks with words; numbers without

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return pixels of a point, kept within the frame."""
        inner = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)
        share = [(v - low) / ((high - low) or 1.0) for v, (low, high) in ((x, self.x), (y, self.y))]
        across, up = (min(max(s, 0.0), 1.0) for s in share)
        return LEFT + across * inner[0], HEIGHT - BOTTOM - up * inner[1]


def frame_of(
    title: str, x_label: str, y_label: str, series: Sequence[Points],
    names: Sequence[tuple[float, str]] = (), zero: bool = True,
) -> Frame:  # fmt: skip
    """Return a frame that holds all points; the vertical axis begins at zero unless told not to."""
    xs = [x for points in series for x, _ in points] or [0.0, 1.0]
    ys = [y for points in series for _, y in points if math.isfinite(y)] or [0.0, 1.0]
    low = min(0.0, *ys) if zero else min(ys)
    high = max(ys) if max(ys) > low else low + 1.0
    return Frame(
        title, x_label, y_label, (min(xs), max(xs)), (low, high + 0.05 * (high - low)), tuple(names)
    )


def line_chart(
    frame: Frame, lines: Mapping[str, Points], marks: Mapping[str, float] | None = None
) -> str:
    """Return lines by name; `marks` are vertical lines at x with a word."""
    body = [*_rules(frame, marks or {})]
    for i, (name, points) in enumerate(lines.items()):
        body.append(_path(frame, points, COLOURS[i % len(COLOURS)]))
        body.append(_key(i, name, COLOURS[i % len(COLOURS)]))
    return _svg(frame, body)


def dot_chart(
    frame: Frame, dots: Sequence[tuple[tuple[float, float], str]], colour: str,
    line: Points = (),
) -> str:  # fmt: skip
    """Return named dots, numbered; hovering shows a name, the first ones stand beside the frame."""
    body = [_path(frame, line, COLOURS[1])] if len(line) > 1 else []
    for number, (point, name) in enumerate(dots, start=1):
        x, y = frame.at(*point)
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{name}</title></circle>'
                    f'<text x="{x + 6:.1f}" y="{y - 5:.1f}">{number}</text>')  # fmt: skip
    return _svg(frame, body)


def band_chart(
    frame: Frame,
    low: Points,
    middle: Points,
    high: Points,
    marks: Mapping[str, float] | None = None,
) -> str:
    """Return a fan: the middle as a line within its band."""
    outline = [*low, *reversed(high)]
    body = [_area(frame, outline, COLOURS[0], 0.25), *_rules(frame, marks or {}),
            _path(frame, middle, COLOURS[0]), _key(0, "median", COLOURS[0]),
            _key(1, "10 to 90 %", "#c3d7ee")]  # fmt: skip
    return _svg(frame, body)


def stack_chart(
    frame: Frame, layers: Mapping[str, Points], marks: Mapping[str, float] | None = None
) -> str:
    """Return layers one upon the other; all have the same x."""
    body: list[str] = []
    base: list[tuple[float, float]] = []
    for i, (name, points) in enumerate(layers.items()):
        floor = base or [(x, 0.0) for x, _ in points]
        base = [(x, y + below) for (x, y), (_, below) in zip(points, floor, strict=True)]
        body.append(_area(frame, [*floor, *reversed(base)], COLOURS[i % len(COLOURS)], 0.7))
        body.append(_key(i, name, COLOURS[i % len(COLOURS)]))
    return _svg(frame, [*body, *_rules(frame, marks or {})])


def tornado_chart(
    title: str, unit: str, bars: Sequence[tuple[str, float, float]], middle: float
) -> str:
    """Return one bar per input, from the outcome at its low end to that at its high end."""
    values = [middle, *(v for _, low, high in bars for v in (low, high))]
    edge = 0.05 * ((max(values) - min(values)) or 1.0)
    frame = Frame(
        title, unit, "", (min(values) - edge, max(values) + edge), (0.0, max(len(bars), 1))
    )
    body = []
    for i, (name, low, high) in enumerate(bars):
        top = len(bars) - i - 0.15
        for end, colour in ((low, COLOURS[0]), (high, COLOURS[1])):
            (x0, y0), (x1, y1) = (
                frame.at(min(middle, end), top),
                frame.at(max(middle, end), top - 0.7),
            )
            body.append(f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"'
                        f' fill="{colour}" fill-opacity="0.75"/>')  # fmt: skip
        x, y = frame.at(frame.x[1], top - 0.45)
        body.append(f'<text x="{x + 6:.1f}" y="{y + 4:.1f}">{escape(name)}</text>')
    x, y = frame.at(middle, 0)
    body.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{y:.1f}" stroke="#222"/>')
    return _svg(
        frame, [*body, *_words_below("blue: at the low end, red: at the high end")], numbers=False
    )


def map_chart(
    title: str, x_label: str, y_label: str, columns: Sequence[str], rows: Sequence[str],
    cells: Sequence[Sequence[str]], colours: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """Return a grid of words, each word with a colour of its own, or the stated one."""
    kinds = list(dict.fromkeys(cell for row in cells for cell in row))
    paint = {kind: COLOURS[i % len(COLOURS)] for i, kind in enumerate(kinds)} | dict(colours or {})
    frame = Frame(title, x_label, y_label, (0.0, len(columns)), (0.0, len(rows)))
    body = []
    for r, row in enumerate(cells):
        for c, cell in enumerate(row):
            (x0, y0), (x1, y1) = frame.at(c, len(rows) - r), frame.at(c + 1, len(rows) - r - 1)
            body.append(f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"'
                        f' fill="{paint[cell]}" fill-opacity="0.7" stroke="white"/>')  # fmt: skip
    for c, name in enumerate(columns):
        x, y = frame.at(c + 0.5, 0)
        body.append(
            f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{escape(name)}</text>'
        )
    for r, name in enumerate(rows):
        x, y = frame.at(0, len(rows) - r - 0.5)
        body.append(
            f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>'
        )
    keys = [_key(i, kind, paint[kind]) for i, kind in enumerate(kinds)]
    return _svg(frame, [*body, *keys], numbers=False, ticks=False)


def _path(frame: Frame, points: Points, colour: str) -> str:
    shown = " ".join(
        f"{x:.1f},{y:.1f}" for x, y in (frame.at(*p) for p in points if math.isfinite(p[1]))
    )
    return f'<polyline points="{shown}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _area(frame: Frame, points: Points, colour: str, opacity: float) -> str:
    shown = " ".join(f"{x:.1f},{y:.1f}" for x, y in (frame.at(*p) for p in points))
    return f'<polygon points="{shown}" fill="{colour}" fill-opacity="{opacity}"/>'


def _key(row: int, name: str, colour: str) -> str:
    x, y = WIDTH - RIGHT + 12, TOP + 14 + 20 * row
    return (f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}"/>'
            f'<text x="{x + 18}" y="{y}">{escape(name)}</text>')  # fmt: skip


def _rules(frame: Frame, marks: Mapping[str, float]) -> Iterator[str]:
    for i, (word, x) in enumerate(marks.items()):
        across, foot = frame.at(x, frame.y[0])
        yield (f'<line x1="{across:.1f}" y1="{TOP}" x2="{across:.1f}" y2="{foot:.1f}" stroke="#888"'
               ' stroke-dasharray="5 4"/>')  # fmt: skip
        below = TOP + 12 + 14 * (i % 3)
        yield f'<text x="{across + 4:.1f}" y="{below}" fill="#555">{escape(word)}</text>'


def _words_below(words: str) -> list[str]:
    return [f'<text x="{LEFT}" y="{HEIGHT - 8}" fill="#555">{escape(words)}</text>']


def _steps(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers within a range."""
    raw = (high - low) / count or 1.0
    scale = 10.0 ** math.floor(math.log10(raw))
    step = scale * next(f for f in (1.0, 2.0, 2.5, 5.0, 10.0) if f * scale >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    size = abs(value)
    for prefix, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if size >= scale:
            return f"{value / scale:g} {prefix}"
    return f"{value:g}"


def _svg(frame: Frame, body: Sequence[str], *, numbers: bool = True, ticks: bool = True) -> str:
    (x0, y0), (x1, y1) = frame.at(frame.x[0], frame.y[0]), frame.at(frame.x[1], frame.y[1])
    axes = [f'<rect x="{x0:.1f}" y="{y1:.1f}" width="{x1 - x0:.1f}" height="{y0 - y1:.1f}"'
            ' fill="none" stroke="#444"/>']  # fmt: skip
    names = frame.x_names or tuple((v, _number(v)) for v in _steps(*frame.x))
    for value, word in names if ticks else ():
        x, _ = frame.at(value, frame.y[0])
        axes.append(
            f'<text x="{x:.1f}" y="{y0 + 16:.1f}" text-anchor="middle">{escape(word)}</text>'
        )
    for value in _steps(*frame.y) if numbers else ():
        _, y = frame.at(frame.x[0], value)
        axes.append(f'<line x1="{x0:.1f}" y1="{y:.1f}" x2="{x1:.1f}" y2="{y:.1f}" stroke="#eee"/>')
        axes.append(
            f'<text x="{x0 - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>'
        )
    middle, half = (x0 + x1) / 2, (y0 + y1) / 2
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *axes, *body,
        f'<text x="{LEFT}" y="24" font-size="15">{escape(frame.title)}</text>',
        f'<text x="{middle:.0f}" y="{HEIGHT - 22}" text-anchor="middle">{escape(frame.x_label)}</text>',
        f'<text x="16" y="{half:.0f}" text-anchor="middle" transform="rotate(-90 16 {half:.0f})">'
        f"{escape(frame.y_label)}</text>", "</svg>",
    ]) + "\n"  # fmt: skip

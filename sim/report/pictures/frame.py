"""The one frame of all charts: axes with units, a legend above, colours that the colour-blind tell apart.

A chart is a `Frame` (what its axes say) and marks in data coordinates. The same input gives the same
bytes. Text, grid and paper carry classes, so that a page may show a picture on dark paper; alone it is
white. Not here: interaction, legends that avoid marks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

# Okabe and Ito's colours (jfly.uni-koeln.de/color, 2008), apart for all common kinds of colour blindness.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8ae1d", "#4d4d4d")
INK, GRID, AXIS, DOWN = "#1f2933", "#e3e7eb", "#66727f", "#111111"
LETTER = 6.9  # width of a letter of 12 pixels, roughly
LINE = 19  # pixels of a row of the legend
RIGHT, BOTTOM = 30, 52
Points = Sequence[tuple[float, float]]
Ticks = Sequence[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Frame:
    """What a chart's axes say; `keys` are names with their colours, shown above the frame."""

    title: str
    x_label: str
    y_label: str
    x: tuple[float, float]
    y: tuple[float, float]
    x_names: Ticks = ()  # ticks in words; round numbers without
    y_names: Ticks = ()
    keys: tuple[tuple[str, str], ...] = ()
    width: int = 760
    height: int = 380
    left: int = 76

    @property
    def top(self) -> int:
        """Pixels above the frame: the title and the rows of the legend."""
        return 38 + LINE * len(self.legend_rows())

    def legend_rows(self) -> list[list[tuple[str, str]]]:
        """Return the legend's entries row by row."""
        rows: list[list[tuple[str, str]]] = []
        used = math.inf
        for name, colour in self.keys:
            need = 34 + LETTER * len(name)
            if used + need > self.width - 24:
                rows.append([])
                used = 0.0
            rows[-1].append((name, colour))
            used += need
        return rows

    def across(self, x: float) -> float:
        """Return the pixel of a value on the x axis, kept within the frame."""
        return self.left + _share(x, self.x) * (self.width - self.left - RIGHT)

    def up(self, y: float) -> float:
        """Return the pixel of a value on the y axis, kept within the frame."""
        return self.height - BOTTOM - _share(y, self.y) * (self.height - self.top - BOTTOM)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixels of a point."""
        return self.across(x), self.up(y)


def _share(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return min(max((value - low) / ((high - low) or 1.0), 0.0), 1.0)


def frame_of(
    title: str, x_label: str, y_label: str, series: Sequence[Points], names: Ticks = (),
    zero: bool = True,
) -> Frame:  # fmt: skip
    """Return a frame that holds all points; the vertical axis begins at zero unless told not to.

    Labels too wide for the margin make it wider.
    """
    xs = [x for points in series for x, _ in points] or [0.0, 1.0]
    ys = [y for points in series for _, y in points if math.isfinite(y)] or [0.0]
    low = min(0.0, *ys) if zero else min(ys)
    high = max(ys) if max(ys) > low else low + 1.0
    ends = (low, high + 0.06 * (high - low))
    widest = max(len(number(v)) for v in round_values(*ends))
    left = max(76, round(40 + LETTER * widest))
    right = max(xs) if max(xs) > min(xs) else min(xs) + 1.0
    return Frame(title, x_label, y_label, (min(xs), right), ends, tuple(names), left=left)


def colour_of(i: int) -> str:
    """Return the paint of the i-th name: eight colours, the next eight striped, then grey."""
    if i < len(COLOURS):
        return COLOURS[i]
    return f"url(#stripe{i - len(COLOURS)})" if i < 2 * len(COLOURS) else "#b4bec8"


def colours_for(names: Sequence[str]) -> dict[str, str]:
    """Return a paint for each name."""
    return {name: colour_of(i) for i, name in enumerate(names)}


def keyed(frame: Frame, colours: Mapping[str, str]) -> Frame:
    """Return the frame with a legend."""
    return replace(frame, keys=tuple(colours.items()))


def draw(frame: Frame, body: Sequence[str], *, x_axis: bool = True, y_axis: bool = True) -> str:
    """Return the whole picture as SVG text."""
    parts = [*body, *_axes(frame, x_axis=x_axis, y_axis=y_axis)]
    marks = "\n".join([*_legend(frame), *_grid(frame, y_axis=y_axis), *parts])
    title = f'<text x="{12}" y="22" font-size="14" font-weight="600">{escape(frame.title)}</text>'
    return svg(frame.width, frame.height, frame.title, f"{title}\n{marks}\n")


def svg(width: float, height: float, title: str, body: str) -> str:
    """Return SVG text on paper of a size, with the stripes that it uses."""
    stripes = "".join(_stripe(i) for i in range(len(COLOURS)) if f"#stripe{i})" in body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
        f' width="{width:g}" height="{height:g}" role="img" fill="{INK}" font-size="12"'
        f' font-family="Helvetica, Arial, DejaVu Sans, sans-serif">\n<title>{escape(title)}</title>\n'
        f"{f'<defs>{stripes}</defs>' if stripes else ''}"
        f'<rect class="paper" width="{width:g}" height="{height:g}" fill="white"/>\n{body}</svg>\n'
    )


def _stripe(i: int) -> str:
    return (f'<pattern id="stripe{i}" width="6" height="6" patternUnits="userSpaceOnUse"'
            f' patternTransform="rotate(45)"><rect width="6" height="6" fill="white"/>'
            f'<rect width="3.4" height="6" fill="{COLOURS[i]}"/></pattern>')  # fmt: skip


def _legend(frame: Frame) -> Iterator[str]:
    for row, entries in enumerate(frame.legend_rows()):
        x, y = 12.0, 43 + LINE * row
        for name, colour in entries:
            yield f'<rect x="{x:.1f}" y="{y - 10}" width="12" height="12" fill="{colour}"/>'
            yield f'<text x="{x + 17:.1f}" y="{y}">{escape(name)}</text>'
            x += 34 + LETTER * len(name)


def _grid(frame: Frame, *, y_axis: bool) -> Iterator[str]:
    left, right = frame.across(frame.x[0]), frame.across(frame.x[1])
    names = frame.y_names or [(v, number(v)) for v in round_values(*frame.y)]
    for value, word in names if y_axis else ():
        y = frame.up(value)
        if not frame.y_names:
            yield (f'<line class="grid" x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}"'
                   f' stroke="{GRID}"/>')  # fmt: skip
        yield f'<text x="{left - 7:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(word)}</text>'


def _axes(frame: Frame, *, x_axis: bool, y_axis: bool) -> Iterator[str]:
    left, low = frame.at(frame.x[0], frame.y[0])
    right, high = frame.at(frame.x[1], frame.y[1])
    count = max((frame.width - frame.left) // 90, 3)
    for value, word in frame.x_names or [(v, number(v)) for v in round_values(*frame.x, count)]:
        x = frame.across(value)
        if x_axis:
            yield f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{low + 4:.1f}" stroke="{AXIS}"/>'
            yield f'<text x="{x:.1f}" y="{low + 17:.1f}" text-anchor="middle">{escape(word)}</text>'
    sides = f"M{left:.1f} {high:.1f}V{low:.1f}H{right:.1f}"
    yield f'<path d="{sides}" fill="none" stroke="{AXIS}"/>'
    middle, half = (left + right) / 2, (low + high) / 2
    if frame.x_label:
        yield (f'<text x="{middle:.0f}" y="{frame.height - 12}" text-anchor="middle">'
               f"{escape(frame.x_label)}</text>")  # fmt: skip
    if frame.y_label:
        yield (f'<text x="15" y="{half:.0f}" text-anchor="middle" transform="rotate(-90 15 {half:.0f})">'
               f"{escape(frame.y_label)}</text>")  # fmt: skip


def curve(frame: Frame, points: Points, colour: str, *, steps: bool = False, dash: str = "") -> str:
    """Return a line through points, or the steps of values that hold until the next."""
    shown = _corners(points) if steps else points
    path = " ".join(
        f"{x:.1f},{y:.1f}" for x, y in (frame.at(*p) for p in shown if math.isfinite(p[1]))
    )
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dashed}/>'


def area(
    frame: Frame, lower: Points, upper: Points, colour: str, *, steps: bool = False, opacity: float = 0.8
) -> str:  # fmt: skip
    """Return the area between two curves over the same x."""
    low, high = (_corners(p) if steps else p for p in (lower, upper))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (frame.at(*p) for p in [*high, *reversed(low)]))
    return f'<polygon points="{path}" fill="{colour}" fill-opacity="{opacity:g}"/>'


def _corners(points: Points) -> list[tuple[float, float]]:
    """Return the corners of values that hold until the next; where nothing changes there is none."""
    path: list[tuple[float, float]] = []
    for i, (x, y) in enumerate(points):
        if path and y == path[-1][1] and i < len(points) - 1:
            continue
        if path and y != path[-1][1]:
            path.append((x, path[-1][1]))
        path.append((x, y))
    return path


def box(
    frame: Frame, x: tuple[float, float], y: tuple[float, float], fill: str, *, hint: str = "",
    edge: str = "",
) -> str:  # fmt: skip
    """Return a rectangle; `hint` shows under the pointer."""
    (x0, y0), (x1, y1) = frame.at(x[0], y[1]), frame.at(x[1], y[0])
    inside = f"><title>{escape(hint)}</title></rect>" if hint else "/>"
    return (f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{max(x1 - x0, 0.4):.1f}"'
            f' height="{max(y1 - y0, 0.4):.1f}" fill="{fill}"{edge}{inside}')  # fmt: skip


def words(
    x: float, y: float, text: str, *, anchor: str = "start", size: float = 12, fill: str = ""
) -> str:
    """Write text at a pixel."""
    colour = f' fill="{fill}"' if fill else ""
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}"{colour}>'
            f"{escape(text)}</text>")  # fmt: skip


def rules(frame: Frame, marks: Mapping[str, float], below: float = math.inf) -> Iterator[str]:
    """Yield a dashed line with a word at each x, the word on the side where there is room.

    Words stand below a line that goes across at the value `below`.
    """
    down = max(frame.up(below) - frame.up(frame.y[1]) + 3, 0.0) if math.isfinite(below) else 0.0
    for i, (word, x) in enumerate(marks.items()):
        across, high = frame.at(x, frame.y[1])
        yield (f'<line x1="{across:.1f}" y1="{high:.1f}" x2="{across:.1f}" y2="{frame.up(frame.y[0]):.1f}"'
               f' stroke="{AXIS}" stroke-dasharray="5 4"/>')  # fmt: skip
        right = across + LETTER * len(word) < frame.width - 8
        yield words(
            across + (5 if right else -5),
            high + down + 13 + 15 * (i % 4),
            word,
            anchor="start" if right else "end",
        )


def round_values(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers within a range."""
    raw = (high - low) / count or 1.0
    scale = 10.0 ** math.floor(math.log10(raw))
    step = scale * next(f for f in (1.0, 2.0, 2.5, 5.0, 10.0) if f * scale >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Write the number of an axis."""
    size = abs(value)
    for prefix, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if size >= scale:
            return f"{round(value / scale, 6):g} {prefix}"
    return f"{round(value, 9):g}"

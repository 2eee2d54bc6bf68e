"""Small charts as SVG: lines, bands, stacks, panels, bars, points and maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape

from ersatz.sim.report.pictures.frame import (
    COLOURS,
    INK,
    LETTER,
    LINE,
    RIGHT,
    Frame,
    Points,
    area,
    box,
    colours_for,
    curve,
    draw,
    keyed,
    number,
    round_values,
    rules,
    svg,
    words,
)

BAND, LIMIT = "#9ecae1", "#a50026"
NAMED = 8  # dots that are named beside their picture
Form = Callable[[float], str]
Marks = Mapping[str, float]


def line_chart(
    frame: Frame, lines: Mapping[str, Points], marks: Marks | None = None, *, steps: bool = False
) -> str:
    """Return lines by name; `marks` are vertical lines at x with a word."""
    colours = colours_for(list(lines))
    frame = keyed(frame, colours)
    body = [curve(frame, points, colours[name], steps=steps) for name, points in lines.items()]
    return draw(frame, [*rules(frame, marks or {}), *body])


def dot_chart(
    frame: Frame, dots: Sequence[tuple[tuple[float, float], str]], colour: str, line: Points = ()
) -> str:
    """Return numbered dots over a line; the first are named above, all under the pointer."""
    named = [(f"{n} {name}", colour) for n, (_, name) in enumerate(dots[:NAMED], start=1)]
    frame = replace(frame, keys=tuple(named))
    frame = replace(frame, height=frame.height + LINE * len(frame.legend_rows()))
    body = [curve(frame, line, COLOURS[1])] if len(line) > 1 else []
    taken: list[tuple[float, float]] = []  # where numbers stand
    for n, (point, name) in enumerate(dots, start=1):
        x, y = frame.at(*point)
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{escape(name)}</title>'
                    "</circle>")  # fmt: skip
        across, up = _free_place(x, y, taken)
        taken.append((across, up))
        body.append(words(across, up, f"{n}", size=11))
    return draw(frame, body)


def _free_place(x: float, y: float, taken: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return where the number of a dot does not cover another: right above it, else around it."""
    around = [(x + 6, y - 5), (x + 6, y + 14), (x - 20, y - 5), (x - 20, y + 14), (x - 6, y - 12)]
    free = [(a, u) for a, u in around if all(abs(a - b) > 15 or abs(u - v) > 11 for b, v in taken)]
    return free[0] if free else around[0]


def band_chart(
    frame: Frame, low: Points, middle: Points, high: Points, marks: Marks | None = None
) -> str:
    """Return a fan: the middle as a line within its band."""
    frame = keyed(frame, {"median": COLOURS[0], "10 to 90 %": BAND})
    body = [
        area(frame, low, high, BAND),
        *rules(frame, marks or {}),
        curve(frame, middle, COLOURS[0]),
    ]
    return draw(frame, body)


def stack_chart(
    frame: Frame, layers: Mapping[str, Points], marks: Marks | None = None, *, steps: bool = True,
    limit: tuple[str, float] | None = None,
) -> str:  # fmt: skip
    """Return layers one upon the other; all have the same x. Values hold until the next.

    `limit` is a dashed line across with a name.
    """
    colours = colours_for(list(layers))
    frame = keyed(frame, colours | ({limit[0]: LIMIT} if limit else {}))
    body: list[str] = []
    base: list[tuple[float, float]] = []
    for name, points in layers.items():
        floor = base or [(x, 0.0) for x, _ in points]
        base = [(x, y + below) for (x, y), (_, below) in zip(points, floor, strict=True)]
        body.append(area(frame, floor, base, colours[name], steps=steps))
    if not layers:
        x, y = frame.at(sum(frame.x) / 2, sum(frame.y) / 2)
        body.append(words(x, y, "none", anchor="middle", size=14))
    if limit:
        body.append(curve(frame, [(x, limit[1]) for x in frame.x], LIMIT, dash="7 4"))
    below = limit[1] if limit else math.inf
    return draw(frame, [*body, *rules(frame, marks or {}, below)], y_axis=bool(layers))


def tornado_chart(
    title: str, unit: str, bars: Sequence[tuple[str, float, float]], middle: float,
    ends: Mapping[str, tuple[str, str]] | None = None, form: Form = number,
) -> str:  # fmt: skip
    """Return one bar per input, from the outcome at its low end to that at its high end.

    `ends` are the words of an input's low and high value; `form` writes an outcome.
    """
    values = [middle, *(v for _, low, high in bars for v in (low, high))]
    edge = 0.16 * ((max(values) - min(values)) or 1.0)
    left = round(24 + LETTER * max((len(name) for name, _, _ in bars), default=4))
    frame = Frame(
        title, unit, "", (min(values) - edge, max(values) + edge), (0.0, float(max(len(bars), 1))),
        y_names=[(len(bars) - i - 0.5, name) for i, (name, _, _) in enumerate(bars)],
        keys=(("at the input's low end", COLOURS[0]), ("at its high end", COLOURS[1])),
        height=120 + 30 * max(len(bars), 1), left=left,
    )  # fmt: skip
    body = []
    for i, (name, low, high) in enumerate(bars):
        row = len(bars) - i - 0.85, len(bars) - i - 0.15
        said = (ends or {}).get(name, ("", ""))
        for end, colour, word in ((low, COLOURS[0], said[0]), (high, COLOURS[1], said[1])):
            body.append(box(frame, (min(middle, end), max(middle, end)), row, colour))
            x, y = frame.at(end, sum(row) / 2)
            less = end < middle or (end == middle and colour == COLOURS[0])
            told = f"{form(end)} ({word})" if word else form(end)
            body.append(
                words(
                    x - 4 if less else x + 4,
                    y + 4,
                    told,
                    anchor="end" if less else "start",
                    size=11,
                )
            )
    x, y = frame.at(middle, 0)
    body.append(f'<line x1="{x:.1f}" y1="{frame.top}" x2="{x:.1f}" y2="{y:.1f}" stroke="{INK}"/>')
    return draw(replace(frame, x_names=[(v, form(v)) for v in round_values(*frame.x, 4)]), body)


def point_chart(
    frame: Frame, points: Mapping[str, tuple[float, float]], *, joined: bool = False
) -> str:
    """Return points with their names beside them, joined by a line where they are a front."""
    body = [curve(frame, sorted(points.values()), "#b4bec8")] if joined else []
    above = -10.0
    for i, (name, point) in enumerate(sorted(points.items(), key=lambda item: item[1])):
        x, y = frame.at(*point)
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{COLOURS[0]}"/>')
        right = x + LETTER * len(name) < frame.width - RIGHT
        body.append(words(x + 7 if right else x - 7, y + (above if i % 2 else 16), name,
                          anchor="start" if right else "end", size=11))  # fmt: skip
    return draw(frame, body)


def map_chart(
    title: str, x_label: str, y_label: str, columns: Sequence[str], rows: Sequence[str],
    cells: Sequence[Sequence[str]], colours: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """Return a grid of words, each word with a colour of its own, or the stated one."""
    kinds = list(dict.fromkeys(cell for row in cells for cell in row))
    paint = colours_for(kinds) | {k: v for k, v in (colours or {}).items() if k in kinds}
    left = round(50 + LETTER * max((len(name) for name in rows), default=1))
    frame = Frame(
        title, x_label, y_label, (0.0, len(columns)), (0.0, len(rows)),
        [(c + 0.5, name) for c, name in enumerate(columns)],
        [(len(rows) - r - 0.5, name) for r, name in enumerate(rows)], tuple(paint.items()),
        height=130 + 34 * len(rows), left=left,
    )  # fmt: skip
    edge = ' stroke="white"'
    body = [
        box(
            frame, (c, c + 1), (len(rows) - r - 1, len(rows) - r), paint[cell], hint=cell, edge=edge
        )
        for r, row in enumerate(cells)
        for c, cell in enumerate(row)
    ]
    return draw(frame, body)


def panels(title: str, charts: Sequence[str], widths: float = 760) -> str:
    """Return charts below one another as one picture; each keeps its own axes."""
    heights = [_height(chart) for chart in charts]
    parts, y = [], 34.0
    for chart, height in zip(charts, heights, strict=True):
        parts.append(f'<svg y="{y:g}" {chart.partition("<svg ")[2].rstrip()}')
        y += height
    head = words(12, 22, title, size=15)
    return svg(widths, y, title, f"{head}\n" + "\n".join(parts) + "\n")


def _height(chart: str) -> float:
    return float(chart.partition(' height="')[2].partition('"')[0])


def log_ticks(
    low: float, high: float, marks: Sequence[float], form: Form
) -> list[tuple[float, str]]:
    """Return the marks of a logarithmic axis (base 10) within its ends."""
    return [(math.log10(m), form(m)) for m in marks if low <= math.log10(m) <= high + 1e-9]

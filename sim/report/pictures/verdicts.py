"""Verdicts over time as SVG: a row of bars per device, to the day, each change with its rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape

from ersatz.sim.report.pictures.frame import AXIS, INK, LETTER, svg, words

# ColorBrewer's RdYlBu: from free to denied by lightness and hue, apart for the colour-blind.
PAINT = {"free": "#4575b4", "notify": "#91bfdb", "licensed": "#cfe8f3", "approval": "#ffffbf",
         "case_by_case": "#fee090", "case": "#fee090", "licence": "#fc8d59", "denied": "#d73027",
         "unknown": "#c4c9ce"}  # fmt: skip
DARK = frozenset({"free", "denied"})  # that carry white words
WIDTH, ROW, RIGHT = 960, 21, 20
MOST_YEARS = 40  # that are named below a picture, or somewhat more
SHARP = "#b00020"


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of days [start, end) under one policy, and the rules that make it so."""

    start: date
    end: date
    policy: str
    rules: tuple[str, ...] = ()
    changes: bool = False  # it begins with a change of rules, not with the chart


@dataclass(frozen=True, slots=True)
class Row:
    """A device (or an offer at a site): its bars, and marks at days with what they mean."""

    name: str
    bars: tuple[Bar, ...]
    marks: tuple[tuple[date, str, str], ...] = ()


def verdict_chart(
    title: str, rows: Sequence[Row], ends: tuple[date, date], labels: Mapping[str, str],
    days: Sequence[date] = (), known_until: date | None = None, note: str = "",
) -> str:  # fmt: skip
    """Return the picture: rows over the days of `ends`, changes numbered and named below.

    `labels` are the words of each policy, in order of the legend; `days` are those asked about.
    """
    left = round(26 + LETTER * max((len(row.name) for row in rows), default=4))
    place = _Scale(*ends, left)
    top = 46 + 15 * (2 if days else 0)
    bottom = top + ROW * len(rows)
    numbers = _numbers(rows)
    body = [words(12, 22, title, size=14)]
    for i, row in enumerate(rows):
        body += _row(row, top + ROW * i, left, place, labels, numbers)
    body += [*_years(place, top, bottom), *_asked(days, place, top, bottom)]
    if known_until and ends[0] <= known_until < ends[1]:
        body += _horizon(place, known_until, top, bottom)
    y = bottom + 50
    body += _legend(labels, {b.policy for row in rows for b in row.bars}, y)
    listed = list(_named(numbers, y + 26))
    height = y + 18 + 16 * -(-len(numbers) // _columns(numbers)) + (26 if note else 8)
    body += listed
    if note:
        body.append(words(12, height - 8, note, size=11, fill=AXIS))
    return svg(WIDTH, height, title, "\n".join(body) + "\n")


class _Scale:
    """Turns days into pixels."""

    def __init__(self, first: date, last: date, left: int) -> None:
        self.first, self.last, self.left = first, last, left

    def __call__(self, day: date) -> float:
        share = (day - self.first).days / max((self.last - self.first).days, 1)
        return self.left + min(max(share, 0.0), 1.0) * (WIDTH - self.left - RIGHT)


Numbers = Mapping[tuple[date, tuple[str, ...]], int]


def _numbers(rows: Sequence[Row]) -> Numbers:
    """Number the changes by day."""
    found = {(b.start, b.rules) for row in rows for b in row.bars if b.changes}
    return {key: i for i, key in enumerate(sorted(found), start=1)}


def _row(
    row: Row, y: int, left: int, place: _Scale, labels: Mapping[str, str], numbers: Numbers
) -> Iterator[str]:
    yield words(left - 8, y + 14, row.name, anchor="end")
    for bar in row.bars:
        x, width = place(bar.start), place(bar.end) - place(bar.start)
        by = f", by {', '.join(bar.rules)}" if bar.rules else ""
        yield (f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 3}"'
               f' fill="{PAINT[bar.policy]}"><title>{escape(labels[bar.policy])}: {bar.start} to {bar.end}'
               f"{escape(by)}</title></rect>")  # fmt: skip
        ink = "white" if bar.policy in DARK else INK
        if width > 12 + 2 * LETTER * len(labels[bar.policy]):
            yield words(
                x + width / 2, y + 13, labels[bar.policy], anchor="middle", size=11, fill=ink
            )
        if bar.changes and width > 10:
            number = numbers[bar.start, bar.rules]
            yield words(x + 3, y + 13, f"{number}", size=10, fill=ink)
    for day, mark, why in row.marks:
        yield (f'<text x="{place(day) + 3:.1f}" y="{y + 14}" font-weight="bold" fill="{INK}">{escape(mark)}'
               f"<title>{escape(why)}</title></text>")  # fmt: skip


def _years(place: _Scale, top: int, bottom: int) -> Iterator[str]:
    """Mark years, or months where there is at most a year and a half."""
    months = (place.last - place.first).days < 560
    years = range(place.first.year, place.last.year + 1)
    each = max(len(years) // MOST_YEARS, 1)  # the last day of the calendar may have been asked for
    for year in years[::each]:
        for month in range(1, 13) if months else (1,):
            day = date(year, month, 1)
            if not place.first <= day <= place.last:
                continue
            x, word = place(day), f"{day:%Y-%m}" if months else f"{year}"
            ends = f'x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom + 4}"'
            yield f'<line {ends} stroke="{AXIS}" stroke-opacity="0.5"/>'
            if not months or (place.last - place.first).days < 400 or month % 2:
                yield words(x, bottom + 17, word, anchor="middle")


def _asked(days: Sequence[date], place: _Scale, top: int, bottom: int) -> Iterator[str]:
    edge, level = -100.0, 0
    for day in days:
        x = place(day)
        level = 1 - level if x - edge < 74 else 0
        edge = x
        yield (f'<line x1="{x:.1f}" y1="{top - 4}" x2="{x:.1f}" y2="{bottom}" stroke="{INK}"'
               ' stroke-dasharray="3 3"/>')  # fmt: skip
        yield words(x, top - 8 - 14 * level, str(day), anchor="middle")


def _horizon(place: _Scale, until: date, top: int, bottom: int) -> Iterator[str]:
    """Draw where the knowledge of rules ends; what lies beyond is paler."""
    x = place(until)
    yield (f'<rect class="paper" x="{x:.1f}" y="{top}" width="{place(place.last) - x:.1f}"'
           f' height="{bottom - top}" fill="white" fill-opacity="0.55"/>')  # fmt: skip
    yield f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom + 26}" stroke="{SHARP}"/>'
    yield words(x, bottom + 31, f"rules known to {until}", anchor="end", fill=SHARP)


def _legend(labels: Mapping[str, str], used: set[str], y: int) -> Iterator[str]:
    x = 12.0
    for policy, label in labels.items():
        if policy in used:
            yield (f'<rect x="{x:.0f}" y="{y - 10}" width="12" height="12" fill="{PAINT[policy]}"'
                   f' stroke="{AXIS}" stroke-width="0.5"/>')  # fmt: skip
            yield words(x + 17, y, label)
            x += 36 + LETTER * len(label)


def _told(numbers: Numbers) -> list[str]:
    return [
        f"{n}  {day}  {', '.join(rules) or 'a rule ends'}" for (day, rules), n in numbers.items()
    ]


def _columns(numbers: Numbers) -> int:
    """Two columns where all rule names fit into them."""
    return 2 if all(len(text) <= 72 for text in _told(numbers)) else 1


def _named(numbers: Numbers, y: int) -> Iterator[str]:
    """List the changes with the names of their rules."""
    deep = -(-len(numbers) // _columns(numbers)) if numbers else 1
    for i, text in enumerate(_told(numbers)):
        yield words(12 + 470 * (i // deep), y + 16 * (i % deep), text, size=11)

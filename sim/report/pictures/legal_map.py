"""The heat map of `ersatz legal` as SVG: a row per device, coloured by its verdict over time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from xml.sax.saxutils import escape

from ersatz.device_models.catalog.export import Part
from ersatz.sim.law.legal import LegalAnswer
from ersatz.sim.law.rule import POLICIES
from ersatz.sim.law.rules import NOTICE
from ersatz.sim.report.legal import WORDS, marks_of

COLOURS = {"free": "#9ccc8f", "notify": "#c5dd8b", "licensed": "#d9e86f", "approval": "#f3e38a",
           "case_by_case": "#f5c76b", "licence": "#e8937a", "denied": "#cf5c5c",
           "unknown": "#c9a6d8"}  # fmt: skip
LEFT, TOP, ROW, WIDTH, RIGHT = 130, 70, 18, 1000, 20  # pixels
MARGIN = timedelta(days=60)


def heat_map(answer: LegalAnswer) -> str:
    """Return a picture of every device's verdict from the first to the last day asked.

    A single day is shown with the whole of what the rules know. Days asked are dashed lines.
    """
    question = answer.question
    first, last = question.days[0] - MARGIN, question.days[-1] + MARGIN
    if len(question.days) == 1:
        first = question.rules.known_from
        last = max(question.rules.checked_until, question.days[0]) + MARGIN
    first = max(first, question.rules.known_from)
    last = max(last, first + MARGIN)
    scale = _Scale(first, last)
    height = TOP + ROW * len(answer.verdicts) + 70
    names = sorted(answer.verdicts, key=lambda name: (question.parts[name].designer == "CN", name))
    rows = [line for i, name in enumerate(names) for line in _row(answer, name, i, scale)]
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="20" font-size="14">{escape(question.question or _title(answer))}</text>',
        *rows, *_axis(answer, scale), *_legend(height), "</svg>",
    ]  # fmt: skip
    return "\n".join(body) + "\n"


def _title(answer: LegalAnswer) -> str:
    return f"Verdicts for {answer.question.destination}, buyer: {answer.question.buyer}"


class _Scale:
    """Turns days into pixels."""

    def __init__(self, first: date, last: date) -> None:
        self.first, self.last = first, last

    def __call__(self, day: date) -> float:
        share = (day - self.first).days / max((self.last - self.first).days, 1)
        return LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)


def _row(answer: LegalAnswer, name: str, i: int, scale: _Scale) -> Iterator[str]:
    """Yield the name of a device and a bar for each policy that it has in turn."""
    y = TOP + ROW * i
    yield f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
    whole = answer.courses[name]
    policy = whole[0].before if whole else answer.verdicts[name][0].policy
    start = scale.first
    course = [c for c in whole if c.day <= scale.last]
    for change in course:
        if change.day > scale.first:
            yield from _bar(policy, start, change.day, y, scale)
            start = change.day
        policy = change.after
    yield from _bar(policy, start, scale.last, y, scale)
    yield from _marks(answer, name, y, scale)
    yield from _before_sale(answer.question.parts[name], y, scale)


def _bar(policy: str, start: date, end: date, y: int, scale: _Scale) -> Iterator[str]:
    x, width = scale(start), scale(end) - scale(start)
    yield (f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 2}" fill="{COLOURS[policy]}">'
           f"<title>{WORDS[policy]}: {start} to {end}</title></rect>")  # fmt: skip
    if width > 44:
        middle = x + width / 2
        yield (f'<text x="{middle:.1f}" y="{y + 12}" text-anchor="middle" fill="#333">'
               f"{WORDS[policy]}</text>")  # fmt: skip


def _marks(answer: LegalAnswer, name: str, y: int, scale: _Scale) -> Iterator[str]:
    """Write the marks of the table at the days asked: +, ! and ? as its legend says."""
    for verdict in answer.verdicts[name]:
        marks = marks_of(verdict)
        if marks:
            yield (f'<text x="{scale(verdict.day) + 3:.1f}" y="{y + 12}" font-weight="bold">'
                   f"{marks}<title>{escape('; '.join(verdict.doubts))}</title></text>")  # fmt: skip


def _before_sale(part: Part, y: int, scale: _Scale) -> Iterator[str]:
    """Fade what lies before a device's release."""
    months = (scale.last - scale.first).days // 30 + 1
    days = [scale.first + timedelta(days=30 * i) for i in range(months)]
    sold = next((day for day in days if part.on_sale(day)), scale.last)
    if sold > scale.first:
        yield (f'<rect x="{LEFT}" y="{y}" width="{scale(sold) - LEFT:.1f}" height="{ROW - 2}" '
               'fill="white" fill-opacity="0.72"/>')  # fmt: skip


def _axis(answer: LegalAnswer, scale: _Scale) -> Iterator[str]:
    bottom = TOP + ROW * len(answer.verdicts)
    for year in range(scale.first.year, scale.last.year + 2):
        day = date(year, 1, 1)
        if scale.first <= day <= scale.last:
            x = scale(day)
            yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom + 4}" stroke="#999"/>'
            yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{year}</text>'
    yield from _horizon(answer, scale, bottom)
    edge = -100.0
    level = 0
    for day in answer.question.days:
        x = scale(day)
        level = 1 - level if x - edge < 64 else 0
        edge = x
        yield (f'<line x1="{x:.1f}" y1="{TOP - 4}" x2="{x:.1f}" y2="{bottom}" stroke="#222" '
               'stroke-dasharray="3 3"/>')  # fmt: skip
        yield f'<text x="{x:.1f}" y="{TOP - 8 - 13 * level}" text-anchor="middle">{day}</text>'


def _horizon(answer: LegalAnswer, scale: _Scale, bottom: float) -> Iterator[str]:
    """Draw where the knowledge of rules ends; what lies beyond is hatched lightly."""
    until = answer.question.rules.checked_until
    if not scale.first <= until < scale.last:
        return
    x = scale(until)
    yield (f'<rect x="{x:.1f}" y="{TOP}" width="{scale(scale.last) - x:.1f}" height="{bottom - TOP}" '
           'fill="white" fill-opacity="0.5"/>')  # fmt: skip
    yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom + 26}" stroke="#b00"/>'
    yield (f'<text x="{x:.1f}" y="{bottom + 28}" text-anchor="end" fill="#b00">'
           f"rules known to {until}</text>")  # fmt: skip


def _legend(height: int) -> Iterator[str]:
    x = float(LEFT)
    for policy in (*POLICIES, "unknown"):
        yield f'<rect x="{x:.0f}" y="{height - 38}" width="12" height="12" fill="{COLOURS[policy]}"/>'
        yield f'<text x="{x + 16:.0f}" y="{height - 28}">{WORDS[policy]}</text>'
        x += 26 + 7.2 * len(WORDS[policy])
    marks = "+ by the destination's own rules, ! use, ? another reading"
    yield (f'<text x="{LEFT}" y="{height - 10}" fill="#666">Pale: before the release, or beyond the '
           f"known rules. {marks}. {NOTICE}</text>")  # fmt: skip

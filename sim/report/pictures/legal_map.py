"""The picture of `ersatz legal`: a row per device, coloured by its verdict over time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

from ersatz.sim.law.legal import LegalAnswer
from ersatz.sim.law.rule import POLICIES
from ersatz.sim.law.rules import NOTICE
from ersatz.sim.report.legal import WORDS, marks_of
from ersatz.sim.report.pictures.verdicts import Bar, Row, verdict_chart

MARGIN = timedelta(days=60)


def heat_map(answer: LegalAnswer) -> str:
    """Return a picture of every device's verdict from the first to the last day asked.

    A single day is shown with the whole of what the rules know. Nothing is drawn before a device's
    release. Days asked are dashed lines.
    """
    question = answer.question
    first, last = question.days[0] - MARGIN, question.days[-1] + MARGIN
    if len(question.days) == 1:
        first = question.rules.known_from
        last = max(question.rules.checked_until, question.days[0]) + MARGIN
    first = max(first, question.rules.known_from)
    last = max(last, first + MARGIN)
    names = sorted(answer.verdicts, key=lambda name: (question.parts[name].designer == "CN", name))
    rows = [_row(answer, name, first, last) for name in names]
    marks = (
        "+ by the destination's own rules, ! use, ? another reading"
        if any(r.marks for r in rows)
        else ""
    )
    note = ". ".join(part for part in (marks, NOTICE) if part)
    labels = {policy: WORDS[policy] for policy in (*POLICIES, "unknown")}
    return verdict_chart(question.question or _title(answer), rows, (first, last), labels, question.days,
                         question.rules.checked_until, note)  # fmt: skip


def _title(answer: LegalAnswer) -> str:
    return f"Verdicts for {answer.question.destination}, buyer: {answer.question.buyer}"


def _row(answer: LegalAnswer, name: str, first: date, last: date) -> Row:
    sold = _sold(answer, name, first, last)
    marks = tuple((v.day, text, "; ".join(v.doubts)) for v in answer.verdicts[name]
                  if v.day >= sold and (text := marks_of(v)))  # fmt: skip
    bars = tuple(bar for bar in _bars(answer, name, first, last) if bar.end > sold)
    if bars and bars[0].start < sold:
        b = bars[0]
        bars = (Bar(sold, b.end, b.policy, b.rules), *bars[1:])
    return Row(name, bars, marks)


def _bars(answer: LegalAnswer, name: str, first: date, last: date) -> Iterator[Bar]:
    """Yield a bar for each policy that a device has in turn."""
    whole = answer.courses[name]
    policy = whole[0].before if whole else answer.verdicts[name][0].policy
    start, rules, changed = first, answer.verdicts[name][0].rule_ids if not whole else (), False
    for change in whole:
        if change.day > last:
            break
        if change.day > first:
            yield Bar(start, change.day, policy, rules, changed)
            start, changed = change.day, True
        policy, rules = change.after, change.rules
    yield Bar(start, last, policy, rules, changed)


def _sold(answer: LegalAnswer, name: str, first: date, last: date) -> date:
    """Return the day from which a device is on sale, within the picture, to the month."""
    part = answer.question.parts[name]
    months = (last - first).days // 30 + 1
    days = [first + timedelta(days=30 * i) for i in range(months)]
    return next((day for day in days if part.on_sale(day)), last)

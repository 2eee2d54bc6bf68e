"""Pictures that `ersatz buy --out` writes: the fleet as it grows, the fan, the tornado, maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import partial

import numpy as np

from ersatz.sim.options.answer import Told
from ersatz.sim.options.file import Comparison
from ersatz.sim.options.other_files import Ramped, Stocked
from ersatz.sim.options.questions import written
from ersatz.sim.purchase.answer import Answered
from ersatz.sim.purchase.buildout import MONTH_DAYS, Answer, BuildOut
from ersatz.sim.purchase.life.chance import fan
from ersatz.sim.purchase.life.replay import Replayed
from ersatz.sim.report.buying.words import bought, money
from ersatz.sim.report.pictures.charts import (
    band_chart,
    line_chart,
    map_chart,
    panels,
    point_chart,
    stack_chart,
    tornado_chart,
)
from ersatz.sim.report.pictures.frame import Points, frame_of
from ersatz.sim.report.pictures.verdicts import Bar, Row, verdict_chart

LABELS = {"free": "free", "notify": "free after a notice", "case": "licence, case by case",
          "denied": "denied"}  # fmt: skip


def buy_pictures(answers: Sequence[Answered]) -> dict[str, str]:
    """Return the pictures of every case by file name."""
    files: dict[str, str] = {}
    for answered in answers:
        name, b = answered.inquiry.name, answered.inquiry.buildout
        lives = {"planned": answered.quiet, "came": answered.life,
                 "anew": answered.renewed.life if answered.renewed else None}  # fmt: skip
        for kind, life in lives.items():
            if life is not None:
                files[f"{name}-fleet-{kind}.svg"] = _fleet(b, life, answered)
        if answered.cloud is not None:
            files[f"{name}-fan.svg"] = _fan(answered)
        if answered.swings:
            files[f"{name}-tornado.svg"] = _tornado(answered)
        if len(answered.front) > 1:
            files[f"{name}-front.svg"] = _front(answered)
        files[f"{name}-legal.svg"] = _legal(answered)
    return files


def _dates(b: BuildOut, months: int) -> list[tuple[float, str]]:
    step = max(months // 6, 1)
    return [(float(m), f"{b.day(m):%Y-%m}") for m in range(0, months + 1, step)]


def _fleet(b: BuildOut, life: Replayed, answered: Answered) -> str:
    """Working devices of each kind, stacked, with the events and the end of the job."""
    months = len(life.fleet) - 1
    layers: dict[str, Points] = {
        offer.name: [(float(m), float(n)) for m, n in enumerate(life.fleet[:, d])]
        for d, offer in enumerate(b.offers) if life.fleet[:, d].any()
    }  # fmt: skip
    marks = {event.label or event.kind: event.day / MONTH_DAYS for event in answered.inquiry.events
             if event.day > 0 and event.day / MONTH_DAYS <= months}  # fmt: skip
    if math.isfinite(life.finish):
        marks["trained"] = life.finish
    top = [(float(m), float(n)) for m, n in enumerate(life.fleet.sum(axis=1))]
    frame = frame_of(
        f"Working devices: {answered.inquiry.name}", "", "devices", [top], _dates(b, months)
    )
    return stack_chart(frame, layers, marks)


def _fan(answered: Answered) -> str:
    """Devices that work in most lives, and in which share of the lives there are any at all."""
    cloud, b = answered.cloud, answered.inquiry.buildout
    assert cloud is not None
    low, middle, high = ([(float(m), float(n)) for m, n in enumerate(row)]
                         for row in fan(cloud.fleet.sum(axis=2)))  # fmt: skip
    dates = _dates(b, len(middle) - 1)
    frame = frame_of(
        "Working devices, 10 to 90 % of the lives", "", "devices", [low, middle, high], dates
    )
    there = [(float(m), float(n)) for m, n in enumerate((cloud.fleet.sum(axis=2) > 0).mean(axis=0))]
    below = frame_of(
        "Lives in which any device works", "", "share of lives", [there, [(0.0, 1.0)]], dates
    )
    title = f"{answered.inquiry.name}: {answered.inquiry.draws} lives"
    share = line_chart(replace(below, height=240), {"share of lives": there}, steps=True)
    return panels(title, [band_chart(frame, low, middle, high), share])


def _tornado(answered: Answered) -> str:
    kind, b = answered.inquiry.outcome, answered.inquiry.buildout
    bars = [(s.name.replace("_", " "), s.at_low, s.at_high) for s in answered.swings]
    ends = {s.name.replace("_", " "): (f"{s.low:g}", f"{s.high:g}") for s in answered.swings}
    middle = float(np.median([v for s in answered.swings for v in (s.at_low, s.at_high)]))
    unit = {"finish": "months to train", "cost": f"cost in {b.currency}",
            "delivered": "devices delivered"}[kind]  # fmt: skip

    def form(value: float) -> str:
        if kind == "finish" and value >= 2 * b.months:
            return "not done"
        return (
            money(b, value)
            if kind == "cost"
            else f"{value:,.3g}"
            if value < 1e3
            else f"{value:,.0f}"
        )

    return tornado_chart(f"What matters: {answered.inquiry.name}", unit, bars, middle, ends, form)


def _front(answered: Answered) -> str:
    b = answered.inquiry.buildout
    points = {bought(b, plan): (float(plan.months), plan.cost) for plan in answered.front}
    frame = frame_of("No other plan is both faster and cheaper", "months until all is trained", b.currency,
                     [list(points.values())], zero=False)  # fmt: skip
    across, up = (
        (low - 0.09 * (high - low), high + 0.04 * (high - low)) for low, high in (frame.x, frame.y)
    )
    return point_chart(replace(frame, x=across, y=up), points, joined=True)


def _legal(answered: Answered) -> str:
    """Verdict of each offer and site over the days of the plan, each change to the day."""
    from ersatz.sim.purchase.events import with_embargoes

    b = answered.inquiry.buildout
    gate = with_embargoes(answered.inquiry.gate, answered.inquiry.events, b.start)
    last = b.day(b.months)
    rows = []
    for offer in b.offers:
        for site in b.sites:
            name = f"{offer.name} {site.name}" if len(b.sites) > 1 else offer.name
            rows.append(
                Row(
                    name,
                    tuple(_course(partial(gate, offer, site), b.start, last)),
                )
            )
    title = f"{answered.inquiry.name}: what may leave, by day of export"
    return verdict_chart(title, rows, (b.start, last), LABELS)


def _course(asked: Callable[[date], Answer], first: date, last: date) -> Iterator[Bar]:
    """Yield a bar for each answer in turn."""
    start, now = first, asked(first)
    for ordinal in range(first.toordinal() + 1, last.toordinal()):
        day = date.fromordinal(ordinal)
        found = asked(day)
        if found.policy != now.policy:
            yield Bar(start, day, now.policy, now.rules, start > first)
            start, now = day, found
    yield Bar(start, last, now.policy, now.rules, start > first)


def comparison_pictures(answers: Sequence[tuple[Comparison, tuple[Told, ...]]]) -> dict[str, str]:
    """Return a picture of every sweep, tornado and map."""
    files = {}
    for comparison, told in answers:
        for i, one in enumerate(told):
            picture = _comparison_picture(comparison, one)
            if picture:
                files[f"{comparison.name}-{i + 1}-{one.ask.kind}.svg"] = picture
    return files


def _comparison_picture(c: Comparison, told: Told) -> str:
    s, name = told.ask.section, str(told.ask.section.input)
    if told.table:
        lines: dict[str, Points] = {option: list(zip(told.ask.values, map(float, costs), strict=True))
                                    for option, costs in told.table.items()}  # fmt: skip
        names = [(v, written(v, name, c.currency)) for v in told.ask.values]
        kept = names[:: len(names) // 7 + 1]
        return line_chart(
            frame_of("Cost per 1e12 tokens", name, c.currency, list(lines.values()), kept), lines
        )
    if told.swings:
        scale = 3600.0 if name.endswith(".rent") else 1.0
        bars = [(w.name, w.at_low * scale, w.at_high * scale) for w in told.swings]
        unit = f" in {c.currency}/h" if name.endswith(".rent") else ""
        what = (
            f"break-even of {name}{unit}" if s.input else "cost of the first / cost of the second"
        )
        return tornado_chart(
            "What matters", what, bars, told.value * scale, form=lambda v: f"{v:.3g}"
        )
    if told.grid:
        columns = [written(v, name, c.currency) for v in told.ask.values]
        rows = [written(v, str(s.rows), c.currency) for v in told.ask.row_values]
        return map_chart("The cheapest option", name, str(s.rows), columns, rows, told.grid)
    return ""


def stockpile_pictures(cases: Sequence[Stocked]) -> dict[str, str]:
    """Return the expected cost over the months that are bought ahead."""
    lines: dict[str, Points] = {
        case.name: [(float(m), float(v)) for m, v in enumerate(case.answer.expected)]
        for case in cases
    }
    frame = frame_of("Expected cost by months bought ahead", "months of need bought now",
                     cases[0].currency, list(lines.values()), zero=False)  # fmt: skip
    regret = {case.name: case.answer for case in cases}
    files = {"expected.svg": line_chart(frame, lines)}
    for name, answer in regret.items():
        curves: dict[str, Points] = {
            f"{choice} months": list(zip(map(float, answer.cutoffs), map(float, row), strict=True))
            for choice, row in zip(answer.choices, answer.regret, strict=True)
        }
        title = f"Regret by month of the cut-off: {name}"
        shown = frame_of(title, "month of the cut-off", cases[0].currency, list(curves.values()))
        files[f"{name}-regret.svg"] = line_chart(shown, curves)
    return files


def ramp_pictures(cases: Sequence[Ramped]) -> dict[str, str]:
    """Return devices per month, stacked by what binds."""
    files = {}
    for case in cases:
        kinds = list(dict.fromkeys(month.binding for month in case.months))
        layers: dict[str, Points] = {
            kind: [
                (float(i), m.units if m.binding == kind else 0.0) for i, m in enumerate(case.months)
            ]
            for kind in kinds
        }
        step = max(len(case.months) // 6, 1)
        names = [(float(i), m.month) for i, m in enumerate(case.months)][::step]
        top = [(float(i), m.units) for i, m in enumerate(case.months)]
        frame = frame_of(
            f"Devices a month, by what binds: {case.name}", "", "devices", [top], names
        )
        files[f"{case.name}-ramp.svg"] = stack_chart(frame, layers)
    return files

"""The report of `ersatz buy` for a build-out: the answer first, then why, then what was assumed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.text.units import format_si
from ersatz.sim.purchase.answer import Answered
from ersatz.sim.purchase.buildout import works_from
from ersatz.sim.purchase.decide import done_by
from ersatz.sim.purchase.life.chance import fan
from ersatz.sim.purchase.life.replay import LogLine, Replayed
from ersatz.sim.purchase.reading.reading import unobserved
from ersatz.sim.report.buying.needs import need_lines
from ersatz.sim.report.buying.words import (
    NOTICE,
    band,
    bought,
    disturbed,
    money,
    months_text,
    savings,
    sentences,
    spent,
)

MOST_LINES = 12


def render_buy(answers: Sequence[Answered]) -> RenderableType:
    """Return the report of one file: a sentence per case, the cases side by side, each in turn."""
    parts: list[RenderableType] = [Text(answers[0].inquiry.buildout.question, style="bold")]
    said = ""
    for answered in answers:
        plan, came = sentences(answered)
        name = f"{answered.inquiry.name}: " if len(answers) > 1 else ""
        changed = said and answered.flips  # other rules: told by what they turn, not by their plan
        if (plan != said and not changed) or not came:
            parts.append(Text(f"{name}{plan}"))
            name = "  "
        parts += [Text(f"{name}{came}")] if came else []
        said = plan
    if len(answers) > 1:
        parts += [Text(""), _summary(answers), *_savings(answers)]
    for answered in answers:
        parts += _case(answered, titled=len(answers) > 1)
    parts += [Text(""), Text(NOTICE, style="dim")]
    return Group(*parts)


def _summary(answers: Sequence[Answered]) -> Table:
    """The cases below one another: what the buyer ends up with."""
    table = _table(
        "case",
        "trained after",
        "money",
        "per 1e12 tokens",
        "carbon",
        "delivered",
        "stopped",
        width=12,
    )
    for answered in answers:
        b, life = answered.inquiry.buildout, answered.final
        if life is None:
            table.add_row(answered.inquiry.name, "no plan")
            continue
        tokens = math.fsum(job.tokens for job in b.jobs)
        table.add_row(answered.inquiry.name, months_text(life.finish), money(b, spent(b, life)),
                      money(b, spent(b, life) / tokens * 1e12), f"{life.carbon_kg / 1e3:,.0f} t CO2",
                      f"{life.delivered.sum():,.0f}", f"{life.blocked.sum():,.0f}")  # fmt: skip
    return table


def _savings(answers: Sequence[Answered]) -> Iterator[RenderableType]:
    """How likely each case is cheaper than the first, and by how much."""
    found = savings(answers)
    if not found:
        return
    yield Text("")
    asked = f"at least {100 * answers[0].inquiry.saving:.0f} %"
    table = _table(f"saved per token against {found[0].against}", "middle", "80 % interval",
                   "cheaper at all", asked)  # fmt: skip
    for s in found:
        table.add_row(s.case, _saved(s.mid), f"{_saved(s.low)} to {_saved(s.high)}",
                      f"{100 * s.any:.0f} % of lives", f"{100 * s.enough:.0f} % of lives")  # fmt: skip
    yield table
    yield Text("")
    yield from (Text(line) for line in need_lines(answers))


def _saved(share: float) -> str:
    return f"{100 * share:.0f} %" if math.isfinite(share) else "not done"


def _case(answered: Answered, *, titled: bool) -> list[RenderableType]:
    parts: list[RenderableType] = [Text("")]
    if titled:
        parts += [Text(f"== {answered.inquiry.name} ==", style="bold"), Text("")]
    if answered.plan is None:
        parts += [Text("no plan satisfies the limits; each of these alone would help:")]
        parts += [Text(f"  {remedy.text}") for remedy in answered.remedies] or [Text("  none")]
        return [*parts, Text(""), _verdicts(answered), *_assumed(answered)]
    parts += [_lives(answered), Text(""), _orders(answered), Text(""), _split(answered)]
    parts += [
        *_turns(answered),
        *_front(answered),
        *_fan(answered),
        *_tornado(answered),
        Text(""),
        _verdicts(answered),
    ]
    parts += [*_log(answered), *_flips(answered), *_assumed(answered)]
    return parts


def _table(title: str, *columns: str, width: int = 30) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, min_width=width)
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def columns_of(answered: Answered) -> dict[str, Replayed]:
    """Return the lives to be shown side by side by name."""
    found = {"as planned": answered.quiet}
    if disturbed(answered):
        found["as things came"] = answered.life
    if answered.renewed:
        found["planned anew"] = answered.renewed.life
    return {name: life for name, life in found.items() if life}


def _lives(answered: Answered) -> Table:
    b, lives = answered.inquiry.buildout, columns_of(answered)
    table = _table("", *lives)
    tokens = math.fsum(job.tokens for job in b.jobs)

    def row(label: str, form: Any) -> None:
        table.add_row(label, *(form(life) for life in lives.values()))

    row("time to train", lambda x: months_text(x.finish))
    for i, job in enumerate(b.jobs if len(b.jobs) > 1 else ()):
        row(f"  {job.name}", lambda x, i=i: months_text(x.finish_months[i]))
    row(
        "money" + (", less what is left" if b.count == "use" else ""),
        lambda x: money(b, spent(b, x)),
    )
    row("  per 1e12 tokens", lambda x: money(b, spent(b, x) / tokens * 1e12))
    row("device-hours in use", lambda x: f"{x.device_hours:,.0f}")
    row("energy", lambda x: format_si(x.kwh * 1e3, "Wh"))
    row("carbon", lambda x: f"{x.carbon_kg / 1e3:,.0f} t CO2")
    row("devices delivered", lambda x: f"{x.delivered.sum():,.0f}")
    row("devices stopped, seized", lambda x: f"{x.blocked.sum():,.0f}, {x.seized.sum():,.0f}")
    row("devices failed for good", lambda x: f"{x.lost.sum():,.0f}")
    if answered.spread:
        ends = (answered.spread.get(name) for name in lives)
        table.add_row("  80 % by the speed alone", *(_ends(pair) for pair in ends))
    first = answered.shadows[0] if answered.shadows else None
    table.add_row("binding; 10 % (a month) more saves",
                  f"{first.constraint}, {money(b, first.saving)}" if first else "none")  # fmt: skip
    if answered.cloud is not None:
        table.add_row("trained after", band(answered))
        kept = done_by(b, answered.cloud)
        for job, share in zip(b.jobs, kept, strict=True):
            of = f"{job.name} " if len(b.jobs) > 1 else ""
            table.add_row(
                f"{of}done within {job.deadline:.3g} months", f"{100 * share:.0f} % of the lives"
            )
    return table


def _ends(pair: tuple[float, float] | None) -> str:
    """Write both ends of an interval of months."""
    if pair is None:
        return ""
    low, high = (months_text(end) for end in pair)
    return f"{low.removesuffix(' months')} to {high}" if "not" not in low else low


def _orders(answered: Answered) -> Table:
    b, plan = answered.inquiry.buildout, answered.plan
    assert plan is not None
    table = _table("what to buy", "ordered", "site", "nodes", "devices", "money", "works from")
    lines = []
    for d, s, t in zip(*np.nonzero(plan.orders), strict=True):
        offer, nodes = b.offers[d], plan.orders[d, s, t]
        lines.append((int(t), offer.name, [
            f"{b.day(int(t))}", b.sites[s].name, f"{nodes:,.0f}", f"{nodes * offer.per_node:,.0f}",
            money(b, float(nodes * answered.problem.price[d, s, t])),
            f"{works_from(b, answered.inquiry.foreseen, offer, b.sites[s], int(t))}"]))  # fmt: skip
    lines.sort(key=lambda line: (line[0], line[1]))
    for _, name, cells in lines[:MOST_LINES]:
        table.add_row(name, *cells)
    if len(lines) > MOST_LINES:
        table.add_row(f"and {len(lines) - MOST_LINES} more orders (--json lists all)")
    for d, offer in enumerate(b.offers):
        for s, site in enumerate(b.sites):
            nodes, months = plan.hired(d, s)
            if nodes:
                table.add_row(f"{offer.name}, rented", f"{months:.3g} months", site.name,
                              f"{nodes:,.0f}", f"{nodes * offer.per_node:,.0f}")  # fmt: skip
    return table


def _split(answered: Answered) -> Table:
    b, lives = answered.inquiry.buildout, columns_of(answered)
    table = _table("where the money goes", *lives)
    for part in next(iter(lives.values())).cost:
        amounts = [life.cost[part] for life in lives.values()]
        if any(amounts):
            table.add_row(part, *(f"{money(b, amount)} {_share(amount, life.total)}"
                                  for amount, life in zip(amounts, lives.values(), strict=True)))  # fmt: skip
    if b.count == "use" and any(life.left for life in lives.values()):
        table.add_row(
            "left in the machines", *(f"{money(b, -x.left)}       " for x in lives.values())
        )
    return table


def _share(amount: float, total: float) -> str:
    return f"{100 * amount / total:5.1f} %" if total else ""


def _turns(answered: Answered) -> Iterator[RenderableType]:
    """What would turn the answer, a line each."""
    if answered.turns:
        yield Text("")
        yield Text("what turns this answer (each alone, nodes taken as divisible):")
        yield from (Text(f"- {turn.text}") for turn in answered.turns)
    if answered.in_time is not None:
        yield Text(
            f"- all deadlines are kept with {100 * answered.in_time:.0f} %, by the speed alone"
        )


def _front(answered: Answered) -> Iterator[RenderableType]:
    b = answered.inquiry.buildout
    if not answered.front:
        return
    yield Text("")
    table = _table(
        "no other plan is both faster and cheaper", "done by month", "money", "per 1e12 tokens"
    )
    tokens = math.fsum(job.tokens for job in b.jobs)
    for plan in answered.front:
        table.add_row(bought(b, plan), f"{plan.months}", money(b, plan.cost),
                      money(b, plan.cost / tokens * 1e12))  # fmt: skip
    yield table


def _fan(answered: Answered) -> Iterator[RenderableType]:
    b, cloud = answered.inquiry.buildout, answered.cloud
    if cloud is None:
        return
    yield Text("")
    title = f"working devices in {answered.inquiry.draws} lives"
    table = _table(title, "10 %", "50 %", "90 %", "tokens (50 %)", "lives with any")
    devices = fan(cloud.fleet.sum(axis=2))
    work = fan(cloud.work.sum(axis=2))[1]
    there = (cloud.fleet.sum(axis=2) > 0).mean(axis=0)
    months = min(len(work) - 1, b.months)
    for month in sorted({round(i * months / 9) for i in range(10)}):
        table.add_row(f"{b.day(month):%Y-%m}", *(f"{devices[level, month]:,.0f}" for level in range(3)),
                      f"{work[month] / 1e12:.2f} T", f"{100 * there[month]:.0f} %")  # fmt: skip
    yield table


def _tornado(answered: Answered) -> Iterator[RenderableType]:
    if not answered.swings:
        return
    yield Text("")
    kind = answered.inquiry.outcome
    unit = {"finish": "months", "cost": answered.inquiry.buildout.currency, "delivered": "devices"}[
        kind
    ]
    table = _table(f"what matters for {'the time' if kind == 'finish' else kind} ({unit})", "from", "to",
                   "at low", "at high")  # fmt: skip
    for swing in answered.swings:
        ends = (_plain(value, kind, answered) for value in (swing.at_low, swing.at_high))
        table.add_row(swing.name.replace("_", " "), f"{swing.low:g}", f"{swing.high:g}", *ends)
    yield table


def _plain(value: float, kind: str, answered: Answered) -> str:
    if kind == "cost":
        return money(answered.inquiry.buildout, value)
    if kind == "finish" and value >= 2 * answered.inquiry.buildout.months:
        return "not done"
    return f"{value:,.1f}" if kind == "finish" else f"{value:,.0f}"


def _verdicts(answered: Answered) -> Table:
    """What the gate says of every offer; rows that say the same of all sites are one."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for v in answered.verdicts:
        key = (v.offer, f"{v.leaves}", v.policy, ", ".join(v.rules) or "-", v.words)
        rows.setdefault(key, []).append(v.site)
    lines = [(o, ", ".join(sites), *rest) for (o, *rest), sites in rows.items()]
    titles = ("if ordered at the start", "site", "leaves", "verdict", "rules", "why")
    table = Table(box=None, pad_edge=False)
    for title in titles:  # rules and reasons are folded, never cut
        short = title in ("site", "leaves", "verdict")
        table.add_column(title, no_wrap=short, overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


def _log(answered: Answered) -> Iterator[RenderableType]:
    b, life = answered.inquiry.buildout, answered.final
    if life is None or answered.life is None:
        return
    lines = _notable(life.log)
    if answered.renewed:  # what was stopped before the plan was made anew
        lines = [*(x for x in _notable(answered.life.log) if x.outcome == "stopped"), *lines]
    if not lines:
        return
    yield Text("")
    table = Table(box=None, pad_edge=False)
    for title in ("legality log", "device", "site", "nodes", "outcome", "rules"):
        table.add_column(title, overflow="fold", justify="right" if title == "nodes" else "left")
    for line in lines[:MOST_LINES]:
        table.add_row(f"{b.date_at(line.day)}", line.offer, line.site, f"{line.nodes:,.0f}", line.outcome,
                      ", ".join(line.rules) or "-")  # fmt: skip
    if len(lines) > MOST_LINES:
        table.add_row(f"and {len(lines) - MOST_LINES} more")
    yield table


def _flips(answered: Answered) -> Iterator[RenderableType]:
    if not answered.flips:
        return
    yield Text("")
    table = Table(box=None, pad_edge=False)
    for title in ("changed rules turn", "from", "to"):
        table.add_column(title)
    for flip in answered.flips:
        table.add_row(flip.device, flip.before.replace("_", " "), flip.after.replace("_", " "))
    yield table


def _notable(log: Sequence[LogLine]) -> list[LogLine]:
    """Put what did not simply arrive first, each group by day."""
    return sorted(log, key=lambda line: (line.outcome == "delivered", line.day, line.offer))


def _assumed(answered: Answered) -> Iterator[RenderableType]:
    notes = answered.inquiry.assumptions
    if not notes:
        return
    yield Text("")
    guesses = unobserved(notes)
    of = f" ({guesses} of {len(notes)} rest on no observation)" if guesses else ""
    yield Text(f"assumed, because the scenario or the public record is silent{of}:")
    for number, text in enumerate(notes[:MOST_LINES], start=1):
        yield Text(f" {number:2}. {text}")
    if len(notes) > MOST_LINES:
        yield Text(f"     and {len(notes) - MOST_LINES} more (--json lists all)")

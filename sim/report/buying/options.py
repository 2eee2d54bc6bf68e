"""The report of `ersatz buy` for options side by side: a sentence per question, then the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.text.units import format_money, format_share, format_si
from ersatz.sim.options.answer import Told
from ersatz.sim.options.file import Comparison
from ersatz.sim.options.questions import written
from ersatz.sim.report.buying.words import NOTICE
from ersatz.sim.report.json_out import plain

Answers = Sequence[tuple[Comparison, tuple[Told, ...]]]


def render_comparisons(answers: Answers) -> RenderableType:
    """Return the report of one file: question, a sentence per answer, then what is behind them."""
    parts: list[RenderableType] = [Text(answers[0][0].question, style="bold")]
    titled = len(answers) > 1
    for comparison, told in answers:
        name = f"{comparison.name}: " if titled else ""
        said = (sentence(comparison, one) for one in told)
        parts += [Text(f"{name}{words}") for words in said if words]
    for comparison, told in answers:
        parts += [Text("")]
        parts += [Text(f"== {comparison.name} ==", style="bold"), Text("")] if titled else []
        for one in told:
            tables = list(_TABLES[one.ask.kind](comparison, one))
            parts += [*tables, Text("")] if tables else []
        work = comparison.setting.work
        parts += [
            _inputs(comparison),
            Text(f"work: {work.tokens / 1e12:g} T tokens of {work.flop_per_token:.4g} FLOP"),
        ]
    parts += [Text(""), Text(NOTICE, style="dim")]
    return Group(*parts)


def comparison_record(answers: Answers) -> dict[str, Any]:
    """Return all cases by name, each with its answers as records."""
    cases = {}
    for comparison, told in answers:
        rows = []
        for one in told:
            row = {k: v for k, v in plain(one).items() if k not in ("ask", "drawn", "verdicts")}
            row |= {"kind": one.ask.kind, "input": one.ask.section.input, "values": list(one.ask.values),
                    "sentence": sentence(comparison, one)}  # fmt: skip
            row["table"] = {k: [float(x) for x in v] for k, v in one.table.items()}
            row["verdicts"] = {
                n: {"policy": v.policy, "rules": list(v.rule_ids)} for n, v in one.verdicts.items()
            }
            if one.drawn.size:
                row["quantiles"] = [float(q) for q in np.quantile(one.drawn, (0.1, 0.5, 0.9))]
            rows.append(row)
        cases[comparison.name] = {"currency": comparison.currency, "answers": rows}
    return {"question": answers[0][0].question, "notice": NOTICE, "cases": cases}


def sentence(comparison: Comparison, told: Told) -> str:
    """Say the answer to one question in a sentence."""
    return str(_SENTENCES[told.ask.kind](comparison, told))


def _say_cost(c: Comparison, told: Told) -> str:
    ranked = sorted(told.costs.items(), key=lambda item: item[1].per_trillion)
    words = [f"{name} {format_money(cost.per_trillion, c.currency)}" for name, cost in ranked]
    most = ranked[-1][1].per_trillion
    saving = 1.0 - ranked[0][1].per_trillion / most if most else 0.0
    return f"Per 1e12 tokens: {', '.join(words)}; {100 * saving:.1f} % between first and last."


def _say_sweep(c: Comparison, told: Told) -> str:
    name = str(told.ask.section.input)
    if not told.reached:
        return ""
    words = [
        f"{option} {written(value, name, c.currency)}" for option, value in told.reached.items()
    ]
    return f"The stated costs are reached at {name.partition('.')[2]}: {', '.join(words)}."


def _say_break_even(c: Comparison, told: Told) -> str:
    s = told.ask.section
    at, now = (written(v, str(s.input), c.currency) for v in (told.value, told.now))
    owner, _, key = str(s.input).partition(".")
    whose = {"*": "", "work": "", str(s.option): "its "}.get(owner, f"{owner}'s ")
    what = f"{whose}{key.replace('_', ' ')}"
    return f"{s.option} costs as much as {s.against} where {what} is {at} (here {now})."


def _say_tornado(c: Comparison, told: Told) -> str:
    first = told.swings[0]
    ends = [_outcome(c, told, v) for v in (first.at_low, first.at_high)]
    what = "the break-even" if told.ask.section.input else "the ratio of costs"
    return (f"What moves {what} most is {first.name}: {ends[0]} to {ends[1]} instead of"
            f" {_outcome(c, told, told.value)}.")  # fmt: skip


def _outcome(c: Comparison, told: Told, value: float) -> str:
    name = told.ask.section.input
    return written(value, name, c.currency) if name else f"{value:.3f}"


def _say_map(c: Comparison, told: Told) -> str:
    cells = [cell for row in told.grid for cell in row]
    counts = {name: cells.count(name) for name in c.setting.options}
    words = [f"{name} in {count} of {len(cells)}" for name, count in counts.items() if count]
    ways = f"{told.ask.section.input} and {told.ask.section.rows}"
    return f"Cheapest on the map of {ways}: {', '.join(words)}{_edge(c, told)}."


def _edge(c: Comparison, told: Told) -> str:
    """Say where, in the first row, the winner changes."""
    row = told.grid[0]
    change = next((i for i in range(1, len(row)) if row[i] != row[i - 1]), None)
    if change is None:
        return ""
    name = str(told.ask.section.input)
    below, above = (written(told.ask.values[i], name, c.currency) for i in (change - 1, change))
    first = written(told.ask.row_values[0], str(told.ask.section.rows), c.currency)
    return f"; at {told.ask.section.rows} {first} it turns between {below} and {above}"


def _say_mixed(c: Comparison, told: Told) -> str:
    by_speed, equal, loose = told.splits
    more = 100 * (equal.hours / by_speed.hours - 1)
    tail = f"; {loose.name} {loose.hours:.1f} h" if told.ask.jitter else ""
    fast, slow = (format_money(way.cost, c.currency) for way in (by_speed, equal))
    first = f"With a scatter of {100 * told.ask.jitter:g} %: by" if told.ask.jitter else "By"
    return (f"{first} speed {by_speed.hours:.1f} h and {fast}, equal split {equal.hours:.1f} h and {slow}:"
            f" {more:+.0f} %{tail}.")  # fmt: skip


def _say_fan(c: Comparison, told: Told) -> str:
    s = told.ask.section
    low, middle, high = np.quantile(told.drawn, (0.1, 0.5, 0.9))
    return (f"{s.option} is cheaper than {s.against} in {100 * (told.drawn < 0).mean():.0f} % of draws:"
            f" {middle:+.2f} {c.currency} per device-hour ({low:+.2f} to {high:+.2f}).")  # fmt: skip


def _say_legal(c: Comparison, told: Told) -> str:
    good = [n for n, v in told.verdicts.items() if v.may_buy]
    ask = [n for n, v in told.verdicts.items() if v.may_apply]
    bad = [f"{n} ({', '.join(v.rule_ids)})" for n, v in told.verdicts.items()
           if not v.may_buy and not v.may_apply]  # fmt: skip
    words = [f"legal {', '.join(good) or 'nothing'}"]
    words += [f"by licence {', '.join(ask)}"] if ask else []
    words += [f"not {', '.join(bad)}"] if bad else []
    return f"On {told.ask.section.date}: {'; '.join(words)}."


_SENTENCES: dict[str, Callable[[Comparison, Told], str]] = {
    "cost": _say_cost, "sweep": _say_sweep, "break_even": _say_break_even, "tornado": _say_tornado,
    "map": _say_map, "mixed": _say_mixed, "fan": _say_fan, "legal": _say_legal,
}  # fmt: skip


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _cost_table(c: Comparison, told: Told) -> Iterator[RenderableType]:
    table = _table(
        "", "device-hours", "days", "cost", "per 1e12 tokens", "per hour", "energy", "carbon"
    )
    for name, cost in told.costs.items():
        table.add_row(c.setting.options[name].title, f"{cost.device_hours:,.0f}", f"{cost.days:,.1f}",
                      format_money(cost.total, c.currency), format_money(cost.per_trillion, c.currency),
                      f"{cost.per_hour:.2f}", format_si(cost.kwh * 1e3, "Wh") if cost.kwh else "-",
                      f"{cost.carbon_kg / 1e3:,.0f} t" if cost.kwh else "-")  # fmt: skip
    yield table
    yield Text("")
    parts = list(dict.fromkeys(part for cost in told.costs.values() for part in cost.parts))
    split = _table("where the money goes", *told.costs)
    for part in parts:
        split.add_row(part, *(format_share(cost.parts.get(part, 0.0), cost.total)
                              for cost in told.costs.values()))  # fmt: skip
    yield split


def _sweep_table(c: Comparison, told: Told) -> Iterator[RenderableType]:
    name = str(told.ask.section.input)
    table = _table(f"cost per 1e12 tokens over {name}", *told.table)
    for i, value in enumerate(told.ask.values):
        costs = (format_money(float(row[i]), c.currency) for row in told.table.values())
        table.add_row(written(value, name, c.currency), *costs)
    yield table


def _tornado_table(c: Comparison, told: Told) -> Iterator[RenderableType]:
    table = _table("one input at a time", "from", "to", "at low", "at high")
    for swing in told.swings:
        table.add_row(swing.name, *(written(v, swing.name, c.currency) for v in (swing.low, swing.high)),
                      *(_outcome(c, told, v) for v in (swing.at_low, swing.at_high)))  # fmt: skip
    yield table


def _map_table(c: Comparison, told: Told) -> Iterator[RenderableType]:
    s = told.ask.section
    table = _table(f"cheapest: {s.rows} down, {s.input} across",
                   *(written(v, str(s.input), c.currency) for v in told.ask.values))  # fmt: skip
    for value, row in zip(told.ask.row_values, told.grid, strict=True):
        table.add_row(written(value, str(s.rows), c.currency), *row)
    yield table


def _mixed_table(c: Comparison, told: Told) -> Iterator[RenderableType]:
    names = list(told.splits[0].utilisation)
    table = _table("how the batch is split", "hours", "cost", *(f"{n} in use" for n in names), "")
    for split in told.splits:
        bar = "#" * round(24 * min(split.utilisation.values()))
        table.add_row(split.name, f"{split.hours:.1f}", format_money(split.cost, c.currency),
                      *(f"{100 * split.utilisation[n]:.1f} %" for n in names), bar)  # fmt: skip
    yield table


def _fan_table(c: Comparison, told: Told) -> Iterator[RenderableType]:
    s = told.ask.section
    table = _table(
        f"{s.option} less {s.against}, {c.currency} per device-hour",
        "5 %",
        "25 %",
        "50 %",
        "75 %",
        "95 %",
    )
    table.add_row(
        f"{s.draws} draws",
        *(f"{q:+.3f}" for q in np.quantile(told.drawn, (0.05, 0.25, 0.5, 0.75, 0.95))),
    )
    yield table


def _legal_table(c: Comparison, told: Told) -> Iterator[RenderableType]:
    table = Table(box=None, pad_edge=False)
    for title in ("option", "device", "place", "verdict", "rules"):
        table.add_column(title)
    for name, verdict in told.verdicts.items():
        table.add_row(name, verdict.device, verdict.destination, verdict.policy.replace("_", " "),
                      ", ".join(verdict.rule_ids) or "-")  # fmt: skip
    yield table


def _no_table(c: Comparison, told: Told) -> Iterator[RenderableType]:
    return iter(())


_TABLES: dict[str, Callable[[Comparison, Told], Iterator[RenderableType]]] = {
    "cost": _cost_table, "sweep": _sweep_table, "break_even": _no_table, "tornado": _tornado_table,
    "map": _map_table, "mixed": _mixed_table, "fan": _fan_table, "legal": _legal_table,
}  # fmt: skip


def _inputs(c: Comparison) -> Table:
    """The numbers that the options go by: those that any of them states otherwise than by default."""
    from ersatz.sim.options.option import FIELDS

    options = c.setting.options
    table = _table("what is assumed of", *options)
    for key, (_, default, _) in FIELDS.items():
        values = [option[key] for option in options.values()]
        if any(value != default for value in values):
            table.add_row(
                key.replace("_", " "), *(written(v, f"x.{key}", c.currency) for v in values)
            )
    return table

"""The reports of `ersatz buy` for stockpiles and for domestic production."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.text.units import format_money
from ersatz.sim.options.other_files import Ramped, Stocked
from ersatz.sim.options.stockpile import cut_off_before
from ersatz.sim.report.buying.words import NOTICE
from ersatz.sim.report.json_out import plain

MOST_MONTHS = 30


def render_stockpiles(cases: Sequence[Stocked]) -> RenderableType:
    """Return the report: how much to buy ahead, and the regret against each date of the cut-off."""
    parts: list[RenderableType] = [Text(cases[0].question, style="bold")]
    parts += [Text(stockpile_sentence(case, len(cases) > 1)) for case in cases]
    for case in cases:
        parts += [Text(""), _regret(case), Text(""), Text(_expected(case))]
    said = dict.fromkeys(note for case in cases for note in case.assumptions)
    parts += [Text(""), *(Text(f"assumed: {note}") for note in said)] if said else []
    return Group(*parts, Text(""), Text(NOTICE, style="dim"))


def stockpile_sentence(case: Stocked, titled: bool) -> str:
    """Say what to buy now."""
    answer, stock = case.answer, case.stock
    saving = answer.expected[0] - answer.expected[answer.best]
    name = f"{case.name}: " if titled else ""
    risk = 100 * cut_off_before(stock, 12)
    money = format_money(saving, case.currency)
    return (f"{name}buy {answer.nodes:,.0f} nodes now, for {answer.best} of {stock.months} months; saves"
            f" {money} at {risk:.0f} % risk a year.")  # fmt: skip


def _expected(case: Stocked) -> str:
    answer = case.answer
    words = [f"{months} months {format_money(float(answer.expected[months]), case.currency)}"
             for months in answer.choices]  # fmt: skip
    return f"expected cost by months bought ahead: {', '.join(words)}"


def _regret(case: Stocked) -> Table:
    answer = case.answer
    table = Table(box=None, pad_edge=False)
    table.add_column("regret: bought ahead down, cut-off after across")
    for cutoff in answer.cutoffs:
        never = cutoff >= case.stock.months
        table.add_column("never" if never else f"{cutoff} months", justify="right")
    for choice, row in zip(answer.choices, answer.regret, strict=True):
        mark = " (best)" if choice == answer.best else ""
        table.add_row(f"{choice} months{mark}", *(f"{value / 1e6:,.1f} M" for value in row))
    return table


def stockpile_record(cases: Sequence[Stocked]) -> dict[str, Any]:
    """Return all cases as records."""
    found = {}
    for case in cases:
        answer = case.answer
        found[case.name] = {
            "currency": case.currency, "stock": plain(case.stock), "best_months": answer.best,
            "nodes": answer.nodes, "expected": answer.expected.tolist(), "choices": list(answer.choices),
            "cutoffs": list(answer.cutoffs), "regret": answer.regret.tolist(),
            "assumptions": list(case.assumptions),
        }  # fmt: skip
    return {"question": cases[0].question, "notice": NOTICE, "cases": found}


def render_ramps(cases: Sequence[Ramped]) -> RenderableType:
    """Return the report: devices in all, and month by month what binds."""
    parts: list[RenderableType] = [Text(cases[0].question, style="bold")]
    parts += [Text(ramp_sentence(case, len(cases) > 1)) for case in cases]
    for case in cases:
        parts += [Text(""), _months(case)]
        parts += [Text(f"assumed: {note}") for note in case.production.assumptions]
    return Group(*parts, Text(""), Text(NOTICE, style="dim"))


def ramp_sentence(case: Ramped, titled: bool) -> str:
    """Say how many devices come and what binds when."""
    name = f"{case.name}: " if titled else ""
    spans = []
    for i, month in enumerate(case.months):
        if i == 0 or month.binding != case.months[i - 1].binding:
            spans.append(f"{month.binding} from {month.month}")
    total = math.fsum(month.units for month in case.months)
    return f"{name}{total:,.0f} devices by {case.months[-1].month}; what binds: {', '.join(spans)}."


def _months(case: Ramped) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in (
        f"{case.name}: month",
        "devices",
        "binding",
        "dies in stock",
        "stacks in stock",
        "",
    ):
        table.add_column(title, justify="left" if title in ("binding", "") else "right")
    most = max(month.units for month in case.months) or 1.0
    step = max(len(case.months) // MOST_MONTHS, 1)
    for month in case.months[::step]:
        table.add_row(month.month, f"{month.units:,.0f}", month.binding, f"{month.die_stock:,.0f}",
                      f"{month.stack_stock:,.0f}", "#" * round(24 * month.units / most))  # fmt: skip
    return table


def ramp_record(cases: Sequence[Ramped]) -> dict[str, Any]:
    """Return all cases as records."""
    found = {
        case.name: {
            "level": case.level, "devices": math.fsum(month.units for month in case.months),
            "binding": dict(Counter(month.binding for month in case.months)),
            "months": plain(case.months), "assumptions": list(case.production.assumptions),
        }
        for case in cases
    }  # fmt: skip
    return {"question": cases[0].question, "notice": NOTICE, "cases": found}

"""What every answer about offers must keep; see `ersatz.sim.invariants`. Each raises `BrokenAnswerError`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ersatz.sim.invariants import Holds
from ersatz.sim.market.supply import SupplyMonth
from ersatz.sim.options.option import Costing
from ersatz.sim.options.stockpile import StockAnswer
from ersatz.sim.purchase.periods import Floats


def check_costs(name: str, costs: Mapping[str, Costing], table: Mapping[str, Floats]) -> None:
    """Check what options cost: parts that add up, nothing negative or without end."""
    holds = Holds(name)
    for option, cost in costs.items():
        holds.sums(f"{option}: cost", cost.parts, cost.total)
        for what in (
            "total",
            "per_trillion",
            "per_hour",
            "device_hours",
            "days",
            "kwh",
            "carbon_kg",
        ):
            holds.within(f"{option}: {what}", getattr(cost, what))
    for option, row in table.items():
        holds.each(f"{option}: cost", row)
    holds.done()


def check_stockpile(name: str, answer: StockAnswer) -> None:
    """Check a stockpile: costs and regrets of at least zero, the best choice the cheapest."""
    holds = Holds(name)
    holds.each("expected cost", answer.expected)
    holds.each("regret", answer.regret)
    holds.within("nodes", answer.nodes)
    holds.ordered("cost of the best choice, least cost", float(answer.expected[answer.best]),
                  float(answer.expected.min()))  # fmt: skip
    holds.done()


def check_ramp(name: str, months: Sequence[SupplyMonth]) -> None:
    """Check a production: devices and stocks of at least zero."""
    holds = Holds(name)
    for what in ("units", "dies_made", "die_stock", "stack_stock"):
        holds.each(what, [getattr(month, what) for month in months])
    holds.done()

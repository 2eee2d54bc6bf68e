"""Answers to the questions of a `compare` section, as flat records; nothing is worded here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ersatz.sim.law.rules import Verdict, judge
from ersatz.sim.options.file import Ask, Comparison
from ersatz.sim.options.holds import check_costs
from ersatz.sim.options.option import Costing, costing
from ersatz.sim.options.questions import (
    Split,
    break_even,
    drawn_differences,
    reaching,
    splits,
    sweep,
    swings_of,
    winners,
)
from ersatz.sim.purchase.life.chance import Swing
from ersatz.sim.purchase.periods import Floats


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to one question; which fields are filled depends on its kind."""

    ask: Ask
    costs: dict[str, Costing] = field(default_factory=dict)
    table: dict[str, Floats] = field(default_factory=dict)  # sweep: cost per option
    reached: dict[str, float] = field(default_factory=dict)  # sweep: value that hits the target
    value: float = 0.0  # break-even
    now: float = 0.0  # the input as it stands
    swings: tuple[Swing, ...] = ()
    grid: tuple[tuple[str, ...], ...] = ()
    splits: tuple[Split, ...] = ()
    drawn: Floats = field(default_factory=lambda: np.zeros(0))
    verdicts: dict[str, Verdict] = field(default_factory=dict)


def answer_comparison(comparison: Comparison) -> tuple[Told, ...]:
    """Answer every question of a case, in order. Raises `InfeasibleError` where no root exists."""
    told = tuple(_ANSWERS[ask.kind](comparison, ask) for ask in comparison.asks)
    for one in told:
        check_costs(comparison.name, one.costs, one.table)
    return told


def _cost(comparison: Comparison, ask: Ask) -> Told:
    setting = comparison.setting
    return Told(ask, costs={n: costing(o, setting.work) for n, o in setting.options.items()})


def _sweep(comparison: Comparison, ask: Ask) -> Told:
    setting, name = comparison.setting, str(ask.section.input)
    key = name.partition(".")[2]
    reached = {}
    for option, (target, _) in ask.section.targets.items():
        own = name if name.startswith("work.") else f"{option}.{key}"
        reached[option] = reaching(setting, option, own, target)
    return Told(ask, table=sweep(setting, name, ask.values), reached=reached)


def _break_even(comparison: Comparison, ask: Ask) -> Told:
    setting, s = comparison.setting, ask.section
    found = break_even(setting, str(s.input), str(s.option), str(s.against), ask.ends)
    return Told(ask, value=found, now=setting.value(str(s.input)))


def _tornado(comparison: Comparison, ask: Ask) -> Told:
    setting, s = comparison.setting, ask.section
    bars = swings_of(setting, ask.inputs, s.input or "", str(s.option), str(s.against))
    middle = 0.0 if s.input else setting.ratio(str(s.option), str(s.against))
    if s.input:
        middle = break_even(setting, s.input, str(s.option), str(s.against))
    return Told(ask, swings=bars, value=middle)


def _map(comparison: Comparison, ask: Ask) -> Told:
    s = ask.section
    grid = winners(comparison.setting, (str(s.input), ask.values), (str(s.rows), ask.row_values))
    return Told(ask, grid=tuple(tuple(row) for row in grid))


def _mixed(comparison: Comparison, ask: Ask) -> Told:
    s = ask.section
    return Told(ask, splits=splits(comparison.setting, s.fleet, ask.jitter, s.every))


def _fan(comparison: Comparison, ask: Ask) -> Told:
    s = ask.section
    drawn = drawn_differences(comparison.setting, ask.inputs, str(s.option), str(s.against), s.draws,
                              comparison.seed)  # fmt: skip
    return Told(ask, drawn=drawn)


def _legal(comparison: Comparison, ask: Ask) -> Told:
    found: dict[str, Verdict] = {}
    for name, option in comparison.setting.options.items():
        if option.device:
            found[name] = judge(comparison.rules, option.device, str(ask.section.date),
                                option.place or "China", option.buyer)  # fmt: skip
    return Told(ask, verdicts=found)


_ANSWERS: dict[str, Any] = {
    "cost": _cost, "sweep": _sweep, "break_even": _break_even, "tornado": _tornado, "map": _map,
    "mixed": _mixed, "fan": _fan, "legal": _legal,
}  # fmt: skip

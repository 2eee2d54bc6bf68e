"""Questions about options: sweep an input, find where two cost the same, see what matters, map.

An input is named `option.field`, `*.field` (all options) or `work.tokens`. Everything is the closed
form of `ersatz.sim.options.option` asked again; roots are found by Brent's method between stated ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from ersatz.device_models.text.units import format_money, format_si
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.job.cost import YEAR_S
from ersatz.sim.options.option import FIELDS, Option, Work, costing
from ersatz.sim.purchase.buildout import MONTH_S
from ersatz.sim.purchase.life.chance import Swing, Uncertain
from ersatz.sim.purchase.periods import Floats


@dataclass(frozen=True, slots=True)
class Setting:
    """Options by name and the work that they are asked to do."""

    work: Work
    options: Mapping[str, Option]

    def with_input(self, name: str, value: float) -> Setting:
        """Return the setting with one input changed."""
        owner, _, key = name.partition(".")
        if owner == "work":
            return replace(self, work=replace(self.work, **{key: value}))
        changed = {n: o.with_value(key, value) if owner in ("*", n) else o
                   for n, o in self.options.items()}  # fmt: skip
        return replace(self, options=changed)

    def value(self, name: str) -> float:
        """Return an input; of several options the first's."""
        owner, _, key = name.partition(".")
        if owner == "work":
            return float(getattr(self.work, key))
        option = next(o for n, o in self.options.items() if owner in ("*", n))
        return option[key]

    def cost(self, option: str) -> float:
        """Return the money for the whole work on an option."""
        return costing(self.options[option], self.work).total

    def ratio(self, option: str, against: str) -> float:
        """Return the cost of an option over another's; raises `InfeasibleError` where that is nothing."""
        cost = self.cost(against)
        if not cost:
            raise InfeasibleError(f"{against} costs nothing: there is no ratio to it")
        return self.cost(option) / cost


def input_dimension(name: str) -> str | None:
    """Return the dimension of an input, or None for an unknown one."""
    owner, _, key = name.partition(".")
    if owner == "work":
        return {"tokens": "tokens", "flop_per_token": "count"}.get(key)
    return FIELDS[key][0] if key in FIELDS else None


def written(value: float, name: str, currency: str) -> str:
    """Write a value of an input in the unit in which people read it."""
    dimension, key = input_dimension(name), name.partition(".")[2]
    if dimension == "fraction":
        return f"{100 * value:.1f} %"
    if dimension == "money_rate":
        hour = value * 3600.0
        return (
            f"{hour:.2f} {currency}/h"
            if key == "rent"
            else f"{value * MONTH_S:.0f} {currency}/month"
        )
    if dimension == "energy_price":
        return f"{value * 3.6e6:.2f} {currency}/kWh"
    if dimension == "money":
        return format_money(value, currency)
    if dimension == "time":
        return f"{value / YEAR_S:.1f} years"
    if dimension == "tokens":
        return f"{value / 1e12:.3g} T tokens"
    if dimension == "rate":
        return f"{100 * value * YEAR_S:.1f} %/year"
    if dimension == "power":
        return f"{value:.0f} W"
    return format_si(value, "FLOP/s") if dimension == "flop_rate" else f"{value:g}"


def sweep(setting: Setting, name: str, values: Sequence[float]) -> dict[str, Floats]:
    """Return the cost per 1e12 tokens of each option at each value of an input."""
    at = [setting.with_input(name, value) for value in values]
    return {option: np.array([costing(s.options[option], s.work).per_trillion for s in at])
            for option in setting.options}  # fmt: skip


def reaching(setting: Setting, option: str, name: str, target: float) -> float:
    """Return the value of an input at which an option costs `target` per 1e12 tokens."""

    def above(value: float) -> float:
        changed = setting.with_input(name, value)
        return costing(changed.options[option], changed.work).per_trillion - target

    return _root(above, setting.value(name), f"{option} reach {target:g} by {name}", name)


def break_even(
    setting: Setting, name: str, option: str, against: str, ends: tuple[float, float] | None = None
) -> float:
    """Return the value of an input at which two options cost the same.

    Raises `InfeasibleError` when no value between the ends does.
    """

    def above(value: float) -> float:
        changed = setting.with_input(name, value)
        return changed.cost(option) - changed.cost(against)

    question = f"{option} cost as much as {against} by {name}"
    return _root(above, setting.value(name), question, name, ends)


def _root(
    function: Callable[[float], float], guess: float, question: str, name: str,
    ends: tuple[float, float] | None = None,
) -> float:  # fmt: skip
    from scipy.optimize import brentq

    low, high = ends or ((guess or 1.0) * 1e-3, (guess or 1.0) * 1e3)
    at_low, at_high = function(low), function(high)
    if not (math.isfinite(at_low) and math.isfinite(at_high)) or at_low * at_high > 0:
        tried = " and ".join(written(end, name, "").replace(" /", "/") for end in (low, high))
        raise InfeasibleError(f"nothing between {tried} makes {question}")
    return float(brentq(function, low, high, xtol=1e-14 * abs(high), rtol=1e-13))


def swings_of(
    setting: Setting, inputs: Sequence[Uncertain], outcome: str, option: str, against: str
) -> tuple[Swing, ...]:
    """Return how far each input moves an outcome: the break-even of `outcome`, or the cost ratio."""

    def at(name: str, value: float) -> float:
        changed = setting.with_input(name, value)
        if outcome:
            return break_even(changed, outcome, option, against)
        return changed.ratio(option, against)

    found = [Swing(u.name, u.low, u.high, at(u.name, u.low), at(u.name, u.high)) for u in inputs]
    return tuple(sorted(found, key=lambda swing: -swing.width))


def winners(
    setting: Setting, x: tuple[str, Sequence[float]], y: tuple[str, Sequence[float]]
) -> list[list[str]]:
    """Return the cheapest option for each y (rows) and x (columns)."""
    grid = []
    for high in y[1]:
        row = setting.with_input(y[0], high)
        grid.append([_cheapest(row.with_input(x[0], value)) for value in x[1]])
    return grid


def _cheapest(setting: Setting) -> str:
    return min(setting.options, key=lambda name: (setting.cost(name), name))


def drawn_differences(
    setting: Setting, inputs: Sequence[Uncertain], option: str, against: str, draws: int, seed: int
) -> Floats:
    """Return the drawn differences in cost per device-hour: positive where `option` is dearer."""
    columns = {u.name: u.sample(seed, draws) for u in inputs}
    found = []
    for i in range(draws):
        drawn = setting
        for name, column in columns.items():
            drawn = drawn.with_input(name, float(column[i]))
        costs = [costing(drawn.options[n], drawn.work).per_hour for n in (option, against)]
        found.append(costs[0] - costs[1])
    return np.array(found)


@dataclass(frozen=True, slots=True)
class Split:
    """One way in which unequal devices share a job."""

    name: str
    hours: float
    cost: float
    utilisation: Mapping[str, float]  # of each kind of device


def splits(
    setting: Setting, counts: Mapping[str, float], jitter: float = 0.0, every: int = 1
) -> tuple[Split, ...]:
    """Return the job on a mixed fleet: split by speed, equally, and synchronised every so many steps.

    Speeds are peak x MFU x goodput. A synchronous step waits for the slowest of N devices whose
    times scatter by `jitter` (relative standard deviation): 1 + jitter x E[max of N normals]. With
    a synchronisation every k steps the scatter of their mean is jitter / sqrt(k).
    """
    speed = {n: setting.options[n]["peak"] * setting.options[n]["mfu"] * setting.options[n]["goodput"]
             for n in counts}  # fmt: skip
    number = math.fsum(counts.values())
    slowest, whole = min(speed.values()), math.fsum(counts[n] * speed[n] for n in counts)
    wait = 1.0 + jitter * expected_maximum(int(number))
    loose = 1.0 + jitter / math.sqrt(every) * expected_maximum(int(number))
    ways = (("by speed", whole / wait, dict.fromkeys(counts, 1.0 / wait)),
            ("equal", number * slowest / wait, {n: slowest / speed[n] / wait for n in counts}),
            (f"every {every} steps", whole / loose, dict.fromkeys(counts, 1.0 / loose)))  # fmt: skip
    price = math.fsum(
        counts[n] * costing(setting.options[n], setting.work).per_hour for n in counts
    )
    made = [(name, setting.work.flop / rate / 3600.0, use) for name, rate, use in ways]
    return tuple(Split(name, hours, hours * price, use) for name, hours, use in made)


def expected_maximum(count: int, steps: int = 4000) -> float:
    """Return the expected largest of `count` standard normal numbers: the mean of its quantiles."""
    if count <= 1:
        return 0.0
    quantile = NormalDist().inv_cdf
    middles = ((i + 0.5) / steps for i in range(steps))
    return math.fsum(quantile(u ** (1.0 / count)) for u in middles) / steps

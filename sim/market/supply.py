"""How many devices reach a region in a month, and what holds more of them back.

Domestic production (`device_models/data/supply`) is walked month by month: good dies come from
wafers and a bank of dies, memory stacks from a stock and from new makers; a month delivers

    min(dies x packaging yield / dies per device, stacks / stacks per device, packaging capacity)

and carries over what is left of dies and stacks. Elsewhere the observed deliveries of the vendor
hold (`prices`). Not modelled: demand, transport, dies of other products competing for packaging.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

from ersatz.device_models.catalog.export import load_part
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.units import parse_quantity
from ersatz.device_models.text.yamltext import Key, dotted, read_yaml
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.market.observations import LEVELS, Level
from ersatz.sim.market.prices import Prices, market_prices
from ersatz.sim.scenario.case_file import apply_overrides

SUPPLY = DATA / "supply"
MOST = 1e12  # of whatever is counted
SERIES = ("wafers", "yield", "memory_made", "packaging")


@dataclass(frozen=True, slots=True)
class Production:
    """What a device is made from. Levels are (low, mid, high); series map a month to levels."""

    name: str
    title: str
    devices: tuple[str, ...]
    region: str
    start: int  # months, counted from year 0
    until: int
    dies_per_wafer: int
    dies_per_device: float
    stacks_per_device: float
    packaging_yield: tuple[float, ...]
    die_bank: tuple[float, ...]
    memory_stock: tuple[float, ...]
    series: Mapping[str, Sequence[tuple[int, tuple[float, ...]]]] = field(hash=False)
    assumptions: tuple[str, ...] = ()

    def level(self, name: str, month: int, level: int) -> float:
        """Return a series at a month: a straight line between its months, held at its ends."""
        rows = self.series[name]
        if month <= rows[0][0]:
            return rows[0][1][level]
        for (a, x), (b, y) in pairwise(rows):
            if month <= b:
                return x[level] + (y[level] - x[level]) * (month - a) / (b - a)
        return rows[-1][1][level]


@dataclass(frozen=True, slots=True)
class SupplyMonth:
    """One month of production; stocks are those left at its end."""

    month: str
    units: float
    binding: str  # "dies", "memory" or "packaging"
    dies_made: float
    die_stock: float
    stack_stock: float


def dies_per_wafer(diameter_mm: float, area_mm2: float) -> int:
    """Return whole dies on a wafer: pi r^2 / A - pi d / sqrt(2 A), the usual approximation.

    >>> dies_per_wafer(300.0, 665.6)
    80
    """
    return int(math.pi * (diameter_mm / 2) ** 2 / area_mm2
               - math.pi * diameter_mm / math.sqrt(2 * area_mm2))  # fmt: skip


def ramp(
    production: Production, until: str, level: Level = "mid", demand: float = math.inf
) -> list[SupplyMonth]:
    """Return the production of each month from its start to `until`, stocks carried over.

    `demand` limits what is taken each month. Raises `InputError` for a month outside the data.
    """
    last = month_number(until)
    if not production.start <= last <= production.until:
        expected = (f"the supply of {production.name} is known from {month_text(production.start)} "
                    f"to {month_text(production.until)}")  # fmt: skip
        raise InputError([Problem("month", 0, 0, "", until, expected)])
    i = LEVELS.index(level)
    dies, stacks = production.die_bank[i], production.memory_stock[i]
    months: list[SupplyMonth] = []
    for month in range(production.start, last + 1):
        made = (production.level("wafers", month, i) * production.dies_per_wafer
                * production.level("yield", month, i))  # fmt: skip
        dies += made
        stacks += production.level("memory_made", month, i)
        limits = {
            "dies": dies * production.packaging_yield[i] / production.dies_per_device,
            "memory": stacks / production.stacks_per_device,
            "packaging": production.level("packaging", month, i),
            "demand": demand,
        }
        binding = min(limits, key=lambda name: limits[name])
        units = limits[binding]
        dies = max(0.0, dies - units * production.dies_per_device / production.packaging_yield[i])
        stacks = max(0.0, stacks - units * production.stacks_per_device)
        months.append(SupplyMonth(month_text(month), units, binding, made, dies, stacks))
    return months


def deliverable(
    device: str, region: str, month: str, level: Level = "mid",
    prices: Prices | None = None, overrides: Sequence[str] = (),
) -> tuple[float, str]:  # fmt: skip
    """Return the devices that can reach a region in a month ("2026-03"), and what binds.

    The binding constraint is "dies", "memory" or "packaging" for a device whose production is
    modelled, else "deliveries of VENDOR". `overrides` change production (`ascend-910c.yield...`).
    Raises `InputError` where neither is known, naming how far the data reaches.
    """
    part = load_part(device)
    for production in load_supply(tuple(overrides)).values():
        if part.name in production.devices and region.split("-")[0] == production.region:
            last = ramp(production, month, level)[-1]
            return last.units, last.binding
    known = prices or market_prices()
    units = known.at("delivery", part.name, region, f"{month_text(month_number(month))}-15", level)
    return units, f"deliveries of {part.vendor}"


@lru_cache(maxsize=32)
def load_supply(overrides: tuple[str, ...] = ()) -> Mapping[str, Production]:
    """Return modelled productions by name; `overrides` like `ascend-910c.memory_stock.mid=1e6`."""
    files = sorted(SUPPLY.glob("*.yaml"))
    data: dict[str, Any] = {path.stem: read_yaml(path).data for path in files}
    known = deepcopy(data)
    unknown = [path for path in apply_overrides(data, overrides) if not _stands(known, path)]
    if unknown:
        raise InputError([Problem("--set", 0, 0, dotted(path), "", "no such value; productions: "
                                  + ", ".join(sorted(known))) for path in unknown])  # fmt: skip
    return {name: _checked(name, raw) for name, raw in data.items()}


def _stands(data: Any, path: Key) -> bool:
    """Tell whether a path leads to a value of the data."""
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True


def _checked(name: str, raw: Mapping[str, Any]) -> Production:
    try:
        return _production(name, raw)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        expected = f'cannot be read: {error}; series are lists like ["2025-12", 1000, 2000, 3000]'
        raise InputError([Problem(f"supply of {name}", 0, 0, "", "", expected)]) from error


def _production(name: str, raw: Mapping[str, Any]) -> Production:
    def number(value: Any, least: float = 0.0) -> float:
        if not least <= float(value) <= MOST:
            raise ValueError(f"{value} is not within {least:g} to {MOST:g}")
        return float(value)

    def levels(key: str, least: float = 0.0) -> tuple[float, ...]:
        return tuple(number(raw[key][level], least) for level in LEVELS)

    area_mm2 = parse_quantity(raw["die_area"]["value"], "area") * 1e6
    empty = [key for key in SERIES if not raw[key]["series"]]
    if empty:
        raise ValueError(f"{empty[0]} has no months")
    series = {
        key: tuple(
            (month_number(str(row[0])), tuple(number(v) for v in row[1:4]))
            for row in raw[key]["series"]
        )
        for key in SERIES
    }
    guessed = [key for key in (*SERIES, "die_bank", "memory_stock")
               if raw[key].get("confidence") == "low"]  # fmt: skip
    notes = tuple(f"supply of {name}: {key}: {raw[key]['note']}" for key in guessed)
    return Production(
        name=name, title=str(raw["title"]), devices=tuple(raw["devices"]), region=str(raw["region"]),
        start=month_number(raw["start"]), until=month_number(raw["until"]),
        dies_per_wafer=max(dies_per_wafer(number(raw["wafer_diameter"]["value"], 1), area_mm2), 0),
        dies_per_device=number(raw["dies_per_device"]["value"], 1e-3),
        stacks_per_device=number(raw["stacks_per_device"]["value"], 1e-3),
        packaging_yield=levels("packaging_yield", 1e-6), die_bank=levels("die_bank"),
        memory_stock=levels("memory_stock"), series=series, assumptions=notes,
    )  # fmt: skip


def month_number(month: str) -> int:
    """Return months since year 0 of a text like 2026-03; raises `InputError`."""
    found = re.match(r"([0-9]{4})-(0[1-9]|1[0-2])(?:-[0-9]{2})?$", month)
    if not found:
        raise InputError([Problem("month", 0, 0, "", month[:60], "expected a month like 2026-03")])
    return int(found[1]) * 12 + int(found[2]) - 1


def month_text(number: int) -> str:
    """Return the text of a month number: the inverse of `month_number`."""
    return f"{number // 12:04d}-{number % 12 + 1:02d}"

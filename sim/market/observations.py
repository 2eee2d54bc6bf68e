"""Observations of prices as the CSVs hold them: a row each, with every fault by its line and column."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from ersatz.device_models.catalog.export import knows_part, list_parts
from ersatz.device_models.text.files import read_csv
from ersatz.device_models.text.units import CURRENCIES, UnitError, parse_day
from ersatz.sim.errors import InputError, Problem, did_you_mean
from ersatz.sim.market.items import CONFIDENCES, items, regions

COLUMNS = ("item", "device", "region", "date", "low", "mid", "high", "unit", "basis", "devices",
           "kind", "source", "confidence", "note")  # fmt: skip
Level = Literal["low", "mid", "high"]
LEVELS = ("low", "mid", "high")
MOST = 1e15  # of a price


@dataclass(frozen=True, slots=True)
class Observation:
    """One row of the data."""

    item: str
    device: str  # a name or pattern
    region: str
    day: date
    low: float
    mid: float
    high: float
    unit: str
    basis: str  # card, module or server, for purchases
    devices: int  # devices that the price is for
    kind: str
    source: str
    confidence: str
    note: str

    @property
    def currency(self) -> str:
        """The currency of the unit, or an empty text."""
        word = self.unit.split("/")[0]
        return word if word.isalpha() and word.isupper() and len(word) == 3 else ""

    @property
    def series(self) -> tuple[str, ...]:
        """What distinguishes this observation's series."""
        unit = (self.unit,) if self.item == "exchange" else ()
        return (self.item, self.device, self.region, self.kind, self.basis, *unit)


def read_observations(path: Path, problems: list[Problem]) -> Iterable[Observation]:
    """Yield the observations of a file; faults are noted with line and column name."""
    try:
        rows = list(read_csv(path))
    except InputError as error:
        problems += error.problems
        return
    header = rows[0][1] if rows else []
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        problems.append(Problem(str(path), 1, 1, "", "", f"lacks the columns {', '.join(missing)}"))
        return
    if twice := [name for name in dict.fromkeys(header) if name and header.count(name) > 1]:
        problems.append(
            Problem(str(path), 1, 1, "", "", f"has the columns {', '.join(twice)} twice")
        )
        return
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            words = f"has {len(cells)} cells; expected {len(header)}"
            problems.append(Problem(str(path), line, 1, "", "", words))
            continue
        row, before = dict(zip(header, cells, strict=True)), len(problems)

        def blame(key: str, expected: str, line: int = line, row: Mapping[str, str] = row) -> None:
            column = header.index(key) + 1
            problems.append(Problem(str(path), line, column, key, row[key][:60], expected))

        observation = _observation(row, blame)
        if observation and len(problems) == before:
            yield observation


def _unit_fits(item: str, unit: str) -> bool:
    """Tell whether a unit is the one that an item is told in, in any currency."""
    template = items()[item].unit
    return any(unit == template.replace("MONEY", currency).replace("CNY per", f"{currency} per")
               for currency in CURRENCIES)  # fmt: skip


def _observation(row: Mapping[str, str], blame: Callable[[str, str], None]) -> Observation | None:
    """Read one row; every fault is blamed."""
    if row["item"] not in items():
        blame("item", f"no such item{did_you_mean(row['item'], items())}")
    elif not _unit_fits(row["item"], row["unit"]):
        unit = items()[row["item"]].unit.replace("MONEY", "CURRENCY").replace("CNY", "CURRENCY")
        blame(
            "unit",
            f"expected {unit}" + (f", one of {', '.join(CURRENCIES)}" if "CURR" in unit else ""),
        )
    device = row["device"]
    if device and not set(device) & set("*?[@") and not knows_part(device):
        blame(
            "device",
            f"no such device{did_you_mean(device, list_parts())}; patterns have *, @ or nothing",
        )
    if row["region"] not in regions():
        blame("region", f"no such region{did_you_mean(row['region'], regions())}")
    if not row["source"]:
        blame("source", "a price needs its source")
    if row["confidence"] not in CONFIDENCES:
        blame("confidence", f"expected {', '.join(CONFIDENCES)}")
    if row["basis"] not in ("server", "module", "card", ""):
        blame("basis", "expected server, module or card")
    numbers: dict[str, float] = {}
    for key in LEVELS:
        try:
            numbers[key] = float(row[key])
        except ValueError:
            blame(key, "expected a number")
            return None
    if not 0 <= numbers["low"] <= numbers["mid"] <= numbers["high"] <= MOST:
        blame("mid", f"expected 0 <= low <= mid <= high <= {MOST:g}")
    if not re.fullmatch("[1-9][0-9]{0,5}|", row["devices"]):
        blame("devices", "expected a whole number from 1 to 999,999, or a blank cell")
        return None
    try:
        day, devices = parse_day(row["date"]), int(row["devices"] or 1)
    except UnitError as error:
        blame("date", str(error))
        return None
    return Observation(
        item=row["item"], device=row["device"], region=row["region"], day=day, **numbers,
        unit=row["unit"], basis=row["basis"], devices=devices, kind=row["kind"],
        source=row["source"], confidence=row["confidence"], note=row["note"],
    )  # fmt: skip

"""Dated prices and market conditions by device and region, with low, mid and high.

Data: every CSV of `device_models/data/prices`, a row per observation. Rows of one item, device
pattern, region, kind and basis form a series; between two observations the value runs in a
straight line, outside them the nearest one is held for a stated time, and beyond that a price is
unknown: an error says how far the data reaches. Device patterns are names, `ascend-910c*`,
`@nvidia` (a vendor), `@CN` (designed there) or `*`. Of the series of the closest region and device the
most trusted kind is taken (`_candidates`); a planner sees only what had been observed (`seen`). A single
figure is no range: its ends are moved out by its confidence (`widths.yaml`). Licence fees and duties
come from the rules. Not modelled: forecasts, bargaining, inflation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ersatz.device_models.catalog.export import Part, load_part
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.files import read_csv
from ersatz.device_models.text.units import UnitError, parse_day
from ersatz.device_models.text.yamltext import read_yaml
from ersatz.sim.errors import InputError, Problem, did_you_mean
from ersatz.sim.law.places import find_date, load_places
from ersatz.sim.law.rules import Rules, judge, load_rules

PRICES = DATA / "prices"
COLUMNS = ("item", "device", "region", "date", "low", "mid", "high", "unit", "basis", "devices",
           "kind", "source", "confidence", "note")  # fmt: skip
Level = Literal["low", "mid", "high"]
LEVELS = ("low", "mid", "high")
MONTH_DAYS = 30.44


@dataclass(frozen=True, slots=True)
class Item:
    """What a series is about, and how many months its first and last observation are held."""

    meaning: str
    unit: str  # of the value returned; MONEY stands for the currency asked for
    back: int
    ahead: int


ITEMS = {
    "purchase": Item("one device with its share of a server, without network", "MONEY", 12, 24),
    "rent": Item("one device for an hour", "MONEY/h", 12, 24),
    "server_share": Item("price of the server over that of its devices", "1", 60, 60),
    "network_share": Item("price of the network over that of the servers", "1", 60, 60),
    "power": Item("electricity", "MONEY/kWh", 60, 60),
    "colocation": Item("a kilowatt of data centre for a month, power included", "MONEY/kW-month", 36, 36),
    "pue": Item("energy of the site over that of the machines", "1", 60, 60),
    "carbon": Item("carbon of electricity", "kg/kWh", 60, 60),
    "depreciation": Item("share of the value lost in a year", "1/year", 60, 60),
    "life": Item("useful life in the books", "years", 60, 60),
    "interest": Item("interest on capital", "1/year", 60, 60),
    "annual_failure": Item("devices that need replacement", "1/year", 60, 60),
    "repaired": Item("share of failed devices that come back", "1", 60, 60),
    "lead_time": Item("order to delivery", "days", 24, 24),
    "delivery": Item("volume that reaches the region", "units/month", 12, 12),
    "fill_ratio": Item("delivered over ordered", "1", 12, 24),
    "grey_premium": Item("grey-market price over the list price, less 1", "1", 24, 24),
    "seizure": Item("share of smuggled goods that is lost", "1", 60, 60),
    "repair": Item("repair of one device without the vendor", "MONEY", 24, 24),
    "wage": Item("an engineer for a month, all costs to the employer", "MONEY/month", 36, 36),
    "licence_fee": Item("share of the price that a licence costs, by the rules", "1", 0, 0),
    "duty": Item("share of the customs value, by the rules", "1", 0, 0),
    "exchange": Item("units of a currency per USD", "CNY per USD", 24, 60),
}  # fmt: skip
MOST = 1e15  # of a price
KINDS = ("channel", "market", "direct", "tender", "list", "fair cost", "grey", "assumed", "on demand",
         "estimate")  # fmt: skip  # of several series the first of these is taken
CONFIDENCES = ("high", "medium", "low", "assumed")  # the last: of this project, in words
STARTS = ("subsidised",)  # kinds whose first observation is the day on which they begin
REGIONS = {  # where a region has no series of its own, the next wider one is asked
    "CN": "global", "US": "global", "CN-west": "CN", "CN-coast": "CN", "global": "",
    **dict.fromkeys(("CN-inner-mongolia", "CN-ningxia", "CN-guizhou", "CN-gansu", "CN-qinghai",
                     "CN-sichuan", "CN-yunnan"), "CN-west"),
    **dict.fromkeys(("CN-hebei", "CN-jiangsu", "CN-zhejiang", "CN-guangdong"), "CN-coast"),
    **dict.fromkeys(("EU", "Gulf", "MY", "IN", "JP"), "global"),
    **dict.fromkeys(("EU-DE", "EU-FR", "EU-FI"), "EU"), "Gulf-AE": "Gulf", "Gulf-SA": "Gulf",
}  # fmt: skip
TRADED = ("purchase", "lead_time")  # items for which the world asks the US where it has no series
GULF = ("AE", "SA", "QA", "KW", "BH", "OM")


def price_region(code: str) -> str:
    """Return the region whose prices hold in a country, by its code.

    >>> price_region("DE"), price_region("QA"), price_region("BR")
    ('EU-DE', 'Gulf', 'global')
    """
    for wider in ("EU", "Gulf"):
        if f"{wider}-{code}" in REGIONS:
            return f"{wider}-{code}"
    if code in load_places().groups["EU"]:
        return "EU"
    if code in GULF:
        return "Gulf"
    return code if code in REGIONS else "global"


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


@dataclass(frozen=True, slots=True)
class Quote:
    """A value at a day with where it comes from."""

    item: str
    device: str
    region: str  # of the series used
    day: date
    low: float
    mid: float
    high: float
    unit: str
    basis: str
    kind: str
    held: bool  # the nearest observation is held, not interpolated
    source: str
    confidence: str
    note: str
    observed: date  # the nearest observation
    late: bool = False  # it was observed only after what the planner had seen
    device_pattern: str = ""  # of the series

    @property
    def age_months(self) -> float:
        """How long before the day it was observed; negative when after it."""
        return (self.day - self.observed).days / MONTH_DAYS


@dataclass(frozen=True, slots=True)
class Prices:
    """All observations by series; ask with `at` or, with provenance, `quote`."""

    series: tuple[tuple[Observation, ...], ...]
    rules: Rules = field(repr=False, compare=False)

    def at(
        self, item: str, device: str, region: str, day: str | date, level: Level = "mid",
        currency: str = "USD", kind: str | None = None,
    ) -> float:  # fmt: skip
        """Return a value in the unit of `ITEMS[item]`, money in `currency`.

        Raises `InputError` that names what is missing and how far the data reaches.
        """
        if level not in LEVELS:
            raise _fault(level, f"expected one of {', '.join(LEVELS)}")
        quote = self.quote(item, device, region, day, currency, kind)
        return {"low": quote.low, "mid": quote.mid, "high": quote.high}[level]

    def quote(
        self, item: str, device: str, region: str, day: str | date, currency: str = "USD",
        kind: str | None = None, seen: date | None = None,
    ) -> Quote:  # fmt: skip
        """Return a value with low, mid, high and its provenance; raises `InputError`.

        With `seen` only observations up to that day count; where there are none the first later one is
        taken and marked `late`.
        """
        on = find_date(day)
        if item not in ITEMS:
            raise _fault(
                item, f"no such item{did_you_mean(item, ITEMS)}; known: {', '.join(ITEMS)}"
            )
        if region not in REGIONS:
            raise _fault(region, f"no prices of such a region{did_you_mean(region, REGIONS)}; "
                                 f"known: {', '.join(REGIONS)}")  # fmt: skip
        part = load_part(device) if device not in ("", "*") else None
        if item in ("licence_fee", "duty"):
            return self._of_rules(item, part, region, on)
        series = self._closest(item, part, region, on, kind, seen)
        quote = _widened(self._interpolate(series, on, part, currency))
        if seen and quote.observed > seen:
            quote = replace(quote, late=True)
        if item == "purchase" and series[0].basis != "server":
            share = self.quote("server_share", device, region, on)
            quote = _times(quote, 1 + share.low, 1 + share.mid, 1 + share.high, "with server_share")
        return quote

    def rate(self, source: str, target: str, day: str | date) -> float:
        """Return units of `target` per unit of `source`; raises `InputError` without a rate."""
        if source == target:
            return 1.0
        return self._per_usd(target, day) / self._per_usd(source, day)

    def currencies(self) -> tuple[str, ...]:
        """Return the currencies with an exchange rate."""
        found = {
            series[0].unit.split()[0] for series in self.series if series[0].item == "exchange"
        }
        return ("USD", *sorted(found))

    def _per_usd(self, currency: str, day: str | date) -> float:
        """Return units of a currency per USD."""
        if currency == "USD":
            return 1.0
        unit = f"{currency} per USD"
        found = [s for s in self.series if s[0].item == "exchange" and s[0].unit == unit]
        if not found:
            raise _fault(currency, f"no exchange rate; known: {', '.join(self.currencies())}")
        on = find_date(day)
        first, last = _reach(found[0])
        if not first <= on <= last:
            raise _fault(f"{unit} on {on}", f"known from {first} to {last}")
        return self._interpolate(found[0], on, None, "USD").mid

    def reach(self, item: str, device: str, region: str) -> tuple[date, date] | None:
        """Return the first and last observation that `at` can use, or None without any."""
        part = load_part(device) if device not in ("", "*") else None
        days = [o.day for s in self._candidates(item, part, region, None, None) for o in s]
        return (min(days), max(days)) if days else None

    def _candidates(
        self, item: str, part: Part | None, region: str, day: date | None, kind: str | None,
        seen: date | None = None,
    ) -> list[tuple[Observation, ...]]:  # fmt: skip
        """Return the series that fit, the best first.

        Region and device decide; then whether it is trusted at all (low confidence after all others,
        assumptions last), its kind, servers before cards, its confidence, and the series observed
        nearest to the day.
        """
        chain = _chain(region, item)
        fit = []
        for whole in self.series:
            series = tuple(o for o in whole if not seen or o.day <= seen)
            head = whole[0]
            if (
                not series
                or head.item != item
                or head.region not in chain
                or (kind and head.kind != kind)
            ):
                continue
            if item == "exchange" and head.unit != ITEMS[item].unit:
                continue
            distance = _match(head.device, part)
            if distance is not None:
                order = KINDS.index(head.kind) if head.kind in KINDS else -1
                basis = ("server", "module", "card", "").index(head.basis)
                away = (lambda o: abs((o.day - day).days)) if day else (lambda o: 0)
                trust = CONFIDENCES.index(min(series, key=away).confidence)
                gap = max((series[0].day - day).days, (day - series[-1].day).days, 0) if day else 0
                fit.append(
                    (
                        (
                            chain.index(head.region),
                            distance,
                            max(trust - 1, 0),
                            order,
                            basis,
                            trust,
                            gap,
                        ),
                        series,
                    )
                )
        return [series for _, series in sorted(fit, key=lambda pair: pair[0])]

    def _closest(
        self, item: str, part: Part | None, region: str, day: date, kind: str | None, seen: date | None
    ) -> tuple[Observation, ...]:  # fmt: skip
        """Return the best series whose reach holds the day; raises `InputError`."""
        for known in (seen, None) if seen else (None,):
            candidates = self._candidates(item, part, region, day, kind, known)
            for series in candidates:
                first, last = _reach(series)
                if first <= day <= last:
                    return series
        name = part.name if part else "any device"
        what = f"{item} of {name} in {region}"
        if candidates:
            spans = [f"{s[0].kind or s[0].region} {s[0].day} to {s[-1].day}" for s in candidates]
            expected = (f"unknown on {day}: observed {'; '.join(spans)}, and held "
                        f"{ITEMS[item].back} months before and {ITEMS[item].ahead} after")  # fmt: skip
            raise _fault(what, expected)
        near = sorted({s[0].region for s in self.series
                       if s[0].item == item and _match(s[0].device, part) is not None})  # fmt: skip
        hint = f"known in {', '.join(near)}" if near else "known nowhere"
        raise _fault(what, f"no such price; {hint}")

    def _interpolate(
        self, series: tuple[Observation, ...], day: date, part: Part | None, currency: str
    ) -> Quote:  # fmt: skip
        before = [o for o in series if o.day <= day] or [series[0]]
        after = [o for o in series if o.day >= day] or [series[-1]]
        one, two = before[-1], after[0]
        span = (two.day - one.day).days
        weight = (day - one.day).days / span if span > 0 else 0.0
        a, b = self._values(one, currency), self._values(two, currency)
        low, mid, high = (x + weight * (y - x) for x, y in zip(a, b, strict=True))
        unit = ITEMS[one.item].unit.replace("MONEY", currency)
        nearest = one if weight < 0.5 else two
        return Quote(one.item, part.name if part else "", one.region, day, low, mid, high, unit,
                     one.basis, one.kind, not span and one.day != day, nearest.source,
                     nearest.confidence, nearest.note, nearest.day,
                     device_pattern=one.device)  # fmt: skip

    def _values(self, row: Observation, currency: str) -> tuple[float, float, float]:
        """Return low, mid, high per device in a currency, at the rate of the observation's day."""
        scale = 1.0 / row.devices
        if row.currency and "MONEY" in ITEMS[row.item].unit:
            scale *= self.rate(row.currency, currency, row.day)
        return row.low * scale, row.mid * scale, row.high * scale

    def _of_rules(self, item: str, part: Part | None, region: str, day: date) -> Quote:
        if part is None:
            raise _fault(item, "needs a device")
        verdict = judge(self.rules, part, day, region.split("-")[0], changes=False)
        value = verdict.fee if item == "licence_fee" else verdict.duty
        return Quote(item, part.name, region, day, value, value, value, "1", "", "rule", False,
                     ", ".join(verdict.rule_ids), "high", "", day)  # fmt: skip


def load_prices(path: Path | str | None = None, rules: Rules | None = None) -> Prices:
    """Return the shipped prices, with a user's CSV (or folder of them) on top.

    A series of the user's replaces the shipped one. Raises `InputError` with every fault.
    """
    problems: list[Problem] = []
    found: dict[tuple[str, ...], list[Observation]] = {}
    for folder in (PRICES, *([Path(path)] if path else [])):
        files = sorted(folder.glob("*.csv")) if os.path.isdir(folder) else [folder]
        rows = [row for file in files for row in _read_csv(file, problems)]
        fresh: dict[tuple[str, ...], list[Observation]] = {}
        for row in rows:
            fresh.setdefault(row.series, []).append(row)
        if not fresh and not problems:
            problems.append(
                Problem(str(folder), 0, 0, "", "", "holds no prices: no CSV with a row")
            )
        found.update(fresh)
    if problems:
        raise InputError(problems)
    series = tuple(tuple(sorted(rows, key=lambda o: o.day)) for rows in found.values())
    return Prices(series, rules or load_rules())


@lru_cache(maxsize=1)
def market_prices() -> Prices:
    """Return the shipped prices, read once."""
    return load_prices()


def _read_csv(path: Path, problems: list[Problem]) -> Iterable[Observation]:
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


def _observation(row: Mapping[str, str], blame: Callable[[str, str], None]) -> Observation | None:
    """Read one row; every fault is blamed."""
    if row["item"] not in ITEMS:
        blame("item", f"no such item{did_you_mean(row['item'], ITEMS)}")
    if row["region"] not in REGIONS:
        blame("region", f"no such region{did_you_mean(row['region'], REGIONS)}")
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


def _chain(region: str, item: str = "") -> list[str]:
    chain = [region]
    while REGIONS[chain[-1]]:
        chain.append(REGIONS[chain[-1]])
    if item in TRADED and chain[0] != "US" and "CN" not in chain:
        chain.append("US")
    return chain


@lru_cache(maxsize=1)
def load_widths() -> Mapping[str, float]:
    """Return the least half-width of a price by the confidence of its observation, as a share."""
    data: Any = read_yaml(PRICES / "widths.yaml").data
    return {name: float(data["half_width"][name]["value"]) for name in CONFIDENCES}


def _widened(quote: Quote) -> Quote:
    """Move the ends of a price out where a single figure stands for a range."""
    if quote.item not in ("purchase", "rent"):
        return quote
    width = load_widths()[quote.confidence]
    return replace(quote, low=min(quote.low, quote.mid * (1 - width)),
                   high=max(quote.high, quote.mid * (1 + width)))  # fmt: skip


def _match(pattern: str, part: Part | None) -> int | None:
    """Return how closely a pattern fits a device, 0 the closest; None where it does not."""
    if pattern == "*":
        return 4
    if part is None:
        return None
    if pattern.startswith("@"):
        return {part.vendor: 2, part.designer: 3}.get(pattern[1:])
    if pattern == part.name:
        return 0
    return 1 if fnmatch(part.name, pattern) else None


def _reach(series: tuple[Observation, ...]) -> tuple[date, date]:
    """Return the first and last day for which a series is used."""
    item = ITEMS[series[0].item]
    back = 0 if series[0].kind in STARTS else item.back
    first = series[0].day.toordinal() - round(back * MONTH_DAYS)
    last = series[-1].day.toordinal() + round(item.ahead * MONTH_DAYS)
    return date.fromordinal(first), date.fromordinal(last)


def _times(quote: Quote, low: float, mid: float, high: float, note: str) -> Quote:
    return replace(quote, low=quote.low * low, mid=quote.mid * mid, high=quote.high * high,
                   note=f"{quote.note}; {note}".strip("; "))  # fmt: skip


def _fault(value: str, expected: str) -> InputError:
    return InputError([Problem("prices", 0, 0, "", value, expected)])

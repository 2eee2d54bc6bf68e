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
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

from ersatz.device_models.catalog.export import Part, load_part
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import read_yaml
from ersatz.sim.errors import InputError, Problem, did_you_mean
from ersatz.sim.law.places import find_date
from ersatz.sim.law.rules import Rules, judge, load_rules
from ersatz.sim.market.items import CONFIDENCES, KINDS, STARTS, items, regions, wider_regions
from ersatz.sim.market.observations import LEVELS, Level, Observation, read_observations

PRICES = DATA / "prices"
MONTH_DAYS = 30.44


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
        """Return a value in the unit of `items()[item]`, money in `currency`.

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
        if item not in items():
            raise _fault(
                item, f"no such item{did_you_mean(item, items())}; known: {', '.join(items())}"
            )
        if region not in regions():
            raise _fault(region, f"no prices of such a region{did_you_mean(region, regions())}; "
                                 f"known: {', '.join(regions())}")  # fmt: skip
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
        chain = wider_regions(region, item)
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
            if item == "exchange" and head.unit != items()[item].unit:
                continue
            distance = _match(head.device, part)
            if distance is not None:
                place = (chain.index(head.region), distance, *_distrust(series, day))
                fit.append((place, series))
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
                        f"{items()[item].back} months before and {items()[item].ahead} after")  # fmt: skip
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
        unit = items()[one.item].unit.replace("MONEY", currency)
        nearest = one if weight < 0.5 else two
        return Quote(one.item, part.name if part else "", one.region, day, low, mid, high, unit,
                     one.basis, one.kind, not span and one.day != day, nearest.source,
                     nearest.confidence, nearest.note, nearest.day,
                     device_pattern=one.device)  # fmt: skip

    def _values(self, row: Observation, currency: str) -> tuple[float, float, float]:
        """Return low, mid, high per device in a currency, at the rate of the observation's day."""
        scale = 1.0 / row.devices
        if row.currency and "MONEY" in items()[row.item].unit:
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
        rows = [row for file in files for row in read_observations(file, problems)]
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


def _distrust(series: tuple[Observation, ...], day: date | None) -> tuple[int, ...]:
    """Return what ranks series of one region and device for a day, the smallest the most trusted."""
    head = series[0]
    order = KINDS.index(head.kind) if head.kind in KINDS else -1
    basis = ("server", "module", "card", "").index(head.basis)
    away = (lambda o: abs((o.day - day).days)) if day else (lambda o: 0)
    trust = CONFIDENCES.index(min(series, key=away).confidence)
    gap = max((series[0].day - day).days, (day - series[-1].day).days, 0) if day else 0
    return max(trust - 1, 0), order, basis, trust, gap


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
    item = items()[series[0].item]
    back = 0 if series[0].kind in STARTS else item.back
    first = series[0].day.toordinal() - round(back * MONTH_DAYS)
    last = series[-1].day.toordinal() + round(item.ahead * MONTH_DAYS)
    return date.fromordinal(first), date.fromordinal(last)


def _times(quote: Quote, low: float, mid: float, high: float, note: str) -> Quote:
    return replace(quote, low=quote.low * low, mid=quote.mid * mid, high=quote.high * high,
                   note=f"{quote.note}; {note}".strip("; "))  # fmt: skip


def _fault(value: str, expected: str) -> InputError:
    return InputError([Problem("prices", 0, 0, "", value, expected)])
